/** Contributions of all edges and nodes to one forecast (conductance), and their sums into and out of each node. */

import { edgeKey } from "./graph.js";

/** @typedef {import("./api.js").Schemas} Schemas */

/**
 * A node of the flow.
 *
 * @typedef {object} FlowNode
 * @property {string} id
 * @property {string} label
 * @property {number} incoming
 * @property {number} outgoing
 */

/**
 * @typedef {object} Flow
 * @property {Map<string, number>} edges contribution of each edge, by `stage/layer/i/j`
 * @property {FlowNode[]} nodes those of the KANs, and the units and features before them, in the order of the data; in
 *   a graph those that only layers read
 */

/**
 * The flow of an explanation.
 *
 * @param {Schemas["Explanation"]} explanation at detail `flow`
 * @param {Schemas["TopologyResponse"]} topology all of it
 * @returns {Flow}
 */
export function readFlow({ layers = [], prediction, baseline_prediction }, topology) {
  const edges = new Map();
  const incoming = new Map();
  const outgoing = new Map();
  const add = (/** @type {Map<string, number>} */ sums, /** @type {string} */ id, /** @type {number} */ value) =>
    sums.set(id, (sums.get(id) ?? 0) + value);
  for (const { stage, layer, edges: passing = [] } of layers) {
    for (const { i, j, contribution } of passing) edges.set(edgeKey({ stage, layer, i, j }), contribution);
  }
  const product = new Map(
    topology.edges.filter(({ kind }) => kind === "product").map(({ source, target }) => [source, target]),
  );
  for (const edge of topology.edges) {
    const { kind, source, target } = edge;
    if (kind !== "edge") continue;
    const contribution = edges.get(edgeKey(edge)) ?? 0;
    add(outgoing, source, contribution);
    add(incoming, product.get(target) ?? target, contribution);
  }
  for (const { kind, source, target, layer, i } of topology.edges) {
    if (kind !== "output") continue;
    const contribution = layers.find((one) => one.stage === "head" && one.layer === layer)?.nodes?.[i] ?? 0;
    add(outgoing, source, contribution);
    add(incoming, target, contribution);
  }
  const output = topology.nodes.find(({ id }) => id === `output:${topology.graph.output}`);
  if (output) outgoing.set(output.id, prediction - baseline_prediction);
  for (const { id, value } of entries(layers, topology)) if (!incoming.has(id)) incoming.set(id, value);
  const linked = new Set(topology.edges.filter(({ kind }) => kind === "link").map(({ source }) => source)); // of a graph
  const nodes = topology.nodes
    .filter(({ id }) => incoming.has(id) && outgoing.has(id) && !linked.has(id))
    .map(({ id, label }) => ({ id, label, incoming: incoming.get(id) ?? 0, outgoing: outgoing.get(id) ?? 0 }));
  return { edges, nodes };
}

/**
 * Contributions of the nodes before a KAN.
 *
 * @param {Schemas["LayerContributions"][]} layers
 * @param {Schemas["TopologyResponse"]} topology
 */
function entries(layers, topology) {
  const kinds = /** @type {Record<string, string>} */ ({ input: "feature", lstm: "lstm", gru: "gru", cell: "cell" });
  return layers.flatMap(({ stage, layer, nodes = [] }) =>
    topology.nodes
      .filter((node) => node.kind === kinds[stage] && node.layer === layer)
      .map(({ id, index }) => ({ id, value: nodes[index] })),
  );
}
