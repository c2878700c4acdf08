/** Moments: the windows of the reference, or of a file, with forecast, what came, error and contributions. */

import { askNoted, useLoad } from "../load.js";
import { ApiError, askJson } from "../api.js";
import { byInput } from "../explain.js";
import { findTable, isKept, nameOf } from "../files.js";
import { useMemo } from "../lib.js";
import { address } from "../state.js";
import { fileOf } from "../windows.js";
import { askInstances, cutTable, forecastAll } from "./cut.js";

/** @typedef {import("../model.js").Model} Model */

/**
 * One window, for one output; of a bound or a width for the forecast that it is of.
 *
 * @typedef {object} Moment
 * @property {number} place among all
 * @property {string} window in the address
 * @property {string} label its time, or what it is where that is unknown
 * @property {number} at of its newest row as its clock shows it, ms; its place where times are unknown
 * @property {string} [series]
 * @property {number} forecast
 * @property {number | undefined} actual
 * @property {number | undefined} error above 0 if the forecast was too high
 * @property {{level: number, lower: number, upper: number}[]} intervals
 * @property {Map<string, number>} [contributions] by input
 * @property {number[]} [newest] values of the features, where it is explained
 */

/** @typedef {{all: Moment[], isTimed: boolean, told: string}} Moments with where they are from */

const PAGE = 1000; // most reference windows of a response
const MOST = 768; // windows of a file that are explained for one picture
const GOLDEN = 0.618034; // of which multiples are spread over 0 to 1: no hour of the day is preferred, as even steps would
const ASKED = 64; // windows of a request to explain

/** A time as its own clock shows it, in ms, whatever its offset: ISO 8601, or with dots as 31.12.2023 23:00. */
export function wallClock(time) {
  const [, day, month, year, clock] = /^(\d\d?)\.(\d\d?)\.(\d{4})\s*(.*)$/.exec(time) ?? [];
  if (day) return wallClock(`${year}-${month.padStart(2, "0")}-${day.padStart(2, "0")}${clock && `T${clock}`}`);
  const bare = time.replace(/(Z|[+-]\d\d:?\d\d)$/, "").replace(" ", "T");
  return /^\d{4}-\d\d-\d\d/.test(bare) ? Date.parse(`${bare.length === 10 ? `${bare}T00:00` : bare}Z`) : NaN;
}

/** The file in view: that of the address, or of the window. */
export const fileInView = () => address.value.values.file ?? fileOf(address.value.values.window ?? "");

/**
 * The moments of what is in view, without contributions.
 *
 * @param {Model | undefined} given nothing is loaded without
 * @returns {import("../load.js").Loaded<Moments>}
 */
export function useMoments(given) {
  const file = fileInView();
  const model = /** @type {Model} */ (given);
  const key = given && `moments ${model.chosen} ${model.info.checkpoint} ${model.forecast} ${file ?? ""} ${isKept(file)}`;
  return useLoad(key, (signal) => (file ? loadFile(model, file, signal) : loadReference(model, signal)));
}

async function loadReference(model, signal) {
  const query = { ...model.version, output: model.forecast, intervals: model.info.intervals ? true : undefined };
  const rows = await askReference(model, query, signal);
  const output = model.info.outputs.indexOf(model.forecast);
  const made = rows.map((row) => {
    const label = row.time === null ? `window ${row.index}` : tellTime(row.time);
    return momentOf({ ...row, window: `ref:${row.index}`, label, forecast: row.prediction[output], actual: row.target?.[output] });
  });
  return order(made, "reference windows");
}

async function askReference(model, query, signal) {
  const ask = (offset) => askNoted({ path: `${model.path}/reference`, query: { ...query, offset, limit: PAGE } }, signal);
  const parts = d3.range(0, model.info.reference_windows, PAGE).map(ask);
  return (await Promise.all(parts)).flatMap(({ windows }) => windows);
}

