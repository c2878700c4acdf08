/** Windows to explain: parsed from JSON or a table, and packed into the address. */

import "./vendor/d3.min.js";

/** @typedef {import("./api.js").Schemas["ModelInfo"]} ModelInfo */
/** @typedef {number[][]} Window lookback x features, oldest step first */

/**
 * Rows of a table with the model's features in their order, and what else is in each.
 *
 * @typedef {object} Table
 * @property {unknown[][]} rows
 * @property {Record<string, unknown>[]} more
 */

/**
 * One of several windows.
 *
 * @typedef {object} Numbered
 * @property {Window} window
 * @property {number} number of its last row, or its own where it is of no table, from 0
 * @property {number} [first] its first row
 * @property {Record<string, unknown>} more of that row
 */

const SEGMENT = "segment"; // a column that changes at each gap, which no window crosses

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
  return check(given.rows.slice(-lookback), model, given.rows.length - lookback);
}

/**
 * All windows in a text: several in JSON, or those that slide over the rows of a table, of which each is the last step
 * of one. Rows that are not all numbers are in none.
 *
 * @param {string} text
 * @param {ModelInfo} model
 * @returns {{windows: Numbered[], problems: string[]}} and what is wrong with which rows
 */
export function readWindows(text, model) {
  const given = read(text, model);
  if (!Array.isArray(given)) return slide(given, model);
  const windows = given.map((window, number) => {
    try {
      return { window: check(window, model), number, more: {} };
    } catch (error) {
      throw new Error(`window ${number + 1}: ${error instanceof Error ? error.message : error}`);
    }
  });
  return { windows, problems: [] };
}

/**
 * @param {Table} table
 * @param {ModelInfo} model
 */
function slide({ rows, more }, { lookback, features }) {
  const problems = /** @type {string[]} */ ([]);
  const windows = /** @type {Numbered[]} */ ([]);
  let first = 0; // row of a window that ends here
  rows.forEach((row, number) => {
    const problem = problemOf(row, number, features);
    if (problem) problems.push(problem);
    if (problem) first = number + 1;
    else if (number && more[number][SEGMENT] !== more[number - 1][SEGMENT]) first = number;
    if (number - first < lookback - 1) return;
    const window = /** @type {Window} */ (rows.slice(number + 1 - lookback, number + 1));
    windows.push({ window, number, first: number + 1 - lookback, more: more[number] });
  });
  return { windows, problems };
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
  if (windows.length !== 1) throw new Error(`there are ${windows.length} windows, but only one can be shown: give one of them`);
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
 * A table with the separator that is most frequent in its header; with semicolons, numbers may have a decimal comma.
 *
 * @param {string} text
 * @param {ModelInfo} model
 */
function readTable(text, model) {
  const head = text.split("\n", 1)[0];
  const marks = d3.sort([",", ";", "\t"], (mark) => -head.split(mark).length);
  const [header, ...rows] = d3.dsvFormat(marks[0]).parseRows(text); // `parse` creates a function, which the policy forbids
  const read = (/** @type {string | undefined} */ field) => {
    const value = marks[0] === ";" ? field?.trim().replace(",", ".") : field?.trim();
    return value ? Number(value) : NaN;
  };
  const names = header.map((name) => name.trim());
  const wanted = new Set(model.features.map(({ name }) => name));
  const parsed = rows.map((row) => names.map((name, place) => (wanted.has(name) ? read(row[place]) : row[place])));
  return pick(names, parsed, model);
}

/**
 * The model's features in the rows of a table, and the other columns.
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
  const wanted = new Set(places);
  const others = d3.range(names.length).filter((place) => !wanted.has(place));
  return {
    rows: rows.map((row) => places.map((place) => row?.[place])),
    more: rows.map((row) => Object.fromEntries(others.map((place) => [names[place], row?.[place]]))),
  };
}

/**
 * @param {unknown} rows
 * @param {ModelInfo} model
 * @param {number} [before] rows of the table before it
 * @returns {Window}
 */
function check(rows, { lookback, features }, before = 0) {
  if (!Array.isArray(rows) || rows.length !== lookback) throw new Error(`a window has ${lookback} rows, oldest first`);
  for (const [step, row] of rows.entries()) {
    const problem = problemOf(row, before + step, features);
    if (problem) throw new Error(problem);
  }
  return rows;
}

/**
 * @param {unknown} row
 * @param {number} number of it, from 0
 * @param {ModelInfo["features"]} features
 */
function problemOf(row, number, features) {
  if (!Array.isArray(row) || row.length !== features.length) {
    return `row ${number + 1} must have ${features.length} values, one for each feature`;
  }
  const wrong = row.findIndex((value) => typeof value !== "number" || !Number.isFinite(value));
  return wrong < 0 ? undefined : `row ${number + 1}, ${features[wrong].name}, is not a number`;
}

/**
 * Packs a window for the address.
 *
 * @param {Window} window
 * @returns {Promise<string>}
 */
export async function packWindow(window) {
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
