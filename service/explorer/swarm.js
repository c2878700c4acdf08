/** The beeswarm of all reference windows' contributions by feature, coloured by the feature's value. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { pictureActions } from "./actions.js";
import { ApiError, askJson, reasonOf } from "./api.js";
import { mix, plot, shortNames } from "./charts.js";
import { h, svg, widthOf } from "./dom.js";
import { amount, signed } from "./figures.js";
import { hideHint, showHint } from "./hint.js";
import { nameMoment } from "./references.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./windows.js").Window} Window */

/**
 * One feature of one window.
 *
 * @typedef {object} Dot
 * @property {number} index of the window
 * @property {string | null} time
 * @property {number} row
 * @property {string} feature
 * @property {string | null} unit of it
 * @property {number} value of the feature at the newest step
 * @property {number} contribution
 * @property {number} color from 0, the lowest values of the feature, to 1
 * @property {number} [y] position
 */

const MOST = 1000; // most windows of a response
const N_ROWS = 14; // features
const ROW = 30; // pixels
const DOT = 1.7; // radius
const BIN = 2 * DOT; // pixels of a stack of dots
const FILLED = 0.86; // share of a row's height that dots fill
const RANK = [0.05, 0.95]; // quantiles of a value at the ends of the colour scale
const [TOP, RIGHT, BOTTOM] = [6, 14, 40];
const NEAR = 14; // largest distance of the pointer from a dot, in pixels
const CHARACTER = 6.4;
const FORBIDDEN = 403; // reference windows are not shown

/**
 * A card with the beeswarm; a dot that is chosen opens its window in the forecast view.
 *
 * @param {Page} page
 */
export function swarm(page) {
  /** @type {ReturnType<typeof drawSwarm> | undefined} */
  let drawn;
  /** @type {Dot[] | undefined} */
  let dots;
  /** @type {Dot | undefined} */
  let at;
  const said = h("p", { class: "muted" });
  const problem = h("p", { class: "refused", role: "alert" });
  const stage = h("div", {
    class: "swarm",
    role: "group",
    tabindex: 0,
    "aria-label": "Contributions of all windows: up and down choose a feature, left and right a window, Enter shows it",
  });
  const place = h("figure", { class: "chart" }, stage);
  const element = h(
    "section",
    { class: "card stack" },
    h(
      "div",
      { class: "between" },
      h("h2", {}, "Among all reference windows"),
      h("span", { class: "scale" }, "low value", h("i", { class: "value" }), "high value"),
      pictureActions(place, () => `${page.model.name}-contributions`, "Contributions of all windows"),
    ),
    said,
    problem,
    place,
  );
  const tell = (/** @type {Dot} */ dot) => {
    at = dot;
    const mark = drawn?.mark(dot);
    const lines = [`${dot.feature}, ${nameMoment(dot)}`, `added ${signed(dot.contribution, page.unit)}`];
    if (mark) showHint(mark, [...lines, `was ${amount(dot.value, dot.unit)} at the newest step`]);
  };
  const point = (/** @type {PointerEvent} */ event) => {
    const { left, top } = stage.getBoundingClientRect();
    const dot = drawn?.find(event.clientX - left, event.clientY - top);
    if (dot) tell(dot);
    else hideHint();
    if (!dot) at = undefined;
  };
  const open = () => {
    if (at) location.hash = page.link("forecast", { window: `ref:${at.index}`, from: "" });
  };
  const press = (/** @type {KeyboardEvent} */ event) => {
    const [along, down] = TURNS[event.key] ?? [0, 0];
    if (event.key === "Enter") open();
    else if (event.key === "Escape") hideHint();
    else if (along || down) {
      const next = beside(dots ?? [], at, along, down);
      if (next) tell(next);
    } else return;
    event.preventDefault();
  };
  for (const kind of ["pointermove", "pointerdown"]) stage.addEventListener(kind, /** @type {any} */ (point));
  stage.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hideHint());
  stage.addEventListener("blur", hideHint);
  stage.addEventListener("click", open);
  stage.addEventListener("keydown", press);

  /**
   * Loads the windows, once, and draws them.
   *
   * @param {Record<string, string>} values of the address, whose window is the ring
   * @param {AbortSignal} [signal]
   */
  const set = async (values, signal) => {
    try {
      if (!dots) {
        said.textContent = "Loading …";
        const query = { ...page.query, contributions: true, limit: MOST };
        const path = `${page.path}/reference`;
        const list = /** @type {Schemas["ReferenceList"]} */ (await askJson({ path, query }, signal));
        dots = makeDots(list, page.model.features);
        said.textContent = tellSwarm(list, page.model.features.length);
        problem.textContent = "";
      }
      const width = widthOf(place);
      if (drawn?.width !== width) {
        drawn = drawSwarm(dots, page.unit, width);
        stage.replaceChildren(drawn.chart);
      }
      drawn.ring(dots.filter(({ index }) => values.window === `ref:${index}`));
    } catch (error) {
      if (signal?.aborted) return;
      element.hidden = error instanceof ApiError && error.status === FORBIDDEN;
      said.textContent = "";
      problem.textContent = reasonOf(error);
    }
  };
  return { element, set };
}

/** @type {Record<string, [number, number]>} */
const TURNS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * The neighbour of a dot: the next of its feature by contribution, or that of the next feature for the same window.
 *
 * @param {Dot[]} dots
 * @param {Dot | undefined} at
 * @param {number} along
 * @param {number} down
 */
