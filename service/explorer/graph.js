/** Nodes and edges of a topology, as all views name and order them. */

/** @typedef {import("./api.js").Schemas["GraphNode"]} Node */
/** @typedef {import("./api.js").Schemas["GraphEdge"]} Edge */

/**
 * The name of an edge within its network, as addresses have it.
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
 * What people call the nodes, by their ids.
 *
 * @param {{nodes: Node[]}} topology
 * @returns {Map<string, string>}
 */
export function labelsOf({ nodes }) {
  return new Map(nodes.map(({ id, label }) => [id, label]));
}

/**
 * What a node is called where no topology says it, by its id: `lstm 3`, `head 1:0`, a feature or an output by its name.
 *
 * @param {string} id
 */
export function nameNode(id) {
  return id.replace(/^(feature|output):/, "").replace(/^(lstm|gru|head|front|cell):/, "$1 ");
}

/**
 * What people call an edge.
 *
 * @param {{source: string, target: string}} edge
 * @param {Map<string, string>} labels of the nodes
 */
export function nameEdge({ source, target }, labels) {
  return `${labels.get(source) ?? source} → ${labels.get(target) ?? target}`;
}

/**
 * The edges that have a function, those that contribute most first.
 *
 * @param {{edges: Edge[]}} topology
 */
export function strongestFirst({ edges }) {
  return edges.filter(({ kind }) => kind === "edge").sort((a, b) => (b.contribution ?? 0) - (a.contribution ?? 0));
}