async function loadFile(model, file, signal) {
  const table = findTable(file);
  const { places, told } = await cutTable(table, model, signal);
  const forecasts = await forecastAll(model, table, signal);
  const output = model.info.outputs.indexOf(model.forecast);
  const made = places.map(({ name, label, time, series, actual }, number) => {
    const { predictions, intervals } = forecasts[number];
    const bounds = intervals.map(({ level, outputs, lower, upper }) => {
      const { forecast } = model;
      const place = outputs.findIndex((one) => one === forecast || forecast.startsWith(`${one}@`) || one === forecast.replace(/@0\.\d+$/, ""));
      return { level, lower: lower[place], upper: upper[place] };
    });
    const known = bounds.filter(({ lower }) => lower !== undefined);
    const told = { window: name, label: time ? tellTime(time) : label, time, series, intervals: known };
    return momentOf({ ...told, forecast: predictions[output], actual: actual?.[output] });
  });
  return order(made, `${nameOf(file)}: ${told}`);
}

/** Of a time what is read: 2024-01-07 19:00. */
export function tellTime(time) {
  const at = wallClock(time);
  if (!Number.isFinite(at)) return time;
  const [day, clock] = new Date(at).toISOString().split("T");
  return time.includes(":") ? `${day} ${clock.slice(0, 8).replace(/:00$/, "")}` : day;
}

function momentOf({ window, label, time, series, forecast, actual, intervals = [] }) {
  const error = actual === null || actual === undefined ? undefined : forecast - actual;
  return { window, label, at: time ? wallClock(time) : NaN, series, forecast, actual: actual ?? undefined, error, intervals };
}

/** By series and then by time; where a time is unknown, by place. */
function order(made, told) {
  const isTimed = made.every(({ at }) => Number.isFinite(at));
  const sorted = isTimed ? d3.sort(made, (one, other) => d3.ascending(one.series, other.series) || one.at - other.at) : made;
  return { all: sorted.map((one, place) => ({ ...one, place, at: isTimed ? one.at : place })), isTimed, told };
}

/** Contributions of moments to the output of the model, by window and input: of reference windows of all, of a file of some. */
export function useContributions(model, shown) {
  const file = fileInView();
  const some = useMemo(() => {
    const every = Math.ceil(shown.length / MOST);
    if (!file || every <= 1) return shown;
    return d3.range(0, shown.length, every).map((from, number) => shown[Math.min(shown.length - 1, from + Math.floor(((number * GOLDEN) % 1) * every))]);
  }, [shown, file]);
  const key = `contributions ${model.chosen} ${model.info.checkpoint} ${model.output} ${file ?? ""} ${file ? some.map(({ place }) => place).join() : ""}`;
  return useLoad(shown.length ? key : undefined, (signal) => (file ? explainFile(model, file, some, signal) : explainReference(model, signal)));
}

async function explainReference(model, signal) {
  const rows = await askReference(model, { ...model.query, contributions: true }, signal);
  return new Map(rows.map(({ index, contributions, newest }) => {
    const named = Object.fromEntries(model.info.features.map(({ name }, number) => [name, contributions[number]]));
    return [`ref:${index}`, { newest, contributions: byInput(model, named) }];
  }));
}

async function explainFile(model, file, some, signal) {
  const table = findTable(file);
  const { places } = await cutTable(table, model, signal);
  const byName = new Map(places.map((place) => [place.name, place]));
  const found = new Map();
  for (const from of d3.range(0, some.length, ASKED)) {
    const part = some.slice(from, from + ASKED);
    const instances = await askInstances(model, table, part.map(({ window }) => /** @type {any} */ (byName.get(window))), signal);
    const body = { instances, output: [model.output], groups: null };
    const { explanations } = await askJson({ path: `${model.path}:explain`, query: model.version, body }, signal);
    part.forEach(({ window }, number) => {
      found.set(window, { newest: instances[number].at(-1), contributions: byInput(model, explanations[number].contributions) });
    });
  }
  return found;
}

/** Whether an error says that the service hides its reference windows. */
export const isHidden = (error) => error instanceof ApiError && error.status === 403;
