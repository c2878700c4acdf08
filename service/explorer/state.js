/** The state of the page, all of which is in the address: `#/forecast?model=…&window=ref:12`; and the way back (undo). */

import { computed, signal } from "./lib.js";

/** @typedef {Record<string, string>} Values */

/** @type {Record<string, string>} */
export const PLACES = { forecast: "Forecast", model: "Model", history: "History" };

const hash = signal(location.hash);
/** The address before what was dragged since, to which undo and the browser's way back return. */
let settled = location.hash;
addEventListener("hashchange", () => (hash.value = settled = location.hash));

/** The destination and the values of the address. */
export const address = computed(() => {
  const [path, query] = hash.value.replace(/^#\/?/, "").split(/\?(.*)/s);
  const place = Object.hasOwn(PLACES, path) ? path : "forecast";
  return { place, values: /** @type {Values} */ (Object.fromEntries(new URLSearchParams(query))) };
});

/**
 * The address of a destination, with the present values and others; "" leaves a value out.
 *
 * @param {string} [place] the present one by default
 * @param {Values} [values]
 */
export function link(place, values = {}) {
  const known = Object.entries({ ...address.value.values, ...values }).filter(([, value]) => value !== "" && value !== undefined);
  const query = new URLSearchParams(known).toString().replace(/%2F|%3A|%2C/g, decodeURIComponent);
  return `#/${place ?? address.value.place}${query && `?${query}`}`;
}

/** @type {string[]} addresses that `undo` returns to, oldest first */
const before = [];
/** @type {string[]} those that `redo` returns to */
const undone = [];

/**
 * Changes values of the address.
 *
 * @param {Values} values
 * @param {{place?: string, replace?: boolean}} [how] `replace` leaves no entry in the history, as while something is dragged
 */
export function go(values, { place, replace = false } = {}) {
  const next = link(place, values);
  if (next === location.hash && (replace || next === settled)) return;
  if (replace || next === settled) history.replaceState(null, "", next);
  else {
    if (settled !== location.hash) history.replaceState(null, "", settled || "#");
    before.push(settled);
    undone.length = 0;
    history.pushState(null, "", next);
    settled = next;
  }
  hash.value = next;
}

/** Whether there is something to return to. */
export const canMove = () => ({ undo: before.length > 0, redo: undone.length > 0 });

/** Returns to the address before the last change, or forward again; false if there is none. */
export const undo = () => move(before, undone);
export const redo = () => move(undone, before);

/** @param {string[]} from @param {string[]} to */
function move(from, to) {
  const next = from.pop();
  if (next === undefined) return false;
  to.push(settled);
  history.pushState(null, "", next || "#");
  hash.value = settled = next;
  return true;
}
