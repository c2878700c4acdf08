/** The summary of a forecast: figures, accuracy, warnings, and rows for the download. */

import { symmetric } from "./charts.js";
import { figure, h } from "./dom.js";
import { amount, range, signed } from "./figures.js";
import { withHelp } from "./help.js";
import { kindOf, levelName } from "./intervals.js";

/** @typedef {import("./api.js").Schemas} Schemas */

const N_WARNINGS = 5; // warnings shown; the rest are counted

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
