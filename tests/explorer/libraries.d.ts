// The vendored bundles are scripts: each leaves its library as a global. Their own types would ask for a cast at every
// selection, scale and behaviour; what is checked is the API's answers.
declare const d3: any;
declare const Plot: any;
