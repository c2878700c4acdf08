/** One forecast, explained: the way to it feature by feature, step by step, and through the network. */

import { titleBar } from "../actions.js";
import { askJson } from "../api.js";
import { drawHeatMap, drawWaterfall, symmetric } from "../charts.js";
import { h, segments, table } from "../dom.js";
import { enliven, fetchDrawing } from "../drawing.js";
import { amount, signed } from "../figures.js";
import { readFlow } from "../flow.js";
import { edgeKey, labelsOf, nameEdge } from "../graph.js";
import { packWindow, readWindow, unpackWindow } from "../windows.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {import("../app.js").Page} Page */
/** @typedef {import("../flow.js").Flow} Flow */

const THICK = 6; // width of the strongest edge
const THIN = 0.6;
const DOT = 9; // radius of the feature that adds most
const MIN_DOT = 2;

/**
 * @param {Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  const input = windowInput(page);
  const summary = h("div", { class: "card summary", "aria-live": "polite" });
  const waterfall = h("figure", { class: "chart" });
  const heatMap = h("figure", { class: "chart" });
  const scale = h("div", { class: "scale" });
  const drawing = h("div", { class: "drawing" });
  const carried = h("p", { class: "muted" });
  const flowTable = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Flow at each node" });
  const element = h(
    "div",
    { class: "view forecast" },
    titleBar("Forecast", () => shown),
    input.element,
    summary,
    h(
      "div",
      { class: "halves" },
      h("section", { class: "card" }, h("h2", {}, "From the baseline to the forecast"), waterfall),
      h("section", { class: "card" }, h("div", { class: "between" }, h("h2", {}, "Feature by step"), scale), heatMap),
    ),
    h(
      "section",
      { class: "card flow" },
      h("div", { class: "between" }, h("h2", {}, "Through the network"), signKey()),
      carried,
      drawing,
      h("details", {}, h("summary", {}, "What comes in and goes out at each node"), flowTable),
    ),
  );

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    const { window, note } = await input.set(values, signal);
    const body = { instances: [window], output: page.output, detail: "flow", baseline: values.baseline ?? "mean" };
    const ask = { path: `${page.path}:explain`, query: page.version, body };
    const graph = { path: `${page.path}/topology`, query: { ...page.query, pruned: false } };
    const picture = { path: graph.path, query: { ...page.query, color: "contribution" } };
    const [answer, topology, { root }] = await Promise.all([
      /** @type {Promise<Schemas["ExplainResponse"]>} */ (askJson(ask, signal)),
      /** @type {Promise<Schemas["TopologyResponse"]>} */ (askJson(graph, signal)),
      fetchDrawing(picture, signal),
    ]);
    const [explanation] = answer.explanations;
    const features = page.model.features.map(({ name }) => name);
    const flow = readFlow(explanation, topology);
    summary.replaceChildren(...tellForecast(explanation, page.unit, note));
    waterfall.replaceChildren(drawWaterfall(explanation, page.unit, widthOf(waterfall)));
    heatMap.replaceChildren(drawHeatMap(explanation, features, window, page.unit, widthOf(heatMap)));
    scale.replaceChildren(...tellScale(explanation.steps ?? [], page.unit));
    colorFlow(root, flow, explanation.contributions);
    carried.textContent = tellCarried(root, flow, topology, page.unit);
    const tell = flowTeller(flow, topology, explanation.contributions, page.unit);
    drawing.replaceChildren(enliven(root, tell, (edge) => (location.hash = page.link("edge", { edge }))));
    flowTable.replaceChildren(tellFlow(flow, page.unit));
    shown = { ask, name: `${page.model.name}-forecast`, data: answer, rows: stepRows(explanation, features, window) };
  };
  return { element, update };
}

/** @param {HTMLElement} place */
function widthOf(place) {
  return Math.max(280, place.clientWidth);
}

/**
 * Where a window comes from: the reference windows, or what is pasted, dropped or chosen.
 *
 * @param {Page} page
 */
