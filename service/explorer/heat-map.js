/** The heat map of contributions by feature and step; cells are chosen by pointer, touch or arrow keys. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { mix, namesOf, plot, rowsOf, stepsOf, symmetric } from "./charts.js";
import { h, widthOf } from "./dom.js";
import { formatValue, signed, stepLabel } from "./figures.js";
import { hideHint, showHint } from "./hint.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {{feature: string, index: number, step: number, ago: number, value: number, input: number}} Cell */

/** @typedef {import("./figures.js").Times} Times */

/**
 * @param {Schemas["ModelInfo"]["features"]} given
 * @param {string | null} unit of the forecast
 * @param {(index: number, step: number) => void} choose a cell
 * @param {() => void} change the cell that is chosen
 */
export function heatMap(given, unit, choose, change) {
  const features = given.map(({ name }) => name);
  /** @type {Times | undefined} */
  let times;
  /** @type {{chart: Element, rects: SVGRectElement[], cells: Cell[], order: string[]} | undefined} */
  let shown;
  let at = { index: 0, step: 0 };
  const cellOf = (/** @type {EventTarget | null} */ target) =>
    shown?.cells[shown.rects.indexOf(/** @type {SVGRectElement} */ (target))];
  const rectOf = () => {
    const place = shown?.cells.findIndex(({ index, step }) => index === at.index && step === at.step) ?? -1;
    return shown?.rects[place];
  };
  const tell = (/** @type {Cell} */ cell) => {
    const { feature, index, ago, value, input } = cell;
    const rect = shown?.rects[shown.cells.indexOf(cell)];
    const was = formatValue(input, given[index].unit, given[index]);
    if (rect) showHint(rect, [`${feature}, ${stepLabel(ago, times)}`, `added ${signed(value, unit)}`, `was ${was}`]);
  };
  const point = (/** @type {Event} */ event) => {
    const cell = cellOf(event.target);
    if (cell) tell(cell);
    else hideHint();
  };
  const take = (/** @type {Event} */ event) => {
    const cell = cellOf(event.target);
    if (cell) choose(cell.index, cell.step);
  };
  const press = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter") change();
    else if (event.key === "Escape") hideHint();
    else if (!move(event.key)) return;
    event.preventDefault();
  };
  const move = (/** @type {string} */ key) => {
    const turn = TURNS[key];
    if (!turn || !shown) return false;
    const [right, down] = turn;
    const { order, cells } = shown;
    const row = bounded(order.indexOf(features[at.index]) + down, order.length);
    choose(features.indexOf(order[row]), bounded(at.step + right, cells.length / features.length));
    const cell = cellOf(rectOf() ?? null);
    if (cell) tell(cell);
    return true;
  };
  const place = h("div", {
    class: "cells",
    role: "group",
    tabindex: 0,
    "aria-label": "Cells of feature by step: arrows lead through them, Enter changes the value",
    onpointerover: point,
    onpointerdown: point, // a tap
    onpointerleave: (/** @type {PointerEvent} */ event) => event.pointerType === "mouse" && hideHint(),
    onclick: take,
    onkeydown: press,
    onblur: hideHint,
  });
  const element = h("figure", { class: "chart" }, place);

  /**
   * @param {Schemas["Explanation"]} explanation with steps
   * @param {number[][]} window
   * @param {Times} [clocks] of its steps
   */
  const set = ({ steps = [] }, window, clocks) => {
    times = clocks;
    const width = widthOf(element);
    const sizes = new Map(features.map((name, index) => [name, d3.sum(steps, (row) => Math.abs(row[index]))]));
    const order = d3.sort(features, (name) => -(sizes.get(name) ?? 0));
    const cells = steps.flatMap((row, step) =>
      row.map((value, index) => ({
        ...{ feature: features[index], index, step, value },
        ...{ ago: step - steps.length + 1, input: window[step][index] },
      })),
    );
    const chart = drawCells(cells, order, steps.length, width, times);
    shown = { chart, rects: [...chart.querySelectorAll("rect")], cells, order };
    shown.rects.forEach(({ dataset }, number) => {
      const { feature, ago } = cells[number];
      Object.assign(dataset, { feature, step: ago });
    });
    place.replaceChildren(chart);
    mark();
  };
  const mark = () => {
    for (const rect of place.querySelectorAll(".chosen")) rect.classList.remove("chosen");
    rectOf()?.classList.add("chosen");
  };
  const chosen = (/** @type {number} */ index, /** @type {number} */ step) => {
    at = { index, step };
    mark();
  };
  return { element, set, chosen };
}

/** @type {Record<string, [number, number]>} */
const TURNS = {
  ...{ ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] },
  ...{ Home: [-Infinity, 0], End: [Infinity, 0] },
};

/**
 * @param {number} place
 * @param {number} count
 */
function bounded(place, count) {
  return Math.max(0, Math.min(count - 1, place));
}

/**
 * @param {Cell[]} cells
 * @param {string[]} order of the features, from top to bottom
 * @param {number} lookback
 * @param {number} width
 * @param {Times | undefined} times
 */
function drawCells(cells, order, lookback, width, times) {
  return plot({
    width,
    ...rowsOf(order, 17, width),
    marginRight: 8,
    ariaLabel: "Contribution of each feature at each step",
    x: { ...stepsOf(lookback, width, times), padding: 0.04 },
    y: { ...namesOf(order, width), padding: 0.06 },
    color: {
      type: "linear",
      domain: symmetric(cells.map(({ value }) => value)),
      range: ["var(--down)", "var(--nought)", "var(--up)"],
      interpolate: /** @type {any} */ (mix),
    },
    marks: [Plot.cell(cells, { x: "ago", y: "feature", fill: "value" })],
  });
}
