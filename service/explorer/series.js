/** The values of a window over its steps, beside those of the window that it is compared with. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { plot, shorten } from "./charts.js";

/** @typedef {import("./api.js").Schemas} Schemas */

const N_SERIES = 6;
const WIDTH = 300; // of a chart, at least

/**
 * The series of the features that add or take most.
 *
 * @param {Schemas["Explanation"]} explanation
 * @param {Schemas["ModelInfo"]["features"]} features
 * @param {number[][]} window
 * @param {number[][] | undefined} other
 * @param {number} width of the place
 */
export function drawSeries({ contributions }, features, window, other, width) {
  const strongest = d3.sort(features, ({ name }) => -Math.abs(contributions[name])).slice(0, N_SERIES);
  const columns = Math.max(1, Math.min(3, Math.floor(width / WIDTH)));
  return strongest.map((feature) =>
    drawFeature(feature, features.indexOf(feature), window, other, Math.floor(width / columns) - 8),
  );
}

/**
 * @param {Schemas["ModelInfo"]["features"][number]} feature
 * @param {number} index
 * @param {number[][]} window
 * @param {number[][] | undefined} other
 * @param {number} width
 */
function drawFeature({ name, unit, min, max }, index, window, other, width) {
  const rows = (/** @type {number[][] | undefined} */ of) =>
    (of ?? []).map((row, step) => ({ ago: step - window.length + 1, value: row[index] }));
  const bounds = [min, max].flatMap((value) => (value === null ? [] : [{ value }]));
  const values = [...rows(window), ...rows(other)].map(({ value }) => value);
  const [low, high] = d3.extent(values);
  return plot({
    width,
    height: 120,
    marginLeft: 48,
    marginTop: 22,
    ariaLabel: `${name} over the steps of the window${other ? ", and of the other window" : ""}`,
    x: { label: null, ticks: 4, tickFormat: "d" },
    y: { label: `↑ ${shorten(name, 2 * width)}${unit ? `, ${unit}` : ""}`, nice: true, ticks: 3, grid: true },
    marks: [
      Plot.ruleY(
        bounds.filter(({ value }) => value >= (low ?? 0) && value <= (high ?? 0)),
        { y: "value", stroke: "var(--wrong)", strokeDasharray: "2 3" },
      ),
      Plot.lineY(rows(other), { x: "ago", y: "value", stroke: "var(--muted)", strokeDasharray: "4 3" }),
      Plot.lineY(rows(window), { x: "ago", y: "value", stroke: "var(--up)", strokeWidth: 2 }),
    ],
  });
}
