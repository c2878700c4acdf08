/** Response curves: the forecast over a shift of each feature, with the other features unchanged. Levels have none. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { askJson, reasonOf } from "./api.js";
import { plot, shorten } from "./charts.js";
import { h, widthOf } from "./dom.js";
import { spread } from "./edits.js";
import { formatChange } from "./figures.js";
import { afterRest } from "./latest.js";
import { titlesOf } from "./names.js";
import { columnsOf } from "./tables.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./forecast-summary.js").Formats} Formats */
/** @typedef {import("./windows.js").Window} Window */

const REACH = 2; // range of shifts, in spreads of the feature, up and down
const POINTS = 21;
const N_FIRST = 12; // curves drawn before all are requested
const REST = 250; // ms without a change before they are requested
const WIDTH = 218; // approximate width of a curve; two fit side by side on a phone
const HEIGHT = 116;

/**
 * @param {Page} page
 * @param {(index: number, by: number | undefined) => void} take shifts a feature; undefined lets the user enter the
 *   shift
 */
export function responseCurves({ path, version, output, model }, take) {
  const { features } = model;
  const levels = new Set(columnsOf(model).flatMap((column) => (column.levels.length ? column.features : [])));
  const n_curves = features.length - levels.size;
  const named = titlesOf(features);
  const rest = afterRest();
  let running = new AbortController();
  let all = false;
  /** @type {{window: Window, prediction: number, order: number[], formats: Formats} | undefined} */
  let wanted;
  /** @type {Map<number, ReturnType<typeof curveButton>>} */
  const buttons = new Map();
  const problem = h("p", { class: "refused", role: "alert" });
  const place = h("div", { class: "responses" });
  const more = h("button", { type: "button", hidden: n_curves <= N_FIRST, onclick: () => showAll() });
  more.textContent = `All ${n_curves} features`;
  const element = h("div", { class: "stack" }, problem, place, h("div", { class: "row" }, more));
  const showAll = () => {
    all = true;
    more.hidden = true;
    void draw();
  };
  const buttonOf = (/** @type {number} */ index) => {
    const button = buttons.get(index) ?? curveButton(features[index], named.get(features[index].name) ?? "", (by) => take(index, by));
    buttons.set(index, button);
    return button;
  };
  const draw = async () => {
    running.abort();
    running = new AbortController();
    const { signal } = running;
    if (!wanted) return;
    const { window, prediction, order, formats } = wanted;
    const indices = order.filter((index) => !levels.has(features[index].name)).slice(0, all ? undefined : N_FIRST);
    try {
      const curves = await Promise.all(indices.map((index) => ask(window, index, signal)));
      const domain = d3.extent([prediction, ...curves.flatMap(({ predictions }) => predictions)]);
      const places = indices.map((index) => buttonOf(index).element);
      if (places.some((one, number) => place.children[number] !== one)) place.replaceChildren(...places);
      const room = widthOf(place);
      const width = Math.floor(room / Math.max(2, Math.floor(room / WIDTH))) - 10;
      const bounds = /** @type {[number, number]} */ (domain);
      indices.forEach((index, number) => buttonOf(index).set(curves[number], prediction, bounds, width, formats));
      problem.textContent = "";
    } catch (error) {
      if (!signal.aborted) problem.textContent = reasonOf(error);
    }
  };
  /**
   * @param {Window} window
   * @param {number} index
   * @param {AbortSignal} signal
   */
  const ask = async (window, index, signal) => {
    const reach = REACH * spread(features[index]);
    const body = {
      ...{ instances: [window], output, features: [features[index].name] },
      shift: { from: -reach, to: reach, points: POINTS },
    };
    const answer = /** @type {Schemas["WhatIfResponse"]} */ (
      await askJson({ path: `${path}:whatif`, query: version, body }, signal)
    );
    return answer.curves[0][0];
  };

  /**
   * @param {Window} window
   * @param {number} prediction of it
   * @param {number[]} order of the features
   * @param {Formats} formats
   */
  const set = (window, prediction, order, formats) => {
    running.abort();
    wanted = { window, prediction, order, formats };
    rest.after(REST, () => void draw());
  };
  return { element, set };
}

/**
 * @param {Schemas["ModelInfo"]["features"][number]} feature
 * @param {string} label a shorter name
 * @param {(by: number | undefined) => void} take
 */
function curveButton(feature, label, take) {
  /** @type {ReturnType<typeof plot> | undefined} */
  let chart;
  const click = (/** @type {MouseEvent} */ event) => {
    const at = event.clientX - (chart?.getBoundingClientRect().left ?? 0);
    take(event.detail ? chart?.scale("x")?.invert?.(at) : undefined); // a key has no position
  };
  const element = h("button", { type: "button", class: "response", "data-feature": feature.name, onclick: click });
  /**
   * @param {Schemas["ResponseCurve"]} curve
   * @param {number} prediction
   * @param {[number, number]} domain
   * @param {number} width
   * @param {Formats} formats
   */
  const set = (curve, prediction, domain, width, formats) => {
    chart = drawCurve(feature, label, curve, prediction, domain, width, formats);
    chart.removeAttribute("role");
    chart.setAttribute("aria-hidden", "true"); // the button's label describes it
    const [low, high] = /** @type {[number, number]} */ (d3.extent(curve.predictions));
    const { values } = curve;
    const [from, to] = [values[0], values[values.length - 1]].map((by) => formatChange(by, feature.unit, feature));
    const said = `${feature.name} shifted by ${from} to ${to}: the forecast is ${formats.value(low)} to ${formats.value(high)}. Shift it`;
    element.replaceChildren(chart, h("span", { class: "away" }, said));
  };
  return { element, set };
}

/**
 * @param {Schemas["ModelInfo"]["features"][number]} feature
 * @param {string} label
 * @param {Schemas["ResponseCurve"]} curve
 * @param {number} prediction
 * @param {[number, number]} domain
 * @param {number} width
 * @param {Formats} formats
 */
function drawCurve({ unit }, label, { values, predictions, outside_training_range: outside }, prediction, domain, width, formats) {
  const points = values.map((x, number) => ({ x, y: predictions[number], inside: !outside[number] }));
  return plot({
    width,
    height: HEIGHT,
    marginLeft: formats.isShare ? 44 : 38,
    marginTop: 20,
    marginRight: 8,
    marginBottom: 22,
    x: { label: null, ticks: width / 45 },
    y: { label: `${shorten(label, 1.9 * width)}${unit ? `, ${unit}` : ""}`, domain, nice: true, ticks: 3, grid: true, ...(formats.isShare ? { tickFormat: ".0%" } : {}) },
    marks: [
      Plot.ruleX([0], { stroke: "var(--line)" }),
      Plot.lineY(points, { x: "x", y: "y", stroke: "var(--muted)", strokeDasharray: "2 3" }),
      Plot.lineY(points, { x: "x", y: ({ y, inside }) => (inside ? y : NaN), stroke: "var(--ink)", strokeWidth: 2 }),
      Plot.dot([{ x: 0, y: prediction }], { x: "x", y: "y", r: 4, fill: "var(--ink)", stroke: "var(--card)" }),
    ],
  });
}
