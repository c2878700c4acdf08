/** The network: the service's picture of what a rule keeps, what that costs, and the edges as a list. */

import { titleBar } from "../actions.js";
import { askJson } from "../api.js";
import { h, segments, table } from "../dom.js";
import { enliven, fetchDrawing } from "../drawing.js";
import { amount, percent, range, signed } from "../figures.js";
import { edgeKey, labelsOf, nameEdge, strongestFirst } from "../graph.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["TopologyResponse"]} Topology */
/** @typedef {Schemas["GraphNode"]} Node */
/** @typedef {Schemas["GraphEdge"]} Edge */

const WAIT = 150; // ms without another move of the slider
const FIDELITY = "0.99";
const EDGE_THRESHOLD = "0.03";
const STOPS = {
  fidelity: [
    0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.993, 0.995, 0.997, 0.999, 0.9999,
    1,
  ],
  threshold: [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1],
};

/**
 * The part of a request that says by which rule the network is pruned.
 *
 * @param {Record<string, string>} values of the address
 */
export function ruleQuery({ threshold, fidelity }) {
  return threshold === undefined ? { fidelity: fidelity ?? FIDELITY } : { edge_threshold: threshold };
}

/**
 * The part of an address that says so.
 *
 * @param {Record<string, string>} values of the address
 * @returns {Record<string, string>}
 */
export function ruleValues({ threshold, fidelity }) {
  return threshold === undefined ? { fidelity: fidelity ?? "" } : { threshold };
}

/**
 * @param {import("../app.js").Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  const drawing = h("div", { class: "card drawing" });
  const pruning = pruningControl(page);
  const cost = h("div", { class: "cost", "aria-live": "polite" });
  const curve = h("figure", { class: "chart" });
  const edges = h("div", { class: "card scroll", tabindex: "0", role: "region", "aria-label": "Edges" });
  const color = segments("Strong edges have a high", { score: "score", contribution: "contribution" }, (value) =>
    page.set({ color: value === "score" ? "" : value }),
  );
  const pruned = segments("Pruned parts are", { fold: "folded", show: "shown" }, (value) =>
    page.set({ pruned: value === "fold" ? "" : value }),
  );
  const element = h(
    "div",
    { class: "view network" },
    titleBar("Network", () => shown, true),
    h(
      "div",
      { class: "columns" },
      drawing,
      h(
        "aside",
        { "aria-label": "Pruning and look" },
        h("section", { class: "card" }, h("h2", {}, "Prune"), pruning.element, cost, curve),
        h("section", { class: "card" }, h("h2", {}, "Look"), color.element, pruned.element),
      ),
    ),
    h("h2", { class: "below" }, "Kept edges, the strongest first"),
    edges,
  );

  /**
   * Draws what each number of edges costs, which the picture does not wait for: it takes the service longer.
   *
   * @param {Topology} topology
   * @param {AbortSignal} signal
   */
  const traceCost = async ({ graph }, signal) => {
    const { metric, fill } = graph.rule;
    const ask = { path: `${page.path}/topology/fidelity`, query: { ...page.query, metric, fill } };
    try {
      const [{ drawCost }, traced] = await Promise.all([
        import("../charts.js"),
        /** @type {Promise<Schemas["FidelityCurve"]>} */ (askJson(ask, signal)),
      ]);
      curve.replaceChildren(drawCost(traced.curve, graph.edges.kept, graph.fidelity.r2));
    } catch (error) {
      if (signal.aborted) return;
      const reason = error instanceof Error ? error.message : String(error);
      curve.replaceChildren(h("p", { class: "muted" }, `The cost of each number of edges is not known: ${reason}.`));
    }
  };

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    pruning.set(values);
    color.set(values.color ?? "score");
    pruned.set(values.pruned ?? "fold");
    const query = { ...page.query, ...ruleQuery(values), pruned: values.pruned !== "show" };
    const ask = { path: `${page.path}/topology`, query };
    const drawn = { ...ask, query: { ...query, color: values.color } };
    const [topology, { root, text }] = await Promise.all([
      /** @type {Promise<Topology>} */ (askJson(ask, signal)),
      fetchDrawing(drawn, signal),
    ]);
    const rule = ruleValues(values);
    const link = (/** @type {string} */ edge) => page.link("edge", { edge, ...rule });
    const picture = enliven(root, teller(topology, page.unit), (edge) => (location.hash = link(edge)));
    replacePicture(drawing, root, picture);
    cost.replaceChildren(...tellCost(topology, page.unit));
    edges.replaceChildren(edgeTable(topology, page.unit, link));
    shown = { ask, name: `${page.model.name}-network`, data: topology, rows: edgeRows(topology), picture: text };
    void traceCost(topology, signal);
  };
  return { element, update };
}

/**
 * Puts a picture in the place of another; the part that had the focus has it again.
 *
 * @param {HTMLElement} place
 * @param {SVGSVGElement} root
 * @param {HTMLElement} picture what holds it
 */
function replacePicture(place, root, picture) {
  const focused = place.contains(document.activeElement) ? document.activeElement?.getAttribute("aria-label") : null;
  const width = Number(root.getAttribute("width"));
  root.style.minWidth = `${Math.min(width * 0.8, 1300)}px`;
  place.replaceChildren(picture);
  const again = focused && [...root.querySelectorAll("g")].find((part) => part.getAttribute("aria-label") === focused);
  if (again) again.focus();
}

