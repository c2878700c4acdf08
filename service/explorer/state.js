/** The state of the page, all of which is in the address: `#/forecast?model=…&window=ref:12`; and the way back (undo). */

import { computed, signal } from "./lib.js";

/** @typedef {Record<string, string>} Values */

export const PLACES = { forecast: "Forecast", model: "Model", history: "History" };

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

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
  if (next === location.hash) return;
  if (replace) history.replaceState(null, "", next);
  else {
    before.push(location.hash);
    undone.length = 0;
    history.pushState(null, "", next);
  }
  hash.value = next;
}

/** Returns to the address before the last change, or forward again; false if there is none. */
export const undo = () => move(before, undone);
export const redo = () => move(undone, before);

/**
 * @param {string[]} from
 * @param {string[]} to
 */
function move(from, to) {
  const next = from.pop();
  if (next === undefined) return false;
  to.push(location.hash);
  history.pushState(null, "", next);
  hash.value = next;
  return true;
}
