/**
 * The heat map of contributions by feature and step; cells are chosen by pointer, touch or arrow keys. Of many features
 * the first are rows and the others one; of many steps each cell is a stretch, until one is zoomed into.
 */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { mix, namesOf, plot, rowsOf } from "./charts.js";
import { h, widthOf } from "./dom.js";
import { amount, formatValue, signed, stepLabel } from "./figures.js";
import { hideHint, showHint } from "./hint.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./figures.js").Times} Times */

/**
 * A cell: a row over some steps. Of the others there is no index and no input.
 *
 * @typedef {object} Cell
 * @property {string} row
 * @property {number | undefined} index of the feature
 * @property {number} first
 * @property {number} last step, both included
 * @property {number} ago of the last step: 0 the newest, -1 the one before
 * @property {number} value
 * @property {number | undefined} input mean over the steps
 */

const MOST_ROWS = 20; // features that all have a row
const FIRST = 15; // of more, those with one
const CELL = 7; // least width, pixels
const TICK = 70; // pixels of a tick
const DRAG = 6; // pixels from which on a press is a drag

/**
 * @param {Schemas["ModelInfo"]["features"]} described features
 * @param {string | null} unit of the forecast
 * @param {(index: number, step: number) => void} choose a cell
 * @param {() => void} change the cell that is chosen
 */
