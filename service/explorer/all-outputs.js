/** All outputs of one window: the steps of a target as a curve, and a table with the largest contributions to each. */

import "./vendor/d3.min.js";
import { askJson, reasonOf } from "./api.js";
import { freshLink, h, table, widthOf } from "./dom.js";
import { FINER, formatsOf, spreadOf } from "./forecast-summary.js";
import { drawAhead, seriesKey } from "./history.js";
import { askIntervals, forecastOf, levelName } from "./intervals.js";
import { afterRest } from "./latest.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./figures.js").Times} Times */
/** @typedef {import("./forecast-summary.js").Formats} Formats */
/** @typedef {import("./windows.js").Window} Window */

const REST = 300; // ms without a change
const N_FEATURES = 8; // features with a column
const STRONG = 40; // % of the colour behind the largest contribution to an output

/**
 * Several steps of the target that is shown are a curve, whose steps lead to their explanation, above a table that is
 * asked for as it is opened; outputs that are no steps of one target are the table alone.
 *
 * @param {Page} page
 */
export function allOutputs(page) {
  const { path, version, model } = page;
  const target = targetOf(forecastOf(model, page.output).output);
  const steps = model.outputs.filter((output) => targetOf(output) === target);
  const column = model.features.findIndex(({ name }) => name === target);
  const isCurve = steps.length > 1;
  const rest = afterRest();
  let running = new AbortController();
  /** @type {{window: Window, baseline: unknown} | undefined} that the table is still to be asked for */
  let waiting;
  const key = h("span", {});
  const problem = h("p", { class: "refused", role: "alert" });
  const chart = h("figure", { class: "chart", hidden: !isCurve });
  const place = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "All outputs" });
  const note = h("p", { class: "muted" }, "The largest contributions; colours are relative to each output.");
  const table = h("div", { class: "stack" }, note, place);
  const folded = h("details", { ontoggle: () => folded.open && void list() }, h("summary", {}, "What each of them is made of"));
  const element = h(
    "section",
    { class: "card stack outputs" },
    h("div", { class: "between" }, h("h2", {}, isCurve ? `${target} at all steps ahead` : "All outputs of this window"), key),
    problem,
    chart,
    isCurve ? folded : table,
  );
  if (isCurve) folded.append(table);
  const guard = async (/** @type {(signal: AbortSignal) => Promise<void>} */ work) => {
    const { signal } = running;
    try {
      await work(signal);
      problem.textContent = "";
    } catch (error) {
      if (!signal.aborted) problem.textContent = reasonOf(error);
    }
  };
  const list = () =>
    guard(async (signal) => {
      if (!waiting) return;
      const { window, baseline } = waiting;
      waiting = undefined;
      const body = { instances: [window], output: model.outputs, baseline };
      const [answer, [intervals]] = await Promise.all([
        /** @type {Promise<Schemas["ExplainResponse"]>} */ (
          askJson({ path: `${path}:explain`, query: version, body }, signal)
        ),
        askIntervals(page, [window], signal),
      ]);
      place.replaceChildren(listOutputs(answer, page, intervals));
    });
  const draw = (/** @type {Window} */ window, /** @type {number[] | null | undefined} */ actual, /** @type {Times | undefined} */ times) =>
    guard(async (signal) => {
      const [{ predictions }, [intervals]] = await Promise.all([
        /** @type {Promise<Schemas["PredictResponse"]>} */ (
          askJson({ path: `${path}:predict`, query: version, body: { instances: [window] } }, signal)
        ),
        askIntervals(page, [window], signal),
      ]);
      const ahead = steps.map((output) => {
        const index = model.outputs.indexOf(output);
        const step = Number(/\+(\d+)/.exec(output)?.[1]);
        return { output, step, forecast: predictions[0][index], came: actual?.[index], band: intervals[output]?.[0] };
      });
      const band = ahead[0].band && `${levelName(ahead[0].band.level)} interval`;
      key.replaceChildren(seriesKey({ actual: column >= 0 || ahead[0].came !== undefined, band }));
      const history = column < 0 ? [] : window.map((row) => row[column]);
      chart.replaceChildren(drawAhead(history, ahead, page, times, widthOf(chart), "forecast"));
    });

  /**
   * @param {Window} window
   * @param {unknown} baseline as :explain takes it
   * @param {number[] | null | undefined} actual values of all outputs, where they are known
   * @param {Times | undefined} times of its steps
   */
  const set = (window, baseline, actual, times) => {
    running.abort();
    running = new AbortController();
    waiting = { window, baseline };
    if (isCurve) void draw(window, actual, times);
    if (!isCurve || folded.open) rest.after(REST, () => void list());
  };
  return { element, set };
}

/** @param {string} output */
function targetOf(output) {
  return output.replace(/\+\d+(?=$|@)/, "");
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
