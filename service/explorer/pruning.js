/** The pruning rule: a slider over fidelities or thresholds that keep different edges, and the cost of the rule. */

import { askJson } from "./api.js";
import { figure, h, segments } from "./dom.js";
import { amount, fixed, signed } from "./figures.js";
import { topologyAsk } from "./graph.js";
import { withHelp } from "./help.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {Schemas["FidelityCurve"]["curve"]} Curve */
/** @typedef {Schemas["TopologyResponse"]["graph"]} Graph */

const WAIT = 150; // ms without another move of the slider
const FIDELITY = "0.99";
const EDGE_THRESHOLD = "0.03";
const CONTRIBUTION = "contribution";
const SCORES = ["backward", "forward_n", "forward_u"]; // which need enough reference windows
const STOPS = {
  fidelity: [
    0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.993, 0.995, 0.997, 0.999, 0.9999,
    1,
  ],
  threshold: [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1],
};

/**
 * The pruning rule as the query of a request.
 *
 * @param {Record<string, string>} values of the address
 */
export function ruleQuery(values) {
  const { threshold, fidelity } = values;
  const limit = threshold === undefined ? { fidelity: fidelity ?? FIDELITY } : { edge_threshold: threshold };
  return { ...limit, without: readRemoved(values) };
}

/**
 * The same as a body has it.
 *
 * @param {Record<string, string>} values of the address
 */
export function ruleBody({ threshold, fidelity, ...values }) {
  const limit =
    threshold === undefined ? { fidelity: Number(fidelity ?? FIDELITY) } : { edge_threshold: Number(threshold) };
  return { ...limit, without: readRemoved(values) };
}

/**
 * The edges that are removed by hand, by their ids.
 *
 * @param {Record<string, string>} values of the address
 */
export function readRemoved({ without }) {
  return [...new Set(without?.split(",").filter(Boolean))];
}

/** @param {Page} page */
export function pruningControl(page) {
  const kind = segments("By", { fidelity: "fidelity", threshold: "threshold" }, (value) =>
    page.set(value === "fidelity" ? { fidelity: "", threshold: "" } : { fidelity: "", threshold: EDGE_THRESHOLD }),
  );
  const label = h("label", { for: "prune" });
  const said = h("output", { for: "prune" });
  const slider = h("input", { type: "range", id: "prune", min: 0, step: 1 });
  const stops = { ...STOPS };
  /** @type {"fidelity" | "threshold"} */
  let by = "fidelity";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let begun = false; // whether the current move of the slider already has an entry in the history
  const say = (/** @type {number} */ value) => {
    said.textContent = by === "fidelity" ? `R² ≥ ${value}` : `score > ${value}`;
    slider.setAttribute("aria-valuetext", said.textContent);
  };
  const take = () => {
    timer = undefined;
    page.set({ [by]: String(stops[by][Number(slider.value)]) }, begun);
    begun = true;
  };
  slider.addEventListener("input", () => {
    say(stops[by][Number(slider.value)]);
    clearTimeout(timer);
    timer = setTimeout(take, WAIT);
  });
  slider.addEventListener("pointerdown", () => (begun = false));
  slider.addEventListener("keydown", ({ repeat }) => (begun = repeat && begun));
  const place = (/** @type {number} */ value) => {
    slider.max = String(stops[by].length - 1);
    slider.value = String(nearest(stops[by], value));
  };
  /** @param {Record<string, string>} values */
  const set = (values) => {
    const before = by;
    by = values.threshold === undefined ? "fidelity" : "threshold";
    kind.set(by);
    label.textContent = by === "fidelity" ? "Keep at least" : "Keep edges with a";
    if (timer !== undefined && by === before) return; // the slider has moved on since the address was set
    clearTimeout(timer);
    timer = undefined;
    const value = Number(values.threshold ?? values.fidelity ?? FIDELITY);
    place(value);
    say(value);
  };
  /**
   * Removes the stops that change nothing, once they are known; the slider keeps its position.
   *
   * @param {Graph} graph
   * @param {AbortSignal} signal
   */
  const thin = async (graph, signal) => {
    const asked = by;
    const distinct = await distinctStops(page, asked, graph, signal);
    if (signal.aborted || by !== asked) return; // some of the answers may be missing
    const value = stops[by][Number(slider.value)];
    stops[by] = distinct;
    place(value);
  };
  const element = h("div", { class: "prune" }, kind.element, h("div", { class: "between" }, label, said), slider);
  return { element, set, thin };
}

