/** The charts that the explorer draws itself, over Observable Plot. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { amount, signed } from "./figures.js";

const CLASS = "plot"; // whose style the page's Content-Security-Policy lets in

/**
 * A chart whose name is read, and those of its marks that have one of their own; Plot names its groups after its marks,
 * which says nothing to anybody.
 *
 * @param {import("@observablehq/plot").PlotOptions} options
 */
function plot(options) {
  const chart = Plot.plot({ ...options, className: CLASS });
  for (const group of chart.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
  const named = chart.querySelectorAll("[aria-label]");
  for (const mark of named) mark.setAttribute("role", "img");
  chart.setAttribute("role", named.length ? "group" : "img");
  return chart;
}

/**
 * What each number of edges costs, and where the rule stands on it.
 *
 * @param {{edges: number, r2: number}[]} curve
 * @param {number} edges
 * @param {number} r2
 */
export function drawCost(curve, edges, r2) {
  return plot({
    width: 264,
    height: 116,
    marginLeft: 34,
    marginRight: 8,
    marginTop: 18,
    ariaLabel: "R² of the pruned network by the number of edges kept",
    x: { label: "edges kept →", ticks: 4 },
    y: { label: "↑ R²", domain: [0, 1], clamp: true, ticks: 3, grid: true },
    marks: [
      Plot.lineY(curve, { x: "edges", y: "r2", stroke: "var(--up)", strokeWidth: 2 }),
      Plot.dot([{ edges, r2 }], { x: "edges", y: "r2", r: 5, fill: "var(--up)", stroke: "var(--card)" }),
    ],
  });
}

/** @typedef {import("./api.js").Schemas["Explanation"]} Explanation */

const MAX_BARS = 14; // of features; the others are one bar
const MAX_NAME = 22; // characters
const CHARACTER = 6.4; // width
const TICK = 70; // pixels of a chart for a tick

/**
 * The way from the baseline's forecast to the forecast, a bar for each feature, the largest first.
 *
 * @param {Explanation} explanation
 * @param {string | null} unit
 * @param {number} width
 */
export function drawWaterfall({ contributions, baseline_prediction: baseline, prediction }, unit, width) {
  const bars = stack(contributions, baseline);
  const rows = ["baseline", ...bars.map(({ name }) => name), "forecast"];
  const ends = [
    { name: "baseline", value: baseline },
    { name: "forecast", value: prediction },
  ];
  return plot({
    width,
    ...rowsOf(rows, 22),
    marginRight: 56,
    ariaLabel: `Contributions from ${amount(baseline, unit)}, the baseline, to ${amount(prediction, unit)}, the forecast`,
    x: { label: unit ? `forecast, ${unit} →` : "forecast →", nice: true, grid: true },
    y: { ...namesOf(rows), padding: 0.25 },
    marks: [
      Plot.ruleX(ends, { x: "value", stroke: "currentColor", strokeDasharray: "3 3", strokeOpacity: 0.5 }),
      Plot.barX(bars, {
        x1: "from",
        x2: "to",
        y: "name",
        fill: ({ value }) => (value < 0 ? "var(--down)" : "var(--up)"),
        ariaLabel: ({ name, value, to }) => `${name}: ${signed(value, unit)}, to ${amount(to, unit)}`,
        insetLeft: -0.5,
        insetRight: -0.5,
      }),
      Plot.tickX(ends, { x: "value", y: "name", strokeWidth: 4, stroke: "currentColor" }),
      Plot.text(bars, {
        x: ({ from, to }) => Math.max(from, to),
        y: "name",
        text: ({ value }) => signed(value),
        textAnchor: "start",
        dx: 5,
      }),
      Plot.text(ends, {
        x: "value",
        y: "name",
        text: ({ value }) => amount(value),
        textAnchor: "start",
        dx: 7,
        fontWeight: 700,
      }),
    ],
  });
}

/**
 * Bars that each begin where the one before ends.
 *
 * @param {Record<string, number>} contributions
 * @param {number} start
 */
function stack(contributions, start) {
  const sorted = Object.entries(contributions).sort(([, a], [, b]) => Math.abs(b) - Math.abs(a));
  const [shown, others] =
    sorted.length > MAX_BARS + 1 ? [sorted.slice(0, MAX_BARS), sorted.slice(MAX_BARS)] : [sorted, []];
  const rest = others.reduce((sum, [, value]) => sum + value, 0);
  let to = start;
  return [...shown, ...(others.length ? [/** @type {const} */ ([`${others.length} others`, rest])] : [])].map(
    ([name, value]) => {
      const from = to;
      to += value;
      return { name, value, from, to };
    },
  );
}

/**
 * What each feature added at each step: rows by how much they add or take, columns from the oldest step to the newest.
 *
 * @param {Explanation} explanation with steps
 * @param {string[]} features
 * @param {number[][]} window
 * @param {string | null} unit
 * @param {number} width
 */
export function drawHeatMap({ steps = [] }, features, window, unit, width) {
  const sizes = new Map(features.map((name, index) => [name, d3.sum(steps, (row) => Math.abs(row[index]))]));
  const order = d3.sort(features, (name) => -(sizes.get(name) ?? 0));
  const cells = steps.flatMap((row, step) =>
    row.map((value, index) => ({
      feature: features[index],
      ago: step - steps.length + 1,
      value,
      input: window[step][index],
    })),
  );
  return plot({
    width,
    ...rowsOf(features, 17),
    marginRight: 8,
    ariaLabel: "Contribution of each feature at each step",
    x: { ...stepsOf(steps.length, width), padding: 0.04 },
    y: { ...namesOf(order), padding: 0.06 },
    color: {
      type: "linear",
      domain: symmetric(cells.map(({ value }) => value)),
      range: ["var(--down)", "var(--nought)", "var(--up)"],
      interpolate: /** @type {any} */ (mix),
    },
    marks: [
      Plot.cell(cells, {
        x: "ago",
        y: "feature",
        fill: "value",
        title: ({ feature, ago, value, input }) => {
          const when = ago === 0 ? "newest step" : `${-ago} before the newest`;
          return `${feature}, ${when}\nadded ${signed(value, unit)}\nwas ${amount(input)}`;
        },
      }),
    ],
  });
}

/**
 * A colour between two, by CSS, which knows what the variables are in the light and in the dark.
 *
 * @param {string} from
 * @param {string} to
 */
function mix(from, to) {
  return (/** @type {number} */ share) => `color-mix(in oklab, ${to} ${(share * 100).toFixed(1)}%, ${from})`;
}

/**
 * A domain whose middle is 0.
 *
 * @param {number[]} values
 */
export function symmetric(values) {
  const largest = Math.max(...values.map(Math.abs)) || 1;
  return [-largest, 0, largest];
}

/**
 * How much each step matters.
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
      Plot.barY(rows, { x: "ago", y: "value", fill: "var(--up)", fillOpacity: 0.75 }),
      Plot.ruleX(rows, { x: "ago", y1: "low", y2: "high", stroke: "currentColor", strokeWidth: 1.5 }),
      Plot.ruleY([0], { stroke: "currentColor" }),
    ],
  });
}

/**
 * The room of a chart with a row for each name.
 *
 * @param {string[]} names
 * @param {number} height of a row
 */
function rowsOf(names, height) {
  return { height: 44 + names.length * height, marginLeft: nameMargin(names), marginTop: 8, marginBottom: 36 };
}

/**
 * An axis of names.
 *
 * @param {string[]} names from top to bottom
 */
function namesOf(names) {
  return { domain: names, label: null, tickSize: 0, tickFormat: shorten };
}

/**
 * An axis of steps.
 *
 * @param {number} count
 * @param {number} width of the chart
 */
function stepsOf(count, width) {
  return {
    label: "step, the newest is 0 →",
    type: /** @type {const} */ ("band"),
    tickSize: 0,
    ticks: spaced(count, width),
    tickFormat: (/** @type {number} */ ago) => amount(ago),
  };
}

/**
 * Steps that have a tick, the newest among them.
 *
 * @param {number} count
 * @param {number} width of the chart
 */
function spaced(count, width) {
  const every = Math.ceil((count * TICK) / width);
  return Array.from({ length: count }, (_, index) => index - count + 1).filter((ago) => ago % every === 0);
}

/** @param {string} name */
function shorten(name) {
  return name.length <= MAX_NAME ? name : `${name.slice(0, MAX_NAME - 1)}…`;
}

/** @param {string[]} names */
function nameMargin(names) {
  return 10 + CHARACTER * Math.max(...names.map((name) => shorten(name).length));
}
