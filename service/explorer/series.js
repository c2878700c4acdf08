/** Charts of a window's features over its steps, together with other windows; values are changed by dragging points. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { plot, shorten } from "./charts.js";
import { h, svg, widthOf } from "./dom.js";
import { fit, spread, withValue } from "./edits.js";
import { formatValue, stepLabel } from "./figures.js";
import { titlesOf } from "./names.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./edits.js").Feature} Feature */
/** @typedef {import("./figures.js").Times} Times */
/** @typedef {import("./windows.js").Window} Window */

/**
 * The windows whose lines are drawn.
 *
 * @typedef {object} Lines
 * @property {Window} window the shown window, which can be changed
 * @property {Window} [before] the window before it was changed
 * @property {Window} [other] the baseline
 * @property {Window} [answer] a window with the wanted forecast
 * @property {Times} [times] of the steps
 */

/**
 * Called when a point is moved, with the new window and the ms to wait for further moves.
 *
 * @callback Change
 * @param {Window} window
 * @param {number} rest
 * @returns {void}
 */

const WIDTH = 300; // least width of a chart
const HEIGHT = 124;
const SLACK = 0.5; // space above and below the values for dragging, in spreads of the feature
const NUDGE = 0.1; // move of a point by an arrow key, in spreads of the feature
const PAGE = 10; // arrow keys per page key
const KEY_REST = 500; // ms
const LOOKS = {
  window: { stroke: "var(--ink)", strokeWidth: 2 },
  other: { stroke: "var(--muted)", strokeDasharray: "4 3" },
  before: { stroke: "var(--muted)", strokeDasharray: "1 3", strokeWidth: 1.5 },
  answer: { stroke: "var(--ink)", strokeDasharray: "7 3", strokeWidth: 1.5 },
};
const RANGE = { stroke: "var(--wrong)", strokeDasharray: "2 3" }; // of the training
const NAMES = {
  window: "this window",
  before: "as it was",
  other: "what it is compared with",
  answer: "with the wanted forecast",
};
/** @typedef {keyof typeof NAMES} Kind */

/** The legend of the lines. */
function lineKey() {
  return /** @type {[Kind, string][]} */ (Object.entries(NAMES)).map(([kind, label]) => ({
    kind,
    element: keyOf(LOOKS[kind], label),
  }));
}

/**
 * @param {{stroke: string, strokeWidth?: number, strokeDasharray?: string}} look
 * @param {string} label
 */
function keyOf({ stroke, strokeWidth = 1, strokeDasharray }, label) {
  const look = { stroke, "stroke-width": strokeWidth, "stroke-dasharray": strokeDasharray };
  const line = svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, ...look });
  return h("span", { class: "kind" }, svg("svg", { width: 26, height: 10, "aria-hidden": "true" }, line), label);
}

/**
 * Charts of some features.
 *
 * @param {Schemas["ModelInfo"]} model
 * @param {Change} change
 * @param {(index: number, step: number) => void} choose a point
 */
export function seriesCharts({ features, lookback }, change, choose) {
  const charts = h("div", { class: "series" });
  const key = lineKey();
  const named = titlesOf(features);
  const range = features.some(({ min, max }) => min !== null || max !== null)
    ? [keyOf(RANGE, "smallest and largest value of the training")]
    : [];
  const element = h(
    "figure",
    { class: "chart" },
    h("figcaption", { class: "kinds muted" }, ...key.map(({ element }) => element), ...range),
    charts,
  );
  /** @type {Map<number, ReturnType<typeof seriesChart>>} */
  const known = new Map();
  const chartOf = (/** @type {number} */ index) => {
    const chart = known.get(index) ?? seriesChart(features[index], named.get(features[index].name) ?? "", index, lookback, change, choose);
    known.set(index, chart);
    return chart;
  };

  /**
   * @param {number[]} indices of the features
   * @param {Lines} lines
   */
  const set = (indices, lines) => {
    for (const { kind, element } of key) element.hidden = !lines[kind];
    const room = widthOf(charts);
    const width = Math.floor(room / Math.max(1, Math.min(3, Math.floor(room / WIDTH)))) - 8;
    const places = indices.map((index) => chartOf(index).element);
    for (const place of [...charts.children]) if (!places.some((one) => one === place)) place.remove();
    places.forEach((place, number) => {
      if (charts.children[number] !== place) charts.insertBefore(place, charts.children[number] ?? null);
    });
    for (const index of indices) chartOf(index).set(lines, width);
  };
  const chosen = (/** @type {number} */ index, /** @type {number} */ step) => known.get(index)?.chosen(step);
  return { element, set, chosen };
}

