/** The summary of a forecast: figures, accuracy, warnings, and rows for the download. */

import { figure, h } from "./dom.js";
import { amount, fixed, formatChange, formatValue, percent, signed } from "./figures.js";
import { withHelp } from "./help.js";
import { kindOf, levelName } from "./intervals.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */

/**
 * How values of an output are written: as precise as its spread, or as percentages where they are probabilities.
 *
 * @typedef {object} Formats
 * @property {boolean} isShare whether the output is a probability
 * @property {string | null} unit
 * @property {(value: number) => string} value
 * @property {(value: number) => string} change with a sign
 * @property {(value: number) => string} difference between two values, without a sign
 */

export const FINER = 10; // than a story are figures of one forecast, as what is changed by little is seen in them
const TOLERANCE = 1e-3; // of :explain, in standard deviations of the output on the reference windows
const N_WARNINGS = 5; // warnings shown; the rest are counted

/**
 * The standard deviation of an output on the reference windows.
 *
 * @param {Schemas["Explanation"]} explanation
 */
export function spreadOf({ tolerance }) {
  return tolerance / TOLERANCE;
}

/**
 * @param {Pick<Page, "model" | "unit">} page
 * @param {number | undefined} spread of the output
 * @returns {Formats}
 */
export function formatsOf({ model, unit }, spread) {
  const isShare = ["softmax", "sigmoid"].includes(model.architecture.output_function ?? "");
  const points = (/** @type {number} */ share) => `${fixed(100 * share, 1)} points`;
  return {
    isShare,
    unit,
    value: (value) => (isShare ? percent(value) : formatValue(value, unit, spread)),
    change: (value) => (isShare ? (value > 0 ? "+" : "") + points(value) : formatChange(value, unit, spread)),
    difference: (value) => (isShare ? points(value) : formatValue(value, unit, spread)),
  };
}

/**
 * The forecast as the sum that it is, beside its intervals, the actual value, and what it was before a change.
 *
 * @param {Schemas["Explanation"]} explanation
 * @param {Formats} formats
 * @param {{note: string, actual: number | undefined}} chosen
 * @param {import("./intervals.js").Interval[]} intervals of the forecast
 * @param {number} [before] the forecast of the window as it was
 */
export function tellForecast(explanation, formats, { note, actual }, intervals, before) {
  const { output, prediction, baseline_prediction: baseline, error, residual, tolerance, converged } = explanation;
  const { unit } = formats;
  const doubt = converged ? "" : `Not converged to the tolerance of ${amount(tolerance, unit)}: these contributions may be wrong. `;
  return [
    figure("forecast", formats.value(prediction), undefined, kindOf(output)),
    h("span", { class: "sign", "aria-hidden": "true" }, "="),
    figure("baseline", formats.value(baseline)),
    h("span", { class: "sign", "aria-hidden": "true" }, "+"),
    figure("contributions", formats.change(prediction - baseline)),
    ...(before === undefined
      ? []
      : [figure("as it was", formats.value(before)), figure("by the change", formats.change(prediction - before))]),
    ...(actual === undefined
      ? []
      : [figure("actual", formats.value(actual)), figure("error", formats.change(prediction - actual))]),
    ...intervals.map(({ level, lower, upper }) =>
      figure(`${levelName(level)} interval`, `${formats.value(lower)} to ${formats.value(upper)}`),
    ),
    h(
      "p",
      { class: "muted" },
      `${note}. ${doubt}No contribution is off by more than about `,
      withHelp(amount(error, unit), "error"),
      ", and their sum by ",
      withHelp(amount(residual, unit), "residual"),
      ".",
    ),
  ];
}

/**
 * Warnings of values outside the training range, and of values that were filled, folded; none if there are none.
 *
 * @param {Schemas["ExplainResponse"]} answer
 */
export function foldWarnings(answer) {
  const count = countWarnings(answer);
  if (!count) return [];
  const said = `${count} ${count === 1 ? "warning" : "warnings"}: values outside the training range, or filled`;
  return [h("details", { class: "folded", open: count === 1 }, h("summary", {}, said), h("ul", { class: "warnings" }, ...tellWarnings(answer)))];
}

/** @param {Schemas["ExplainResponse"]} answer */
export function countWarnings({ warnings, warnings_omitted: omitted = 0 }) {
  return warnings.length + omitted;
}

/** @param {Schemas["ExplainResponse"]} answer */
function tellWarnings({ warnings, warnings_omitted: omitted = 0 }) {
  const told = warnings
    .slice(0, N_WARNINGS)
    .map((warning) => {
      const place = warning.code === "filled" ? warning.column : `${warning.feature} at step ${amount(warning.step)}`;
      return h("li", {}, `${place}: ${warning.message}`);
    });
  const more = warnings.length + omitted - told.length;
  return more ? [...told, h("li", {}, `and ${more} more features`)] : told;
}

/**
 * The legend of the two colours.
 *
 * @param {string} up
 * @param {string} down
 */
export function colorKey(up, down) {
  return h("span", { class: "key muted" }, h("i", { class: "up" }), up, h("i", { class: "down" }), down);
}

/**
 * @param {Schemas["Explanation"]} explanation
 * @param {string[]} features
 * @param {number[][]} window
 */
export function stepRows({ steps = [] }, features, window) {
  return steps.flatMap((row, step) =>
    row.map((contribution, index) => ({ step, feature: features[index], value: window[step][index], contribution })),
  );
}
