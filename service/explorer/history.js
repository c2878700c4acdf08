/** The history of a target, and its forecast with band and actual value, in neutral ink. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { plot } from "./charts.js";
import { h } from "./dom.js";
import { stepLabel, timeLabel } from "./figures.js";
import { levelName } from "./intervals.js";
import { nameMoment, wallClock } from "./references.js";

/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./figures.js").Times} Times */
/** @typedef {import("./intervals.js").Interval} Interval */
/** @typedef {import("./references.js").Moment} Moment */

/**
 * A step that is forecast.
 *
 * @typedef {object} Ahead
 * @property {string} output
 * @property {number} step from 1
 * @property {number} forecast
 * @property {number | undefined} came
 * @property {Interval | undefined} band
 */

const HEIGHT = 330;
const [LEFT, RIGHT] = [46, 18];
const BEFORE = 60; // reference windows drawn before the one that is shown, at most
const AFTER = 8; // and after it
const APART = 3; // gap between two runs, in usual gaps
const TICK = 64; // pixels of a label

/**
 * The legend of a chart of series.
 *
 * @param {{actual: boolean, band: string | undefined}} drawn whether there are actual values, and what the band is
 */
export function seriesKey({ actual, band }) {
  return h(
    "span",
    { class: "key muted" },
    ...(actual ? [h("i", { class: "actual" }), "actual"] : []),
    h("i", { class: "forecast" }),
    "forecast",
    ...(band ? [h("i", { class: "band" }), band] : []),
  );
}

/**
 * The target over the steps of the window, and its forecasts for those that follow. A click on one explains it.
 *
 * @param {number[]} history oldest first
 * @param {Ahead[]} ahead
 * @param {Page} page
 * @param {Times | undefined} times
 * @param {number} width
 * @param {string} [view] in which a step is explained
 */
export function drawAhead(history, ahead, page, times, width, view = "story") {
  const past = history.map((value, index) => ({ step: index - history.length + 1, value }));
  const isJoined = ahead[0].step === 1;
  const newest = past.slice(-1).map(({ step, value }) => ({ step, forecast: value }));
  const first = past.length ? 1 - past.length : ahead[0].step;
  const known = ahead.filter(({ came }) => came !== undefined);
  const every = Math.ceil(((past.length + ahead.length) * TICK) / width);
  const shown = ahead.filter(({ output }) => output === page.output);
  const banded = ahead.filter(({ band }) => band);
  return plot({
    ...frame(width, page, "Actual values up to the newest step, and the forecasts after it"),
    x: {
      ...{ label: null, domain: [first, ahead[ahead.length - 1].step], tickSize: 0 },
      ticks: d3.range(first, ahead[ahead.length - 1].step + 1).filter((step) => step % every === 0),
      tickFormat: (/** @type {number} */ step) => (step > 0 ? `+${step}` : stepLabel(step, times, past.length + ahead.length)),
    },
    marks: [
      Plot.ruleX(newest, { x: "step", stroke: "var(--line)" }),
      ...drawBand(banded.map(({ step, band }) => ({ x: step, low: band?.lower, high: band?.upper }))),
      Plot.lineY([...(isJoined ? newest : []), ...ahead], { ...FORECAST, x: "step", y: "forecast" }),
      Plot.lineY([...past, ...known.map(({ step, came }) => ({ step, value: came }))], { ...ACTUAL, x: "step", y: "value", z: ({ step }) => isJoined || step > 0 }),
      Plot.dot(ahead, {
        ...{ x: "step", y: "forecast", r: ahead.length > 1 ? 3 : 0, fill: "var(--forecast)", stroke: "var(--card)" },
        href: ({ output }) => page.link(view, { output }),
        ariaLabel: ({ output, forecast }) => `${output}: ${forecast.toPrecision(4)}`,
      }),
      ...drawPoint(shown.map(({ step, forecast, came }) => ({ x: step, forecast, came }))),
    ],
  });
}

/**
 * The forecasts and actual values of the reference windows around the one that is shown, as far as they follow one
 * another.
 *
 * @param {Moment[]} moments
 * @param {number} chosen place of the window that is shown
 * @param {{forecast: number, came: number | undefined, band: Interval | undefined}} point it, which may be changed
 * @param {Page} page
 * @param {number} width
 */
