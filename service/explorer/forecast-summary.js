/** The summary of a forecast: figures, accuracy, warnings, and rows for the download. */

import { symmetric } from "./charts.js";
import { figure, h } from "./dom.js";
import { amount, fixed, formatChange, formatValue, percent, range, signed } from "./figures.js";
import { withHelp } from "./help.js";
import { kindOf, levelName } from "./intervals.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */

/**
 * How values of an output are written: as precise as its spread, or as percentages where they are probabilities.
 *
 * @typedef {object} Formats
 * @property {boolean} isShare whether the output is a probability
 * @property {(value: number) => string} value
 * @property {(value: number) => string} change with a sign
 * @property {(value: number) => string} difference between two values, without a sign
 */

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
 * @param {Page} page
 * @param {number | undefined} spread of the output
 * @returns {Formats}
 */
export function formatsOf({ model, unit }, spread) {
  const isShare = ["softmax", "sigmoid"].includes(model.architecture.output_function ?? "");
  const points = (/** @type {number} */ share) => `${fixed(100 * share, 1)} points`;
  return {
    isShare,
    value: (value) => (isShare ? percent(value) : formatValue(value, unit, spread)),
    change: (value) => (isShare ? (value > 0 ? "+" : "") + points(value) : formatChange(value, unit, spread)),
    difference: (value) => (isShare ? points(value) : formatValue(value, unit, spread)),
  };
}

/**
 * @param {Schemas["Explanation"]} explanation
 * @param {string | null} unit
 * @param {string} note
 * @param {import("./intervals.js").Interval[]} intervals of the forecast
 */
export function tellForecast(explanation, unit, note, intervals) {
  const { output, prediction, baseline_prediction: baseline, error, residual, tolerance, converged } = explanation;
  const doubt = converged ? "" : `Not converged to the tolerance of ${amount(tolerance, unit)}: these contributions may be wrong. `;
  return [
    figure("forecast", amount(prediction, unit), undefined, kindOf(output)),
    h("span", { class: "sign", "aria-hidden": "true" }, "="),
    figure("baseline", amount(baseline, unit)),
    h("span", { class: "sign", "aria-hidden": "true" }, "+"),
    figure("contributions", signed(prediction - baseline, unit)),
    ...intervals.map(({ level, lower, upper }) => figure(`${levelName(level)} interval`, range([lower, upper]))),
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
 * Warnings of values outside the training range, and of values that were filled.
 *
 * @param {Schemas["ExplainResponse"]} answer
 */
export function tellWarnings({ warnings, warnings_omitted: omitted = 0 }) {
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
 * @param {number[][]} steps
 * @param {string | null} unit
 */
export function tellScale(steps, unit) {
  const [low, , high] = symmetric(steps.flat());
  return [h("span", {}, amount(low)), h("i", {}), h("span", {}, signed(high, unit))];
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
