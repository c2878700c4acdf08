/** Edits of windows, by value or by feature; they return new windows. */

import "./vendor/d3.min.js";

/** @typedef {import("./windows.js").Window} Window */
/** @typedef {import("./api.js").Schemas["ModelInfo"]["features"][number]} Feature */

/**
 * The window with another value in one cell.
 *
 * @param {Window} window
 * @param {number} step row, 0 the oldest
 * @param {number} index of the feature
 * @param {number} value
 * @returns {Window}
 */
export function withValue(window, step, index, value) {
  return window.map((row, number) => (number === step ? replaced(row, index, value) : row));
}

/**
 * The window with other values of one feature at every step.
 *
 * @param {Window} window
 * @param {number} index of the feature
 * @param {(value: number) => number} change
 * @returns {Window}
 */
export function withFeature(window, index, change) {
  return window.map((row) => replaced(row, index, change(row[index])));
}

/**
 * @param {number[]} row
 * @param {number} index
 * @param {number} value
 */
function replaced(row, index, value) {
  return row.map((old, place) => (place === index ? value : old));
}

/**
 * The number of values that differ.
 *
 * @param {Window} window
 * @param {Window} before
 */
export function countChanges(window, before) {
  return d3.sum(window, (row, step) => d3.sum(row, (value, index) => Number(value !== before[step][index])));
}

/**
 * The indices of features that differ at any step.
 *
 * @param {Window} window
 * @param {Window} before
 */
export function changedFeatures(window, before) {
  return d3.range(window[0].length).filter((index) => window.some((row, step) => row[index] !== before[step][index]));
}

/**
 * A valid value of a feature: whole if its values are, and rounded to significant digits.
 *
 * @param {number} value
 * @param {Feature} feature
 */
export function fit(value, { integer }) {
  return integer ? Math.round(value) : Number(value.toPrecision(6));
}

/**
 * Whether a feature can be changed alone: the sine of an hour or a season goes with its cosine.
 *
 * @param {Feature} feature
 */
export function mayChange({ name, fixed }) {
  return !fixed && !/_(sin|cos)$/.test(name);
}

/**
 * The spread of a feature, the unit of changes.
 *
 * @param {Feature} feature
 */
export function spread({ std, integer }) {
  return std || (integer ? 10 : 1);
}