export function drawAround(moments, chosen, point, page, width) {
  const { band } = point;
  const rows = around(moments, chosen).map((moment) => ({ ...moment, x: moment.time ? wallClock(moment.time) : moment.index }));
  const shown = rows.filter(({ index }) => index === moments[chosen].index);
  const timed = shown[0].time !== null;
  const chart = plot({
    ...frame(width, page, "Actual values and forecasts of the reference windows around this one"),
    x: timed
      ? { label: null, type: "utc", ticks: width / TICK / 1.4, tickFormat: (/** @type {Date} */ time) => timeLabel(+time, 0, 1) }
      : { label: "reference window →", ticks: width / TICK },
    marks: [
      ...drawBand(shown.map(({ x }) => ({ x, low: band?.lower, high: band?.upper }))),
      Plot.lineY(rows, { ...FORECAST, x: "x", y: "forecast" }),
      Plot.lineY(rows, { ...ACTUAL, x: "x", y: "came" }),
      Plot.dot(rows, {
        ...{ x: "x", y: "forecast", r: 4, fill: "transparent" },
        title: (moment) => nameMoment(moment),
        href: ({ index }) => page.link("story", { window: `ref:${index}`, from: "" }),
      }),
      ...drawPoint(shown.map(({ x }) => ({ x, ...point }))),
    ],
  });
  chart.setAttribute("role", "group");
  for (const link of chart.querySelectorAll("a")) {
    link.setAttribute("tabindex", "-1"); // the buttons beside the window's number lead through them by keyboard
    link.setAttribute("aria-hidden", "true");
  }
  return chart;
}

const ACTUAL = /** @type {const} */ ({ stroke: "var(--actual)", strokeWidth: 2 });
const FORECAST = /** @type {const} */ ({ stroke: "var(--forecast)", strokeWidth: 1.25 });

/**
 * @param {number} width
 * @param {Page} page
 * @param {string} ariaLabel
 */
function frame(width, { unit }, ariaLabel) {
  return {
    ...{ width, height: HEIGHT, marginLeft: LEFT, marginRight: RIGHT, marginTop: 22, ariaLabel },
    y: { label: unit ? `↑ ${unit}` : null, grid: true, ticks: 5 },
  };
}

/**
 * The band of one forecast, or of several that follow one another.
 *
 * @param {{x: number, low: number | undefined, high: number | undefined}[]} rows
 */
function drawBand(rows) {
  if (rows.length > 1) return [Plot.areaY(rows, { x: "x", y1: "low", y2: "high", fill: "var(--band)" })];
  return rows.filter(({ low }) => low !== undefined).length
    ? [Plot.ruleX(rows, { x: "x", y1: "low", y2: "high", stroke: "var(--band)", strokeWidth: 14 })]
    : [];
}

/** @param {{x: number, forecast: number, came: number | undefined}[]} rows */
function drawPoint(rows) {
  return [
    Plot.dot(rows, { x: "x", y: "forecast", r: 5.5, fill: "var(--forecast)", stroke: "var(--card)", strokeWidth: 1.5 }),
    Plot.dot(
      rows.filter(({ came }) => came !== undefined),
      { x: "x", y: "came", r: 5, fill: "var(--actual)", stroke: "var(--card)", strokeWidth: 1.5 },
    ),
  ];
}

/**
 * The windows of the same run, without a long gap between two.
 *
 * @param {Moment[]} moments
 * @param {number} chosen
 */
function around(moments, chosen) {
  const at = (/** @type {number} */ place) => (moments[place].time === null ? place : wallClock(moments[place].time ?? ""));
  const usual = d3.median(d3.pairs(d3.range(moments.length), (one, other) => at(other) - at(one))) ?? 1;
  const isNear = (/** @type {number} */ place) => at(place + 1) - at(place) <= APART * usual;
  let [first, last] = [chosen, chosen];
  while (first > 0 && chosen - first < BEFORE && isNear(first - 1)) first -= 1;
  while (last < moments.length - 1 && last - chosen < AFTER && isNear(last)) last += 1;
  return moments.slice(first, last + 1);
}

/**
 * What a band is of.
 *
 * @param {Interval | undefined} band
 * @param {boolean} isOwn whether the model has it; otherwise it is of errors that were observed
 */
export function nameBand(band, isOwn) {
  return band && (isOwn ? `${levelName(band.level)} interval` : `usual error (${levelName(band.level)})`);
}
