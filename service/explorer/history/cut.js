/** Windows of files: the service cuts them from the columns that a model reads, in parts; it alone knows gaps, fills and calendars. */

import { ApiError, askJson } from "../api.js";
import { nameOf } from "../files.js";
import { capitalise } from "../names.js";
import { counted } from "./spans.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../files.js").Table} Table */
/** @typedef {string | number | boolean | null} Cell */

/**
 * A window of a file: its name in the address, its row among those of the file by series, and what came by output.
 *
 * @typedef {{name: string, row: number, label: string, time?: string, series?: string, actual?: (number | null)[]}} Place
 */

const MISSING = /^(na|n\/a|nan|null|none|nat|-|)$/i;
const BODY = 7_000_000; // bytes of a request
const PART = 3000; // windows of a request, fewer of large ones
const VALUES = 3_000_000; // of the windows of a request, where the service takes 4 million by default
/** @type {Map<string, Promise<Cut>>} by table, model and checkpoint */
const cuts = new Map();

/** @typedef {{cells: Record<string, Cell[]>, order: number[]}} Columns that a model reads, by series, and of which row of the table */

function columnsOf(table, { info }) {
  const { names, rows } = table;
  const label = info.table?.series?.column;
  const isWide = Boolean(label && !names.includes(label));
  const columns = info.table?.columns ?? info.features.map(({ name }) => ({ name, levels: /** @type {string[]} */ ([]) }));
  const read = new Map(columns.map(({ name, levels }) => /** @type {const} */ ([name, levels.length > 0])));
  const targets = info.targets.flatMap(({ name }) => [name, name.replace(/@0\.\d+$/, "")]);
  const time = [info.time?.name ?? "time", "time"].find((name) => names.includes(name) && !read.has(name));
  const wide = isWide ? (info.table?.series?.columns ?? []) : [];
  const wanted = [...read.keys()].filter((name) => !wide.length || !targets.includes(name));
  const lacking = [...(isWide && !wide.length ? [String(label)] : []), ...wanted].filter((name) => !names.includes(name));
  if (lacking.length) throw new Error(`${nameOf(table.id)} has no column ${list(lacking)}; it has ${list(names)}.`);
  const order = d3.range(rows.length);
  if (label && !isWide) order.sort((one, other) => String(at(table, one, label)).localeCompare(String(at(table, other, label))) || one - other);
  const cells = /** @type {Record<string, Cell[]>} */ ({});
  for (const name of [...wanted, ...targets, ...wide].filter((one) => names.includes(one))) {
    cells[name] = read.get(name) ? textsOf(table, name, order) : numbersOf(table, name, order);
  }
  for (const name of [time, isWide ? undefined : label]) if (name) cells[name] = textsOf(table, name, order).map((text) => text ?? "");
  return { cells, order };
}

const at = ({ names, rows }, row, name) => rows[row][names.indexOf(name)];
const list = (names, most = 12) => names.slice(0, most).join(", ") + (names.length > most ? ` and ${names.length - most} more` : "");

function textsOf(table, name, order) {
  return order.map((row) => {
    const text = at(table, row, name);
    return text === null || text === undefined || MISSING.test(String(text).trim()) ? null : String(text).trim();
  });
}

/** Numbers, which may have a decimal comma, thousands set apart, or be true and false. */
function numbersOf(table, name, order) {
  const texts = textsOf(table, name, order);
  return texts.map((text, place) => {
    if (text === null) return null;
    if (/^(true|false)$/i.test(text)) return text.toLowerCase() === "true";
    const value = Number(
      table.isComma
        ? text.replace(/\.(?=\d{3}(\D|$))/g, "").replace(",", ".")
        : text.replace(/^([-+]?\d{1,3})(,\d{3})+(?=\.|$)/, (all) => all.replaceAll(",", "")),
    );
    if (Number.isFinite(value)) return value;
    throw new Error(`${capitalise(table.unit)} ${table.lines[order[place]]}, ${name}, is “${text}”, which is no number.`);
  });
}

/**
 * The windows of a table in order, how many there are and why there are not more, and the parts of the rows with margins: `keys` are the
 * windows of a part as other operations cut them, none where a value is missing, which these refuse.
 *
 * @typedef {{first: number, end: number, from: number, to: number, before: number, after: number, keys?: string[]}} Part
 * @typedef {{places: Place[], told: string, parts: Part[], columns?: Columns}} Cut
 */