function windowInput(page) {
  const count = page.model.reference_windows;
  const index = h("input", {
    type: "number",
    id: "index",
    min: 0,
    max: count - 1,
    onchange: () => choose(index.valueAsNumber),
  });
  const choose = (/** @type {number} */ number) => {
    if (Number.isFinite(number)) page.set({ window: `ref:${Math.min(Math.max(0, Math.round(number)), count - 1)}` });
  };
  const step = (/** @type {string} */ label, /** @type {number} */ by) =>
    h(
      "button",
      { type: "button", "aria-label": label, onclick: () => choose(index.valueAsNumber + by) },
      by < 0 ? "←" : "→",
    );
  const reference = h(
    "div",
    { class: "row" },
    h("label", { for: "index" }, "Number"),
    step("Previous window", -1),
    index,
    step("Next window", 1),
    h("span", { class: "muted" }, `of ${count}`),
  );

  const problem = h("p", { class: "wrong", role: "alert" });
  const text = h("textarea", { id: "window", rows: 5, spellcheck: "false", placeholder: placeholderOf(page.model) });
  const file = h("input", {
    type: "file",
    id: "file",
    accept: ".csv,.json,text/csv,application/json",
    onchange: () => void readFiles(file.files),
  });
  const take = async (/** @type {string} */ given) => {
    problem.textContent = "";
    try {
      page.set({ window: `z:${await packWindow(readWindow(given, page.model))}` });
    } catch (error) {
      problem.textContent = `That is no window: ${error instanceof Error ? error.message : error}.`;
    }
  };
  const readFiles = async (/** @type {FileList | null | undefined} */ files) => {
    if (!files?.length) return;
    text.value = await files[0].text();
    await take(text.value);
  };
  const own = h(
    "div",
    {
      class: "own",
      ondragover: (/** @type {DragEvent} */ event) => event.preventDefault(),
      ondrop: (/** @type {DragEvent} */ event) => {
        event.preventDefault();
        void readFiles(event.dataTransfer?.files);
      },
    },
    h(
      "label",
      { for: "window" },
      `JSON or CSV of ${page.model.lookback} rows, oldest first; paste it, or drop a file here`,
    ),
    text,
    h(
      "div",
      { class: "row" },
      h("button", { type: "button", class: "main", onclick: () => void take(text.value) }, "Explain it"),
      h("label", { for: "file" }, "or a file"),
      file,
    ),
    problem,
  );
  const show = (/** @type {string} */ source) => {
    kind.set(source);
    reference.hidden = source !== "reference";
    own.hidden = source === "reference";
  };
  const kind = segments("Window", { reference: "reference", own: "your own" }, (source) => {
    show(source);
    if (source === "reference") page.set({ window: "" });
    else text.focus();
  });
  const baseline = h("select", {
    id: "baseline",
    onchange: () => page.set({ baseline: baseline.value === "mean" ? "" : baseline.value }),
  });
  const baselines = {
    mean: "mean of the reference windows",
    zero: "mean of the training rows",
    reference: "reference windows, averaged",
  };
  baseline.append(...Object.entries(baselines).map(([value, label]) => h("option", { value }, label)));
  const element = h(
    "section",
    { class: "card window", "aria-label": "Window and baseline" },
    kind.element,
    reference,
    own,
    h("div", { class: "row baseline" }, h("label", { for: "baseline" }, "Compared with"), baseline),
  );

  /**
   * The window that the address names.
   *
   * @param {Record<string, string>} values
   * @param {AbortSignal} signal
   */
  const set = async (values, signal) => {
    baseline.value = values.baseline ?? "mean";
    const [source, given] = (values.window ?? "ref:0").split(/:(.*)/s);
    show(source === "ref" ? "reference" : "own");
    if (source !== "ref") {
      const window = await unpackWindow(given, page.model);
      if (!text.value) text.value = JSON.stringify(window);
      return { window, note: "your own window" };
    }
    index.value = given;
    const path = `${page.path}/reference/${encodeURIComponent(given)}`;
    const answer = /** @type {Schemas["ReferenceWindow"]} */ (await askJson({ path, query: page.version }, signal));
    return { window: answer.instance, note: noteOf(answer, page) };
  };
  return { element, set };
}

/** @param {Schemas["ModelInfo"]} model */
function placeholderOf({ features, lookback }) {
  const names = features.slice(0, 3).map(({ name }) => name);
  const more = features.length > names.length ? ",…" : "";
  return `${names.join(",")}${more}\n${names.map(() => "0").join(",")}${more}\n(${lookback} rows)`;
}

/**
 * @param {Schemas["ReferenceWindow"]} answer
 * @param {Page} page
 */
function noteOf({ index, time, target }, { model, output, unit }) {
  const came = target?.[model.outputs.indexOf(output)];
  const when = time ? `, ${time.replace("T", " ")}` : "";
  return `reference window ${index}${when}${came === undefined ? "" : `; what came was ${amount(came, unit)}`}`;
}

/**
 * @param {Schemas["Explanation"]} explanation
 * @param {string | null} unit
 * @param {string} note
 */
function tellForecast({ prediction, baseline_prediction: baseline, error, tolerance, converged }, unit, note) {
  const figure = (/** @type {string} */ name, /** @type {string} */ value) =>
    h("div", { class: "figure", "data-figure": name }, h("span", { class: "muted" }, name), h("strong", {}, value));
  const exact = `No contribution is off by more than about ${amount(error, unit)}`;
  return [
    figure("forecast", amount(prediction, unit)),
    h("span", { class: "sign", "aria-hidden": "true" }, "="),
    figure("baseline", amount(baseline, unit)),
    h("span", { class: "sign", "aria-hidden": "true" }, "+"),
    figure("contributions", signed(prediction - baseline, unit)),
    h(
      "p",
      { class: "muted" },
      `${note}. ${converged ? `${exact}.` : `Not converged to the tolerance of ${amount(tolerance, unit)}: these contributions may be wrong.`}`,
    ),
  ];
}

/** What the two colours mean. */
function signKey() {
  return h(
    "span",
    { class: "key muted" },
    h("i", { class: "up" }),
    "pushes up",
    h("i", { class: "down" }),
    "pushes down",
  );
}

/**
 * @param {number[][]} steps
 * @param {string | null} unit
 */
