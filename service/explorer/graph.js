/** Names and order of a topology's nodes and edges, the same in all views. */

/** @typedef {import("./api.js").Schemas["GraphNode"]} Node */
/** @typedef {import("./api.js").Schemas["GraphEdge"]} Edge */

/**
 * The key of an edge within its network, as used in addresses.
 *
 * @param {{stage: string, layer: number | string, i: number | string, j: number | string}} edge
 */
export function edgeKey({ stage, layer, i, j }) {
  return `${stage}/${layer}/${i}/${j}`;
}

/**
 * The id of an edge, as the API has it.
 *
 * @param {{stage: string, layer: number | string, i: number | string, j: number | string}} edge
 */
export function edgeId({ stage, layer, i, j }) {
  return `${stage}:${layer}:${i}:${j}`;
}

/**
 * The labels of nodes, by id.
 *
 * @param {{nodes: Node[]}} topology
 * @returns {Map<string, string>}
 */
export function labelsOf({ nodes }) {
  return new Map(nodes.map(({ id, label }) => [id, label]));
}

/**
 * The label of a node without a topology, from its id: `lstm 3`, `head 1:0`, or the name of a feature or output.
 *
 * @param {string} id
 */
export function nameNode(id) {
  return id.replace(/^(feature|output):/, "").replace(/^(lstm|gru|head|front|cell|glue):/, "$1 ");
}

/**
 * The label of an edge.
 *
 * @param {{source: string, target: string}} edge
 * @param {Map<string, string>} labels of the nodes
 */
export function nameEdge({ source, target }, labels) {
  return `${labels.get(source) ?? source} → ${labels.get(target) ?? target}`;
}

/**
 * The edges with a function, largest contributions first.
 *
 * @param {{edges: Edge[]}} topology
 */
export function strongestFirst({ edges }) {
  return edges.filter(({ kind }) => kind === "edge").sort((a, b) => (b.contribution ?? 0) - (a.contribution ?? 0));
}
