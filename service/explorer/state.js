/** The state of the page, all of which is in the address: `#/edge?model=…&edge=head/0/7/3`. */

import { groupsFit } from "./groups.js";
import { hasOutput } from "./intervals.js";
import { readPick } from "./selection.js";

/** @typedef {{view: string, values: Record<string, string>}} State */
/** @typedef {import("./api.js").Schemas["ModelInfo"]} ModelInfo */

/**
 * The state of an address.
 *
 * @param {string} hash
 * @returns {State}
 */
export function readState(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { view: path || "story", values: Object.fromEntries(new URLSearchParams(query)) };
}

/**
 * The address of a state.
 *
 * @param {State} state
 * @returns {string}
 */
export function writeState({ view, values }) {
  const known = Object.entries(values).filter(([, value]) => value !== "");
  const query = new URLSearchParams(known).toString().replace(/%2F|%3A|%2C/g, decodeURIComponent);
  return `#/${view}${query && `?${query}`}`;
}

/**
 * The part of a state that is also valid for another model: a window of one's own if both models have the same inputs,
 * an edge if both have the same network, and all settings of the display.
 *
 * @param {Record<string, string>} values
 * @param {ModelInfo} before
 * @param {ModelInfo} after
 */
export function carry(values, before, after) {
  const alike = shapeOf(before) === shapeOf(after);
  const isSameNetwork = JSON.stringify(before.architecture) === JSON.stringify(after.architecture);
  const fits = (/** @type {string} */ window) =>
    /^\w+$/.test(window) || (window.startsWith("ref:") ? Number(window.slice(4)) < after.reference_windows : alike);
  /** @type {Record<string, (value: string) => boolean>} */
  const conditions = {
    output: (output) => hasOutput(after, output),
    through: (node) =>
      node.startsWith("feature:")
        ? after.features.some(({ name }) => node === `feature:${name}`)
        : isSameNetwork,
    edge: () => isSameNetwork,
    without: () => isSameNetwork,
    window: fits,
    ...Object.fromEntries(["a", "b", "zoom"].map((key) => [key, () => "file" in values])), // windows of the model's own
    from: () => false, // reference windows of two models differ
    baseline: fits,
    groups: (groups) => groupsFit(groups, after),
    pick: (pick) => {
      const { feature, step = 0, node, edge } = readPick(pick) ?? {};
      const isKnown = feature === undefined || after.features.some(({ name }) => name === feature);
      return isKnown && -step < after.lookback && (isSameNetwork || (!node && !edge));
    },
  };
  const isKept = (/** @type {string} */ name) => !Object.hasOwn(conditions, name) || conditions[name](values[name]);
  return Object.fromEntries(Object.entries(values).filter(([name]) => isKept(name)));
}

/**
 * The shape of a model's windows: its steps and features.
 *
 * @param {ModelInfo} model
 */
export function shapeOf({ features, lookback }) {
  return JSON.stringify([lookback, features.map(({ name }) => name)]);
}
