/**
 * The network of a topology as the picture has it: inputs in the terms of the table, units and nodes with their names,
 * products as one node, and the column that each stands in, which is the longest way to it from the inputs.
 */

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Schemas} Schemas */
/** @typedef {Schemas["TopologyResponse"]} Topology */

/**
 * @typedef {object} Node
 * @property {string} id of the topology, or `input:NAME`
 * @property {string} part as in lit.js
 * @property {string} label
 * @property {string} tip
 * @property {string} kind
 * @property {number} column
 * @property {number} weight mean |contribution| over the reference windows
 * @property {string} [color] of an input
 * @property {string} [place] `stage/layer/index` in a ledger
 * @property {number[]} from numbers of the edges that enter
 * @property {number[]} to numbers of the edges that leave
 */

/**
 * @typedef {object} Edge
 * @property {string} key `stage/layer/i/j`; of what has no function, with its kind before
 * @property {string} part
 * @property {number} source number of a node
 * @property {number} target
 * @property {boolean} isCurve whether it is a function of a KAN
 * @property {number} weight mean |contribution|, of links without one by the source's share
 * @property {number} opacity pykan's
 * @property {boolean} kept by the rule of the topology
 * @property {boolean} masked by the checkpoint
 * @property {string} [link] `i/j` of a link into a recurrent part, as the ledger's layers name it
 */

/** @typedef {{nodes: Node[], edges: Edge[], numbers: Map<string, number>, columns: number, output: number}} Network */

const RECURRENT = ["lstm", "gru", "loop"];

/** @param {Model} model @param {Topology} topology all of it, pruned edges too @returns {Network} */
export function readNetwork(model, topology) {
  const alias = aliases(model, topology);
  const nodes = nodesOf(model, topology, alias);
  const numbers = new Map(nodes.map(({ id }, number) => [id, number]));
  for (const [id, other] of alias) if (numbers.has(other)) numbers.set(id, /** @type {number} */ (numbers.get(other)));
  const edges = edgesOf(model, topology, nodes, numbers);
  edges.forEach(({ source, target }, number) => {
    nodes[source].to.push(number);
    nodes[target].from.push(number);
  });
  const output = numbers.get(`output:${topology.graph.output}`) ?? nodes.findIndex(({ kind }) => kind === "output");
  return { nodes, edges, numbers, columns: placeColumns(nodes, edges, output), output };
}

/**
 * What each node is drawn as: a feature as its input, a factor as its product.
 *
 * @param {Model} model
 * @param {Topology} topology
 */
function aliases(model, { edges }) {
  const products = edges.filter(({ kind }) => kind === "product").map(({ source, target }) => /** @type {const} */ ([source, target]));
  const features = [...model.inputOf].map(([feature, { name }]) => /** @type {const} */ ([`feature:${feature}`, `input:${name}`]));
  return new Map([...products, ...features]);
}

/** @param {Model} model @param {Topology} topology @param {Map<string, string>} alias @returns {Node[]} */
function nodesOf(model, { nodes }, alias) {
  const weights = new Map(nodes.map(({ id, contribution }) => [id, contribution ?? 0]));
  const inputs = model.inputs.map(({ name, label, short, color, features }) => ({
    ...{ id: `input:${name}`, part: `input:${name}`, label: short, kind: "input", column: 0, color, from: [], to: [] },
    tip: features.length > 1 || features[0] !== label ? `${label}\n${features.join(", ")}` : label,
    weight: d3.sum(features, (feature) => weights.get(`feature:${feature}`) ?? 0),
  }));
  const others = nodes.filter(({ id }) => !alias.has(id)).map(({ id, kind, label, layer, index, reads, contribution }) => ({
    ...{ id, kind, label: kind === "output" ? model.title : label, weight: contribution ?? 0, column: 0, from: [], to: [] },
    part: kind === "output" ? id : `unit:${id}`,
    place: `${kind}/${layer}/${index}`,
    tip: [label, id, reads && `reads ${reads}`].filter(Boolean).join("\n"),
  }));
  return [...inputs, ...others];
}

/**
 * @param {Model} model
 * @param {Topology} topology
 * @param {Node[]} nodes
 * @param {Map<string, number>} numbers
 * @returns {Edge[]}
 */
function edgesOf(model, topology, nodes, numbers) {
  const hasFront = nodes.some(({ kind }) => kind === "front");
  const skipsFront = (/** @type {Schemas["GraphEdge"]} */ { kind, stage }) => hasFront && kind === "input" && RECURRENT.includes(stage);
  const drawn = topology.edges.filter((edge) => edge.kind !== "product" && !skipsFront(edge));
  /** @type {Edge[]} */
  const edges = drawn.map((edge) => {
    const { kind, stage, layer, i, j, contribution, share = 0, opacity, kept, masked } = edge;
    const [source, target] = [numbers.get(edge.source) ?? -1, numbers.get(edge.target) ?? -1];
    const isCurve = kind === "edge";
    const key = `${stage}/${layer}/${i}/${j}`;
    const weight = contribution ?? share * (nodes[target]?.weight ?? 0);
    const link = kind === "input" && RECURRENT.includes(stage) ? `${i}/${j}` : undefined;
    return { key: isCurve ? key : `${kind}/${key}`, part: `edge:${key}`, source, target, isCurve, weight, kept, link, opacity: opacity ?? 1, masked: Boolean(masked) };
  });
  if (hasFront) edges.push(...frontLinks(nodes));
  return edges.filter(({ source, target, masked }) => source >= 0 && target >= 0 && !masked);
}

/**
 * The links from a front's last nodes to the units that read them at every step, which no topology lists.
 *
 * @param {Node[]} nodes
 * @returns {Edge[]}
 */
function frontLinks(nodes) {
  const numbered = nodes.map((node, number) => ({ ...node, number, layer: Number(node.place?.split("/")[1]), index: node.place?.split("/")[2] }));
  const front = numbered.filter(({ kind }) => kind === "front");
  const last = front.filter(({ layer }) => layer === d3.max(front, (node) => node.layer));
  const total = d3.sum(last, ({ weight }) => weight) || 1;
  const units = numbered.filter(({ kind, layer }) => RECURRENT.includes(kind) && layer === 0);
  return d3.cross(last, units, (from, to) => ({
    ...{ key: `link/${from.id}/${to.id}`, part: `unit:${to.id}`, source: from.number, target: to.number, isCurve: false, kept: true, masked: false },
    ...{ weight: (to.weight * from.weight) / total, opacity: 1, link: `${from.index}/${to.index}` },
  }));
}

/**
 * Sets the column of each node, and returns how many there are.
 *
 * @param {Node[]} nodes
 * @param {Edge[]} edges
 * @param {number} output
 */
function placeColumns(nodes, edges, output) {
  const waits = nodes.map(({ from }) => from.length);
  const ready = nodes.flatMap((_, number) => (waits[number] ? [] : [number]));
  for (const node of nodes) if (node.kind !== "input") node.column = 1;
  for (let number = ready.pop(); number !== undefined; number = ready.pop()) {
    for (const edge of nodes[number].to) {
      const { target } = edges[edge];
      nodes[target].column = Math.max(nodes[target].column, nodes[number].column + 1);
      waits[target] -= 1;
      if (!waits[target]) ready.push(target);
    }
  }
  const last = d3.max(nodes, ({ column }) => column) ?? 0;
  if (output >= 0) nodes[output].column = last;
  return last + 1;
}
