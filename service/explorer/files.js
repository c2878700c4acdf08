/** Files of one's own, read into texts and numbers and kept in the memory of this tab. */

import { reasonOf } from "./api.js";
import { askInstances, cutTable, newest } from "./history/cut.js";
import { signal } from "./lib.js";
import { keepWindow } from "./windows.js";

/** @typedef {import("./model.js").Model} Model */

/**
 * A file as it was read: its id in the address, the lines that its rows begin at, and in which unit (line, row or window) these are counted.
 *
 * @typedef {{id: string, names: string[], rows: unknown[][], lines: number[], unit: string, isComma?: boolean, windows?: number[][][]}} Table
 */

/** @type {Map<string, Table>} */
const kept = new Map();
/** How many files were kept so far: what a file was missing for is loaded anew. */
const count = signal(0);

/** The text of a file, unpacked where it is gzip; of Windows' code page where it is not UTF-8. */
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

/** The file of an id; an error where this tab does not have it. */
export function findTable(id) {
  const found = kept.get(id);
  if (found) return found;
  throw new Error(`${nameOf(id)} is no longer in the memory of this tab: drop it here again, and all is shown as it was.`);
}

/** Whether this tab has the file of an id. */
export const isKept = (id) => count.value > 0 && kept.has(id ?? "");

/** The name of the file of an id. */
export const nameOf = (id) => id.replace(/@\w+$/, "");

function parse(text, name, model) {
  const trimmed = text.replace(/^\uFEFF/, "").trim();
  if (!trimmed) throw new Error("There is nothing to read.");
  if (/[\0-\x08]/.test(trimmed.slice(0, 9999))) throw new Error(`${name} is no text; tables (CSV) and JSON can be read.`);
  const id = `${name.replace(/\.gz$/, "").replace(/[^\w.-]+/g, "-")}@${hashOf(trimmed)}`;
  return /^[[{]/.test(trimmed) ? readJson(trimmed, id, model) : { id, unit: "line", ...splitTable(text.replace(/^\uFEFF/, "")) };
}

/** The cells of a table as texts, with the line of each row; the separator is the one that its header has most often. */
function splitTable(text) {
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
  const isComma = mark !== "," && cells.some((one) => one.some((text) => /^[-+]?[\d.]+,\d+$/.test(text)));
  return { names: names.map((one) => one.trim()), rows: cells, lines: lines.slice(1), isComma };
}

/** Windows as :predict takes them, or a table in one of pandas' forms: split, records, list, columns. */
function readJson(text, id, model) {
  let given;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is no JSON: ${reasonOf(error)}.`);
  }
  const features = model.info.features.map((feature) => feature.name);
  const table = (names, rows) => ({ id, names, rows, lines: d3.range(1, rows.length + 1), unit: "row" });
  const check = (one, number, { length }) => checkWindow(one, model, length > 1 ? `Window ${number + 1}, row` : "Row");
  const windows = (list) => ({ ...table(features, []), unit: "window", windows: list.map(check) });
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

function checkWindow(window, { info: { lookback, features } }, place) {
  const count = Array.isArray(window) ? window.length : "none";
  if (count !== lookback) throw new Error(`A window has ${lookback} rows, oldest first, but here are ${count}.`);
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