/**
 * @param {number[]} stops
 * @param {number} value
 */
function nearest(stops, value) {
  const distances = stops.map((stop) => Math.abs(stop - value));
  return distances.indexOf(Math.min(...distances));
}

/**
 * The stops of a rule that keep different numbers of edges; of those with the same number the default, or the last.
 *
 * @param {Page} page
 * @param {"fidelity" | "threshold"} by
 * @param {Graph} graph
 * @param {AbortSignal} signal
 */
async function distinctStops(page, by, graph, signal) {
  const kept = by === "fidelity" ? await countByFidelity(page, graph, signal) : await countByThreshold(page, signal);
  /** @type {Map<number, number>} */
  const chosen = new Map();
  STOPS[by].forEach((stop, index) => {
    if (String(chosen.get(kept[index])) !== (by === "fidelity" ? FIDELITY : EDGE_THRESHOLD)) chosen.set(kept[index], stop);
  });
  return [...chosen.values()].sort((a, b) => a - b);
}

/**
 * The number of edges for each fidelity, with the metric that needs the fewest. Without scores there is one metric.
 *
 * @param {Page} page
 * @param {Graph} graph
 * @param {AbortSignal} signal
 */
async function countByFidelity(page, graph, signal) {
  const metrics = graph.scores_missing === undefined ? [CONTRIBUTION, ...SCORES] : [CONTRIBUTION];
  const asked = metrics.map((metric) => {
    const ask = { path: `${page.path}/topology/fidelity`, query: { ...page.query, metric } };
    return /** @type {Promise<Schemas["FidelityCurve"]>} */ (askJson(ask, signal));
  });
  const curves = (await Promise.all(asked)).map(({ curve }) => curve);
  return STOPS.fidelity.map((stop) => Math.min(...curves.map((curve) => keptByFidelity(curve, stop))));
}

/**
 * The number of edges for each threshold, which is on no curve, because nodes have their own thresholds.
 *
 * @param {Page} page
 * @param {AbortSignal} signal
 */
async function countByThreshold(page, signal) {
  const kept = [];
  for (const stop of STOPS.threshold) {
    const ask = topologyAsk(page, { edge_threshold: stop, pruned: true });
    const { graph } = /** @type {Schemas["TopologyResponse"]} */ (await askJson(ask, signal));
    kept.push(graph.edges.kept);
  }
  return kept;
}

/**
 * The fewest edges with at least an R², such that every larger number also has it.
 *
 * @param {Curve} curve from all edges to none
 * @param {number} fidelity
 */
function keptByFidelity(curve, fidelity) {
  const short = curve.findIndex(({ r2 }) => r2 < fidelity);
  return curve[short < 0 ? curve.length - 1 : Math.max(0, short - 1)].edges;
}

/**
 * @param {Schemas["TopologyResponse"]} topology
 * @param {string | null} unit
 */
export function tellCost({ graph }, unit) {
  const { r2, mae, mae_full: full } = graph.fidelity;
  return [
    figure("edges", String(graph.edges.kept), `of ${graph.edges.total}`),
    figure("nodes", String(graph.nodes.kept), `of ${graph.nodes.total}`),
    figure("R²", fixed(r2, 4), "of the full model", withHelp("R²", "R²")),
    figure(
      "MAE",
      amount(mae, unit),
      mae === null || full === null ? "no targets known" : `${signed(mae - full)} from ${amount(full)}`,
      withHelp("MAE", "MAE"),
    ),
  ];
}