/** @param {import("../app.js").Page} page */
function pruningControl(page) {
  const kind = segments("By", { fidelity: "fidelity", threshold: "threshold" }, (value) =>
    page.set(value === "fidelity" ? { fidelity: "", threshold: "" } : { fidelity: "", threshold: EDGE_THRESHOLD }),
  );
  const label = h("label", { for: "prune" });
  const said = h("output", { for: "prune" });
  const slider = h("input", { type: "range", id: "prune", min: 0, step: 1 });
  /** @type {"fidelity" | "threshold"} */
  let by = "fidelity";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const say = (/** @type {number} */ value) => {
    said.textContent = by === "fidelity" ? `R² ≥ ${value}` : `score > ${value}`;
    slider.setAttribute("aria-valuetext", said.textContent);
  };
  slider.addEventListener("input", () => {
    const value = STOPS[by][Number(slider.value)];
    say(value);
    clearTimeout(timer);
    timer = setTimeout(() => page.set({ [by]: String(value) }), WAIT);
  });
  /** @param {Record<string, string>} values */
  const set = (values) => {
    by = values.threshold === undefined ? "fidelity" : "threshold";
    const value = Number(values.threshold ?? values.fidelity ?? FIDELITY);
    kind.set(by);
    label.textContent = by === "fidelity" ? "Keep at least" : "Keep edges with a";
    slider.max = String(STOPS[by].length - 1);
    slider.value = String(nearest(STOPS[by], value));
    say(value);
  };
  const element = h("div", { class: "prune" }, kind.element, h("div", { class: "between" }, label, said), slider);
  return { element, set };
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
 * @param {Topology} topology
 * @param {string | null} unit
 */
function tellCost({ graph }, unit) {
  const { r2, mae, mae_full: full } = graph.fidelity;
  const figure = (/** @type {string} */ name, /** @type {string} */ value, /** @type {string} */ note) =>
    h(
      "div",
      { class: "figure", "data-figure": name },
      h("span", { class: "muted" }, name),
      h("strong", {}, value),
      h("span", { class: "muted" }, note),
    );
  return [
    figure("edges", String(graph.edges.kept), `of ${graph.edges.total}`),
    figure("nodes", String(graph.nodes.kept), `of ${graph.nodes.total}`),
    figure("R²", r2.toFixed(4), "of the full model"),
    figure(
      "MAE",
      amount(mae, unit),
      mae === null || full === null ? "no targets known" : `${signed(mae - full)} from ${amount(full)}`,
    ),
  ];
}

/**
 * @param {Topology} topology
 * @param {string | null} unit
 * @returns {(part: SVGGElement) => string[]}
 */
function teller(topology, unit) {
  const nodes = new Map(topology.nodes.map((node) => [node.id, node]));
  const labels = labelsOf(topology);
  const edges = new Map(topology.edges.map((edge) => [`${edge.kind} ${edgeKey(edge)}`, edge]));
  return (part) => {
    const { node, kind } = part.dataset;
    if (node !== undefined) return tellNode(nodes.get(node), unit);
    if (kind !== undefined)
      return tellEdge(edges.get(`${kind} ${edgeKey(/** @type {any} */ (part.dataset))}`), labels, unit);
    return part.getAttribute("aria-label")?.split(", pruned: ") ?? [];
  };
}

/**
 * @param {Node | undefined} node
 * @param {string | null} unit
 */
function tellNode(node, unit) {
  if (!node) return [];
  const profile = Object.entries(node.profile ?? {}).slice(0, 4);
  return [node.label, ...tellWorth(node, unit), ...profile.map(([name, share]) => `${percent(share)} ${name}`)];
}

/**
 * @param {Edge | undefined} edge
 * @param {Map<string, string>} labels of the nodes
 * @param {string | null} unit
 */
function tellEdge(edge, labels, unit) {
  if (!edge) return [];
  const lines = [nameEdge(edge, labels), ...tellWorth(edge, unit)];
  if (edge.share !== undefined) lines.push(`${percent(edge.share)} of the unit's profile`);
  if (edge.outside_grid) lines.push(`${percent(edge.outside_grid)} of its inputs outside the grid`);
  if (edge.kind === "edge") lines.push("Click, or press Enter, for its function");
  return lines;
}

/**
 * Contribution with its interval, and scores, as far as there are such.
 *
 * @param {Node | Edge} part
 * @param {string | null} unit
 */
function tellWorth({ contribution, interval, scores, kept }, unit) {
  const lines = [];
  if (contribution !== null) lines.push(`mean |contribution| ${amount(contribution, unit)}`);
  if (interval) lines.push(`95 % interval ${range(interval)}`);
  if (scores) lines.push(`score ${amount(scores.backward)}`);
  if (!kept) lines.push("pruned");
  return lines;
}

/**
 * @param {Topology} topology
 * @param {string | null} unit
 * @param {(edge: string) => string} link
 */
function edgeTable(topology, unit, link) {
  const labels = labelsOf(topology);
  const kept = strongestFirst(topology).filter((edge) => edge.kept);
  const rows = kept.map((edge) =>
    h(
      "tr",
      {},
      h("td", {}, h("a", { href: link(edgeKey(edge)) }, nameEdge(edge, labels))),
      h("td", { class: "number" }, amount(edge.contribution, unit)),
      h("td", { class: "number" }, range(edge.interval)),
      h("td", { class: "number" }, edge.scores ? amount(edge.scores.backward) : ""),
    ),
  );
  return table(["Edge", "Mean |contribution|", "95 % interval", "Score"], rows);
}

/** @param {Topology} topology */
function edgeRows(topology) {
  return topology.edges.map(
    ({ source, target, kind, stage, layer, i, j, kept, contribution, interval, share, scores }) => ({
      ...{ source, target, kind, stage, layer, i, j, kept, contribution, share },
      ...{ interval_low: interval?.[0], interval_high: interval?.[1] },
      ...scores,
    }),
  );
}