/** The windows of a file, cut by the service once for a model. */
export function cutTable(table, model, signal) {
  const key = `${table.id} ${model.chosen} ${model.info.checkpoint}`;
  const found = cuts.get(key) ?? askCut(table, model, signal);
  cuts.set(key, found);
  found.catch(() => cuts.delete(key));
  return found;
}

async function askCut(table, model, signal) {
  const file = nameOf(table.id);
  if (table.windows) {
    const places = table.windows.map((_, row) => ({ name: `row:${table.id}:${row + 1}`, row, label: `window ${row + 1} of ${file}` }));
    return { places, parts: [], told: `${places.length} windows, whose times and actual values are not known.` };
  }
  const columns = columnsOf(table, model);
  const isWide = Boolean(model.info.table?.series && !table.names.includes(model.info.table.series.column));
  const places = /** @type {Place[]} */ ([]);
  const [parts, missing] = [/** @type {Cut["parts"]} */ ([]), new Set()];
  let [gaps, lacking] = [0, 0];
  for (const part of partsOf(columns.order.length, model)) {
    const body = { series: rowsOf(columns, part), gaps: "skip", echo: false };
    const answer = await ask(model, "windows", body, signal).catch((error) => skipEmpty(error, table, columns, part));
    const keys = answer.ends.map((end, number) => keyOf(part.first + end, answer.series?.[number]));
    parts.push({ ...part, keys: answer.left_out.missing ? undefined : keys });
    gaps += answer.left_out.across_gaps;
    lacking += answer.left_out.missing;
    Object.keys(answer.left_out.missing_columns).forEach((name) => missing.add(name));
    answer.ends.forEach((end, number) => {
      const row = part.first + end;
      if (row < part.from || row >= part.to) return;
      const line = table.lines[columns.order[row]];
      const series = answer.series?.[number];
      const label = `${table.unit} ${line} of ${file}${series ? `, ${series}` : ""}`;
      const name = `row:${table.id}:${line}${isWide ? `:${series}` : ""}`;
      places.push({ name, row, label, time: answer.times?.[number], series, actual: answer.actual?.[number] });
    });
  }
  if (!places.length) {
    const lost = missing.size ? `, and ${list([...missing])} has missing values` : "";
    throw new Error(`${file} has no whole window: ${model.info.table?.rows ?? model.info.lookback} rows in a row are needed${lost}.`);
  }
  const crossing = gaps ? `; ${counted(gaps)} windows cross a gap in time` : "";
  const incomplete = lacking ? `${gaps ? "," : ";"} ${counted(lacking)} lack a value of ${list([...missing], 3)}` : "";
  const targets = list(model.info.targets.map(({ name }) => name), 3);
  const known = places.some(({ actual }) => actual) ? "" : ` There is no column of what came (${targets}).`;
  const told = `${counted(table.rows.length)} rows, ${counted(places.length)} windows${crossing}${incomplete}.${known}`;
  return { places: isWide ? d3.sort(places, ({ series }) => series, ({ row }) => row) : places, parts, columns, told };
}

/**
 * Parts of the rows, each of whose windows end `from` a row `to` another: with rows before them that they read or are
 * filled from, and rows after them that they know or forecast, and no more windows than a request may have.
 */
function partsOf(count, { info }) {
  const { lookback, horizon, ahead, features, table } = info;
  const most = Math.floor(Math.min(PART, VALUES / (lookback * features.length)) / (table?.series?.columns?.length || 1));
  const after = Math.max(...(table?.columns ?? []).map(({ later }) => later), ahead + horizon - 1);
  const step = Math.max(1, Math.floor((most - after) / 2));
  const filled = table?.fill && table.max_fill === null ? Infinity : lookback + (table?.max_fill ?? 0);
  const before = (table?.rows ?? lookback) - 1 + Math.min(filled, Math.max(0, most - after - step));
  const part = (from) => ({ from, to: Math.min(count, from + step), before, after, ...around(from, from + step, { before, after }, 0, count) });
  return d3.range(0, count, step).map(part);
}

/** The rows that windows read which end from a row to before another. */
const around = (from, to, { before, after }, first, end) => ({ first: Math.max(first, from - before), end: Math.min(end, to + after) });

