/** Prediction intervals: the names of bounds and widths, which are outputs too, and the intervals of windows. */

import { askJson } from "./api.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./windows.js").Window} Window */
/** @typedef {{level: number, lower: number, upper: number}} Interval */

const KINDS = ["lower", "upper", "width"];
const BOUND = /^(.*):(lower|upper|width)@(0\.\d+)$/;
const QUANTILE = /@0\.\d+$/;

/**
 * Bounds and widths of one output, such as `load+24:width@0.8`; none if it has no intervals.
 *
 * @param {Schemas["ModelInfo"]} model
 * @param {string} output
 */
export function boundsOf({ intervals }, output) {
  if (!intervals?.outputs.includes(output)) return [];
  const forecast = output.replace(QUANTILE, "");
  return intervals.levels.flatMap((level) => KINDS.map((kind) => `${forecast}:${kind}@${level}`));
}

/**
 * The output that a bound or a width is of, its kind and level; an output is of itself.
 *
 * @param {Schemas["ModelInfo"]} model
 * @param {string} output
 */
export function forecastOf({ outputs, intervals }, output) {
  const [, forecast, kind, level] = BOUND.exec(output) ?? [];
  const found = intervals?.outputs.find((one) => one.replace(QUANTILE, "") === forecast);
  return outputs.includes(output) || !found ? { output } : { output: found, kind, level: Number(level) };
}

/**
 * What an output is: a forecast, or the lower bound, the upper bound or the width of an interval.
 *
 * @param {string} output
 */
export function kindOf(output) {
  const [, , kind, level] = BOUND.exec(output) ?? [];
  return kind ? `${kind === "width" ? kind : `${kind} bound`} of the ${levelName(Number(level))} interval` : "forecast";
}

/**
 * Whether a model has an output, a bound or a width.
 *
 * @param {Schemas["ModelInfo"]} model
 * @param {string} output
 */
export function hasOutput(model, output) {
  return model.outputs.includes(output) || boundsOf(model, forecastOf(model, output).output).includes(output);
}

/**
 * The intervals of each window by output, ascending; none of a model without.
 *
 * @param {Page} page
 * @param {Window[]} windows
 * @param {AbortSignal} [signal]
 * @returns {Promise<Record<string, Interval[]>[]>}
 */
export async function askIntervals({ path, version, model }, windows, signal) {
  if (!model.intervals) return windows.map(() => ({}));
  const { intervals = [] } = /** @type {Schemas["PredictResponse"]} */ (
    await askJson({ path: `${path}:predict`, query: version, body: { instances: windows, intervals: "all" } }, signal)
  );
  return windows.map((_, window) =>
    Object.fromEntries(
      model.intervals?.outputs.map((output, column) => [
        output,
        intervals.map(({ level, lower, upper }) => ({ level, lower: lower[window][column], upper: upper[window][column] })),
      ]) ?? [],
    ),
  );
}

/**
 * The forecasts of the page's output, or its bounds or widths.
 *
 * @param {Page} page
 * @param {Window[]} windows
 * @param {AbortSignal} [signal]
 */
export async function predictOutput(page, windows, signal) {
  const { output, kind, level } = forecastOf(page.model, page.output);
  if (kind) {
    const found = await askIntervals(page, windows, signal);
    return found.map((of) => {
      const { lower, upper } = of[output].find((one) => one.level === level) ?? { lower: NaN, upper: NaN };
      return { lower, upper, width: upper - lower }[kind] ?? NaN;
    });
  }
  const { outputs, predictions } = /** @type {Schemas["PredictResponse"]} */ (
    await askJson({ path: `${page.path}:predict`, query: page.version, body: { instances: windows } }, signal)
  );
  return predictions.map((row) => row[outputs.indexOf(output)]);
}

/**
 * A level as people write it, such as 80 %.
 *
 * @param {number} level
 */
export function levelName(level) {
  return `${Number((100 * level).toPrecision(6))} %`;
}
