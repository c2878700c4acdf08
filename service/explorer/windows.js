/** Windows to explain: read from JSON or CSV, and written into the address. */

import "./vendor/d3.min.js";

/** @typedef {import("./api.js").Schemas["ModelInfo"]} ModelInfo */
/** @typedef {number[][]} Window lookback x features, oldest step first */

/**
 * The window in a text: what :predict takes, an array of rows, or a table whose header names the features.
 *
 * @param {string} text
 * @param {ModelInfo} model
 * @returns {Window}
 */
export function readWindow(text, model) {
  const trimmed = text.trim();
  if (!trimmed) throw new Error("there is nothing to read");
  return check(/^[[{]/.test(trimmed) ? readJson(trimmed, model) : readCsv(trimmed, model), model);
}

/**
 * @param {string} text
 * @param {ModelInfo} model
 * @returns {unknown}
 */
function readJson(text, model) {
  const document = JSON.parse(text);
  if (document.columns) {
    const columns = model.features.map(({ name }) => document.columns[name]?.[0]);
    const missing = model.features.filter((_, index) => !columns[index]);
    if (missing.length) throw new Error(`the column ${missing[0].name} is missing`);
    return columns[0].map((/** @type {unknown} */ _, /** @type {number} */ step) =>
      columns.map((column) => column[step]),
    );
  }
  const instances = document.instances ?? document;
  return Array.isArray(instances?.[0]?.[0]) ? instances[0] : instances;
}

/**
 * @param {string} text
 * @param {ModelInfo} model
 */
function readCsv(text, model) {
  const [header, ...rows] = d3.csvParseRows(text); // csvParse makes a function of the header, which the policy forbids
  const names = header.map((name) => name.trim());
  const missing = model.features.find(({ name }) => !names.includes(name));
  if (missing) throw new Error(`the column ${missing.name} is missing`);
  if (rows.length < model.lookback) throw new Error(`${model.lookback} rows are needed, and there are ${rows.length}`);
  const places = model.features.map(({ name }) => names.indexOf(name));
  return rows
    .slice(-model.lookback)
    .map((row) => places.map((place) => (row[place]?.trim() ? Number(row[place]) : NaN)));
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
