/** The chart of forecasts and actual values over time, on which a window is chosen, and the largest errors. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { ApiError, reasonOf } from "./api.js";
import { plot } from "./charts.js";
import { h, segments, svg, table, widthOf } from "./dom.js";
import { amount, signed } from "./figures.js";
import { colorKey } from "./forecast-summary.js";
import { hideHint, showHint } from "./hint.js";
import { loadMoments, nameMoment, windowLink } from "./references.js";

/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./references.js").Moment} Moment */

const HEIGHT = 190;
const [TOP, RIGHT, BOTTOM, LEFT] = [20, 36, 26, 44]; // margins of the chart
const TICK = 88; // pixels of a date
const APART = 3; // gap between two runs, in usual gaps between windows
const ROOM = 1.4; // least pixels per window: a chart wider than the screen is scrolled
const WIDEST = 4000;
const N_WORST = 20;
const PAGE = 20; // windows per page key
const FORBIDDEN = 403;
/** @type {Record<string, {label: string, order: (error: number) => number}>} */
const WORST = {
  either: { label: "either way", order: (error) => -Math.abs(error) },
  high: { label: "too high", order: (error) => -error },
  low: { label: "too low", order: (error) => error },
};

/** @param {Page} page */
export function overview(page) {
  /** @type {Moment[]} */
  let moments = [];
  let chosen = 0; // the window shown, or that it was made from
  let at = 0; // the one pointed at
  /** @type {ReturnType<typeof drawMoments> | undefined} */
  let drawn;
  const choose = (/** @type {number} */ index) => void page.set({ window: `ref:${index}`, from: "" });
  const stage = h("div", { class: "moments", role: "slider", tabindex: 0 });
  const scroll = h("div", { class: "drawing" }, stage);
  const said = h("p", { class: "muted" });
  const worst = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Largest errors" });
  const kind = segments(
    "Largest errors",
    Object.fromEntries(Object.entries(WORST).map(([value, { label }]) => [value, label])),
    (value) => listWorst(value),
  );
  const beside = h("div", { class: "stack beside" }, kind.element, worst);
  const element = h(
    "section",
    { class: "card overview", hidden: true, "aria-label": "Forecasts and actual values" },
    h(
      "div",
      { class: "stack" },
      h("div", { class: "between" }, h("h2", {}, "Forecasts and actual values"), colorKey("forecast", "actual")),
      said,
      scroll,
    ),
    beside,
  );
  const listWorst = (/** @type {string} */ value) => {
    const rows = d3
      .sort(
        moments.filter(({ error }) => error !== undefined),
        ({ error = 0 }) => WORST[value].order(error),
      )
      .slice(0, N_WORST)
      .map((moment) => worstRow(moment, page));
    worst.replaceChildren(table(["Window", `Error${page.unit ? `, ${page.unit}` : ""}`, "Forecast", "Actual"], rows));
  };
  const draw = () => {
    const room = widthOf(scroll);
    drawn = drawMoments(moments, chosen, page.unit, Math.max(room, Math.min(WIDEST, ROOM * moments.length)));
    stage.replaceChildren(drawn.chart);
    point(chosen, false);
    reveal();
  };
  /** Scrolls to the cursor or the chosen window. */
  const reveal = () => {
    const x = Number(drawn?.mark(at).getAttribute("x1"));
    const { scrollLeft: left, clientWidth: room } = scroll;
    if (x < left + LEFT || x > left + room - RIGHT) scroll.scrollLeft = x - room / 2;
  };
  const point = (/** @type {number} */ index, isTold = true) => {
    at = Math.max(0, Math.min(moments.length - 1, index));
    const lines = tell(moments[at], page.unit);
    stage.setAttribute("aria-label", "Forecasts over time: left and right move through the windows, Enter shows one");
    stage.setAttribute("aria-valuemin", "0");
    stage.setAttribute("aria-valuemax", String(moments.length - 1));
    stage.setAttribute("aria-valuenow", String(at));
    stage.setAttribute("aria-valuetext", lines.join(", "));
    const mark = drawn?.mark(at);
    if (mark && isTold) showHint(mark, lines);
  };
  const placeAt = (/** @type {MouseEvent} */ event) => {
    const place = drawn?.nearest(event.clientX - stage.getBoundingClientRect().left) ?? 0;
    return Math.max(0, Math.min(moments.length - 1, place));
  };
  const press = (/** @type {KeyboardEvent} */ event) => {
    const by = {
      ...{ ArrowLeft: -1, ArrowRight: 1, PageDown: -PAGE, PageUp: PAGE, Home: -Infinity, End: Infinity },
      ...{ ArrowDown: -1, ArrowUp: 1 },
    }[event.key];
    if (by) {
      point(at + by, false);
      reveal();
      point(at);
    } else if (event.key === "Enter") choose(moments[at].index);
    else if (event.key === "Escape") hideHint();
    else return;
    event.preventDefault();
  };
  for (const kind of ["pointermove", "pointerdown"]) {
    stage.addEventListener(kind, (event) => point(placeAt(/** @type {PointerEvent} */ (event))));
  }
  stage.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hideHint());
  stage.addEventListener("blur", hideHint);
  stage.addEventListener("click", () => choose(moments[at].index));
  stage.addEventListener("keydown", press);

  /**
   * @param {string} source of the window that is shown, or that it was made from
   */
  const set = async (source) => {
    try {
      const loaded = await loadMoments(page);
      const isNew = loaded !== moments;
      moments = loaded;
      const place = source.startsWith("ref:") ? Number(source.slice(4)) : NaN;
      chosen = moments.findIndex(({ index }) => index === place);
      element.hidden = false;
      if (isNew) {
        kind.set("either");
        listWorst("either");
        said.textContent = tellErrors(moments, page.unit);
        beside.hidden = moments.every(({ error }) => error === undefined);
      }
      draw();
    } catch (error) {
      element.hidden = error instanceof ApiError && error.status === FORBIDDEN;
      said.textContent = reasonOf(error);
    }
  };
  return { element, set };
}

