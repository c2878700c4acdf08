/** A file in the form that a model reads, made of its reference windows, from which one's own can be made. */

import "./vendor/d3.min.js";
import { save, writeCsv } from "./actions.js";
import { askJson } from "./api.js";
import { explainMoments, wallClock } from "./references.js";
import { columnsOf } from "./tables.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */

const DIGITS = 6;
const minute = d3.utcFormat("%Y-%m-%d %H:%M");

/**
 * Saves the longest run of reference windows that follow each other as the rows of one table.
 *
 * @param {Page} page
 * @param {AbortSignal} signal
 */
export async function saveSample(page, signal) {
  const { model, path, version } = page;
  const moments = await explainMoments(page, signal);
  const times = moments.map(({ time }) => (time === null ? NaN : wallClock(time)));
  const gaps = d3.pairs(times, (before, after) => after - before);
  const label = model.table?.series?.column; // of many series one window is enough
  const step = (label ? model.time && 1000 * model.time.step : d3.min(gaps)) ?? NaN;
  const isRun = model.lookback > 1 || label;
  const { first, count } = isRun ? longestRun(label ? [] : gaps, step) : { first: 0, count: moments.length };
  const query = { ...page.query, contributions: true, offset: first, limit: count };
  const [{ windows }, { instance }] = await Promise.all([
    /** @type {Promise<Schemas["ReferenceList"]>} */ (askJson({ path: `${path}/reference`, query }, signal)),
    /** @type {Promise<Schemas["ReferenceWindow"]>} */ (
      askJson({ path: `${path}/reference/${first}`, query: version }, signal)
    ),
  ]);
  const values = [...instance, ...windows.slice(1).map(({ newest = [] }) => newest)];
  const columns = columnsOf(model);
  const later = Math.max(...columns.map((one) => one.later));
  const names = model.features.map(({ name }) => name);
  const cell = (/** @type {typeof columns[number]} */ { levels, features, later: by }, /** @type {number} */ row) => {
    const found = values[row - by];
    if (!found) return "";
    const of = (/** @type {string} */ feature) => found[names.indexOf(feature)];
    if (!levels.length) return String(Number(of(features[0]).toPrecision(DIGITS)));
    return d3.greatest(levels, (level) => of(features.find((feature) => feature.endsWith(`=${level}`)) ?? ""));
  };
  const target = model.targets[0].name;
  const actual = new Map(windows.map((one, place) => [place + model.lookback - 1 + model.ahead, one.target?.[0]]));
  const start = times[first] - (model.lookback - 1) * step;
  const rows = d3.range(values.length + later).map((row) => ({
    ...(Number.isFinite(start) ? { [model.time?.name ?? "time"]: minute(new Date(start + row * step)) } : {}),
    ...(label ? { [label]: windows[0].series ?? "" } : {}),
    ...(columns.some(({ name }) => name === target) ? {} : { [target]: actual.get(row) }),
    ...Object.fromEntries(columns.map((column) => [column.name, cell(column, row)])),
  }));
  save(`${model.name}-sample.csv`, "text/csv", writeCsv(rows));
}

/**
 * The longest run of windows that are one step apart.
 *
 * @param {number[]} gaps between windows
 * @param {number} step
 */
function longestRun(gaps, step) {
  let best = { first: 0, count: 1 };
  let first = 0;
  gaps.forEach((gap, place) => {
    if (gap !== step) first = place + 1;
    else if (place + 2 - first > best.count) best = { first, count: place + 2 - first };
  });
  return best;
}
