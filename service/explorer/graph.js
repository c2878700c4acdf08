/** A model's topology, asked for once, and names and order of its nodes and edges, the same in all views. */

import { askJson } from "./api.js";
import { expect } from "./waiting.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./api.js").Schemas["GraphNode"]} Node */
/** @typedef {import("./api.js").Schemas["GraphEdge"]} Edge */

const REMEMBERED = 6;
const SPEED = "kanscope-speed"; // values of hidden states of reference windows, times what each is computed from, per s
const USUAL = 1e6;
const SLOW = 2; // s from which on an answer was computed rather than remembered by the service
/** @type {Set<string | null>} checkpoints of models with an answer */
const computed = new Set();
/** @type {Map<string, Promise<Schemas["TopologyResponse"]>>} the last answers, or requests that are under way */
const known = new Map();

/**
 * The request for a topology of the page's model and output.
 *
 * @param {import("./app.js").Page} page
 * @param {import("./api.js").Ask["query"]} query the rule, and what of the topology; by default all, by the default rule
 */
export function topologyAsk(page, query = { pruned: false }) {
  return { path: `${page.path}/topology`, query: { ...page.query, ...query } };
}

/**
 * The topology of a request, which all views share.
 *
 * @param {import("./app.js").Page} page
 * @param {import("./api.js").Ask["query"]} [query] as in `topologyAsk`
 * @param {AbortSignal} [signal]
 * @returns {Promise<Schemas["TopologyResponse"]>}
 */
export async function askTopology(page, query, signal) {
  const ask = topologyAsk(page, query);
  const key = JSON.stringify([page.model.checkpoint, ask]);
  const begun = known.get(key);
  const asked = begun ?? timed(page.model, /** @type {Promise<Schemas["TopologyResponse"]>} */ (askJson(ask, signal)));
  known.delete(key);
  known.set(key, asked);
  for (const [oldest] of known) if (known.size > REMEMBERED) known.delete(oldest);
  try {
    return await asked;
  } catch (error) {
    if (known.get(key) === asked) known.delete(key);
    if (begun && !signal?.aborted && error instanceof DOMException) return askTopology(page, query, signal); // the view that began it was left
    throw error;
  }
}

/**
 * A first answer of a model, with an estimate of how long it takes: from the size of the model, and from how long that
 * of another took on this service.
 *
 * @template T
 * @param {Schemas["ModelInfo"]} model
 * @param {Promise<T>} answer
 * @param {number} [times] how much longer it takes than a topology
 */
export async function timed({ checkpoint, reference_windows: windows, lookback, features, architecture }, answer, times = 1) {
  const { lstm, gru, head } = architecture;
  const [inputs] = [(lstm ?? gru)?.hidden_size ?? head.width[0] ?? features.length].flat();
  const work = times * windows * lookback * inputs * (inputs + features.length);
  if (computed.has(checkpoint)) return answer;
  const begun = performance.now();
  const found = await expect(work / (Number(localStorage.getItem(SPEED)) || USUAL), answer);
  const seconds = (performance.now() - begun) / 1000;
  if (seconds > SLOW) localStorage.setItem(SPEED, String(work / seconds));
  computed.add(checkpoint);
  return found;
}

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
