/** The chart of forecasts over time: with actual values and intervals, errors, and the contributions of groups, stacked or in a strip each. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { plot } from "./charts.js";
import { h, svg, widthOf } from "./dom.js";
import { hideHint, showHint } from "./hint.js";
import { levelName } from "./intervals.js";
import { nameMoment, wallClock } from "./references.js";

/** @typedef {import("./references.js").Moment} Moment */
/** @typedef {import("./forecast-summary.js").Formats} Formats */
/** @typedef {Formats & {bare: Formats, short: (name: string) => string}} Scale with and without the unit; names that fit */

/**
 * What is drawn.
 *
 * @typedef {object} Drawn
 * @property {Moment[]} moments in order of time, their contributions by group
 * @property {string[]} names of the groups
 * @property {(moment: Moment, name: string) => number | undefined} contribution of a group
 * @property {boolean} isStacked whether groups are stacked, and not a strip each
 * @property {Scale} scale
 * @property {Set<Moment>} first the forecasts of the first set
 * @property {Set<Moment>} second those of the second
 */

/**
 * What is done with the chart.
 *
 * @typedef {object} Actions
 * @property {(moment: Moment) => void} open shows why a forecast is as it is
 * @property {(first: number, last: number) => void} choose a span, by the indices of its ends
 */

const HEIGHT = 210; // of the forecasts
const STRIP = 40; // of the errors and of each group
const STACK = 150; // of all groups
const NAME = 15; // pixels of the name above a strip
const [TOP, RIGHT, BOTTOM, LEFT] = [20, 14, 26, 48];
const TICK = 92; // pixels of a date
const APART = 3; // gap between two runs, in usual gaps between windows
const DRAG = 4; // pixels from which a press is a brush
const PAGE = 20; // windows per page key
const N_TOLD = 3; // contributions that a hint names
const N_COLORS = 6; // groups of a stack with a colour of their own

/** @param {Actions} actions */
export function timeline({ open, choose }) {
  /** @type {Drawn | undefined} */
  let shown;
  /** @type {ReturnType<typeof draw> | undefined} */
  let drawn;
  let at = 0; // the window pointed at
  /** @type {[number, number] | undefined} the windows between which a brush is drawn */
  let brush;
  let pressed = NaN; // where, in pixels
  const stage = h("div", { class: "timeline", role: "slider", tabindex: 0, "aria-label": LABEL });
  const element = h("figure", { class: "chart" }, stage);

  const point = (/** @type {number} */ index, isTold = true) => {
    if (!shown?.moments.length) return;
    at = Math.max(0, Math.min(shown.moments.length - 1, index));
    const lines = tell(shown.moments[at], shown.scale);
    stage.setAttribute("aria-valuemin", "0");
    stage.setAttribute("aria-valuemax", String(shown.moments.length - 1));
    stage.setAttribute("aria-valuenow", String(at));
    stage.setAttribute("aria-valuetext", lines.join(", "));
    const mark = drawn?.mark(at);
    if (mark && isTold) showHint(mark, lines);
  };
  const span = (/** @type {number} */ from, /** @type {number} */ to) => {
    brush = from < to ? [from, to] : [to, from];
    drawn?.brush(brush);
  };
  const forget = () => {
    brush = undefined;
    drawn?.brush(undefined);
  };
  const take = () => {
    if (!brush || !shown) return;
    const [first, last] = brush.map((place) => shown?.moments[place]?.index ?? 0);
    forget();
    choose(first, last);
  };
  const placeAt = (/** @type {MouseEvent} */ event) =>
    Math.max(0, Math.min((shown?.moments.length ?? 1) - 1, drawn?.nearest(event.clientX - stage.getBoundingClientRect().left) ?? 0));

  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    pressed = event.clientX;
    point(placeAt(event));
    stage.setPointerCapture(event.pointerId);
  });
  let start = 0;
  stage.addEventListener("pointermove", (event) => {
    const place = placeAt(event);
    if (!Number.isNaN(pressed) && (brush || Math.abs(event.clientX - pressed) > DRAG)) {
      if (!brush) start = at;
      span(start, place);
    }
    if (Number.isNaN(pressed) || brush) point(place);
  });
  stage.addEventListener("pointerup", () => {
    if (Number.isNaN(pressed)) return;
    pressed = NaN;
    if (brush) take();
    else if (shown?.moments[at]) open(shown.moments[at]);
  });
  stage.addEventListener("pointercancel", () => {
    pressed = NaN;
    forget();
  });
  stage.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hideHint());
  stage.addEventListener("blur", hideHint);
  stage.addEventListener("keydown", (event) => {
    const by = {
      ...{ ArrowLeft: -1, ArrowRight: 1, PageDown: -PAGE, PageUp: PAGE, Home: -Infinity, End: Infinity },
      ...{ ArrowDown: -1, ArrowUp: 1 },
    }[event.key];
    if (by) {
      if (event.shiftKey && !brush) start = at;
      point(at + by);
      if (event.shiftKey) span(start, at);
      else forget();
    } else if (event.key === "Enter" && brush) take();
    else if (event.key === "Enter" && shown?.moments[at]) open(shown.moments[at]);
    else if (event.key === "Escape") {
      hideHint();
      forget();
    } else return;
    event.preventDefault();
  });

  /** @param {Drawn} next */
  const set = (next) => {
    shown = next;
    drawn = draw(next, widthOf(element));
    stage.replaceChildren(drawn.chart);
    at = Math.min(at, Math.max(0, next.moments.length - 1));
    point(at, false);
  };
  return { element, set };
}

