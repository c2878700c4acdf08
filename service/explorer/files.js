/** Files of one's own, kept in the memory of this tab: text and numbers by column; the service cuts windows from them. */

import { ApiError, askJson, reasonOf } from "./api.js";
import { signal } from "./lib.js";
import { keepWindow } from "./windows.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {string | number | boolean | null} Cell */

/**
 * A file as it was read.
 *
 * @typedef {object} Table
 * @property {string} id its name and a hash of its text, by which the address names it
 * @property {string[]} names of the columns
 * @property {unknown[][]} rows
 * @property {number[]} lines of the file that the rows begin at
 * @property {string} unit in which rows are counted: line, row or window
 * @property {number[][][]} [windows] in place of rows, where windows were given
 */

/**
 * A window of a file, as the service cuts it.
 *
 * @typedef {object} Place
 * @property {string} name in the address
 * @property {number} row among the rows of the file by series, or of windows their number
 * @property {string} label such as `line 48 of load.csv`
 * @property {string} [time]
 * @property {string} [series]
 * @property {(number | null)[]} [actual] by output
 */

const MISSING = /^(na|n\/a|nan|null|none|nat|-|)$/i;
const BODY = 7_000_000; // bytes of a request
const PART = 3000; // windows of a request, fewer of large ones
const VALUES = 3_000_000; // of the windows of a request, where the service takes 4 million by default

/** @type {Map<string, Table>} */
const kept = new Map();
/** How many files were kept so far: what a file was missing for is loaded anew. */
const count = signal(0);
/** @type {Map<string, Promise<Cut>>} by table, model and checkpoint */
const cuts = new Map();

/**
 * The text of a file, unpacked where it is gzip; of Windows' code page where it is not UTF-8.
 *
 * @param {Blob} file
 */
