/** Tables of one's own: read from a file or a text, kept in the memory of this tab, and asked about in parts. */

import "./vendor/d3.min.js";
import { ApiError, askJson } from "./api.js";
import { wallClock } from "./references.js";
import { isPassing, waitForNext } from "./waiting.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {Schemas["ModelInfo"]} ModelInfo */
/** @typedef {string | number | boolean | null} Cell */

/**
 * @typedef {object} Table
 * @property {string} id its name and a hash of its text, by which the address names it
 * @property {string[]} names of the columns
 * @property {string[][]} rows below the header
 * @property {number[]} [lines] of the rows, where these are in another order than in the file: by series
 * @property {(field: string | undefined) => number} number a field as a number; NaN if it is none
 * @property {number[][][]} [windows] whose rows these are, one window after another, where they were given as windows
 */

/**
 * The columns of a table that a model reads, as a `series` has them.
 *
 * @typedef {object} Series
 * @property {Table} table
 * @property {ModelInfo} model
 * @property {Record<string, Cell[]>} columns
 * @property {Cell[] | undefined} times
 * @property {Cell[] | undefined} labels the series that each row is of; absent of a model of one series
 * @property {string | undefined} target the column of the actual values, if the table has it
 * @property {number[]} ends rows that are the newest of a window without a missing value
 * @property {string[]} problems cells that are no numbers, by their line in the file; the first of each column
 */

/**
 * A part of the windows of a series, as a body has it.
 *
 * @typedef {object} Part
 * @property {number[]} ends
 * @property {number} first row of it
 * @property {Record<string, Cell[]>} series
 */

const MISSING = /^(na|n\/a|nan|null|none)?$/i;
const PART = 256; // windows of a request to explain
const CELLS = 60_000; // of a request that compares with actual values, at most, and numbers of its answer
const TRIES = 6; // parts that may be refused before the rest is not asked for
const REFUSED = 422;
const HOUR = 3_600_000; // ms
const MAX_STEP = 1.5; // longest step that is no gap, in usual steps, of a model that was trained without times

/** @type {Map<string, Table>} */
const kept = new Map();
/** @type {WeakMap<Table, Map<string, Series>>} */
const known = new WeakMap();

/** A window or a table that the address names, but this tab does not have. */
export class LostError extends Error {}

/**
 * The text of a file, which may be packed by gzip.
 *
 * @param {File} file
 */
export async function readFile(file) {
  const [first, second] = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const isPacked = first === 0x1f && second === 0x8b;
  const stream = isPacked ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream();
  return new Response(stream).text();
}

/**
 * Reads a table, and keeps it under its id.
 *
 * @param {string} name of the file
 * @param {string} text
 */
export function keepTable(name, text) {
  return keep(name, text, splitTable(text));
}

/**
 * Keeps windows as a table of their rows.
 *
 * @param {string} name of the file
 * @param {string} text
 * @param {number[][][]} windows
 * @param {ModelInfo} model
 */
export function keepWindows(name, text, windows, { features }) {
  const rows = windows.flat().map((row) => row.map(String));
  return keep(name, text, { names: features.map((feature) => feature.name), rows, number: Number, windows });
}

/**
 * @param {string} name
 * @param {string} text
 * @param {Omit<Table, "id">} parsed
 * @returns {Table}
 */
function keep(name, text, parsed) {
  const table = { id: `${name.replace(/[^\w.-]+/g, "-")}@${hashOf(text)}`, ...parsed };
  kept.set(table.id, table);
  return table;
}

/**
 * Where a window of a table is that ends at a row: the number of the line, or of the window.
 *
 * @param {Table} table
 * @param {number} end
 * @param {ModelInfo} model
 */
export function numberOf({ windows, lines }, end, { lookback }) {
  return windows ? (end + 1) / lookback : (lines?.[end] ?? end + 2); // the header is line 1
}

/**
 * The table of an id; raises an error if this tab does not have it.
 *
 * @param {string} id
 */
export function findTable(id) {
  const found = kept.get(id);
  if (found) return found;
  throw new LostError(`${nameOf(id)} is no longer in the memory of this tab: choose the file again, under Forecast or Over time, and all is shown as it was`);
}

/**
 * The name of the file of an id.
 *
 * @param {string} id
 */