export function heatMap(described, unit, choose, change) {
  const features = described.map(({ name }) => name);
  /** @type {{rects: SVGRectElement[], cells: Cell[], rows: string[]} | undefined} */
  let shown;
  /** @type {{steps: number[][], window: number[][], times: Times | undefined} | undefined} */
  let given;
  /** @type {[number, number] | undefined} steps that are zoomed into, both included */
  let span;
  let at = { index: 0, step: 0 };
  const cellOf = (/** @type {EventTarget | null} */ target) =>
    shown?.cells[shown.rects.indexOf(/** @type {SVGRectElement} */ (target))];
  const rectOf = () => {
    const place = shown?.cells.findIndex(({ index, first, last }) => index === at.index && first <= at.step && at.step <= last);
    return shown?.rects[place ?? -1];
  };
  const tell = (/** @type {Cell} */ cell) => {
    const { row, index, first, last, value, input } = cell;
    const rect = shown?.rects[shown.cells.indexOf(cell)];
    const when = [...new Set([first, last])].map((step) => stepLabel(step - lookback() + 1, given?.times)).join(" to ");
    const feature = index === undefined ? undefined : described[index];
    const was = feature && `${first < last ? "was on average" : "was"} ${formatValue(input, feature.unit, feature)}`;
    if (rect) showHint(rect, [`${row}, ${when}`, `added ${signed(value, unit)}`, ...(was ? [was] : [])]);
  };
  const lookback = () => given?.steps.length ?? 1;
  const point = (/** @type {Event} */ event) => {
    const cell = cellOf(event.target);
    if (cell) tell(cell);
    else hideHint();
  };
  const take = (/** @type {Cell} */ { index, first, last }) => {
    if (index !== undefined) choose(index, first <= at.step && at.step <= last ? at.step : last);
  };
  /** @type {{x: number, cell: Cell} | undefined} where a drag began */
  let pressed;
  const end = (/** @type {PointerEvent} */ event) => {
    const [from, to] = [pressed, cellOf(document.elementFromPoint(event.clientX, event.clientY))];
    pressed = undefined;
    if (!from || !to) return;
    if (Math.abs(event.clientX - from.x) < DRAG || event.pointerType === "touch") take(to);
    else zoomTo([Math.min(from.cell.first, to.first), Math.max(from.cell.last, to.last)]);
  };
  const zoomTo = (/** @type {[number, number] | undefined} */ wanted) => {
    span = wanted;
    hideHint();
    draw();
  };
  /**
   * Zooms around the chosen step.
   *
   * @param {number} factor of the number of steps
   */
  const zoomBy = (factor) => {
    const [first, last] = span ?? [0, lookback() - 1];
    const count = Math.max(2, Math.round((last - first + 1) * factor));
    if (count >= lookback()) return zoomTo(undefined);
    const start = bounded(Math.round(at.step - count / 2), lookback() - count + 1);
    zoomTo([start, start + count - 1]);
  };
  const press = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter") change();
    else if (event.key === "Escape") hideHint();
    else if (event.key === "+" || event.key === "-") zoomBy(event.key === "+" ? 0.5 : 2);
    else if (!move(event.key)) return;
    event.preventDefault();
  };
  const move = (/** @type {string} */ key) => {
    const turn = TURNS[key];
    if (!turn || !shown) return false;
    const [right, down] = turn;
    const rows = shown.rows.filter((name) => features.includes(name));
    const row = bounded(rows.indexOf(features[at.index]) + down, rows.length);
    const { first = at.step, last = at.step } = current() ?? {};
    const step = bounded(right < 0 ? first + right : right > 0 ? last + right : at.step, lookback());
    if (span && (step < span[0] || step > span[1])) {
      const by = step < span[0] ? step - span[0] : step - span[1];
      span = [span[0] + by, span[1] + by];
      draw();
    }
    choose(features.indexOf(rows[row]), step);
    const cell = current();
    if (cell) tell(cell);
    return true;
  };
  const current = () => cellOf(rectOf() ?? null);
  const place = h("div", {
    class: "cells",
    role: "group",
    tabindex: 0,
    "aria-label": "Cells of feature by step: arrows lead through them, plus and minus zoom, Enter changes the value",
    onpointerover: point,
    onpointerdown: (/** @type {PointerEvent} */ event) => {
      point(event); // a tap
      const cell = cellOf(event.target);
      pressed = cell && { x: event.clientX, cell };
    },
    onpointerup: end,
    onpointerleave: (/** @type {PointerEvent} */ event) => event.pointerType === "mouse" && hideHint(),
    onkeydown: press,
    onblur: hideHint,
  });
  const said = h("span", { class: "muted" });
  const zoom = (/** @type {string} */ label, /** @type {string} */ sign, /** @type {() => void} */ act) =>
    h("button", { type: "button", class: "small", "aria-label": label, title: label, onclick: act }, sign);
  const all = zoom("All steps", "all", () => zoomTo(undefined));
  const bar = h(
    "div",
    { class: "row", hidden: true },
    ...[zoom("Fewer steps", "+", () => zoomBy(0.5)), zoom("More steps", "−", () => zoomBy(2)), all, said],
  );
  const scale = h("div", { class: "scale" });
  const element = h("figure", { class: "chart" }, bar, place);

  /**
   * @param {Schemas["Explanation"]} explanation with steps
   * @param {number[][]} window
   * @param {Times} [times] of the steps, if they are known
   */
  const set = ({ steps = [] }, window, times) => {
    if (given && given.steps.length !== steps.length) span = undefined;
    given = { steps, window, times };
    draw();
  };
  const draw = () => {
    if (!given) return;
    const width = widthOf(element);
    const rows = rowsBySize(features, given.steps, at.index);
    const order = rows.map(({ name }) => name);
    const sizes = rowsOf(order, 17, width);
    const [first, last] = span ?? [0, given.steps.length - 1];
    const most = Math.max(1, Math.floor((width - sizes.marginLeft - 8) / CELL));
    const size = Math.ceil((last - first + 1) / most);
    const cells = cellsOf(rows, given, first, last, size);
    bar.hidden = size === 1 && !span;
    all.hidden = !span;
    const told = size > 1 ? `A cell is ${size} steps; drag across some to see each.` : "";
    said.textContent = span ? `${last - first + 1} of ${given.steps.length} steps. ${told}` : told;
    const largest = Math.max(...cells.map(({ value }) => Math.abs(value))) || 1;
    scale.replaceChildren(h("span", {}, amount(-largest)), h("i", {}), h("span", {}, signed(largest, unit)));
    const chart = drawCells(cells, order, sizes, width, given.times, largest);
    shown = { rects: [...chart.querySelectorAll("rect")], cells, rows: order };
    shown.rects.forEach(({ dataset }, number) => {
      const { row, index, ago } = cells[number];
      if (index !== undefined) dataset.feature = row;
      if (size === 1) dataset.step = String(ago);
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
    if (shown && !shown.rows.includes(features[index])) draw();
    else mark();
  };
  return { element, scale, set, chosen };
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
 * The rows from top to bottom, with their features: the largest, the chosen one, and the others as one.
 *
 * @param {string[]} features
 * @param {number[][]} steps
 * @param {number} chosen feature
 */
function rowsBySize(features, steps, chosen) {
  const sizes = features.map((_, index) => d3.sum(steps, (row) => Math.abs(row[index])));
  const order = d3.sort(d3.range(features.length), (index) => -sizes[index]);
  const alone = order.filter((index, place) => features.length <= MOST_ROWS || place < FIRST || index === chosen);
  const others = order.filter((index) => !alone.includes(index));
  const rows = alone.map((index) => ({ name: features[index], members: [index] }));
  return others.length ? [...rows, { name: `${others.length} others`, members: others }] : rows;
}

/**
 * The cells of all rows over some steps; those of a cell are the last ones of their stretch.
 *
 * @param {{name: string, members: number[]}[]} rows
 * @param {{steps: number[][], window: number[][]}} given
 * @param {number} first
 * @param {number} last
 * @param {number} size steps of a cell
 * @returns {Cell[]}
 */
function cellsOf(rows, { steps, window }, first, last, size) {
  const ends = d3.range(last, first - 1, -size).reverse();
  return ends.flatMap((end) => {
    const range = d3.range(Math.max(first, end - size + 1), end + 1);
    return rows.map(({ name, members }) => ({
      ...{ row: name, index: members.length > 1 ? undefined : members[0] },
      ...{ first: range[0], last: end, ago: end - steps.length + 1 },
      value: d3.sum(range, (step) => d3.sum(members, (index) => steps[step][index])),
      input: members.length > 1 ? undefined : d3.mean(range, (step) => window[step][members[0]]),
    }));
  });
}

/**
 * @param {Cell[]} cells
 * @param {string[]} rows from top to bottom
 * @param {ReturnType<typeof rowsOf>} sizes
 * @param {number} width
 * @param {Times | undefined} times
 * @param {number} largest absolute value of a cell
 */
function drawCells(cells, rows, sizes, width, times, largest) {
  const ends = [...new Set(cells.map(({ ago }) => ago))];
  const every = Math.ceil((ends.length * TICK) / width);
  const [up, down] = [mix("var(--nought)", "var(--up)"), mix("var(--nought)", "var(--down)")];
  const color = (/** @type {Cell} */ { value }) => (value < 0 ? down : up)(Math.sqrt(Math.abs(value) / largest));
  return plot({
    width,
    ...sizes,
    marginRight: 8,
    ariaLabel: "Contribution of each feature at each step",
    x: {
      ...{ label: times ? null : "step, the newest is 0 →", type: "band", tickSize: 0, padding: 0.04 },
      ticks: ends.filter((_, place) => (ends.length - 1 - place) % every === 0),
      tickFormat: (/** @type {number} */ ago) => stepLabel(ago, times, ends[ends.length - 1] - ends[0] + 1),
    },
    y: { ...namesOf(rows, width), padding: 0.06 },
    color: { type: "identity" },
    marks: [Plot.cell(cells, { x: "ago", y: "row", fill: color })], // by the root, so that small ones are seen
  });
}