function tellScale(steps, unit) {
  const [low, , high] = symmetric(steps.flat());
  return [h("span", {}, amount(low)), h("i", {}), h("span", {}, signed(high, unit))];
}

/**
 * Gives each part of the picture the colour and the size of what passes through it.
 *
 * @param {SVGSVGElement} root
 * @param {Flow} flow
 * @param {Record<string, number>} contributions of the features
 */
function colorFlow(root, flow, contributions) {
  root.classList.add("flowing");
  const strongest = largest(flow.edges.values());
  for (const edge of edgesOf(root)) {
    const value = flow.edges.get(edgeKey(/** @type {any} */ (edge.dataset))) ?? 0;
    edge.classList.add(value < 0 ? "down" : "up");
    const width = THIN + (THICK - THIN) * (Math.abs(value) / strongest);
    for (const link of edge.querySelectorAll(".link")) link.setAttribute("stroke-width", width.toFixed(2));
  }
  const passing = new Map(flow.nodes.map(({ id, incoming }) => [id, incoming]));
  const farthest = largest(Object.values(contributions));
  for (const node of /** @type {NodeListOf<SVGGElement>} */ (root.querySelectorAll("g.node"))) {
    const id = node.dataset.node ?? "";
    const value = contributions[id.replace(/^feature:/, "")] ?? passing.get(id);
    if (value !== undefined) node.classList.add(value < 0 ? "down" : "up");
    const dot = id.startsWith("feature:") && value !== undefined && node.querySelector("circle:not(.hit)");
    if (dot) dot.setAttribute("r", (MIN_DOT + (DOT - MIN_DOT) * Math.sqrt(Math.abs(value) / farthest)).toFixed(2));
  }
}

/** @param {SVGSVGElement} root */
function edgesOf(root) {
  return /** @type {NodeListOf<SVGGElement>} */ (root.querySelectorAll("g.edge[data-kind=edge]"));
}

/** @param {Iterable<number>} values */
function largest(values) {
  return Math.max(...[...values].map(Math.abs), Number.MIN_VALUE);
}

/**
 * How much of it all the picture shows, and how exactly in is out.
 *
 * @param {SVGSVGElement} root
 * @param {Flow} flow
 * @param {Schemas["TopologyResponse"]} topology
 * @param {string | null} unit
 */
function tellCarried(root, flow, topology, unit) {
  const into = `output:${topology.graph.output}`;
  const drawn = [...edgesOf(root)]
    .filter(({ dataset }) => dataset.target === into)
    .reduce((sum, { dataset }) => sum + (flow.edges.get(edgeKey(/** @type {any} */ (dataset))) ?? 0), 0);
  const total = flow.nodes.find(({ id }) => id === into)?.outgoing ?? 0;
  const apart = Math.max(0, ...flow.nodes.map(({ incoming, outgoing }) => Math.abs(incoming - outgoing)));
  return (
    `Colour and width are what an edge adds to this forecast. At every node what comes in goes out, within ` +
    `${amount(apart, unit)}. The edges drawn bring ${signed(drawn, unit)} of ${signed(total, unit)} into the output.`
  );
}

/**
 * @param {Flow} flow
 * @param {Schemas["TopologyResponse"]} topology
 * @param {Record<string, number>} contributions of the features
 * @param {string | null} unit
 * @returns {(part: SVGGElement) => string[]}
 */
function flowTeller(flow, topology, contributions, unit) {
  const labels = labelsOf(topology);
  const nodes = new Map(flow.nodes.map((node) => [node.id, node]));
  return ({ dataset }) => {
    const { node: id, kind, source = "", target = "" } = dataset;
    const node = id === undefined ? undefined : nodes.get(id);
    if (node) return [node.label, `in ${signed(node.incoming, unit)}`, `out ${signed(node.outgoing, unit)}`];
    const feature = id?.replace(/^feature:/, "") ?? "";
    if (feature in contributions) return [feature, `adds ${signed(contributions[feature], unit)}, over all steps`];
    if (kind !== "edge") return [];
    const value = flow.edges.get(edgeKey(/** @type {any} */ (dataset))) ?? 0;
    return [nameEdge({ source, target }, labels), `adds ${signed(value, unit)}`];
  };
}

/**
 * @param {Flow} flow
 * @param {string | null} unit
 */
function tellFlow({ nodes }, unit) {
  const rows = nodes.map(({ id, label, incoming, outgoing }) =>
    h(
      "tr",
      { "data-node": id },
      h("th", { scope: "row" }, label),
      h("td", { class: "number" }, signed(incoming, unit)),
      h("td", { class: "number" }, signed(outgoing, unit)),
      h("td", { class: "number muted" }, amount(Math.abs(incoming - outgoing))),
    ),
  );
  return table(["Node", "In", "Out", "Apart"], rows);
}

/**
 * @param {Schemas["Explanation"]} explanation
 * @param {string[]} features
 * @param {number[][]} window
 */
function stepRows({ steps = [] }, features, window) {
  return steps.flatMap((row, step) =>
    row.map((contribution, index) => ({ step, feature: features[index], value: window[step][index], contribution })),
  );
}