/**
 * @param {Feature} feature
 * @param {string} label a shorter name
 * @param {number} index of it
 * @param {number} lookback
 * @param {Change} change
 * @param {(index: number, step: number) => void} choose
 */
function seriesChart(feature, label, index, lookback, change, choose) {
  let step = lookback - 1;
  /** @type {Lines} */
  let lines = { window: [] };
  let width = WIDTH;
  /** @type {[number, number] | undefined} that stays while a point is dragged */
  let held;
  let moved = false;
  let drawn = ""; // what is drawn, as far as it was given
  /** @type {ReturnType<typeof plot> | undefined} */
  let chart;
  const handle = h("span", { class: "handle", "aria-hidden": "true" });
  const stage = h("div");
  const element = h("div", { class: "line", role: "slider", tabindex: 0, "data-feature": feature.name }, stage, handle);

  const draw = () => {
    const domain = held ?? domainOf(feature, index, lines);
    chart = drawLines(feature, label, index, lines, domain, width);
    stage.replaceChildren(chart);
    mark();
  };
  const mark = () => {
    const value = lines.window[step][index];
    handle.style.left = `${chart?.scale("x")?.apply(step - lookback + 1)}px`;
    handle.style.top = `${chart?.scale("y")?.apply(value)}px`;
    for (const [name, said] of Object.entries(describe(feature, value, stepLabel(step - lookback + 1, lines.times)))) {
      element.setAttribute(name, said);
    }
  };
  const take = (/** @type {number} */ wanted) => {
    step = Math.max(0, Math.min(lookback - 1, wanted));
    choose(index, step);
    mark();
  };
  const move = (/** @type {number} */ value, /** @type {number} */ rest) => {
    lines = { ...lines, before: lines.before ?? lines.window };
    lines.window = withValue(lines.window, step, index, fit(value, feature));
    if (held) draw(); // otherwise it is drawn when it is shown
    change(lines.window, rest);
  };
  const placeOf = (/** @type {PointerEvent} */ event) => {
    const { left, top } = stage.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };
  const stepAt = (/** @type {PointerEvent} */ event) =>
    Math.round(chart?.scale("x")?.invert?.(placeOf(event).x) ?? 0) + lookback - 1;
  const begin = (/** @type {PointerEvent} */ event) => {
    const isTouch = event.pointerType === "touch"; // touch scrolls the page except on the handle
    moved = false;
    if (isTouch && event.target !== handle) return;
    if (!isTouch) take(stepAt(event));
    held = domainOf(feature, index, lines);
    element.setPointerCapture(event.pointerId);
  };
  const drag = (/** @type {PointerEvent} */ event) => {
    if (!held || !event.buttons) return;
    moved = true;
    move(clamp(chart?.scale("y")?.invert?.(placeOf(event).y) ?? 0, held), Infinity);
  };
  const end = () => {
    if (!held) return;
    held = undefined;
    if (moved) change(lines.window, 0);
  };
  const tap = (/** @type {MouseEvent} */ event) => {
    if (!moved) take(stepAt(/** @type {PointerEvent} */ (event)));
  };
  const press = (/** @type {KeyboardEvent} */ event) => {
    const nudge = feature.integer ? 1 : NUDGE * spread(feature);
    const ups = { ArrowUp: 1, ArrowDown: -1, PageUp: PAGE, PageDown: -PAGE }[event.key];
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (ups) move(lines.window[step][index] + ups * nudge, KEY_REST);
    else if (steps) take(step + steps);
    else return;
    event.preventDefault();
  };
  element.addEventListener("pointerdown", begin);
  element.addEventListener("pointermove", drag);
  element.addEventListener("click", tap);
  for (const kind of ["pointerup", "pointercancel"]) element.addEventListener(kind, end);
  element.addEventListener("keydown", press);

  /**
   * @param {Lines} given
   * @param {number} room
   */
  const set = (given, room) => {
    if (held) return; // a point is being dragged
    lines = given;
    width = room;
    const key = JSON.stringify([width, lines.times, windowsOf(lines).map((rows) => rows.map((row) => row[index]))]);
    if (key !== drawn) draw();
    drawn = key;
  };
  const chosen = (/** @type {number} */ wanted) => {
    step = wanted;
    if (chart) mark();
  };
  return { element, set, chosen };
}