const LABEL =
  "Forecasts over time: left and right move through them, Enter explains one, with Shift a span is chosen, which Enter takes";

/**
 * @param {Moment} moment
 * @param {Scale} scale
 */
function tell(moment, { value: say, change, bare, short }) {
  const { forecast, came, error, intervals, contributions = {}, targetTime } = moment;
  const largest = d3.sort(Object.entries(contributions), ([, value]) => -Math.abs(value)).slice(0, N_TOLD);
  const [outer] = intervals;
  return [
    nameMoment(moment),
    `forecast ${say(forecast)}${targetTime && targetTime !== moment.time ? ` for ${targetTime.replace("T", " ")}` : ""}`,
    ...(outer ? [`${levelName(outer.level)} interval ${bare.value(outer.lower)} to ${say(outer.upper)}`] : []),
    ...(error === undefined || came === undefined ? [] : [`came ${say(came)}`, `error ${change(error)}`]),
    ...largest.map(([name, value]) => `${short(name)} ${change(value)}`),
  ];
}

/**
 * @param {Drawn} shown
 * @param {number} width
 */
function draw({ moments, names, contribution, isStacked, scale, first, second }, width) {
  const rows = moments.map((moment, place) => ({ ...moment, place }));
  const runs = numberRuns(moments);
  const starts = rows.filter(({ place }) => runs[place] !== runs[place - 1]);
  const room = width - LEFT - RIGHT;
  const hasErrors = rows.some(({ error }) => error !== undefined);
  const strips = (isStacked ? 0 : names.length) + Number(hasErrors);
  const height = HEIGHT + strips * (STRIP + NAME) + (isStacked ? NAME + STACK : 0) + 4;
  const levels = rows.find(({ intervals }) => intervals.length)?.intervals.map(({ level }) => level) ?? [];
  const lines = thin(rows, room);
  const band = (/** @type {number} */ level, /** @type {"lower" | "upper"} */ side) => (/** @type {Moment} */ { intervals }) =>
    intervals.find((one) => one.level === level)?.[side] ?? NaN;
  const chart = plot({
    width,
    height,
    marginLeft: LEFT,
    marginRight: RIGHT,
    marginTop: TOP,
    marginBottom: height - HEIGHT + BOTTOM,
    ariaLabel: "Forecasts, actual values, errors and contributions over time",
    x: {
      ...{ label: null, domain: [0, Math.max(1, rows.length - 1)], tickSize: 0 },
      ticks: chooseTicks(starts, rows.length, room),
      tickFormat: nameTicks(moments),
    },
    y: { label: scale.unit ? `↑ ${scale.unit}` : null, grid: true, ticks: 5 },
    marks: [
      Plot.ruleX(starts.slice(1), { x: ({ place }) => place - 0.5, stroke: "var(--line)" }),
      ...levels.map((level) =>
        Plot.areaY(lines, { x: "place", y1: band(level, "lower"), y2: band(level, "upper"), z: ({ place }) => runs[place], fill: "var(--band)" }),
      ),
      Plot.lineY(lines, { x: "place", y: "came", z: ({ place }) => runs[place], stroke: "var(--actual)", strokeWidth: 1.5 }),
      Plot.lineY(lines, { x: "place", y: "forecast", z: ({ place }) => runs[place], stroke: "var(--forecast)", strokeWidth: 1.25 }),
    ],
  });
  const along = chart.scale("x");
  const x = (/** @type {number} */ place) => along?.apply(place) ?? 0;
  const bottom = height - 4;
  const bins = binsOf(rows.length, room);
  const sets = svg(
    "g",
    { class: "sets" },
    ...[first, second].flatMap((set, number) =>
      stretches(moments, set).map(([from, to]) =>
        svg("rect", { class: number ? "second" : "first", x: x(from - 0.5), y: TOP, width: Math.max(2, x(to + 0.5) - x(from - 0.5)), height: bottom - TOP }),
      ),
    ),
  );
  chart.prepend(sets);
  const topOf = (/** @type {number} */ row) => HEIGHT + row * (STRIP + NAME);
  const contributions = names.map((name) => moments.map((moment) => contribution(moment, name)));
  if (isStacked) chart.append(stackOf({ names, contributions, top: topOf(Number(hasErrors)), bins, x, runs, scale }));
  const largest = d3.max(contributions, (values) => d3.max(bins, ([from, to]) => Math.abs(meanOf(values, from, to) ?? 0))) || 1;
  if (hasErrors) {
    const values = rows.map(({ error }) => error);
    chart.append(stripOf({ name: "error: forecast − actual", values, top: topOf(0), bins, x, scale }));
  }
  if (!isStacked) names.forEach((name, row) => {
    const top = topOf(row + Number(hasErrors));
    chart.append(stripOf({ name, values: contributions[row], top, bins, x, largest, scale }));
  });
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: bottom });
  const brushed = svg("rect", { class: "brush", y: TOP, height: bottom - TOP, visibility: "hidden" });
  chart.append(brushed, cursor);
  const mark = (/** @type {number} */ place) => {
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, String(x(place)));
    return cursor;
  };
  const brush = (/** @type {[number, number] | undefined} */ span) => {
    brushed.setAttribute("visibility", span ? "visible" : "hidden");
    if (!span) return;
    brushed.setAttribute("x", String(x(span[0] - 0.5)));
    brushed.setAttribute("width", String(x(span[1] + 0.5) - x(span[0] - 0.5)));
  };
  const nearest = (/** @type {number} */ left) => Math.round(along?.invert?.(left) ?? 0);
  return { chart, mark, brush, nearest };
}