export function nameOf(id) {
  return id.replace(/@\w+$/, "");
}

/**
 * A hash of a text (FNV-1a, 32 bits), which tells one file from another where an accident would mistake them.
 *
 * @param {string} text
 */
export function hashOf(text) {
  let hash = 0x811c9dc5;
  for (let place = 0; place < text.length; place += 1) hash = Math.imul(hash ^ text.charCodeAt(place), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
}

/**
 * A table with the separator that is most frequent in its header; with semicolons, numbers may have a decimal comma.
 *
 * @param {string} text
 */
export function splitTable(text) {
  const trimmed = text.replace(/^\uFEFF/, "").trim();
  if (!trimmed) throw new Error("there is nothing to read");
  const head = trimmed.split("\n", 1)[0];
  const mark = d3.sort([",", ";", "\t"], (one) => -head.split(one).length)[0];
  const [header, ...rows] = d3.dsvFormat(mark).parseRows(trimmed); // `parse` creates a function, which the policy forbids
  const number = (/** @type {string | undefined} */ field) => {
    const value = mark === ";" ? field?.trim().replace(",", ".") : field?.trim();
    return value ? Number(value) : NaN;
  };
  return { names: header.map((name) => name.trim()), rows, number };
}

/**
 * The columns of a table that a model is trained on: those of its `table`, or its features.
 *
 * @param {ModelInfo} model
 */
export function columnsOf({ table, features }) {
  return table?.columns ?? features.map(({ name }) => ({ name, levels: [], later: 0, features: [name] }));
}

/**
 * Whether the columns of a table are the features as they are.
 *
 * @param {ModelInfo} model
 */
export function isRaw(model) {
  return columnsOf(model).every((column, place) => column.name === model.features[place]?.name);
}

/**
 * A table as a series for a model; raises an error that names the columns that it lacks.
 *
 * @param {Table} table
 * @param {ModelInfo} model
 * @param {string} target the name of a target
 * @returns {Series}
 */
export function readSeries(table, model, target) {
  const found = known.get(table) ?? new Map();
  known.set(table, found);
  const key = `${model.checkpoint} ${target}`;
  if (!found.has(key)) found.set(key, makeSeries(table, model, target));
  return /** @type {Series} */ (found.get(key));
}

/**
 * @param {Table} table
 * @param {ModelInfo} model
 * @param {string} target
 * @returns {Series}
 */
function makeSeries(table, model, target) {
  const wanted = columnsOf(model);
  const { names } = table;
  const label = table.windows ? undefined : model.table?.series?.column;
  const missing = [...(label ? [{ name: label }] : []), ...wanted].filter(({ name }) => !names.includes(name));
  if (missing.length) {
    const some = missing.slice(0, 4).map(({ name }) => name);
    const more = missing.length > 4 ? ` and ${missing.length - 4} more columns` : "";
    throw new Error(`${nameOf(table.id)} has no column ${some.join(", ")}${more}; it has ${names.slice(0, 12).join(", ")}`);
  }
  const sorted = label ? sortBySeries(table, names.indexOf(label)) : table;
  const { rows } = sorted;
  const problems = /** @type {string[]} */ ([]);
  const column = (/** @type {string} */ name, /** @type {boolean} */ isText) => {
    const place = names.indexOf(name);
    let isSaid = false;
    return rows.map((row, number) => {
      const field = row[place]?.trim() ?? "";
      if (MISSING.test(field)) return null;
      if (isText) return field;
      if (/^(true|false)$/i.test(field)) return field.toLowerCase() === "true";
      const value = table.number(field);
      if (Number.isFinite(value)) return value;
      if (!isSaid) problems.push(`line ${numberOf(sorted, number, model)}, ${name}, is “${field}”`);
      isSaid = true;
      return null;
    });
  };
  const columns = /** @type {Record<string, Cell[]>} */ ({});
  for (const { name, levels } of wanted) columns[name] = column(name, levels.length > 0);
  const actual = [target, target.replace(/@0\.\d+$/, "")].find((name) => !table.windows && names.includes(name));
  if (actual && !columns[actual]) columns[actual] = column(actual, false);
  const time = [model.time?.name, "time"].find((name) => name && names.includes(name) && !columns[name]);
  const times = time && !table.windows ? rows.map((row) => row[names.indexOf(time)]?.trim() ?? "") : undefined;
  if (time && times) columns[time] = times;
  const labels = label ? rows.map((row) => row[names.indexOf(label)]?.trim() ?? "") : undefined;
  if (label && labels) columns[label] = labels;
  const ends = table.windows ? d3.range(model.lookback - 1, rows.length, model.lookback) : findEnds(columns, times, labels, model);
  return { table: sorted, model, columns, times, labels, target: actual, ends, problems };
}

/**
 * A table with the rows of each series together, in the order in which the series begin.
 *
 * @param {Table} table
 * @param {number} place of the column of series
 * @returns {Table}
 */
function sortBySeries(table, place) {
  const numbers = [...d3.group(d3.range(table.rows.length), (row) => table.rows[row][place]?.trim()).values()].flat();
  return { ...table, rows: numbers.map((row) => table.rows[row]), lines: numbers.map((row) => row + 2) };
}

/**
 * The rows that are the newest of a window without a missing value, apart from those that are filled, and without a gap
 * in time that is longer than the hour that a clock may be put forward.
 *
 * @param {Record<string, Cell[]>} columns
 * @param {Cell[] | undefined} times
 * @param {Cell[] | undefined} labels the series of each row
 * @param {ModelInfo} model
 */
function findEnds(columns, times, labels, model) {
  const wanted = columnsOf(model);
  const later = Math.max(...wanted.map((one) => one.later));
  const n = columns[wanted[0].name].length;
  const { lookback, time } = model;
  const gaps = d3.pairs(times ?? [], (before, after) => wallClock(String(after)) - wallClock(String(before)));
  const usual = time ? 1000 * time.step * time.max_step : MAX_STEP * (d3.median(gaps) ?? NaN);
  const longest = usual + (model.table?.zone ? HOUR : 0);
  const starts = d3.range(1, n).filter((row) => gaps[row - 1] > longest || labels?.[row] !== labels?.[row - 1]); // of runs
  const bad = wanted.map(({ name }) => lastMissing(columns[name], model.table, starts));
  const start = (/** @type {number} */ row) => starts[d3.bisectRight(starts, row) - 1] ?? 0;
  return d3
    .range(lookback - 1, n - later)
    .filter((end) => start(end + later) <= end - lookback + 1)
    .filter((end) => wanted.every((one, place) => bad[place][end + one.later] <= end + one.later - lookback));
}

/**
 * For each row the last one up to it, its own among them, whose cell is missing and not filled; −1 if there is none.
 *
 * @param {Cell[]} cells
 * @param {ModelInfo["table"]} table
 * @param {number[]} starts of runs of rows, from one to another of which nothing is filled
 */
function lastMissing(cells, table, starts) {
  const found = new Int32Array(cells.length).fill(-1);
  const isStart = new Set([0, ...starts]);
  let last = -1;
  for (let row = 0; row < cells.length; row += 1) {
    if (cells[row] === null) {
      let end = row + 1;
      while (end < cells.length && cells[end] === null && !isStart.has(end)) end += 1;
      const isFilled =
        table?.fill &&
        (table.max_fill === null || end - row <= table.max_fill) &&
        (!isStart.has(row) || Number.isFinite(Number(table.fill)));
      for (; row < end; row += 1) found[row] = isFilled ? last : (last = row);
      row -= 1;
    } else found[row] = last;
  }
  return found;
}

/**
 * The windows of a series in parts: rows that follow each other, and what stands before and after them for a missing
 * value to be filled.
 *
 * @param {Series} series
 * @param {number[]} ends
 * @param {number} [most] windows of a part
 * @returns {Part[]}
 */
export function partsOf(series, ends, most = PART) {
  const { model } = series;
  const wanted = columnsOf(model);
  const later = Math.max(...wanted.map((one) => one.later));
  const isWhole = (/** @type {number} */ row) => wanted.every((one) => (series.columns[one.name][row + one.later] ?? null) !== null);
  const isNext = (/** @type {number} */ row, /** @type {number} */ other) =>
    other === row + 1 && series.labels?.[other] === series.labels?.[row];
  const parts = /** @type {Part[]} */ ([]);
  for (let place = 0; place < ends.length; ) {
    const start = place;
    do place += 1;
    while (place < ends.length && isNext(ends[place - 1], ends[place]) && (place - start < most || !isWhole(ends[place - 1])));
    let first = ends[start] - model.lookback + 1;
    while (first > 0 && isNext(first - 1, first) && !isWhole(first)) first -= 1;
    const rows = cut(series.columns, first, ends[place - 1] + later + 1);
    parts.push({ ends: ends.slice(start, place), first: Math.max(0, first), series: rows });
  }
  return parts;
}

/**
 * Windows that do not overlap, in parts.
 *
 * @param {number[]} ends
 * @param {number} [most] windows of a part
 * @returns {Part[]}
 */
function chunksOf(ends, most = PART) {
  return d3.range(0, ends.length, most).map((start) => ({ ends: ends.slice(start, start + most), first: 0, series: {} }));
}

/**
 * @param {Record<string, Cell[]>} columns
 * @param {number} first
 * @param {number} end
 */
function cut(columns, first, end) {
  return Object.fromEntries(Object.entries(columns).map(([name, cells]) => [name, cells.slice(Math.max(0, first), end)]));
}

/**
 * A series without the column of the actual values, which only :backtest takes, unless it is read as well.
 *
 * @param {Record<string, Cell[]>} series
 * @param {Series} of
 * @param {ModelInfo} model
 */
function withoutActual(series, { target }, model) {
  if (!target || columnsOf(model).some(({ name }) => name === target)) return series;
  const { [target]: _, ...rest } = series;
  return rest;
}

/**
 * One window of a table, as the service cuts and encodes it.
 *
 * @param {string} source `row:`, the number of its newest row and the id of the table
 * @param {Page} page
 * @param {AbortSignal} [signal]
 * @returns {Promise<{window: number[][], place: string, time?: string, actual?: number[]}>} the actual values by output
 */
export async function askWindow(source, page, signal) {
  const [, end, id] = source.split(/^row:(\d+):/);
  const table = findTable(id);
  const series = readSeries(table, page.model, page.model.targets[0].name);
  const label = series.labels ? ` (${series.labels[Number(end)]})` : "";
  const place = `${table.windows ? "window" : "line"} ${numberOf(series.table, Number(end), page.model)} of ${nameOf(id)}${label}`;
  if (!series.ends.includes(Number(end))) throw new Error(`${place} ends no whole window`);
  const [part] = partsOf(series, [Number(end)]);
  const body = { series: withoutActual(part.series, series, page.model), last: 1, echo: true };
  const { instances = [], times } = /** @type {Schemas["PredictResponse"]} */ (
    await askJson({ path: `${page.path}:predict`, query: page.version, body }, signal)
  );
  const { ahead, horizon, targets } = page.model;
  const newest = Number(end) + ahead;
  const isOne = series.labels?.[newest + horizon - 1] === series.labels?.[Number(end)];
  const cells = series.target && targets.length === 1 && isOne ? series.columns[series.target].slice(newest, newest + horizon) : [];
  const actual = cells.length === horizon && cells.every((cell) => typeof cell === "number") ? cells.map(Number) : undefined;
  return { window: instances[0], place, time: times?.[0], actual };
}

/**
 * What comes with each window of a series.
 *
 * @typedef {object} Compared
 * @property {number} end its newest row
 * @property {string | undefined} targetTime
 * @property {number} forecast
 * @property {number | null} actual
 * @property {Schemas["RowInterval"][]} intervals
 */

/**
 * Forecasts beside the actual values of a series, part by part; the last windows, whose actual values are not in the
 * table, are left out.
 *
 * @param {Series} series
 * @param {Page} page
 * @param {string} target
 * @param {string} output
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Compared[]>}
 */
export async function* compareSeries(series, page, target, output, signal) {
  const { model } = page;
  const names = Object.keys(series.columns);
  const n = series.columns[names[0]].length;
  const step = Math.max(model.lookback, Math.floor(CELLS / Math.max(names.length, model.outputs.length)));
  const after = Math.max(...columnsOf(model).map((one) => one.later), model.ahead + model.horizon - 1);
  const before = model.lookback - 1 + (model.table?.max_fill ?? 0);
  for (let row = 0; row < n; row += step) {
    const first = Math.max(0, row - before);
    const rows = cut(series.columns, first, row + step + after);
    const ends = series.ends.filter((end) => end - model.lookback + 1 >= first && end < row + step + after);
    const inPart = ends.filter((end) => end >= row && end < row + step);
    if (!inPart.length) continue;
    const body = { series: rows, target, detail: "rows" };
    const answer = /** @type {Schemas["BacktestResponse"] | undefined} */ (
      await askPart({ path: `${page.path}:backtest`, query: page.version, body }, signal).catch((error) => {
        if (error instanceof ApiError && error.status === REFUSED && /has no (window|value)|needs/.test(error.message)) return undefined;
        throw error;
      })
    );
    const found = (answer?.rows ?? []).filter((one) => one.output === output);
    const at = match(found, ends, series);
    yield found.flatMap((one, place) =>
      at[place] >= row && at[place] < row + step
        ? [{ end: at[place], targetTime: one.target_time, forecast: one.prediction, actual: one.actual, intervals: one.intervals ?? [] }]
        : [],
    );
  }
}

/**
 * Explanations of windows of a series, part by part. A part that the service refuses is halved until it is known which
 * windows are at fault.
 *
 * @param {Series} series
 * @param {Page} page
 * @param {number[]} ends
 * @param {(reason: string) => void} refuse called with why windows have no explanation
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<{ends: number[], explained: {end: number, explanation: Schemas["Explanation"]}[]}>}
 */
export async function* explainSeries(series, page, ends, refuse, signal) {
  let nRefused = 0;
  const { windows } = series.table;
  const waiting = windows ? chunksOf(ends) : partsOf(series, ends);
  for (let part = waiting.shift(); part; part = waiting.shift()) {
    const given = windows
      ? { instances: part.ends.map((end) => windows[numberOf(series.table, end, page.model) - 1]) }
      : { series: withoutActual(part.series, series, page.model), last: part.ends.length, gaps: "skip" };
    const body = { ...given, output: [page.output], groups: null };
    try {
      const { explanations, times, series: labels } = /** @type {Schemas["ExplainResponse"]} */ (
        await askPart({ path: `${page.path}:explain`, query: page.version, body }, signal)
      );
      const answered = explanations.map((_, place) => ({ time: times?.[place], series: labels?.[place] }));
      const at = match(answered, part.ends, series);
      yield { ends: part.ends, explained: explanations.map((explanation, place) => ({ end: at[place], explanation })) };
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== REFUSED) throw error;
      const half = Math.ceil(part.ends.length / 2);
      const halves = windows ? chunksOf(part.ends, half) : partsOf(series, part.ends, half);
      if (/without a gap/.test(error.message)) yield { ends: part.ends, explained: [] };
      else if (halves.length > 1 && nRefused < TRIES) waiting.unshift(...halves);
      else {
        nRefused += 1;
        refuse(nameLine(error.message, part, series));
        if (nRefused >= TRIES) return;
        yield { ends: part.ends, explained: [] };
      }
    }
  }
}

