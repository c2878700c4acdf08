/** Values in the terms of the table: a feature vector read as 16:00, workday or 29 °C, and changed along values that exist. */

import { formatValue } from "./figures.js";

/** @typedef {import("./model.js").Input} Input */
/** @typedef {number[][]} Instance lookback x features, oldest step first, as the API takes it */
/** @typedef {Record<string, number>} Edit by input: added to a number or a cycle (hours, days), or the place of a level */

const WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const PERIODS = { hour: 24, weekday: 7, day_of_year: 365, month: 12, cycle: 1 };
const WHOLE = 1e-6; // distance from a whole number that is rounding, as of sines in single precision
const HALF = 0.5;

/**
 * The value of an input in a row of features: of a cycle its place in the period, of levels the place of the largest.
 *
 * @param {Input} input
 * @param {number[]} row
 */
export function valueOf(input, row) {
  const [first, second] = input.places.map((place) => row[place]);
  if (isCycle(input)) return place(input, (Math.atan2(first, second) / (2 * Math.PI)) * periodOf(input) + offsetOf(input));
  if (input.kind === "level") return d3.maxIndex(input.places, (place) => row[place]);
  return input.kind === "number" ? first : whole(first, 1);
}

/**
 * A value in words: 16:00, Tuesday, 29 Jun, workday, yes, 29.1 °C.
 *
 * @param {Input} input
 * @param {number} value as of `valueOf`
 * @param {{mean?: number, std?: number, integer?: boolean}} [feature] whose spread says how precisely
 */
export function tell(input, value, feature) {
  if (input.kind === "hour") return clock(value);
  if (input.kind === "weekday") return WEEKDAYS[Math.round(value) % 7];
  if (input.kind === "month") return MONTHS[Math.round(value) % 12];
  if (input.kind === "day_of_year") return dayOfYear(value);
  if (input.kind === "level") return input.levels[value] ?? "another";
  if (input.kind === "flag") return value >= HALF ? "yes" : "no";
  if (isCycle(input)) return `${Math.round(100 * value)} % of the cycle`;
  return formatValue(value, input.unit, /** @type {any} */ (feature ? { std: feature.std, integer: Boolean(feature.integer) } : undefined));
}

/**
 * A value of a model's input in words, as precise as its feature varies.
 *
 * @param {import("./model.js").Model} model
 * @param {Input} input
 * @param {number} value
 */
export const told = ({ info }, input, value) => tell(input, value, info.features[input.places[0]]);

/**
 * Whether nobody can change an input, like the calendar.
 *
 * @param {import("./model.js").Model} model
 * @param {Input} input
 */
export const isFixed = ({ info }, { places }) => places.every((place) => info.features[place]?.fixed);

/**
 * An instance with edits.
 *
 * @param {Instance} instance
 * @param {Input[]} inputs
 * @param {Edit} edit
 * @returns {Instance}
 */
export function change(instance, inputs, edit) {
  const changed = inputs.filter(({ name }) => Object.hasOwn(edit, name));
  if (!changed.length) return instance;
  return instance.map((old) => {
    const row = [...old];
    for (const input of changed) write(input, row, edit[input.name]);
    return row;
  });
}

/** @param {Input} input @param {number[]} row @param {number} by */
function write(input, row, by) {
  const [first, second] = input.places;
  if (isCycle(input)) {
    const phase = (2 * Math.PI * (valueOf(input, row) + by - offsetOf(input))) / periodOf(input);
    [row[first], row[second]] = [Math.sin(phase), Math.cos(phase)];
  } else if (input.kind === "level") input.places.forEach((place, level) => (row[place] = Number(level === by)));
  else if (input.kind === "flag") row[first] = by;
  else row[first] += by;
}

/**
 * What an input may be dragged over, from the present value: values as of `valueOf`, and the step from one to the next
 * that exists, 0 where all do.
 *
 * @param {Input} input
 * @param {import("./model.js").Schemas["FeatureInfo"][]} features
 */
export function rangeOf(input, features) {
  const [feature] = input.places.map((place) => features[place]);
  if (isCycle(input)) return { low: 0, high: input.kind === "cycle" ? periodOf(input) : periodOf(input) - 1, step: input.kind === "cycle" ? 0 : 1 };
  if (input.kind === "level") return { low: 0, high: input.levels.length - 1, step: 1 };
  if (input.kind === "flag") return { low: 0, high: 1, step: 1 };
  const spread = feature.std || 1;
  const [low, high] = [feature.min ?? feature.mean - 3 * spread, feature.max ?? feature.mean + 3 * spread];
  return { low, high, step: input.kind === "integer" ? 1 : 0 };
}

/**
 * The edit that takes an input from one value to another.
 *
 * @param {Input} input
 * @param {number} from
 * @param {number} to
 */
export function editOf(input, from, to) {
  return input.kind === "level" || input.kind === "flag" ? to : to - from;
}

/** @param {Input} input */
export const isCycle = ({ kind }) => Object.hasOwn(PERIODS, kind);

/** @param {Input} input */
export const periodOf = ({ kind, period }) => period ?? PERIODS[/** @type {keyof typeof PERIODS} */ (kind)];

/** @param {Input} input where its period begins */
const offsetOf = ({ offset }) => offset ?? 0;

/** A place in the period, of which the last touches the first. @param {Input} input @param {number} value */
function place(input, value) {
  const period = periodOf(input);
  return ((whole(value, period) % period) + period) % period;
}

/** A value that is whole but for rounding. @param {number} value @param {number} scale */
const whole = (value, scale) => (Math.abs(value - Math.round(value)) < WHOLE * scale ? Math.round(value) || 0 : value);

/** @param {number} hours */
function clock(hours) {
  const minutes = Math.round(60 * hours) % 1440;
  return `${String(Math.floor(minutes / 60)).padStart(2, "0")}:${String(minutes % 60).padStart(2, "0")}`;
}

/** @param {number} day from 0 */
function dayOfYear(day) {
  const date = new Date(Date.UTC(2023, 0, 1 + Math.min(364, Math.round(day) % 365)));
  return new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short" }).format(date);
}
