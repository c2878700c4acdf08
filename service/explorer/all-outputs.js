/** A table of all outputs of one window, with the largest contributions to each. */

import "./vendor/d3.min.js";
import { askJson, reasonOf } from "./api.js";
import { freshLink, h, table } from "./dom.js";
import { FINER, formatsOf, spreadOf } from "./forecast-summary.js";
import { askIntervals, levelName } from "./intervals.js";
import { afterRest } from "./latest.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./forecast-summary.js").Formats} Formats */
/** @typedef {import("./windows.js").Window} Window */

const REST = 300; // ms without a change
const N_FEATURES = 8; // features with a column
const STRONG = 40; // % of the colour behind the largest contribution to an output

/** @param {Page} page */
export function allOutputs(page) {
  const { path, version, model } = page;
  const rest = afterRest();
  let running = new AbortController();
  const problem = h("p", { class: "refused", role: "alert" });
  const place = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "All outputs" });
  const element = h(
    "section",
    { class: "card stack" },
    h("h2", {}, "All outputs of this window"),
    h("p", { class: "muted" }, "The largest contributions; colours are relative to each output."),
    problem,
    place,
  );
  const ask = async (/** @type {Window} */ window, /** @type {unknown} */ baseline) => {
    const { signal } = (running = new AbortController());
    try {
      const body = { instances: [window], output: model.outputs, baseline };
      const [answer, [intervals]] = await Promise.all([
        /** @type {Promise<Schemas["ExplainResponse"]>} */ (
          askJson({ path: `${path}:explain`, query: version, body }, signal)
        ),
        askIntervals(page, [window], signal),
      ]);
      place.replaceChildren(listOutputs(answer, page, intervals));
      problem.textContent = "";
    } catch (error) {
      if (!signal.aborted) problem.textContent = reasonOf(error);
    }
  };

  /**
   * @param {Window} window
   * @param {unknown} baseline as :explain takes it
   */
  const set = (window, baseline) => {
    running.abort();
    rest.after(REST, () => void ask(window, baseline));
  };
  return { element, set };
}

/**
 * @param {Schemas["ExplainResponse"]} answer for a list of outputs
 * @param {Page} page
 * @param {Record<string, import("./intervals.js").Interval[]>} intervals by output
 */
function listOutputs({ explanations, unit: units }, page, intervals) {
  const sizes = explanations.map(({ contributions }) => Math.max(...Object.values(contributions).map(Math.abs)) || 1);
  const share = (/** @type {string} */ name) =>
    Math.max(...explanations.map(({ contributions }, number) => Math.abs(contributions[name]) / sizes[number]));
  const names = d3.sort(Object.keys(explanations[0].contributions), (name) => -share(name)).slice(0, N_FEATURES);
  const levels = page.model.intervals?.levels ?? [];
  const rows = explanations.map((explanation, number) => {
    const { output, prediction, baseline_prediction: baseline, contributions } = explanation;
    const unit = (Array.isArray(units) ? units[number] : units) ?? null;
    const [formats, bare] = [unit, null].map((of) => formatsOf({ model: page.model, unit: of }, spreadOf(explanation) / FINER));
    const cells = names.map((name) => contributionCell(contributions[name], sizes[number], bare));
    return h(
      "tr",
      { "data-output": output },
      h("th", { scope: "row" }, outputLink(page, output)),
      h("td", { class: "number" }, formats.value(prediction)),
      ...levels.map((_, k) => h("td", { class: "number" }, tellInterval(intervals[output]?.[k], bare))),
      h("td", { class: "number" }, bare.value(baseline)),
      ...cells,
    );
  });
  const ofLevels = levels.map((level) => `${levelName(level)} interval`);
  return table(["Output", "Forecast", ...ofLevels, "Baseline", ...names], rows);
}

/**
 * @param {import("./intervals.js").Interval | undefined} interval
 * @param {Formats} formats
 */
function tellInterval(interval, formats) {
  return interval ? `${formats.value(interval.lower)} to ${formats.value(interval.upper)}` : "";
}

/**
 * @param {number} value
 * @param {number} largest
 * @param {Formats} formats
 */
function contributionCell(value, largest, formats) {
  const cell = h("td", { class: "number" }, formats.change(value));
  const strength = (STRONG * Math.abs(value)) / largest;
  cell.style.background = `color-mix(in oklab, var(${value < 0 ? "--down" : "--up"}) ${strength.toFixed(0)}%, var(--card))`;
  return cell;
}

/**
 * A link to the explanation of another output of the same window.
 *
 * @param {Page} page
 * @param {string} output
 */
function outputLink(page, output) {
  if (output === page.output) return h("strong", {}, output);
  return freshLink(() => page.link("forecast", { output }), output);
}
