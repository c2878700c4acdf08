/** Sets of forecasts: how they are named in the address, how wrong they were, and what they were driven by. */

import "./vendor/d3.min.js";
import { wallClock } from "./references.js";

/** @typedef {import("./references.js").Moment} Moment */
/** @typedef {[number, number]} Span the first and the last window of it, by their index */

/**
 * What is known of a set of forecasts; means over those that have it.
 *
 * @typedef {object} Summary
 * @property {number} count
 * @property {number} compared how many have an actual value
 * @property {number | undefined} mae
 * @property {number | undefined} bias
 * @property {number | undefined} forecast
 * @property {number | undefined} actual
 * @property {{level: number, covered: number}[]} coverage
 * @property {Record<string, number>} contributions means
 * @property {Record<string, number>} shares of the mean magnitudes, which sum to 1
 */

const WORST = 0.1; // share of the forecasts that are the worst ones
export const WORST_NAME = "worst"; // of that set, in the address

/**
 * The spans of an address, such as `120-180,300-340`.
 *
 * @param {string} [text]
 * @returns {Span[]}
 */
export function readSpans(text = "") {
  const found = [...text.matchAll(/(\d+)-(\d+)/g)].map(([, first, last]) => /** @type {Span} */ ([Number(first), Number(last)]));
  return found.filter(([first, last]) => first <= last);
}

/**
 * Spans for the address, in order, those that touch as one.
 *
 * @param {Span[]} spans
 */
export function writeSpans(spans) {
  const joined = /** @type {Span[]} */ ([]);
  for (const [first, last] of d3.sort(spans, ([start]) => start)) {
    const before = joined.at(-1);
    if (before && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else joined.push([first, last]);
  }
  return joined.map((span) => span.join("-")).join(",");
}

/**
 * The forecasts of a set: those in its spans, or the tenth with the largest errors.
 *
 * @param {Moment[]} moments
 * @param {string | undefined} text of the address
 */
export function chooseMoments(moments, text) {
  if (text === WORST_NAME) return new Set(worstOf(moments, Math.ceil(WORST * moments.filter(({ error }) => error !== undefined).length)));
  const spans = readSpans(text);
  return new Set(moments.filter(({ index }) => spans.some(([first, last]) => first <= index && index <= last)));
}

/**
 * The forecasts that were farthest off, the worst first.
 *
 * @param {Moment[]} moments
 * @param {number} count
 * @param {(error: number) => number} [order]
 */
export function worstOf(moments, count, order = (error) => -Math.abs(error)) {
  const known = moments.filter(({ error }) => error !== undefined);
  return d3.sort(known, ({ error = 0 }) => order(error)).slice(0, count);
}

/**
 * @param {Moment[]} moments
 * @returns {Summary}
 */
export function summarise(moments) {
  const compared = moments.filter(({ error }) => error !== undefined);
  const levels = moments.find(({ intervals }) => intervals.length)?.intervals.map(({ level }) => level) ?? [];
  const coverage = levels.map((level) => ({ level, covered: d3.mean(compared, (moment) => isCovered(moment, level)) ?? NaN }));
  const explained = moments.flatMap(({ contributions }) => (contributions ? [contributions] : []));
  const names = Object.keys(explained[0] ?? {});
  const over = (/** @type {(value: number) => number} */ of) =>
    names.map((name) => /** @type {const} */ ([name, d3.mean(explained, (one) => of(one[name])) ?? NaN]));
  const magnitudes = over(Math.abs);
  const total = d3.sum(magnitudes, ([, value]) => value) || 1;
  return {
    ...{ count: moments.length, compared: compared.length, coverage },
    mae: d3.mean(compared, ({ error = 0 }) => Math.abs(error)),
    bias: d3.mean(compared, ({ error }) => error),
    forecast: d3.mean(moments, ({ forecast }) => forecast),
    actual: d3.mean(compared, ({ came }) => came),
    contributions: Object.fromEntries(over((value) => value)),
    shares: Object.fromEntries(magnitudes.map(([name, value]) => [name, value / total])),
  };
}

/**
 * Whether the interval of a level holds the actual value; NaN where either is not known.
 *
 * @param {Moment} moment
 * @param {number} level
 */
export function isCovered({ came, intervals }, level) {
  const found = intervals.find((one) => one.level === level);
  if (came === undefined || !found) return NaN;
  return Number(found.lower <= came && came <= found.upper);
}

/**
 * The forecasts of each week, by its Monday; none without dates.
 *
 * @param {Moment[]} moments
 * @returns {{monday: Date, moments: Moment[]}[]}
 */
export function byWeek(moments) {
  const groups = d3.group(
    moments.filter(({ time }) => time !== null && Number.isFinite(wallClock(time))),
    ({ time }) => Number(d3.utcMonday.floor(new Date(wallClock(time ?? "")))),
  );
  return d3.sort(groups, ([monday]) => monday).map(([monday, found]) => ({ monday: new Date(monday), moments: found }));
}

/**
 * Contributions summed by outermost group; features in none stand for themselves.
 *
 * @param {Record<string, number>} contributions by feature
 * @param {import("./groups.js").Groups} groups
 */
export function sumGroups(contributions, groups) {
  const held = new Set(Object.values(groups).flat());
  const sum = (/** @type {string} */ name) => /** @type {number} */ (
    Object.hasOwn(groups, name) ? d3.sum(groups[name], sum) : (contributions[name] ?? 0)
  );
  const outer = [...Object.keys(groups), ...Object.keys(contributions)].filter((name) => !held.has(name));
  return Object.fromEntries(outer.map((name) => [name, sum(name)]));
}