function beside(dots, at, along, down) {
  if (!at) return dots.find(({ row }) => row === 0);
  const { row, index } = at;
  if (down) return dots.find((dot) => dot.row === row + down && dot.index === index) ?? at;
  const ordered = d3.sort(
    dots.filter((dot) => dot.row === row),
    ({ contribution }) => contribution,
  );
  return ordered[Math.max(0, Math.min(ordered.length - 1, ordered.indexOf(at) + along))];
}

/**
 * @param {Schemas["ReferenceList"]} list with contributions
 * @param {Schemas["ModelInfo"]["features"]} features
 * @returns {Dot[]} by row
 */
function makeDots({ windows }, features) {
  const size = (/** @type {number} */ place) => d3.mean(windows, ({ contributions = [] }) => Math.abs(contributions[place]));
  const strongest = d3.sort(d3.range(features.length), (place) => -(size(place) ?? 0)).slice(0, N_ROWS);
  return strongest.flatMap((place, row) => {
    const { name: feature, unit } = features[place];
    const values = d3.sort(windows.map(({ newest = [] }) => newest[place]));
    const [low = 0, high = 0] = RANK.map((share) => d3.quantileSorted(values, share));
    const color = (/** @type {number} */ value) =>
      high > low ? Math.max(0, Math.min(1, (value - low) / (high - low))) : 0.5;
    return windows.map(({ index, time, contributions = [], newest = [] }) => ({
      ...{ index, time, row, feature, unit },
      ...{ value: newest[place], contribution: contributions[place], color: color(newest[place]) },
    }));
  });
}

/**
 * @param {Schemas["ReferenceList"]} list
 * @param {number} count of features
 */
function tellSwarm({ windows, reference_windows: all }, count) {
  const which = windows.length < all ? `the first ${windows.length} of ${all} reference windows` : `${all} reference windows`;
  const rows = count > N_ROWS ? `The ${N_ROWS} strongest of ${count} features; each` : "Each";
  return `${rows} dot is one of ${which}, a ring the window that the forecast view shows. Click to show another there.`;
}

/**
 * @param {Dot[]} dots
 * @param {string | null} unit
 * @param {number} width
 */
function drawSwarm(dots, unit, width) {
  const names = [...new Set(dots.map(({ feature }) => feature))];
  const labels = shortNames(names, width);
  const marginLeft = 10 + CHARACTER * Math.max(...labels.map(({ length }) => length));
  const [low = 0, high = 0] = d3.extent(dots, ({ contribution }) => contribution);
  const pixels = (width - marginLeft - RIGHT) / (high - low || 1);
  const placed = spreadOut(dots, (contribution) => (contribution - low) * pixels);
  const height = TOP + BOTTOM + ROW * names.length;
  const chart = plot({
    ...{ width, height, marginLeft, marginRight: RIGHT, marginTop: TOP, marginBottom: BOTTOM },
    ariaLabel: "Contributions of each feature in all reference windows",
    x: { label: unit ? `contribution, ${unit} →` : "contribution →", domain: [low, high], grid: true },
    y: {
      ...{ label: null, domain: [-0.5, names.length - 0.5], reverse: true, tickSize: 0 },
      ...{ ticks: d3.range(names.length), tickFormat: (/** @type {number} */ row) => labels[row] ?? "" },
    },
    color: {
      ...{ type: "linear", domain: [0, 1], range: ["var(--low)", "var(--high)"] },
      interpolate: /** @type {any} */ (mix),
    },
    marks: [
      Plot.ruleX([0], { stroke: "var(--muted)" }),
      Plot.dot(placed, { x: "contribution", y: "y", r: DOT, fill: "color" }),
    ],
  });
  const [x, y] = [chart.scale("x"), chart.scale("y")];
  const spots = placed.map((dot) => ({ dot, x: x?.apply(dot.contribution) ?? 0, y: y?.apply(dot.y) ?? 0 }));
  const tree = d3.quadtree(
    spots,
    (spot) => spot.x,
    (spot) => spot.y,
  );
  const find = (/** @type {number} */ left, /** @type {number} */ top) => tree.find(left, top, NEAR)?.dot;
  const circles = chart.querySelectorAll("circle");
  /** Marks the dot that is meant: the given one or a copy of it. */
  const mark = (/** @type {Dot} */ { index, row }) => {
    const place = placed.findIndex((dot) => dot.index === index && dot.row === row);
    for (const circle of chart.querySelectorAll(".meant")) circle.classList.remove("meant");
    circles[place].classList.add("meant");
    return circles[place];
  };
  const rings = svg("g", { fill: "none", stroke: "currentColor", "stroke-width": 2 });
  chart.append(rings);
  /** Marks the dots of one window. */
  const ring = (/** @type {Dot[]} */ shown) =>
    rings.replaceChildren(
      ...shown.map(({ feature, row, contribution }) =>
        svg("circle", { "data-ring": feature, cx: x?.apply(contribution), cy: y?.apply(row), r: 6 }),
      ),
    );
  return { chart, width, find, mark, ring };
}

/**
 * Stacks dots of a row that would overlap, within the height of the row.
 *
 * @param {Dot[]} dots
 * @param {(contribution: number) => number} pixel
 */
function spreadOut(dots, pixel) {
  const bins = d3.group(dots, ({ row, contribution }) => `${row} ${Math.round(pixel(contribution) / BIN)}`);
  return [...bins.values()].flatMap((bin) => {
    const apart = Math.min(BIN / ROW, FILLED / bin.length);
    return bin.map((dot, place) => ({ ...dot, y: dot.row + (place - (bin.length - 1) / 2) * apart }));
  });
}