/**
 * What groups add, stacked up from 0 where it is positive and down where it is negative, in a colour each, and the line of
 * their sum: the forecast less the baseline.
 *
 * @param {object} options
 * @param {string[]} options.names
 * @param {(number | undefined)[][]} options.contributions of each group
 * @param {number} options.top
 * @param {[number, number][]} options.bins
 * @param {(place: number) => number} options.x
 * @param {number[]} options.runs
 * @param {Scale} options.scale
 */
function stackOf({ names, contributions, top, bins, x, runs, scale }) {
  const bars = bins.map(([from, to]) => {
    let [up, down] = [0, 0];
    const means = contributions.map((values) => meanOf(values, from, to) ?? 0);
    const parts = means.map((mean) => (mean > 0 ? [up, (up += mean)] : [down, (down += mean)]));
    return { left: x(from - 0.5), right: x(to - 0.5), run: runs[from], parts, up, down, sum: up + down };
  });
  const y = d3.scaleLinear([d3.min(bars, ({ down }) => down) ?? 0, d3.max(bars, ({ up }) => up) || 1], [top + NAME + STACK - 6, top + NAME + 4]);
  const rect = (/** @type {typeof bars[0]} */ { left, right, parts }, /** @type {number} */ part) => {
    const [start, end] = parts[part];
    const gap = right - left > 6 ? 0.5 : 0;
    return start === end ? "" : `M${(left + gap).toFixed(2)},${y(start).toFixed(2)}V${y(end).toFixed(2)}H${(right - gap).toFixed(2)}V${y(start).toFixed(2)}Z`;
  };
  const sum = bars.map(({ left, right, run, sum }, place) => `${run === bars[place - 1]?.run ? "L" : "M"}${left.toFixed(2)},${y(sum).toFixed(2)}H${right.toFixed(2)}`);
  const levels = y.ticks(4).map((value) => [
    svg("line", { class: "level", x1: LEFT, x2: bars.at(-1)?.right ?? LEFT, y1: y(value), y2: y(value) }),
    svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, value ? d3.format("+~g")(value * (scale.isShare ? 100 : 1)) : "0"),
  ]);
  return svg(
    "g",
    { class: "stacked" },
    ...levels.flat(),
    ...names.map((name, part) => {
      const d = bars.map((bar) => rect(bar, part)).join("");
      return svg("path", { role: "img", "aria-label": labelOf(name, contributions[part], scale), "data-feature": name, fill: colorOf(part), d });
    }),
    svg("path", { class: "sum", d: sum.join("") }),
    svg("text", { x: LEFT, y: top + NAME - 3, "text-anchor": "start" }, `contributions${scale.isShare ? ", points," : ""} and their sum`),
  );
}

