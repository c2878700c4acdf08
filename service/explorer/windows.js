/** Windows to explain: parsed from JSON or a table, and packed into the address. */

import { hashOf, isRaw, keepWindows, LostError, splitTable } from "./tables.js";

/** @typedef {import("./api.js").Schemas["ModelInfo"]} ModelInfo */
/** @typedef {number[][]} Window lookback x features, oldest step first */

/**
 * Rows of a table with the model's features in their order.
 *
 * @typedef {object} Table
 * @property {unknown[][]} rows
 * @property {string} unit in which its rows are counted in errors, and from what number: lines of a file, with its header
 * @property {number} first
 */

const SHORT = 6000; // characters of a window in an address; a longer one would not survive many programs

/** @type {Map<string, Window>} windows that are too long for an address */
const kept = new Map();

/**
 * Parses a window: a body of :predict, an array of rows, or a table whose columns have the names of the features, as
 * JSON in pandas' formats, or with commas, semicolons or tabs. The last rows of a table are the window.
 *
 * @param {string} text
 * @param {ModelInfo} model
 * @returns {Window}
 */
export function readWindow(text, model) {
  const given = read(text, model);
  if (Array.isArray(given)) return check(theOne(given), model);
  const { lookback } = model;
  return check(given.rows.slice(-lookback), model, given.unit, given.first + given.rows.length - lookback);
}

/**
 * Keeps several windows as a table; undefined of a single one, and of what is no JSON.
 *
 * @param {string} name of the file
 * @param {string} text
 * @param {ModelInfo} model
 */
