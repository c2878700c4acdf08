/** What is known of a window beside its explanation: forecasts of all outputs, intervals, and times. */

import { DAY, timeLabel } from "../figures.js";
import { wallClock } from "../history/moments.js";
import { askNoted, useAsk, useLoad } from "../load.js";
import { forecastOf } from "../model.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Schemas} Schemas */
/** @typedef {{level: number, lower: number, upper: number}} Interval */
/** @typedef {{values: number[], bands: Record<string, Interval[]>}} Predicted */

const MONTH = [27 * DAY, 32 * DAY]; // the mean one of steps of months is between

/**
 * The forecasts of all outputs with their intervals by output, ascending.
 *
 * @param {Model} model
 * @param {number[][] | undefined} instance
 * @returns {import("../load.js").Loaded<Predicted>}
 */
export function usePredicted({ path, version, info }, instance) {
  const body = { instances: [instance], ...(info.intervals && { intervals: "all" }) };
  const loaded = useAsk(instance && { path: `${path}:predict`, query: version, body });
  const answer = /** @type {Schemas["PredictResponse"] | undefined} */ (loaded.value);
  const [bands = {}] = answer ? bandsOf(info, answer, 1) : [];
  return { ...loaded, value: answer && { values: answer.predictions[0], bands } };
}

/**
 * @param {Schemas["ModelInfo"]} info
 * @param {Schemas["PredictResponse"]} answer
 * @param {number} count of windows
 * @returns {Record<string, Interval[]>[]} of each window by output
 */
function bandsOf({ intervals }, { intervals: levels = [] }, count) {
  const bands = (/** @type {number} */ window) =>
    intervals?.outputs.map((output, column) => [output, levels.map(({ level, lower, upper }) => ({ level, lower: lower[window][column], upper: upper[window][column] }))]) ?? [];
  return d3.range(count).map((window) => Object.fromEntries(bands(window)));
}

/**
 * The output in view, which may be a bound or a width, of several windows.
 *
 * @param {Model} model
 * @param {number[][][]} instances
 * @param {AbortSignal} signal
 * @returns {Promise<number[]>}
 */
export async function predictOutput({ path, version, info, output: shown }, instances, signal) {
  const { output, kind, level } = forecastOf(info, shown);
  const body = { instances, ...(kind && { intervals: "all" }) };
  const answer = /** @type {Schemas["PredictResponse"]} */ (await askNoted({ path: `${path}:predict`, query: version, body }, signal));
  if (!kind) return answer.predictions.map((row) => row[answer.outputs.indexOf(output)]);
  return bandsOf(info, answer, instances.length).map((bands) => {
    const { lower, upper } = bands[output]?.find((one) => one.level === level) ?? { lower: NaN, upper: NaN };
    return { lower, upper, width: upper - lower }[kind] ?? NaN;
  });
}

/**
 * When the steps of a window are, from the usual step of the training or, of a model without it, from two reference windows
 * that overlap; undefined where neither is known.
 *
 * @param {Model} model
 * @param {string | null | undefined} time of its newest row
 * @returns {import("../figures.js").Times | undefined}
 */
export function useTimes(model, time) {
  const { info, path, version } = model;
  const isAsked = !info.time && info.reference_windows > 1 && info.lookback > 1;
  const { value: step } = useLoad(isAsked ? `step ${model.chosen} ${info.checkpoint}` : undefined, async (signal) => {
    const ask = (/** @type {number} */ index) => askNoted({ path: `${path}/reference/${index}`, query: version }, signal);
    return stepBetween(await Promise.all([ask(0), ask(1)]));
  });
  const isEven = info.time?.dated && !/business|open/.test(info.table?.step ?? "");
  const known = isEven && info.time ? 1000 * info.time.step : step;
  return time && known ? { newest: wallClock(time), step: known } : undefined;
}

/**
 * The time from row to row, in ms, of two windows of which the second begins within the first.
 *
 * @param {Schemas["ReferenceWindow"][]} windows
 */
function stepBetween([first, second]) {
  if (!first.time || !second.time) return undefined;
  const texts = [first, second].map(({ instance }) => instance.map((row) => JSON.stringify(row)));
  const by = d3.range(1, texts[0].length).find((rows) => texts[0].slice(rows).every((row, step) => row === texts[1][step]));
  const between = wallClock(second.time) - wallClock(first.time);
  return by && between > 0 ? between / by : undefined;
}

/**
 * The time of a step in ms: of months the same day of another month.
 *
 * @param {import("../figures.js").Times} times
 * @param {number} steps from the newest, which is 0
 */
export function timeAt({ newest, step }, steps) {
  if (step < MONTH[0] || step > MONTH[1]) return newest + steps * step;
  const date = new Date(newest);
  const isLast = new Date(newest + DAY).getUTCDate() === 1;
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth() + steps];
  return isLast ? Date.UTC(year, month + 1, 0) : Date.UTC(year, month, date.getUTCDate());
}

/** The step of an output, from 1, and its target. @param {string} output */
export function stepOf(output) {
  const [, target = output, step] = /^(.*)\+(\d+)(?=$|@|:)/.exec(output) ?? [];
  return { target, step: step === undefined ? undefined : Number(step) };
}

/**
 * When it is that is forecast, in ms; undefined where the model does not say how far ahead, or the window has no time.
 *
 * @param {Model} model
 * @param {import("../figures.js").Times | undefined} times
 * @param {string} [output]
 */
export function targetTime({ info, forecast }, times, output = forecast) {
  const { step } = stepOf(output);
  return times && info.ahead > 0 && step !== undefined ? timeAt(times, step) : undefined;
}

const weekday = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", weekday: "short", day: "numeric", month: "short" });

/**
 * A time as seen from another: tomorrow 16:00, or Thu 6 Jul, 16:00.
 *
 * @param {number} time in ms
 * @param {import("../figures.js").Times} times
 */
export function tellWhen(time, { newest, step }) {
  const days = Math.floor(time / DAY) - Math.floor(newest / DAY);
  if (step >= DAY) return days === 1 ? "tomorrow" : timeLabel(time, step, 0);
  const clock = new Date(time).toISOString().slice(11, 16);
  return days === 0 ? `today ${clock}` : days === 1 ? `tomorrow ${clock}` : `${weekday.format(time)}, ${clock}`;
}

/** The time of a window's newest row in words. @param {string | null | undefined} time */
export function tellNow(time) {
  if (!time) return undefined;
  const day = timeLabel(wallClock(time), DAY, 0);
  return time.length > 10 ? `${day}, ${time.slice(11, 16)}${time.endsWith("Z") ? " UTC" : ""}` : day;
}

/**
 * The interval of an output that is told: that of 80 %, or the narrowest from there on.
 *
 * @param {Predicted | undefined} predicted
 * @param {string} output
 */
export function bandOf(predicted, output) {
  const bands = predicted?.bands[output];
  return bands?.find(({ level }) => level >= 0.8) ?? bands?.[bands.length - 1];
}
