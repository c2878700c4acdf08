/** The reference windows of a model, with times, forecasts and actual values. */

import "./vendor/d3.min.js";
import { askJson } from "./api.js";
import { freshLink } from "./dom.js";
import { forecastOf } from "./intervals.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */

/**
 * One reference window, for one output; of a bound or a width for the forecast that it is of.
 *
 * @typedef {object} Moment
 * @property {number} index
 * @property {string | null} time
 * @property {number} forecast
 * @property {number | undefined} came
 * @property {number | undefined} error of the forecast: above 0 if it was too high
 * @property {import("./intervals.js").Interval[]} intervals of the forecast, by level
 * @property {string} [targetTime] the time that is forecast
 * @property {Record<string, number>} [contributions] to the output or its bound, by feature
 * @property {string} [source] of its window in an address; by default that of a reference window
 */

const PAGE = 1000; // most windows of a response
const MOST = 10 * PAGE; // most windows that are loaded

/** @type {WeakMap<Page, Promise<Moment[]>>} */
const known = new WeakMap();

/**
 * The reference windows in time order, loaded once.
 *
 * @param {Page} page
 * @returns {Promise<Moment[]>}
 */
export function loadMoments(page) {
  const loading = known.get(page) ?? askMoments(page);
  known.set(page, loading);
  loading.catch(() => known.delete(page)); // so that loading is retried
  return loading;
}

/** @param {Page} page */
async function askMoments({ path, version, output, model }) {
  const forecastOutput = forecastOf(model, output).output;
  const place = model.outputs.indexOf(forecastOutput);
  const query = { ...version, ...(model.intervals ? { output: forecastOutput, intervals: true } : {}) };
  const rows = await askPages(path, query, model);
  return rows.map(({ index, time, target, prediction, intervals = [] }) => {
    const [forecast, came] = [prediction[place], target?.[place]];
    return { index, time, forecast, came, error: came === undefined ? undefined : forecast - came, intervals };
  });
}

/**
 * The reference windows, page by page.
 *
 * @param {string} path
 * @param {import("./api.js").Ask["query"]} query
 * @param {Page["model"]} model
 * @param {AbortSignal} [signal]
 */
async function askPages(path, query, model, signal) {
  const answers = await Promise.all(
    d3.range(0, Math.min(model.reference_windows, MOST), PAGE).map(
      (offset) =>
        /** @type {Promise<Schemas["ReferenceList"]>} */ (
          askJson({ path: `${path}/reference`, query: { ...query, offset, limit: PAGE } }, signal)
        ),
    ),
  );
  return answers.flatMap(({ windows }) => windows);
}

/**
 * The reference windows with their contributions.
 *
 * @param {Page} page
 * @param {AbortSignal} signal
 * @returns {Promise<Moment[]>}
 */
export async function explainMoments(page, signal) {
  const moments = await loadMoments(page);
  if (moments[0] && !moments[0].contributions) {
    const rows = await askPages(page.path, { ...page.query, contributions: true }, page.model, signal);
    const names = page.model.features.map(({ name }) => name);
    rows.forEach(({ contributions = [] }, place) => {
      moments[place].contributions = Object.fromEntries(names.map((name, number) => [name, contributions[number]]));
    });
  }
  return moments;
}

/** @type {WeakMap<Page, Promise<number | undefined>>} */
const steps = new WeakMap();

/**
 * When the steps of a window are whose newest row has a time: from the usual step of the training or, of a model without
 * it, from two reference windows that overlap. Undefined where neither is known.
 *
 * @param {Page} page
 * @param {string | null | undefined} time of its newest row
 * @returns {Promise<import("./figures.js").Times | undefined>}
 */
export async function loadTimes(page, time) {
  if (!time) return undefined;
  const loading = steps.get(page) ?? askStep(page).catch(() => undefined);
  steps.set(page, loading);
  const step = await loading;
  return step === undefined ? undefined : { newest: wallClock(time), step };
}

/**
 * A time as its own clock shows it, in ms, whatever its offset; ISO 8601, or with dots as 31.12.2023 23:00.
 *
 * @param {string} time
 */
export function wallClock(time) {
  const [, day, month, year, clock] = /^(\d\d?)\.(\d\d?)\.(\d{4})\s*(.*)$/.exec(time) ?? [];
  if (day) return wallClock(`${year}-${month.padStart(2, "0")}-${day.padStart(2, "0")}${clock && `T${clock}`}`);
  return Date.parse(`${time.replace(/(Z|[+-]\d\d:?\d\d)$/, "")}Z`.replace(/^(.{10})Z$/, "$1T00:00Z"));
}

/** @param {Page} page */
async function askStep({ path, version, model }) {
  if (model.time) return model.time.dated ? 1000 * model.time.step : undefined;
  const [first, second] = await Promise.all(
    [0, 1].map(
      (index) =>
        /** @type {Promise<Schemas["ReferenceWindow"]>} */ (
          askJson({ path: `${path}/reference/${index}`, query: version })
        ),
    ),
  );
  if (!first.time || !second.time) return undefined;
  const texts = [first, second].map(({ instance }) => instance.map((row) => JSON.stringify(row)));
  const by = d3.range(1, model.lookback).find((rows) => texts[0].slice(rows).every((row, step) => row === texts[1][step]));
  const between = wallClock(second.time) - wallClock(first.time);
  return by && between > 0 ? between / by : undefined;
}

/**
 * The first reference window of a day or after it; the last if there is none.
 *
 * @param {string} day such as 2013-03-01
 * @param {Page} page
 */
export async function findDay(day, page) {
  const moments = await loadMoments(page);
  const found = moments.find(({ time }) => time !== null && wallClock(time) >= Date.parse(day));
  return found ? found.index : moments[0]?.time ? moments.length - 1 : 0;
}

/**
 * A link to the explanation of a window, with all other choices at the time it is followed.
 *
 * @param {Page} page
 * @param {{index: number, source?: string}} moment
 * @param {string} label
 */
export function windowLink(page, moment, label) {
  return freshLink(() => page.link("forecast", { window: sourceOf(moment), from: "" }), label);
}

/**
 * The address of a moment's window.
 *
 * @param {{index: number, source?: string}} moment
 */
export function sourceOf({ index, source = `ref:${index}` }) {
  return source;
}

/**
 * The label of a reference window: its time, or its index if that is unknown.
 *
 * @param {{index: number, time: string | null}} moment
 */
export function nameMoment({ index, time }) {
  return time === null ? `window ${index}` : time.replace("T", " ").replace(/Z$/, "");
}