export function keepSeveral(name, text, model) {
  if (!/^\s*[[{]/.test(text)) return undefined;
  const given = read(text, model);
  if (!Array.isArray(given) || given.length < 2 || !isRaw(model)) return undefined;
  const windows = given.map((window, number) => {
    try {
      return check(window, model);
    } catch (error) {
      throw new Error(`window ${number + 1}: ${error instanceof Error ? error.message : error}`);
    }
  });
  return keepWindows(name, text, windows, model);
}

/**
 * @param {string} text
 * @param {ModelInfo} model
 * @returns {Table | unknown[]} a table, or windows
 */
function read(text, model) {
  const trimmed = text.replace(/^\uFEFF/, "").trim();
  if (!trimmed) throw new Error("there is nothing to read");
  return /^[[{]/.test(trimmed) ? readJson(trimmed, model) : readTable(trimmed, model);
}

/**
 * @param {string} text
 * @param {ModelInfo} model
 * @returns {Table | unknown[]}
 */
function readJson(text, model) {
  const document = JSON.parse(text);
  if (isNamed(document)) {
    if ("instances" in document) return asWindows(document.instances);
    if (Array.isArray(document.columns)) return pick(document.columns, document.data, model); // orient="split"
    return readColumns(document.columns ?? document, model);
  }
  if (isNamed(document[0])) return readRecords(document, model);
  return Array.isArray(document[0]?.[0]) ? document : [document];
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, any>}
 */
function isNamed(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * @param {unknown} windows
 * @returns {unknown[]}
 */
function asWindows(windows) {
  if (!Array.isArray(windows)) throw new Error("instances must be an array of windows");
  return windows;
}

/**
 * @param {unknown[]} windows
 * @returns {unknown}
 */
function theOne(windows) {
  if (windows.length !== 1) throw new Error(`there are ${windows.length} windows, but only one can be shown: give one of them, or a table`);
  return windows[0];
}

/**
 * Columns by name: each of one or more windows, as :predict has them, or values alone, which pandas may have numbered.
 *
 * @param {Record<string, any>} columns
 * @param {ModelInfo} model
 * @returns {Table | unknown[]}
 */
function readColumns(columns, model) {
  const names = Object.keys(columns);
  const series = Object.values(columns).map((column) => (isNamed(column) ? Object.values(column) : column));
  const turn = (/** @type {any[]} */ lists) =>
    Array.isArray(lists[0]) ? lists[0].map((_, step) => lists.map((values) => values?.[step])) : [];
  if (!Array.isArray(series[0]?.[0])) return pick(names, turn(series), model);
  return turn(series).map((window) => pick(names, turn(window), model).rows);
}

/**
 * @param {Record<string, unknown>[]} records
 * @param {ModelInfo} model
 */
function readRecords(records, model) {
  const names = Object.keys(records[0]);
  return pick(
    names,
    records.map((record) => names.map((name) => record[name])),
    model,
  );
}

/**
 * @param {string} text
 * @param {ModelInfo} model
 */
function readTable(text, model) {
  const { names, rows, number } = splitTable(text);
  const parsed = rows.map((row) => names.map((_, place) => number(row[place])));
  return { ...pick(names, parsed, model), unit: "line", first: 2 }; // the header is line 1
}

/**
 * The model's features in the rows of a table.
 *
 * @param {string[]} names of its columns
 * @param {unknown} rows
 * @param {ModelInfo} model
 * @returns {Table}
 */
function pick(names, rows, { features, lookback }) {
  const missing = features.find(({ name }) => !names.includes(name));
  if (missing) throw new Error(`the column ${missing.name} is missing`);
  if (!Array.isArray(rows) || rows.length < lookback) {
    throw new Error(`${lookback} rows are needed, but there are ${Array.isArray(rows) ? rows.length : "none"}`);
  }
  const places = features.map(({ name }) => names.indexOf(name));
  return { rows: rows.map((row) => places.map((place) => row?.[place])), unit: "row", first: 1 };
}

/**
 * @param {unknown} rows
 * @param {ModelInfo} model
 * @param {string} [unit] in which rows are counted
 * @param {number} [first] number of the first row
 * @returns {Window}
 */
function check(rows, { lookback, features }, unit = "row", first = 1) {
  if (!Array.isArray(rows) || rows.length !== lookback) throw new Error(`a window has ${lookback} rows, oldest first`);
  for (const [step, row] of rows.entries()) {
    const problem = problemOf(row, `${unit} ${first + step}`, features);
    if (problem) throw new Error(problem);
  }
  return rows;
}

/**
 * @param {unknown} row
 * @param {string} place of it
 * @param {ModelInfo["features"]} features
 */
function problemOf(row, place, features) {
  if (!Array.isArray(row) || row.length !== features.length) {
    return `${place} must have ${features.length} values, one for each feature`;
  }
  const wrong = row.findIndex((value) => typeof value !== "number" || !Number.isFinite(value));
  return wrong < 0 ? undefined : `${place}, ${features[wrong].name}, is not a number`;
}

/**
 * The address of a window: itself, packed, or where that is too long for an address, a name by which this tab has it.
 *
 * @param {Window} window
 * @returns {Promise<string>}
 */
export async function keepWindow(window) {
  const packed = await packWindow(window);
  if (packed.length <= SHORT) return `z:${packed}`;
  const name = `kept:${hashOf(packed)}`;
  kept.set(name, window);
  return name;
}

/**
 * The window that this tab has by a name of `keepWindow`.
 *
 * @param {string} name
 */
export function findWindow(name) {
  const found = kept.get(name);
  if (found) return found;
  throw new LostError("This window is too long for an address, and is no longer in the memory of this tab: paste it again, or choose its file");
}

/**
 * @param {Window} window
 * @returns {Promise<string>}
 */
async function packWindow(window) {
  const stream = new Blob([JSON.stringify(window)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/**
 * Unpacks the window of an address.
 *
 * @param {string} packed
 * @param {ModelInfo} model
 * @returns {Promise<Window>}
 */
export async function unpackWindow(packed, model) {
  let text;
  try {
    const bytes = Uint8Array.from(atob(packed.replaceAll("-", "+").replaceAll("_", "/")), (character) =>
      character.charCodeAt(0),
    );
    text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"))).text();
  } catch {
    throw new Error("the window in the address is incomplete");
  }
  return readWindow(text, model);
}
