/** Charts with Observable Plot: the fidelity curve, and bars of steps. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { svg } from "./dom.js";
import { amount, stepLabel } from "./figures.js";
import { distinctNames } from "./names.js";

const CLASS = "plot"; // its style is allowed by the page's Content-Security-Policy

/**
 * A chart with labels for screen readers on itself and on marks that have one; Plot's own labels of groups, the names
 * of their marks, are removed because they are of no use to a reader.
 *
 * @param {import("@observablehq/plot").PlotOptions} options
 */
export function plot(options) {
  const chart = Plot.plot({ ...options, className: CLASS });
  for (const group of chart.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
  const named = chart.querySelectorAll("[aria-label]");
  for (const mark of named) mark.setAttribute("role", "img");
  chart.setAttribute("role", named.length ? "group" : "img");
  return chart;
}

const LEAST_R2 = -1; // lowest R2 drawn; that of a network with few edges may be in the negative thousands

/**
 * The fidelity curve: R2 over the number of kept edges, with the position of the rule.
 *
 * @param {{edges: number, r2: number}[]} curve
 * @param {number} edges
 * @param {number} r2
 */
export function drawCost(curve, edges, r2) {
  const lowest = Math.min(...curve.map((point) => point.r2));
  const low = Math.max(LEAST_R2, Math.min(0, lowest));
  return plot({
    width: 264,
    height: 116,
    marginLeft: 34,
    marginRight: 8,
    marginTop: 18,
    ariaLabel: "R² of the pruned network by the number of edges kept",
    x: { label: "edges kept →", ticks: 4 },
    y: { label: "↑ R²", domain: [low, 1], ticks: 3, grid: true },
    marks: [
      Plot.lineY(curve, { x: "edges", y: "r2", stroke: "var(--ink)", strokeWidth: 2, clip: true }),
      Plot.ruleY(low < 0 ? [0] : [], { strokeOpacity: 0.4 }),
      Plot.text(lowest < low ? [lowest] : [], {
        frameAnchor: "bottom-right",
        text: (value) => `with fewest down to ${amount(value)}`,
        dy: -3,
      }),
      Plot.dot([{ edges, r2 }], { x: "edges", y: "r2", r: 5, fill: "var(--ink)", stroke: "var(--card)" }),
    ],
  });
}

const MIN_NAME = 14; // fewest characters of a name
const NAME_SHARE = 0.36; // largest share of a chart's width for names
const CHARACTER = 6.4; // width
const TICK = 70; // pixels of a chart for a tick

/**
 * A colour between two, mixed by CSS, so that variables of the light and the dark theme work.
 *
 * @param {string} from
 * @param {string} to
 */
export function mix(from, to) {
  return (/** @type {number} */ share) => `color-mix(in oklab, ${to} ${(share * 100).toFixed(1)}%, ${from})`;
}

/**
 * Mean |contribution| of each step.
 *
 * @param {{mean_abs_contribution: number, interval: number[]}[]} steps oldest first
 * @param {string | null} unit
 * @param {number} width
 */
export function drawSteps(steps, unit, width) {
  const rows = steps.map(({ mean_abs_contribution: value, interval: [low, high] }, index) => ({
    ...{ value, low, high, ago: index - steps.length + 1 },
  }));
  return plot({
    width,
    height: 170,
    marginLeft: 44,
    marginRight: 8,
    ariaLabel: "Mean contribution of each step",
    x: { ...stepsOf(steps.length, width), padding: 0.2 },
    y: { label: `↑ mean |contribution|${unit ? `, ${unit}` : ""}`, grid: true, ticks: 4 },
    marks: [
      Plot.barY(rows, { x: "ago", y: "value", fill: "var(--muted)", fillOpacity: 0.6 }),
      Plot.ruleX(rows, { x: "ago", y1: "low", y2: "high", stroke: "currentColor", strokeWidth: 1.5 }),
      Plot.ruleY([0], { stroke: "currentColor" }),
    ],
  });
}

const BAR = { width: 110, height: 14 };

/**
 * A bar in a cell of a table, from 0, with its interval.
 *
 * @param {number} value
 * @param {number[] | null} interval
 * @param {[number, number]} domain
 * @param {string} [kind] a class for its colour
 */
export function drawBar(value, interval, [low, high], kind = "amount") {
  const at = (/** @type {number} */ of) => ((Math.max(low, Math.min(high, of)) - low) / (high - low || 1)) * BAR.width;
  const [start, end] = [at(Math.min(0, value)), at(Math.max(0, value))];
  const middle = BAR.height / 2;
  return svg(
    "svg",
    { ...BAR, viewBox: `0 0 ${BAR.width} ${BAR.height}`, class: "cell-bar", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { x: start, width: end - start, height: BAR.height, class: kind }),
    low < 0 && svg("path", { d: `M${at(0)} 0V${BAR.height}`, class: "zero" }),
    interval && svg("path", { d: `M${at(interval[0])} ${middle}H${at(interval[1])}`, class: "whisker" }),
  );
}

/**
 * Height and margins of a chart with a row for each name.
 *
 * @param {string[]} names
 * @param {number} height of a row
 * @param {number} width of the chart
 */
export function rowsOf(names, height, width) {
  const marginLeft = 10 + CHARACTER * Math.max(...shortNames(names, width).map(({ length }) => length));
  return { height: 44 + names.length * height, marginLeft, marginTop: 8, marginBottom: 36 };
}

/**
 * An axis of names.
 *
 * @param {string[]} names from top to bottom
 * @param {number} width of the chart
 */
export function namesOf(names, width) {
  const labels = shortNames(names, width);
  const tickFormat = (/** @type {string} */ name) => labels[names.indexOf(name)];
  return { domain: names, label: null, tickSize: 0, tickFormat };
}

/**
 * Names that fit beside a chart.
 *
 * @param {string[]} names
 * @param {number} width of the chart
 */
export function shortNames(names, width) {
  return [...distinctNames(names, Math.max(MIN_NAME, Math.floor((width * NAME_SHARE) / CHARACTER))).values()];
}

/**
 * An axis of steps, with their clock times where these are known.
 *
 * @param {number} count
 * @param {number} width of the chart
 * @param {import("./figures.js").Times} [times]
 */
export function stepsOf(count, width, times) {
  return {
    label: times ? null : "step, the newest is 0 →",
    type: /** @type {const} */ ("band"),
    tickSize: 0,
    ticks: spaced(count, width),
    tickFormat: (/** @type {number} */ ago) => stepLabel(ago, times, count),
  };
}

/**
 * Steps with a tick, including the newest.
 *
 * @param {number} count
 * @param {number} width of the chart
 */
function spaced(count, width) {
  const every = Math.ceil((count * TICK) / width);
  return Array.from({ length: count }, (_, index) => index - count + 1).filter((ago) => ago % every === 0);
}

/**
 * A name that fits beside a chart.
 *
 * @param {string} name
 * @param {number} width of the chart
 */
export function shorten(name, width) {
  return shortNames([name], width)[0];
}