/**
 * The ARIA attributes of a slider.
 *
 * @param {Feature} feature
 * @param {number} value
 * @param {string} when
 * @returns {Record<string, string>}
 */
function describe(feature, value, when) {
  const { name, unit, min, max } = feature;
  return {
    "aria-label": `${name} over the steps: left and right choose a step, up and down change its value`,
    "aria-valuenow": value.toFixed(6),
    "aria-valuetext": `${formatValue(value, unit, feature)}, ${when}`,
    "aria-valuemin": Math.min(value, min ?? value).toFixed(6), // without an exponent, which ARIA does not allow
    "aria-valuemax": Math.max(value, max ?? value).toFixed(6),
  };
}

/**
 * @param {number} value
 * @param {[number, number]} bounds
 */
function clamp(value, [low, high]) {
  return Math.max(low, Math.min(high, value));
}

/**
 * The y domain of a chart: its lines, and some space for dragging.
 *
 * @param {Feature} feature
 * @param {number} index
 * @param {Lines} lines
 * @returns {[number, number]}
 */
function domainOf(feature, index, lines) {
  const values = windowsOf(lines).flatMap((window) => window.map((row) => row[index]));
  const [low = 0, high = 0] = d3.extent(values);
  const slack = SLACK * spread(feature);
  return [low - slack, high + slack];
}

/** @param {Lines} lines */
function windowsOf(lines) {
  return /** @type {Kind[]} */ (Object.keys(NAMES)).map((kind) => lines[kind] ?? []);
}

/**
 * @param {Feature} feature
 * @param {string} label
 * @param {number} index
 * @param {Lines} lines
 * @param {[number, number]} domain
 * @param {number} width
 */
function drawLines({ name, unit, min, max }, label, index, lines, domain, width) {
  const rows = (/** @type {Window | undefined} */ of) =>
    (of ?? []).map((row, step) => ({ ago: step - lines.window.length + 1, value: row[index] }));
  const bounds = [min, max].flatMap((value) => (value === null ? [] : [{ value }]));
  const present = /** @type {(keyof typeof LOOKS)[]} */ (["other", "before", "answer", "window"]).filter(
    (kind) => lines[kind],
  );
  return plot({
    width,
    height: HEIGHT,
    marginLeft: 48,
    marginTop: 22,
    ariaLabel: `${name} over the steps of the window${lines.other ? ", and of the other window" : ""}`,
    x: { label: null, ticks: 4, tickFormat: (/** @type {number} */ step) => stepLabel(step, lines.times, lines.window.length) },
    y: { label: `↑ ${shorten(label, 2 * width)}${unit ? `, ${unit}` : ""}`, domain, ticks: 3, grid: true },
    marks: [
      Plot.ruleY(
        bounds.filter(({ value }) => value >= domain[0] && value <= domain[1]),
        { y: "value", ...RANGE },
      ),
      ...present.map((kind) => Plot.lineY(rows(lines[kind]), { x: "ago", y: "value", ...LOOKS[kind] })),
      Plot.dot(rows(lines.window), { x: "ago", y: "value", r: 2, fill: "var(--ink)" }),
    ],
  });
}
