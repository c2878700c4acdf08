// The vendored bundles are scripts: each leaves its library as a global.
declare const d3: typeof import("d3");
declare const Plot: typeof import("@observablehq/plot");
