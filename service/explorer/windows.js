/** The window in view: a reference window, one of a file, or one of its own, packed into the address; with edits. */

import { useRef } from "./lib.js";
import { askNoted, useLoad } from "./load.js";
import { address } from "./state.js";
import { change } from "./inputs.js";
import { findRow, isKept } from "./files.js";

/** @typedef {import("./inputs.js").Instance} Instance */
/** @typedef {import("./inputs.js").Edit} Edit */

/**
 * A window as it is, before edits.
 *
 * @typedef {object} Window
 * @property {Instance} instance
 * @property {string | null} [time] of its newest row
 * @property {string | null} [series]
 * @property {number[] | null} [target] what came, by output
 * @property {number} [index] of a reference window
 * @property {string} label
 */

const SHORT = 6000; // characters of a window in an address; a longer one would not survive many programs

/** @type {Map<string, Instance>} windows that are too long for an address, by name */
const kept = new Map();

/**
 * The window that the address names, the newest reference window by default, and its edits.
 *
 * @param {import("./model.js").Model | undefined} model
 */
export function useWindow(model) {
  const { window: name = model && `ref:${model.info.reference_windows - 1}`, edit: written } = address.value.values;
  const loaded = useLoad(model && `window ${model.chosen} ${model.info.checkpoint} ${name} ${isKept(fileOf(name ?? ""))}`, (signal) =>
    loadWindow(/** @type {import("./model.js").Model} */ (model), /** @type {string} */ (name), signal),
  );
  const edit = readEdit(written);
  const last = useRef(/** @type {{model?: typeof model, instance?: Instance}} */ ({})); // while another window is loaded
  const known = loaded.stale ? undefined : loaded.value?.instance;
  if (loaded.error) last.current = {};
  if (known && model) last.current = { model, instance: change(known, model.inputs, edit) };
  const isOfModel = last.current.model?.info.checkpoint === model?.info.checkpoint;
  return { ...loaded, value: isOfModel ? loaded.value : undefined, name, edit, instance: isOfModel ? last.current.instance : undefined };
}

/** The file of a window's name; undefined of others. */
export const fileOf = (/** @type {string} */ name) => /^row:(.*?):/.exec(name)?.[1];

/**
 * @param {import("./model.js").Model} model
 * @param {string} name
 * @param {AbortSignal} signal
 * @returns {Promise<Window>}
 */
export async function loadWindow(model, name, signal) {
  const [, kind, rest] = /^(ref|z|kept|row):(.*)$/s.exec(name) ?? [];
  if (kind === "ref") {
    const found = await askNoted({ path: `${model.path}/reference/${rest}`, query: model.version }, signal);
    return { ...found, label: found.time ?? `reference window ${found.index}` };
  }
  if (kind === "row") return findRow(model, rest, signal);
  const instance = kind === "z" ? await unpack(rest) : kept.get(name);
  if (!instance) throw new Error("This window is too long for an address, and no longer in the memory of this tab: paste it again.");
  return { instance, label: "a window of your own" };
}

/**
 * The name of a window of one's own: itself, packed, or where that is too long, one by which this tab has it.
 *
 * @param {Instance} instance
 */
export async function keepWindow(instance) {
  const packed = await pack(instance);
  if (packed.length <= SHORT) return `z:${packed}`;
  const name = `kept:${kept.size + 1}`;
  kept.set(name, instance);
  return name;
}

/** @param {Instance} instance */
async function pack(instance) {
  const stream = new Blob([JSON.stringify(instance)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @param {string} packed */
async function unpack(packed) {
  try {
    const bytes = Uint8Array.from(atob(packed.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    return await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"))).json();
  } catch {
    throw new Error("The window in the address is incomplete.");
  }
}

/**
 * The edits of an address: `temp_c:3,hour:-2`, by the names of inputs, percent-encoded.
 *
 * @param {string | undefined} written
 * @returns {Edit}
 */
function readEdit(written) {
  const pairs = (written ?? "").split(",").map((pair) => pair.split(":"));
  return Object.fromEntries(pairs.filter(([name, by]) => name && Number.isFinite(Number(by))).map(([name, by]) => [decodeURIComponent(name), Number(by)]));
}

/** @param {Edit} edit */
export function writeEdit(edit) {
  return Object.entries(edit)
    .map(([name, by]) => `${encodeURIComponent(name)}:${Number(by.toPrecision(6))}`)
    .join(",");
}
