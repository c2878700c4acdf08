/** Ways through the network: what a part's paths are, and where arrow keys lead. */

/** @typedef {import("./network.js").Network} Network */
/** @typedef {import("./layout.js").Layout} Layout */

const THIN = 0.05; // share of what a node gets below which an edge is on no path

/**
 * The edges and nodes on the paths through a part, up to the inputs and down to the output.
 *
 * @param {Network} network
 * @param {string} part
 * @returns {{edges: Set<number>, nodes: Set<number>} | undefined}
 */
export function pathsOf(network, part) {
  const { nodes, edges } = network;
  const name = part.replace(/@-?\d+$/, "");
  const through = edges.findIndex((edge) => edge.part === name && edge.isCurve);
  const node = nodes.findIndex((one) => one.part === name);
  if (through < 0 && node < 0) return undefined;
  const found = { edges: new Set(through < 0 ? [] : [through]), nodes: new Set(through < 0 ? [node] : []) };
  const walk = (/** @type {number} */ at, /** @type {"from" | "to"} */ way, /** @type {"source" | "target"} */ end, /** @type {Set<number>} */ seen) => {
    if (seen.has(at)) return;
    seen.add(at);
    found.nodes.add(at);
    for (const edge of nodes[at][way]) {
      const { target, weight } = edges[edge];
      if (weight < THIN * Math.max(...nodes[target].from.map((one) => edges[one].weight))) continue;
      found.edges.add(edge);
      walk(edges[edge][end], way, end, seen);
    }
  };
  walk(through < 0 ? node : edges[through].source, "from", "source", new Set());
  walk(through < 0 ? node : edges[through].target, "to", "target", new Set());
  return found;
}

/**
 * The element that an arrow key leads to: along the flow to the nearest card or node, across to the next in the stack.
 *
 * @param {Layout} layout
 * @param {{along: number, across: number}} at
 * @param {string} key
 */
export function stepFrom({ places, cards, strands, isDown }, at, key) {
  const [back, on, before, after] = isDown ? ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"] : ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];
  const near = (/** @type {any[]} */ found) => d3.least(found, (one) => Math.abs(one.across - at.across) + Math.abs(one.along - at.along) / 1000);
  if (key === on) return near(strands.filter(({ from }) => from === at).map(({ to }) => to));
  if (key === back) return near(strands.filter(({ to }) => to === at).map(({ from }) => from));
  const stack = [...places, ...cards].filter((one) => one.along === at.along && one !== at);
  if (key === before) return d3.greatest(stack.filter((one) => one.across < at.across), (one) => one.across);
  return key === after ? d3.least(stack.filter((one) => one.across > at.across), (one) => one.across) : undefined;
}
