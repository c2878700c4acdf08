/** Values in the terms of the table: a feature vector read as 16:00, workday or 29 °C, and changed along values that exist. */

import { formatValue } from "./figures.js";

/** @typedef {import("./model.js").Input} Input */
/** @typedef {number[][]} Instance lookback x features, oldest step first, as the API takes it */
/** @typedef {Record<string, number>} Edit by input: added to a number or a cycle (hours, days), or the place of a level */

const WHOLE = 1e-6; // distance from a whole number that is rounding, as of sines in single precision
const LEAP_DAY = 59; // 29 February, in a leap year
const NEAR = 0.01; // of a day: days of a leap year are whole in 366 parts of the year

/**
 * The value of an input in a row of features: of a cycle its place in the period, of levels the place of the largest.
 *
 * @param {Input} input
 * @param {number[]} row
 */
export function valueOf(input, row) {
  const [first, second] = input.places.map((place) => row[place]);
  if (isCycle(input)) return place(input, (Math.atan2(first, second) / (2 * Math.PI)) * Number(input.period) + input.offset);
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
  if (input.kind === "day_of_year") return dayOfYear(input, value);
  if (input.levels.length) return input.levels[Math.round(value) % input.levels.length] ?? "another";
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

/** The value of an input in a row of features, in words. @param {import("./model.js").Model} model @param {Input} input @param {number[]} row */
export const toldIn = (model, input, row) => told(model, input, valueOf(input, row));

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
    const phase = (2 * Math.PI * (valueOf(input, row) + by - input.offset)) / Number(input.period);
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
  if (isCycle(input)) {
    const [high, isSteady] = [Number(input.period), input.kind === "cycle"];
    return { low: 0, high: isSteady ? high : high - 1, step: isSteady ? 0 : 1 };
  }
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
export const isCycle = ({ period }) => period !== null;

/** A place in the period, of which the last touches the first. @param {Input} input @param {number} value */
function place(input, value) {
  const period = Number(input.period);
  return ((whole(value, period) % period) + period) % period;
}

/** A value that is whole but for rounding. @param {number} value @param {number} scale */
const whole = (value, scale) => (Math.abs(value - Math.round(value)) < WHOLE * scale ? Math.round(value) || 0 : value);

/** @param {number} hours */
function clock(hours) {
  const minutes = Math.round(60 * hours) % 1440;
  return `${String(Math.floor(minutes / 60)).padStart(2, "0")}:${String(minutes % 60).padStart(2, "0")}`;
}

/** The date of a day from 0, of a leap year where it is one of its 366. @param {Input} input @param {number} value */
function dayOfYear({ levels, offset }, value) {
  const leap = ((value - offset) / levels.length) * (levels.length + 1) + offset;
  const apart = (/** @type {number} */ day) => Math.abs(day - Math.round(day));
  const isLeap = apart(leap) < Math.min(apart(value), NEAR);
  if (isLeap && Math.round(leap) === LEAP_DAY) return "29 Feb";
  const day = isLeap ? Math.round(leap) - Number(leap > LEAP_DAY) : Math.round(value);
  return levels[day % levels.length];
}
