/** Answers that grow line by line while they are computed, and that a person can stop. */

import { askLines } from "../api.js";
import { signal, useMemo } from "../lib.js";
import { keyOf, useLoad } from "../load.js";

/** @typedef {import("../api.js").Ask} Ask */

/** @type {Map<string, {parts: import("@preact/signals").Signal<any[]>, stop: () => void}>} by key of the request */
const growing = new Map();

/**
 * What a request has answered so far.
 *
 * @param {Ask} ask
 * @param {string} one member of a line that is a part, as `formula`
 * @param {string} all member of the last line that has them all, as `formulas`
 * @returns {{parts: any[], whole: any, isWhole: boolean, pending: boolean, error?: unknown, stop: () => void, again: () => void}}
 */
export function useLines(ask, one, all) {
  const key = `lines ${keyOf(ask)}`;
  const state = useMemo(() => {
    if (!growing.has(key)) growing.set(key, { parts: signal([]), stop: () => {} });
    return /** @type {{parts: import("@preact/signals").Signal<any[]>, stop: () => void}} */ (growing.get(key));
  }, [key]);
  const loaded = useLoad(key, async (left) => {
    const stopped = new AbortController();
    state.stop = () => stopped.abort(new Error("Stopped."));
    state.parts.value = [];
    const either = AbortSignal.any([left, stopped.signal]);
    for await (const line of askLines(ask, either)) {
      if (all in line) return line;
      state.parts.value = [...state.parts.peek(), line[one]];
    }
    throw new Error("The service's answer ended early.");
  }, ask);
  const whole = loaded.error || loaded.pending ? undefined : loaded.value;
  return { ...loaded, parts: whole?.[all] ?? state.parts.value, whole, isWhole: Boolean(whole), stop: () => state.stop() };
}
