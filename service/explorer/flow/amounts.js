/** What flows through a network: the ledger of one window, or the mean size over the reference windows. */

/** @typedef {import("./network.js").Network} Network */
/** @typedef {import("../model.js").Schemas["Explanation"]} Explanation */

/**
 * @typedef {object} Amounts
 * @property {Float64Array} edges contribution of each edge; NaN where the ledger has none
 * @property {Float64Array} nodes contribution of each node
 * @property {Map<number, {x?: number, y?: number}>} beads where the window is on the curve of an edge, by its number
 * @property {boolean} isSigned
 */

/**
 * The contributions of a window. What a link carries follows where it is the only one into a node, or out of one.
 *
 * @param {Network} network
 * @param {import("../model.js").Model} model
 * @param {any} explanation at detail `flow`
 * @returns {Amounts}
 */
export function amountsOf(network, model, { contributions, layers = [] }) {
  const edges = new Float64Array(network.edges.length).fill(NaN);
  const nodes = new Float64Array(network.nodes.length).fill(NaN);
  /** @type {Amounts["beads"]} */
  const beads = new Map();
  const { curves, links, places } = indexOf(network);
  for (const { stage, layer, nodes: values, edges: passing = [], x, values: at } of layers) {
    const found = passing.length && curves.get(`${stage}/${layer}`);
    for (const edge of passing) {
      const number = found ? found.get(edge.i * STRIDE + edge.j) : links.get(`${edge.i}/${edge.j}`);
      if (number === undefined) continue;
      edges[number] = edge.contribution;
      const place = edge.x ?? x?.[edge.i] ?? at?.[edge.i];
      if (found && place != null) beads.set(number, { x: place, y: edge.y });
    }
    values?.forEach((/** @type {number} */ value, /** @type {number} */ index) => {
      const number = places.get(`${stage}/${layer}/${index}`);
      if (number !== undefined) nodes[number] = value;
    });
  }
  network.nodes.forEach((node, number) => {
    if (node.kind === "input") nodes[number] = d3.sum(model.inputs[number].features, (feature) => contributions[feature] ?? 0);
    else nodes[number] = sumKnown(edges, node.from) ?? sumKnown(edges, node.to) ?? nodes[number];
  });
  network.edges.forEach(({ source, target, isCurve }, number) => {
    if (isCurve || !Number.isNaN(edges[number])) return;
    if (network.nodes[target].from.length === 1) edges[number] = nodes[target];
    else if (network.nodes[source].to.length === 1) edges[number] = nodes[source];
  });
  nodes[network.output] = d3.sum(Object.values(contributions));
  return { edges, nodes, beads, isSigned: true };
}

/**
 * The mean sizes of contributions over the reference windows. That of an input of several features is no sum of theirs.
 *
 * @param {Network} network
 * @param {import("../model.js").Model} model
 * @param {Map<string, number>} byInput of what is known, by the input's name
 * @returns {Amounts}
 */
export function restOf({ edges, nodes }, model, byInput) {
  const inputs = model.inputs.map(({ name, features }, number) => byInput.get(name) ?? (features.length > 1 ? NaN : nodes[number].weight));
  return {
    edges: Float64Array.from(edges, ({ weight }) => weight),
    nodes: Float64Array.from(nodes, ({ weight }, number) => inputs[number] ?? weight),
    beads: new Map(),
    isSigned: false,
  };
}

/** Nothing of a network is known yet. @param {Network} network @returns {Amounts} */
export const nothingOf = ({ edges, nodes }) => ({
  ...{ edges: new Float64Array(edges.length).fill(NaN), nodes: new Float64Array(nodes.length).fill(NaN) },
  ...{ beads: new Map(), isSigned: true },
});

const STRIDE = 1e6; // more than nodes in a layer
/** @type {WeakMap<Network, {curves: Map<string, Map<number, number>>, links: Map<string, number>, places: Map<string, number>}>} */
const indices = new WeakMap();

/** Numbers of edges and nodes by how a ledger names them. @param {Network} network */
function indexOf(network) {
  const known = indices.get(network);
  if (known) return known;
  const curves = new Map();
  const links = new Map();
  network.edges.forEach(({ key, isCurve, link }, number) => {
    if (link) links.set(link, number);
    if (!isCurve) return;
    const [stage, layer, i, j] = key.split("/");
    const name = `${stage}/${layer}`;
    if (!curves.has(name)) curves.set(name, new Map());
    curves.get(name).set(Number(i) * STRIDE + Number(j), number);
  });
  const places = new Map(network.nodes.flatMap(({ place }, number) => (place ? [[place, number]] : [])));
  const index = { curves, links, places };
  indices.set(network, index);
  return index;
}

/**
 * The sum over edges, undefined if any is unknown, or there are none.
 *
 * @param {Float64Array} values
 * @param {number[]} edges
 */
function sumKnown(values, edges) {
  let sum = 0;
  for (const edge of edges) sum += values[edge];
  return edges.length && !Number.isNaN(sum) ? sum : undefined;
}