/**
 * @param {Moment} moment
 * @param {string | null} unit
 */
function tell(moment, unit) {
  const { forecast, came, error } = moment;
  const seen = error === undefined ? [] : [`came ${amount(came, unit)}`, `error ${signed(error, unit)}`];
  return [nameMoment(moment), `forecast ${amount(forecast, unit)}`, ...seen];
}

/**
 * @param {Moment[]} moments
 * @param {string | null} unit
 */
function tellErrors(moments, unit) {
  const errors = moments.flatMap(({ error }) => (error === undefined ? [] : [error]));
  if (!errors.length) return `${moments.length} windows; the actual values are not known. Click to show a forecast.`;
  const mae = d3.mean(errors, Math.abs);
  return `Mean absolute error ${amount(mae, unit)} in ${errors.length} windows. Click to explain a forecast.`;
}

/**
 * @param {Moment} moment
 * @param {Page} page
 */
function worstRow(moment, page) {
  const { index, forecast, came, error = 0 } = moment;
  return h(
    "tr",
    { "data-worst": index },
    h("th", { scope: "row" }, windowLink(page, index, nameMoment(moment))),
    ...[signed(error), amount(forecast), amount(came)].map((text) => h("td", { class: "number" }, text)),
  );
}

/**
 * The windows in order, with a line for each run, because reference windows may be parts of a longer series.
 *
 * @param {Moment[]} moments
 * @param {number} chosen place of the window that is shown; −1 where it is none of them
 * @param {string | null} unit
 * @param {number} width
 */
function drawMoments(moments, chosen, unit, width) {
  const runs = numberRuns(moments);
  const rows = moments.map((moment, place) => ({ ...moment, place, run: runs[place] }));
  const shown = rows.filter(({ place }) => place === chosen);
  const starts = rows.filter(({ place, run }) => run !== runs[place - 1]);
  const room = width - LEFT - RIGHT;
  const chart = plot({
    width,
    height: HEIGHT,
    marginLeft: LEFT,
    marginRight: RIGHT,
    marginTop: TOP,
    marginBottom: BOTTOM,
    ariaLabel: "Forecasts and actual values over time",
    x: {
      ...{ label: null, domain: [0, Math.max(1, rows.length - 1)], tickSize: 0 },
      ticks: chooseTicks(starts, rows.length, room),
      tickFormat: nameTicks(moments),
    },
    y: { label: unit ? `↑ ${unit}` : null, grid: true, ticks: 5 },
    marks: [
      Plot.ruleX(starts.slice(1), { x: ({ place }) => place - 0.5, stroke: "var(--line)" }),
      Plot.lineY(rows, { x: "place", y: "came", z: "run", stroke: "var(--down)", strokeWidth: 1.25 }),
      Plot.lineY(rows, { x: "place", y: "forecast", z: "run", stroke: "var(--up)", strokeWidth: 1.75 }),
      Plot.ruleX(shown, { x: "place", stroke: "currentColor", strokeOpacity: 0.5 }),
      Plot.dot(shown, { x: "place", y: "came", r: 4.5, fill: "var(--down)", stroke: "var(--card)" }),
      Plot.dot(shown, { x: "place", y: "forecast", r: 4.5, fill: "var(--up)", stroke: "var(--card)" }),
    ],
  });
  const scale = chart.scale("x");
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM });
  chart.append(cursor);
  /** The cursor of pointer or keys. */
  const mark = (/** @type {number} */ place) => {
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, String(scale?.apply(place)));
    return cursor;
  };
  const nearest = (/** @type {number} */ x) => Math.round(scale?.invert?.(x) ?? 0);
  return { chart, mark, nearest };
}

/**
 * The run of each window: a new run starts after a gap that is much longer than usual.
 *
 * @param {Moment[]} moments
 */
function numberRuns(moments) {
  const times = moments.map(({ time }) => (time === null ? NaN : Date.parse(time)));
  const gaps = d3.pairs(times, (before, after) => after - before);
  const usual = d3.median(gaps) ?? 0;
  return [0, ...d3.cumsum(gaps, (gap) => Number(gap > APART * usual))].slice(0, moments.length);
}

/**
 * Positions of the axis' labels: the starts of runs, as far as there is space, or evenly spaced.
 *
 * @param {{place: number}[]} starts
 * @param {number} count of windows
 * @param {number} room in pixels
 */
function chooseTicks(starts, count, room) {
  const apart = (TICK / room) * count;
  if (starts.length < 3) return d3.range(0, count, Math.max(1, Math.ceil(apart)));
  /** @type {number[]} */
  const ticks = [];
  for (const { place } of starts) if (!ticks.length || place - ticks[ticks.length - 1] >= apart) ticks.push(place);
  return ticks;
}

/**
 * Labels of the axis: the day, at the first position of each.
 *
 * @param {Moment[]} moments
 */
function nameTicks(moments) {
  let last = "";
  return (/** @type {number} */ place) => {
    const { time = null, index = place } = moments[place] ?? {};
    const day = time?.slice(0, 10) ?? String(index);
    const name = day === last ? "" : day;
    last = day;
    return name;
  };
}