/**
 * The colour of a group in a stack; those beyond the sixth are one.
 *
 * @param {number} part
 */
export function colorOf(part) {
  return `var(--part-${Math.min(part, N_COLORS) + 1})`;
}

/**
 * @param {string} name
 * @param {(number | undefined)[]} values
 * @param {Scale} scale
 */
function labelOf(name, values, scale) {
  const [mean, size] = [d3.mean(values, (value) => value), d3.mean(values, (value) => value && Math.abs(value))];
  return mean === undefined || size === undefined ? name : `${name}: mean ${scale.change(mean)}, mean magnitude ${scale.difference(size)}`;
}

/**
 * A strip of bars about 0: the errors in ink, which have a scale of their own, or the contributions of a group, up in one
 * colour and down in the other, on the scale of all groups.
 *
 * @param {object} options
 * @param {string} options.name
 * @param {(number | undefined)[]} options.values
 * @param {number} options.top
 * @param {[number, number][]} options.bins
 * @param {(place: number) => number} options.x
 * @param {number} [options.largest] value of the scale; absent of errors
 * @param {Scale} options.scale
 */
function stripOf({ name, values, top, bins, x, largest, scale }) {
  const means = bins.map(([from, to]) => (largest ? meanOf(values, from, to) : worstOf(values, from, to)));
  const most = largest ?? (d3.max(means, (value) => Math.abs(value ?? 0)) || 1);
  const middle = top + NAME + STRIP / 2;
  const path = (/** @type {number} */ sign) =>
    bins
      .map(([from, to], place) => {
        const value = means[place] ?? 0;
        if (Math.sign(value) !== sign) return "";
        const [left, right] = [x(from - 0.5), x(to - 0.5)];
        const gap = right - left > 4 ? 0.5 : 0;
        const y = middle - (value / most) * (STRIP / 2 - 1);
        return `M${(left + gap).toFixed(2)},${middle}V${y.toFixed(2)}H${(right - gap).toFixed(2)}V${middle}Z`;
      })
      .join("");
  const colors = largest ? ["var(--up)", "var(--down)"] : ["var(--muted)", "var(--muted)"];
  return svg(
    "g",
    { class: "strip", role: "img", "aria-label": labelOf(name, values, scale), "data-feature": largest ? name : null },
    svg("line", { class: "zero", x1: LEFT, x2: x(values.length - 1), y1: middle, y2: middle }),
    svg("path", { d: path(1), fill: colors[0] }),
    svg("path", { d: path(-1), fill: colors[1] }),
    svg("text", { x: LEFT, y: top + NAME - 3, "text-anchor": "start" }, scale.short(name)),
    svg("text", { class: "scale-end", x: LEFT - 6, y: top + NAME + 9, "text-anchor": "end" }, largest ? "" : scale.bare.value(most)),
  );
}

