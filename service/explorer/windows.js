/** Windows to explain: read from JSON or a table, and written into the address. */

import "./vendor/d3.min.js";

/** @typedef {import("./api.js").Schemas["ModelInfo"]} ModelInfo */
/** @typedef {number[][]} Window lookback x features, oldest step first */

/**
 * The window in a text: what :predict takes, an array of rows, or a table whose columns are named as the features; as
 * JSON in the forms that pandas writes, or with commas, semicolons or tabs. Of a table the last rows are the window.
 *
 * @param {string} text
 * @param {ModelInfo} model
 * @returns {Window}
 */
export function readWindow(text, model) {
  const trimmed = text.replace(/^\uFEFF/, "").trim();
  if (!trimmed) throw new Error("there is nothing to read");
  return check(/^[[{]/.test(trimmed) ? readJson(trimmed, model) : readTable(trimmed, model), model);
}

/**
 * @param {string} text
 * @param {ModelInfo} model
 * @returns {unknown}
 */
function readJson(text, model) {
  const document = JSON.parse(text);
  if (isNamed(document)) {
    if ("instances" in document) return theOne(document.instances);
    if (Array.isArray(document.columns)) return pick(document.columns, document.data, model); // orient="split"
    return readColumns(document.columns ?? document, model);
  }
  if (isNamed(document[0])) return readRecords(document, model);
  return Array.isArray(document[0]?.[0]) ? theOne(document) : document;
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
 * @returns {unknown}
 */
function theOne(windows) {
  if (!Array.isArray(windows)) throw new Error("instances must be an array of windows");
  if (windows.length !== 1) throw new Error(`there are ${windows.length} windows, and one can be shown: give one of them`);
  return windows[0];
}

/**
 * Columns by name: each one window, as :predict has them, or values alone, which pandas may have numbered.
 *
 * @param {Record<string, any>} columns
 * @param {ModelInfo} model
 */
function readColumns(columns, model) {
  const series = Object.values(columns).map((column) => {
    const values = isNamed(column) ? Object.values(column) : column;
    return Array.isArray(values?.[0]) ? theOne(values) : values;
  });
  const rows = Array.isArray(series[0]) ? series[0].map((_, step) => series.map((values) => values?.[step])) : [];
  return pick(Object.keys(columns), rows, model);
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
 * A table whose fields are parted by the mark that the header has most of; beside semicolons a number may have a comma.
 *
 * @param {string} text
 * @param {ModelInfo} model
 */
function readTable(text, model) {
  const head = text.split("\n", 1)[0];
  const marks = d3.sort([",", ";", "\t"], (mark) => -head.split(mark).length);
  const [header, ...rows] = d3.dsvFormat(marks[0]).parseRows(text); // `parse` makes a function, which the policy forbids
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
 * The model's features of the last rows of a table.
 *
 * @param {string[]} names of its columns
 * @param {unknown} rows
 * @param {ModelInfo} model
 */
function pick(names, rows, { features, lookback }) {
  const missing = features.find(({ name }) => !names.includes(name));
  if (missing) throw new Error(`the column ${missing.name} is missing`);
  if (!Array.isArray(rows) || rows.length < lookback) {
    throw new Error(`${lookback} rows are needed, and there are ${Array.isArray(rows) ? rows.length : "none"}`);
  }
  const places = features.map(({ name }) => names.indexOf(name));
  return rows.slice(-lookback).map((row) => places.map((place) => row?.[place]));
}

/**
 * @param {unknown} rows
 * @param {ModelInfo} model
 * @returns {Window}
 */
function check(rows, { lookback, features }) {
  if (!Array.isArray(rows) || rows.length !== lookback) throw new Error(`a window has ${lookback} rows, oldest first`);
  rows.forEach((row, step) => {
    if (!Array.isArray(row) || row.length !== features.length) {
      throw new Error(`row ${step + 1} must have ${features.length} values, one for each feature`);
    }
    const wrong = row.findIndex((value) => typeof value !== "number" || !Number.isFinite(value));
    if (wrong >= 0) throw new Error(`row ${step + 1}, ${features[wrong].name}, is no number`);
  });
  return rows;
}

/**
 * A window as an address can hold it.
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
 * The window of an address.
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
    throw new Error("the address holds no whole window");
  }
  return readWindow(text, model);
}
