/** One forecast, explained: the way to it feature by feature, step by step, and through the network. */

import { pictureActions, titleBar } from "../actions.js";
import { ApiError, askJson } from "../api.js";
import { drawHeatMap, drawWaterfall, symmetric } from "../charts.js";
import { h } from "../dom.js";
import { enliven, fetchDrawing } from "../drawing.js";
import { amount, signed } from "../figures.js";
import { colorFlow, flowTeller, tellCarried, tellFlow } from "../flow-picture.js";
import { readFlow } from "../flow.js";
import { drawSeries } from "../series.js";
import { windowInput } from "../window-input.js";
import { zoomable } from "../zoom.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {import("../app.js").Page} Page */

const N_WARNINGS = 5; // that are spelled out

/**
 * @param {Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  const summary = h("div", { class: "card summary", "aria-live": "polite" });
  const warnings = h("ul", { class: "warnings", "aria-label": "Values outside the training range" });
  const waterfall = h("figure", { class: "chart" });
  const heatMap = h("figure", { class: "chart" });
  const scale = h("div", { class: "scale" });
  const series = h("figure", { class: "chart series" });
  const { element: drawing, stage, reveal } = zoomable("The forecast's way through the network");
  const carried = h("p", { class: "muted" });
  const flowTable = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Flow at each node" });
  const name = () => `${page.model.name}-forecast`;
  const head = (/** @type {string} */ title, /** @type {HTMLElement} */ place, /** @type {HTMLElement[]} */ ...more) =>
    h("div", { class: "between" }, h("h2", {}, title), ...more, pictureActions(place, name, title));
  const results = h(
    "div",
    { class: "view" },
    summary,
    h(
      "div",
      { class: "halves" },
      h("section", { class: "card" }, head("From the baseline to the forecast", waterfall), waterfall),
      h("section", { class: "card" }, head("Feature by step", heatMap, scale), heatMap),
    ),
    h("section", { class: "card" }, h("h2", {}, "The window, by its strongest features"), series),
    h(
      "section",
      { class: "card flow" },
      head("Through the network", stage, signKey()),
      carried,
      drawing,
      h("details", {}, h("summary", {}, "What comes in and goes out at each node"), flowTable),
    ),
  );
  const input = windowInput(page, () => {
    results.hidden = true; // what was shown before is not the window that was given
    shown = undefined;
  });
  const element = h(
    "div",
    { class: "view forecast" },
    titleBar("Forecast", () => shown),
    input.element,
    results,
  );

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    const { window, note, baseline, other } = await input.set(values, signal);
    const body = { instances: [window], output: page.output, detail: "flow", baseline };
    const ask = { path: `${page.path}:explain`, query: page.version, body };
    const graph = { path: `${page.path}/topology`, query: { ...page.query, pruned: false } };
    const picture = { path: graph.path, query: { ...page.query, color: "contribution" } };
    results.hidden = false;
    try {
      const [answer, topology, { root }] = await Promise.all([
        /** @type {Promise<Schemas["ExplainResponse"]>} */ (askJson(ask, signal)),
        /** @type {Promise<Schemas["TopologyResponse"]>} */ (askJson(graph, signal)),
        fetchDrawing(picture, signal),
      ]);
      const [explanation] = answer.explanations;
      const features = page.model.features.map(({ name }) => name);
      const flow = readFlow(explanation, topology);
      summary.replaceChildren(...tellForecast(explanation, page.unit, note), warnings);
      warnings.replaceChildren(...tellWarnings(answer));
      waterfall.replaceChildren(drawWaterfall(explanation, page.unit, widthOf(waterfall), window, page.model.features));
      heatMap.replaceChildren(drawHeatMap(explanation, features, window, page.unit, widthOf(heatMap)));
      scale.replaceChildren(...tellScale(explanation.steps ?? [], page.unit));
      series.replaceChildren(...drawSeries(explanation, page.model.features, window, other, widthOf(series)));
      colorFlow(root, flow, explanation.contributions);
      carried.textContent = tellCarried(root, flow, topology, page.unit);
      const tell = flowTeller(flow, topology, explanation.contributions, page.unit);
      const open = (/** @type {string} */ edge) => (location.hash = page.link("edge", { edge }));
      stage.replaceChildren(enliven(root, tell, open, reveal));
      flowTable.replaceChildren(tellFlow(flow, page.unit));
      shown = { ask, name: name(), data: answer, rows: stepRows(explanation, features, window) };
    } catch (error) {
      if (!signal.aborted && input.isOwn() && error instanceof ApiError && error.status === 422) input.refuse(error);
      else throw error;
    }
  };
  return { element, update };
}

/** @param {HTMLElement} place */
function widthOf(place) {
  return Math.max(280, place.clientWidth);
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

/**
 * Values that the model was not trained on, of which a forecast says little.
 *
 * @param {Schemas["ExplainResponse"]} answer
 */
function tellWarnings({ warnings, warnings_omitted: omitted = 0 }) {
  const told = warnings
    .slice(0, N_WARNINGS)
    .map(({ feature, step, message }) => h("li", {}, `${feature} at step ${amount(step)}: ${message}`));
  const more = warnings.length + omitted - told.length;
  return more ? [...told, h("li", {}, `and ${more} more features`)] : told;
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
 * @param {Schemas["Explanation"]} explanation
 * @param {string[]} features
 * @param {number[][]} window
 */
function stepRows({ steps = [] }, features, window) {
  return steps.flatMap((row, step) =>
    row.map((contribution, index) => ({ step, feature: features[index], value: window[step][index], contribution })),
  );
}