/**
 * The positions of bars: of each window, or of as many windows as a bar of two pixels holds.
 *
 * @param {number} count
 * @param {number} room
 * @returns {[number, number][]} from, and up to but without
 */
function binsOf(count, room) {
  const each = Math.max(1, Math.ceil((2 * count) / room));
  return d3.range(0, count, each).map((from) => [from, Math.min(count, from + each)]);
}

/**
 * @param {(number | undefined)[]} values
 * @param {number} from
 * @param {number} to
 */
function meanOf(values, from, to) {
  return d3.mean(values.slice(from, to), (value) => value);
}

/**
 * The value of largest magnitude, so that no error hides in a mean.
 *
 * @param {(number | undefined)[]} values
 * @param {number} from
 * @param {number} to
 */
function worstOf(values, from, to) {
  return d3.greatest(values.slice(from, to), (value) => Math.abs(value ?? 0));
}

/**
 * The rows of lines: all of them, or of each pixel those with the lowest and the highest value.
 *
 * @template {Moment & {place: number}} T
 * @param {T[]} rows
 * @param {number} room
 */
function thin(rows, room) {
  if (rows.length < 3 * room) return rows;
  const each = Math.ceil((2 * rows.length) / room);
  const kept = new Set(/** @type {T[]} */ ([]));
  for (let from = 0; from < rows.length; from += each) {
    const part = rows.slice(from, from + each);
    const [low, high] = [d3.least, d3.greatest].map((find) => [find(part, ({ came }) => came), find(part, ({ forecast }) => forecast)]);
    for (const one of [...low, ...high]) if (one) kept.add(one);
  }
  return rows.filter((row) => kept.has(row));
}

/**
 * Runs of places whose windows are in a set.
 *
 * @param {Moment[]} moments
 * @param {Set<Moment>} set
 * @returns {[number, number][]}
 */
function stretches(moments, set) {
  const found = /** @type {[number, number][]} */ ([]);
  moments.forEach((moment, place) => {
    if (!set.has(moment)) return;
    const before = found.at(-1);
    if (before && before[1] === place - 1) before[1] = place;
    else found.push([place, place]);
  });
  return found;
}

/**
 * The run of each window: a new run starts after a gap that is much longer than usual.
 *
 * @param {Moment[]} moments
 */
function numberRuns(moments) {
  const times = moments.map(({ time, index }) => (time === null ? index : wallClock(time)));
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

const day = d3.utcFormat("%-d %b %Y");
const hour = d3.utcFormat("%H:%M");

/**
 * Labels of the axis: the day, at the first position of each, and the hour at others.
 *
 * @param {Moment[]} moments
 */
function nameTicks(moments) {
  let last = "";
  return (/** @type {number} */ place) => {
    const { time = null, index = place } = moments[place] ?? {};
    const ms = time === null ? NaN : wallClock(time);
    if (Number.isNaN(ms)) return time ?? String(index);
    const name = day(new Date(ms));
    const isSame = name === last;
    last = name;
    return isSame ? hour(new Date(ms)) : name;
  };
}
