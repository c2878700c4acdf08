/**
 * What is being dragged, and the forecast while it slides: explanations of values along the input's range are asked for
 * once, and between two of them every number is interpolated, so that each frame costs no request.
 */

import { computed, signal } from "./lib.js";
import { explainAsk } from "./explain.js";
import { change, editOf, isCycle, rangeOf, valueOf } from "./inputs.js";
import { askNoted, keyOf } from "./load.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Schemas["Explanation"]} Explanation */
/** @typedef {{input: string, values: number[], explanations: Explanation[]}} Sweep */

const MOST = 25; // values of which each is asked for
const POINTS = 17; // over a range without steps

/** The input that is dragged and its value as of `valueOf`; undefined while nothing is. */
export const draft = signal(/** @type {{input: string, value: number} | undefined} */ (undefined));
/** Whether it was let go, and stays only until the exact answer is there. */
export const released = signal(false);
const sweep = signal(/** @type {Sweep | undefined} */ (undefined));
/** @type {{key: string, stop: AbortController} | undefined} the sweep that is asked for, or was */
let asked;

/** The explanation at the dragged value; undefined while nothing is dragged, or its values are not there yet. */
export const preview = computed(() => {
  const [at, known] = [draft.value, sweep.value];
  return at && known?.input === at.input ? interpolate(known, at.value) : undefined;
});

/** Whether something is dragged whose values are not there yet: the forecast stays, and is marked as pending. */
export const isPending = computed(() => draft.value !== undefined && sweep.value?.input !== draft.value.input);

/**
 * Begins to drag an input: asks what the model says of values along its range.
 *
 * @param {Model} model
 * @param {number[][]} instance as it is now, with its edits
 * @param {string} name of the input
 */
export function begin(model, instance, name) {
  const input = model.inputs.find((one) => one.name === name);
  if (!input) return;
  released.value = false;
  const from = valueOf(input, instance[instance.length - 1]);
  const values = valuesAlong(input, from, model.info.features);
  const instances = values.map((to) => (to === from ? instance : change(instance, model.inputs, { [name]: editOf(input, from, to) })));
  const ask = explainAsk(model, instances);
  const key = `${name} ${model.info.checkpoint} ${keyOf(ask)}`;
  if (asked?.key === key) return;
  asked?.stop.abort();
  const { stop } = (asked = { key, stop: new AbortController() });
  sweep.value = undefined;
  askNoted(ask, stop.signal).then(
    ({ explanations }) => stop.signal.aborted || (sweep.value = { input: name, values, explanations }),
    () => asked?.stop === stop && (asked = undefined), // the forecast stays pending; the exact answer says what is wrong
  );
}

/** Lets it go: what was shown stays until the answer to the address, which the caller changes, is there. */
export function end() {
  released.value = draft.value !== undefined;
}

/** The exact answer is there. */
export function settle() {
  released.value = false;
  draft.value = undefined;
}

/**
 * Values that an input can have, its present one among them: each, of few, or evenly over its range.
 *
 * @param {import("./model.js").Input} input
 * @param {number} from
 * @param {import("./model.js").Schemas["FeatureInfo"][]} features
 */
function valuesAlong(input, from, features) {
  const { low, high, step } = rangeOf(input, features);
  const [first, last] = [Math.min(low, from), Math.max(high, from)];
  const count = step && (last - first) / step < MOST ? Math.floor((last - first) / step) + 1 : step ? MOST : POINTS;
  const even = d3.range(count).map((at) => first + (at * (last - first)) / Math.max(1, count - 1));
  const values = step && !isCycle(input) ? even.map(Math.round) : even;
  return [...new Set([...values, from])].sort(d3.ascending);
}

/** @param {Sweep} sweep @param {number} value @returns {Explanation} */
function interpolate({ values, explanations }, value) {
  const after = Math.max(1, Math.min(values.length - 1, d3.bisectLeft(values, value)));
  const [low, high] = [values[after - 1], values[after] ?? values[after - 1]];
  const share = high > low ? Math.max(0, Math.min(1, (value - low) / (high - low))) : 0;
  return blend(explanations[after - 1], explanations[after] ?? explanations[after - 1], share);
}

/**
 * Two answers of one shape, with each number between theirs.
 *
 * @param {any} one
 * @param {any} other
 * @param {number} share of the other, from 0 to 1
 * @returns {any}
 */
function blend(one, other, share) {
  if (typeof one === "number" && typeof other === "number") return one === other ? one : one + share * (other - one);
  if (Array.isArray(one)) return one.map((each, index) => blend(each, other[index], share));
  if (one === null || typeof one !== "object") return one;
  /** @type {Record<string, any>} */
  const between = {};
  for (const key in one) between[key] = blend(one[key], other[key], share);
  return between;
}