/**
 * Sends a part again for as long as the service is not ready.
 *
 * @param {import("./api.js").Ask} ask
 * @param {AbortSignal} signal
 * @returns {Promise<any>}
 */
async function askPart(ask, signal) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await askJson(ask, signal);
    } catch (error) {
      if (signal.aborted || !isPassing(error)) throw error;
      await waitForNext(error, tries, signal);
    }
  }
}

/**
 * The rows of windows whose times and series an answer has, in order; some may be left out of it. NaN for one that is
 * not among them.
 *
 * @param {{time?: string, series?: string}[]} answered
 * @param {number[]} ends
 * @param {Series} series
 */
function match(answered, ends, { times, labels }) {
  let place = -1;
  return answered.map(({ time, series }) => {
    for (let next = place + 1; next < ends.length; next += 1) {
      const end = ends[next];
      if ((!times || String(times[end]) === time) && (!labels || labels[end] === series)) {
        place = next;
        return end;
      }
    }
    return NaN;
  });
}

/**
 * An error of the service with the line of the file in the place of the row of the request.
 *
 * @param {string} message
 * @param {Part} part
 * @param {Series} series
 */
function nameLine(message, { first }, { table, model }) {
  return message.replace(/series\.([^[\]]+)\[(\d+)\]/, (_, name, row) => `line ${numberOf(table, first + Number(row), model)}, ${name},`);
}