const rowsOf = (/** @type {any} */ { cells }, { first, end }) =>
  Object.fromEntries(Object.entries(cells).map(([name, column]) => [name, column.slice(first, end)]));

/** A file as :backtest takes it: as many of its newest rows as a request may have. */
export function seriesOf(table, model) {
  const columns = columnsOf(table, model);
  const count = columns.order.length;
  const size = JSON.stringify(rowsOf(columns, { first: 0, end: Math.min(count, 1000) })).length / Math.min(count, 1000);
  return { series: rowsOf(columns, { first: Math.max(0, count - Math.floor(BODY / size)), end: count }) };
}

/** Without the columns of targets that are not read, which only :windows takes. */
function withoutTargets(series, { info }) {
  const read = new Set([...(info.table?.columns ?? info.features).map(({ name }) => name), ...(info.table?.series?.columns ?? [])]);
  const targets = new Set(info.targets.flatMap(({ name }) => [name, name.replace(/@0\.\d+$/, "")]));
  return Object.fromEntries(Object.entries(series).filter(([name]) => read.has(name) || !targets.has(name)));
}

const ask = ({ path, version }, operation, body, /** @type {AbortSignal | undefined} */ signal) =>
  askJson({ path: `${path}:${operation}`, query: version, body }, signal);

/** A part without a window is empty; of other errors the cell is named by its line in the file. */
function skipEmpty(error, table, { order }, { first }) {
  if (!(error instanceof ApiError) || error.status !== 422) throw error;
  if (/has no window|rows, but needs/.test(error.message)) return { ends: [], left_out: { across_gaps: 0, missing: 0, missing_columns: {} } };
  const said = error.message.replace(/series\.([^[\]]+)\[(\d+)\]/g, (_, name, row) => `${table.unit} ${table.lines[order[first + Number(row)]]}, ${name},`);
  throw new Error(`${capitalise(said)}.`);
}

/** The instances of some windows of a file, in their order. */
export async function askInstances(model, table, places, signal) {
  const { windows } = table;
  if (windows) return places.map(({ row }) => windows[row]);
  const { parts, columns } = await cutTable(table, model, signal);
  const found = new Map();
  for (const all of parts) {
    const wanted = places.filter(({ row }) => row >= all.from && row < all.to);
    if (!wanted.length) continue;
    const [least = 0, most = 0] = d3.extent(wanted, ({ row }) => row);
    const part = around(least, most + 1, all, all.first, all.end);
    const ends = [...new Set(wanted.map(({ row }) => row - part.first))];
    const body = { series: rowsOf(columns, part), gaps: "skip", ends };
    const { instances, series, ends: answered } = await ask(model, "windows", body, signal);
    answered.forEach((end, number) => found.set(keyOf(part.first + end, series?.[number]), instances[number]));
  }
  return places.map(({ row, series }) => found.get(keyOf(row, series)));
}

/** The forecasts of all windows of a file. */
export async function forecastAll(model, table, signal) {
  const { places, parts, columns } = await cutTable(table, model, signal);
  const intervals = model.info.intervals ? "all" : undefined;
  const found = new Map();
  const rowOf = (answer, number) => ({
    predictions: answer.predictions[number],
    intervals: (answer.intervals ?? []).map(({ level, outputs, lower, upper }) => ({ level, outputs, lower: lower[number], upper: upper[number] })),
  });
  for (const part of table.windows ? d3.range(0, places.length, PART).map((from) => ({ from, to: from + PART, keys: undefined })) : parts) {
    const of = places.filter(({ row }) => row >= part.from && row < part.to);
    if (!of.length) continue;
    const given = part.keys
      ? { series: withoutTargets(rowsOf(columns, part), model), gaps: "skip" }
      : { instances: await askInstances(model, table, of, signal) };
    const answer = await ask(model, "predict", { ...given, intervals }, signal);
    const numbers = new Map(part.keys?.map((key, number) => [key, number]));
    of.forEach((place, number) => found.set(place, rowOf(answer, part.keys ? numbers.get(keyOf(place.row, place.series)) : number)));
  }
  return places.map((place) => found.get(place));
}

const keyOf = (row, series) => `${row} ${series ?? ""}`;

/** The newest window, of many series the one of the latest time. */
export const newest = (places) => d3.greatest(places, ({ time, row }) => time ?? row) ?? places[0];