export async function readFile(file) {
  const head = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const isPacked = head[0] === 0x1f && head[1] === 0x8b;
  const stream = isPacked ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream();
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

/**
 * Reads what was dropped or pasted: a table, which is kept and whose newest window is shown, or a single window.
 *
 * @param {string} text
 * @param {string} name of the file
 * @param {Model} model
 * @param {AbortSignal} [signal]
 * @returns {Promise<import("./state.js").Values>} for `go`; an error is a sentence that names line and column
 */
export async function readGiven(text, name, model, signal) {
  const table = parse(text, name, model);
  const shown = { edit: "", pick: "", a: "", b: "", zoom: "", series: "" };
  if (table.windows?.length === 1) return { ...shown, file: "", window: await keepWindow(table.windows[0]) };
  const { places } = await cutTable(table, model, signal);
  const isOne = places.length === 1 && table.rows.length <= (model.info.table?.rows ?? model.info.lookback);
  if (isOne) {
    const [instance] = await askInstances(model, table, places, signal);
    return { ...shown, file: "", window: await keepWindow(instance) };
  }
  kept.set(table.id, table);
  count.value += 1;
  return { ...shown, file: table.id, window: newest(places).name };
}

/**
 * The window of `row:FILE:NUMBER`, with the number of its newest row.
 *
 * @param {Model} model
 * @param {string} row `FILE:NUMBER`, of a wide table with the name of the series behind
 * @param {AbortSignal} signal
 * @returns {Promise<import("./windows.js").Window>}
 */
export async function findRow(model, row, signal) {
  const [, id] = /^(.*?):/.exec(row) ?? [];
  const table = findTable(id ?? row);
  const { places } = await cutTable(table, model, signal);
  const place = places.find(({ name }) => name === `row:${row}`);
  if (!place) throw new Error(`No whole window of ${nameOf(table.id)} ends there: rows before it are missing, or have a gap.`);
  const [instance] = await askInstances(model, table, [place], signal);
  const target = place.actual?.every((value) => value !== null) ? /** @type {number[]} */ (place.actual) : null;
  return { instance, time: place.time, series: place.series, target, label: place.label };
}

/**
 * The file of an id; an error where this tab does not have it.
 *
 * @param {string} id
 */
export function findTable(id) {
  const found = kept.get(id);
  if (found) return found;
  throw new Error(`${nameOf(id)} is no longer in the memory of this tab: drop it here again, and all is shown as it was.`);
}

/** Whether this tab has the file of an id. */
export const isKept = (/** @type {string | undefined} */ id) => count.value > 0 && kept.has(id ?? "");

/** The name of the file of an id. */
export const nameOf = (id) => id.replace(/@\w+$/, "");

// ---- reading

/**
 * @param {string} text
 * @param {string} name
 * @param {Model} model
 * @returns {Table}
 */
function parse(text, name, model) {
  const trimmed = text.replace(/^\uFEFF/, "").trim();
  if (!trimmed) throw new Error("There is nothing to read.");
  const id = `${name.replace(/\.gz$/, "").replace(/[^\w.-]+/g, "-")}@${hashOf(trimmed)}`;
  return /^[[{]/.test(trimmed) ? readJson(trimmed, id, model) : { id, unit: "line", ...splitTable(text.replace(/^\uFEFF/, "")) };
}

/**
 * The cells of a table as texts, with the line of each row; the separator is the one that its header has most often.
 *
 * @param {string} text
 */
export function splitTable(text) {
  const head = text.trimStart().split("\n", 1)[0];
  const mark = [",", ";", "\t", "|"].sort((one, other) => head.split(other).length - head.split(one).length)[0];
  const cell = new RegExp(`(?:"((?:[^"]|"")*)"|((?!")[^${mark === "|" ? "\\|" : mark}\\r\\n]*))(${mark === "|" ? "\\|" : mark}|\\r\\n|\\n|\\r|$)`, "y");
  const [rows, lines] = [/** @type {string[][]} */ ([]), /** @type {number[]} */ ([])];
  let [row, line, start] = [/** @type {string[]} */ ([]), 1, 1];
  while (cell.lastIndex < text.length) {
    const found = cell.exec(text);
    if (!found) throw new Error(`Line ${line} has a quote that is not closed, or text after one.`);
    const [all, quoted, plain, end] = found;
    row.push(quoted?.replaceAll('""', '"') ?? plain.trim());
    line += all.split(/\r\n|\n|\r/).length - 1;
    if (end === mark && cell.lastIndex < text.length) continue;
    if (row.length > 1 || row[0] !== "") {
      rows.push(row);
      lines.push(start);
    }
    [row, start] = [[], line];
  }
  const [names, ...cells] = rows;
  const long = cells.findIndex((one) => one.length > names.length);
  if (long >= 0) throw new Error(`Line ${lines[long + 1]} has ${cells[long].length} cells, but the header names ${names.length} columns.`);
  if (!cells.length) throw new Error("There is no row below the header.");
  return { names: names.map((one) => one.trim()), rows: cells, lines: lines.slice(1) };
}

/**
 * Windows as :predict takes them, or a table in one of pandas' forms: split, records, list, columns.
 *
 * @param {string} text
 * @param {string} id
 * @param {Model} model
 * @returns {Table}
 */
function readJson(text, id, model) {
  let given;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is no JSON: ${reasonOf(error)}.`);
  }
  const features = model.info.features.map((feature) => feature.name);
  const table = (names, rows) => ({ id, names, rows, lines: d3.range(1, rows.length + 1), unit: "row" });
  const windows = (list) => ({ ...table(features, []), unit: "window", windows: list.map((one, number) => checkWindow(one, model, list.length > 1 ? `Window ${number + 1}, row` : "Row")) });
  const body = given.instances ?? given;
  if (Array.isArray(body)) {
    if (isNamed(body[0])) {
      const names = [...new Set(body.flatMap(Object.keys))];
      return table(names, body.map((record) => names.map((name) => record[name])));
    }
    return windows(Array.isArray(body[0]?.[0]) ? body : [body]);
  }
  if (Array.isArray(given.columns)) return table(given.columns, given.data);
  const columns = given.series ?? given.columns ?? given;
  const names = Object.keys(columns);
  const lists = names.map((name) => (isNamed(columns[name]) ? Object.values(columns[name]) : columns[name]));
  const bare = lists.findIndex((list) => !Array.isArray(list));
  if (!names.length || bare >= 0) throw new Error(`This JSON has neither windows nor columns: ${names[bare] ?? "it"} is no list.`);
  const turn = (of) => d3.range(Math.max(0, ...of.map((list) => list?.length ?? 0))).map((row) => of.map((list) => list?.[row]));
  if (!Array.isArray(lists[0][0])) return table(names, turn(lists));
  const places = features.map((feature) => names.indexOf(feature));
  return windows(turn(lists).map((window) => turn(window).map((row) => places.map((place) => row[place]))));
}

const isNamed = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/**
 * @param {any} window
 * @param {Model} model
 * @param {string} place
 * @returns {number[][]}
 */
function checkWindow(window, { info: { lookback, features } }, place) {
  if (!Array.isArray(window) || window.length !== lookback) throw new Error(`A window has ${lookback} rows, oldest first, but here are ${window?.length ?? "none"}.`);
  window.forEach((row, step) => {
    if (!Array.isArray(row) || row.length !== features.length) throw new Error(`${place} ${step + 1} must have ${features.length} values, one for each feature.`);
    const wrong = row.findIndex((value) => typeof value !== "number" || !Number.isFinite(value));
    if (wrong >= 0) throw new Error(`${place} ${step + 1}, ${features[wrong].name}, is “${row[wrong]}”, which is no number.`);
  });
  return window;
}

/** A hash of a text (FNV-1a, 32 bits), which tells one file from another. */
function hashOf(text) {
  let hash = 0x811c9dc5;
  for (let place = 0; place < text.length; place += 1) hash = Math.imul(hash ^ text.charCodeAt(place), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
}

// ---- columns of a model

/**
 * The columns of a table that a model reads, rows of one series behind each other.
 *
 * @typedef {object} Columns
 * @property {Record<string, Cell[]>} cells
 * @property {number[]} order the row of the table for each
 */

/**
 * @param {Table} table
 * @param {Model} model
 * @returns {Columns}
 */
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

/** Numbers, with a decimal comma where a cell of the file has one that can be nothing else. */
function numbersOf(table, name, order) {
  const texts = textsOf(table, name, order);
  const isComma = texts.some((text) => text !== null && /^[-+]?\d+(\.\d{3})*,\d+(e[-+]?\d+)?$/i.test(text) && !/^[-+]?[1-9]\d{0,2}(,\d{3})+$/.test(text));
  return texts.map((text, place) => {
    if (text === null) return null;
    if (/^(true|false)$/i.test(text)) return text.toLowerCase() === "true";
    const value = Number(isComma ? text.replace(/\.(?=\d{3}(\D|$))/g, "").replace(",", ".") : text.replace(/^([-+]?\d{1,3})(,\d{3})+(?=\.|$)/, (all) => all.replaceAll(",", "")));
    if (Number.isFinite(value)) return value;
    throw new Error(`${capital(table.unit)} ${table.lines[order[place]]}, ${name}, is “${text}”, which is no number.`);
  });
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

// ---- windows of a table

/**
 * The windows of a table.
 *
 * @typedef {object} Cut
 * @property {Place[]} places by series, in order of time
 * @property {string} told how many rows and windows there are, and why there are not more
 * @property {{first: number, end: number, from: number, to: number, before: number, after: number, keys?: string[]}[]} parts of the rows, with margins, and
 *   the windows of each as other operations cut them; none where a value is missing, which these refuse
 * @property {Columns} [columns] absent of a table of windows
 */

/**
 * The windows of a file, cut by the service once for a model.
 *
 * @param {Table} table
 * @param {Model} model
 * @param {AbortSignal} [signal]
 */
export function cutTable(table, model, signal) {
  const key = `${table.id} ${model.chosen} ${model.info.checkpoint}`;
  const found = cuts.get(key) ?? askCut(table, model, signal);
  cuts.set(key, found);
  found.catch(() => cuts.delete(key));
  return found;
}

/**
 * @param {Table} table
 * @param {Model} model
 * @param {AbortSignal} [signal]
 * @returns {Promise<Cut>}
 */
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
      places.push({ name: `row:${table.id}:${line}${isWide ? `:${series}` : ""}`, row, label, time: answer.times?.[number], series, actual: answer.actual?.[number] });
    });
  }
  if (!places.length) throw new Error(`${file} has no whole window: ${model.info.table?.rows ?? model.info.lookback} rows in a row are needed${missing.size ? `, and ${list([...missing])} has missing values` : ""}.`);
  const omitted = [gaps && `${gaps.toLocaleString("en")} windows cross a gap in time`, lacking && `${lacking.toLocaleString("en")} lack a value of ${list([...missing], 3)}`].filter(Boolean);
  const known = places.some(({ actual }) => actual) ? "" : ` There is no column of what came (${list(model.info.targets.map(({ name }) => name), 3)}).`;
  const told = `${table.rows.length.toLocaleString("en")} rows, ${places.length.toLocaleString("en")} windows${omitted.length ? `; ${omitted.join(", ")}` : ""}.${known}`;
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
  return d3.range(0, count, step).map((from) => ({ from, to: Math.min(count, from + step), ...around(from, from + step, { before, after }, 0, count), before, after }));
}

/** The rows that windows read which end from a row to before another. */
const around = (from, to, { before, after }, first, end) => ({ first: Math.max(first, from - before), end: Math.min(end, to + after) });

const rowsOf = ({ cells }, { first, end }) => Object.fromEntries(Object.entries(cells).map(([name, column]) => [name, column.slice(first, end)]));

/**
 * A file as :backtest takes it: as many of its newest rows as a request may have.
 *
 * @param {Table} table
 * @param {Model} model
 */
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
  throw new Error(`${capital(said)}.`);
}

/**
 * The instances of some windows of a file.
 *
 * @param {Model} model
 * @param {Table} table
 * @param {Place[]} places
 * @param {AbortSignal} [signal]
 * @returns {Promise<number[][][]>} in their order
 */
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
    const { instances, series, ends: answered } = await ask(model, "windows", { series: rowsOf(/** @type {Columns} */ (columns), part), gaps: "skip", ends }, signal);
    answered.forEach((end, number) => found.set(keyOf(part.first + end, series?.[number]), instances[number]));
  }
  return places.map(({ row, series }) => found.get(keyOf(row, series)));
}

/**
 * The forecasts of all windows of a file.
 *
 * @param {Model} model
 * @param {Table} table
 * @param {AbortSignal} signal
 * @returns {Promise<{predictions: number[], intervals: {level: number, outputs: string[], lower: number[], upper: number[]}[]}[]>}
 */
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
    const given = part.keys ? { series: withoutTargets(rowsOf(/** @type {Columns} */ (columns), part), model), gaps: "skip" } : { instances: await askInstances(model, table, of, signal) };
    const answer = await ask(model, "predict", { ...given, intervals }, signal);
    const numbers = new Map(part.keys?.map((key, number) => [key, number]));
    of.forEach((place, number) => found.set(place, rowOf(answer, part.keys ? /** @type {number} */ (numbers.get(keyOf(place.row, place.series))) : number)));
  }
  return places.map((place) => found.get(place));
}

const keyOf = (row, series) => `${row} ${series ?? ""}`;

/** The newest window, of many series the one of the latest time. */
export const newest = (places) => d3.greatest(places, ({ time, row }) => time ?? row) ?? places[0];
