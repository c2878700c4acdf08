/** The waterfall from the baseline's forecast to the forecast, a bar for each group or feature; groups unfold. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";
import { plot, shortNames } from "./charts.js";
import { h, widthOf } from "./dom.js";
import { formatValue } from "./figures.js";
import { byGroupOf, featuresOf } from "./groups.js";
import { hideHint, showHint } from "./hint.js";
import { levelName } from "./intervals.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./forecast-summary.js").Formats} Formats */
/** @typedef {import("./groups.js").Groups} Groups */

/**
 * A row of the chart.
 *
 * @typedef {object} Row
 * @property {string} key
 * @property {string} name
 * @property {string} label
 * @property {number} depth 0, or more of members of an unfolded group
 * @property {boolean} [isOpen] whether a group is unfolded; absent of what is no group
 * @property {string[]} features that it is of
 * @property {number} value
 * @property {number} from
 * @property {number} to
 */

/**
 * @typedef {object} Drawn
 * @property {Schemas["Explanation"]} explanation
 * @property {Record<string, number>} parts contributions of the groups and features that have a bar each
 * @property {Groups} groups
 * @property {number[][]} window whose newest values are beside the names
 * @property {import("./intervals.js").Interval[]} intervals of the forecast
 * @property {Formats} formats
 */

const MAX_BARS = 14; // most bars; the others are one bar
const ROW = 22; // pixels
const CHARACTER = 6.6; // pixels
const HALO = { fill: "currentColor", stroke: "var(--card)", strokeWidth: 3 }; // of text that crosses a line
const NARROW = 480; // pixels under which the values of features are left to the hints

/** @param {import("./app.js").Page} page */
export function waterfall({ model }) {
  /** @type {Set<string>} keys of unfolded groups */
  const open = new Set();
  /** @type {Drawn | undefined} */
  let drawn;
  const element = h("figure", { class: "chart waterfall" });
  const toggle = (/** @type {string} */ key) => {
    if (!open.delete(key)) open.add(key);
    draw();
    element.querySelector(`[data-key="${CSS.escape(key)}"]`)?.dispatchEvent(new Event("refocus"));
  };
  const draw = () => {
    if (!drawn) return;
    const width = widthOf(element);
    const { explanation, window, formats } = drawn;
    const newest = new Map(
      model.features.map((feature, index) => [
        feature.name,
        formatValue(window[window.length - 1][index], feature.unit, feature),
      ]),
    );
    const names = [...new Set([...model.features.map(({ name }) => name), ...Object.keys(drawn.groups)])];
    const short = shortNames(names, width);
    const named = new Map(names.map((name, index) => [name, short[index]]));
    const label = (/** @type {Omit<Row, "label">} */ { name, depth, isOpen }) => {
      const mark = isOpen === undefined ? "" : isOpen ? "▾ " : "▸ ";
      const value = newest.has(name) && width >= NARROW ? ` = ${newest.get(name)}` : "";
      return `${mark}${"· ".repeat(depth)}${named.get(name) ?? name}${value}`;
    };
    const rows = stack(drawn, open).map((row) => ({ ...row, label: label(row) }));
    const chart = drawRows(rows, drawn, width);
    link(chart, rows, (row) => tellRow(row, newest, explanation, formats), toggle);
    element.replaceChildren(chart);
  };
  /** @param {Drawn} next */
  const set = (next) => {
    drawn = next;
    draw();
  };
  return { element, set };
}

/**
 * @param {Row} row
 * @param {Map<string, string>} newest values of features
 * @param {Schemas["Explanation"]} explanation
 * @param {Formats} formats
 */
function tellRow({ name, value, to, isOpen }, newest, explanation, formats) {
  const change = explanation.prediction - explanation.baseline_prediction;
  const share = change ? [`${Math.round((100 * value) / change)} % of the whole change`] : [];
  return [
    name,
    `${value < 0 ? "lowers" : "raises"} the forecast by ${formats.difference(Math.abs(value))}, to ${formats.value(to)}`,
    ...share,
    ...(newest.has(name) ? [`${newest.get(name)} at the newest step`] : []),
    ...(isOpen === undefined ? [] : [isOpen ? "click to fold it" : "click to unfold it"]),
  ];
}

/**
 * Gives bars and names a focus, hints and, of groups, a way to unfold.
 *
 * @param {Element} chart
 * @param {Row[]} rows
 * @param {(row: Row) => string[]} tell
 * @param {(key: string) => void} toggle
 */
function link(chart, rows, tell, toggle) {
  const group = chart.querySelector("g[aria-description=bars]");
  group?.removeAttribute("aria-description"); // which is there to find it by
  const bars = /** @type {NodeListOf<SVGRectElement>} */ (group?.querySelectorAll("rect"));
  const axis = [...chart.querySelectorAll("g")].find(({ firstChild }) => firstChild?.textContent === "baseline");
  rows.forEach((row, number) => {
    const bar = bars[number];
    const name = /** @type {SVGElement | undefined} */ (axis?.children[number + 1]);
    const parts = [bar, ...(name ? [name] : [])];
    bar.setAttribute("tabindex", "0");
    bar.dataset.key = row.key;
    if (row.isOpen !== undefined) {
      bar.setAttribute("role", "button");
      bar.setAttribute("aria-expanded", String(row.isOpen));
    }
    bar.addEventListener("focus", () => showHint(bar, tell(row)));
    bar.addEventListener("blur", hideHint);
    bar.addEventListener("refocus", () => bar.focus());
    for (const part of parts) {
      part.dataset.feature = row.features.join("\n");
      part.addEventListener("pointerenter", () => showHint(bar, tell(row)));
      part.addEventListener("pointerleave", hideHint);
      if (row.isOpen === undefined) continue;
      part.classList.add("folds");
      part.addEventListener("click", () => toggle(row.key));
    }
    bar.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hideHint();
      if (row.isOpen === undefined || (event.key !== "Enter" && event.key !== " ")) return;
      event.preventDefault();
      toggle(row.key);
    });
  });
}

/**
 * Rows whose bars each start where the previous one of the same depth ends, the largest first.
 *
 * @param {Drawn} drawn
 * @param {Set<string>} open
 * @returns {Omit<Row, "label">[]}
 */
function stack({ explanation, parts, groups }, open) {
  const all = /** @type {Record<string, number>} */ ({ ...explanation.contributions, ...byGroupOf(explanation) });
  const rowsOf = (/** @type {[string, number][]} */ given, /** @type {number} */ start, path = "", depth = 0) => {
    const sorted = d3.sort(given, ([, value]) => -Math.abs(value));
    const cut = sorted.length > MAX_BARS + 1 ? MAX_BARS : sorted.length;
    const rest = sorted.slice(cut);
    let to = start;
    /** @type {Omit<Row, "label">[]} */
    const rows = sorted.slice(0, cut).flatMap(([name, value]) => {
      const from = to;
      to += value;
      const key = `${path}/${name}`;
      const isGroup = Object.hasOwn(groups, name);
      const row = { key, name, depth, features: featuresOf(name, groups), value, from, to };
      if (!isGroup) return [row];
      const isOpen = open.has(key);
      const members = /** @type {[string, number][]} */ (groups[name].map((member) => [member, all[member] ?? 0]));
      return [{ ...row, isOpen }, ...(isOpen ? rowsOf(members, from, key, depth + 1) : [])];
    });
    if (rest.length) {
      const value = d3.sum(rest, ([, one]) => one);
      const features = rest.flatMap(([name]) => featuresOf(name, groups));
      rows.push({ key: `${path}/`, name: `${rest.length} others`, depth, features, value, from: to, to: to + value });
    }
    return rows;
  };
  return rowsOf(Object.entries(parts), explanation.baseline_prediction);
}

/**
 * @param {Row[]} bars
 * @param {Drawn} drawn
 * @param {number} width
 */
function drawRows(bars, { explanation, intervals, formats }, width) {
  const { baseline_prediction: baseline, prediction } = explanation;
  const labels = new Map([["baseline", "baseline"], ["forecast", "forecast"], ...bars.map(({ key, label }) => /** @type {const} */ ([key, label]))]);
  const ends = [
    { key: "baseline", value: baseline },
    { key: "forecast", value: prediction },
  ];
  const longest = Math.max(...bars.map(({ value }) => formats.change(value).length), ...ends.map(({ value }) => formats.value(value).length));
  return plot({
    width,
    height: 44 + (bars.length + 2) * ROW,
    marginLeft: 10 + CHARACTER * Math.max(...[...labels.values()].map(({ length }) => length)),
    marginRight: 10 + CHARACTER * longest,
    marginTop: 8,
    marginBottom: 36,
    ariaLabel: `Contributions from ${formats.value(baseline)}, the baseline, to ${formats.value(prediction)}, the forecast`,
    x: {
      label: formats.unit ? `forecast, ${formats.unit} →` : "forecast →",
      ...{ nice: true, grid: true, ticks: width / 90 },
      ...(formats.isShare ? { tickFormat: formats.value } : {}),
    },
    y: {
      domain: ["baseline", ...bars.map(({ key }) => key), "forecast"],
      ...{ label: null, tickSize: 0, padding: 0.25 },
      tickFormat: (/** @type {string} */ key) => labels.get(key) ?? key,
    },
    marks: [
      Plot.ruleX(ends, { x: "value", stroke: "currentColor", strokeDasharray: "3 3", strokeOpacity: 0.5 }),
      Plot.barX(intervals, {
        x1: "lower",
        x2: "upper",
        y: () => "forecast",
        fill: "var(--band)",
        ariaLabel: ({ level, lower, upper }) =>
          `${levelName(level)} interval: ${formats.value(lower)} to ${formats.value(upper)}`,
      }),
      Plot.barX(bars, {
        x1: "from",
        x2: "to",
        y: "key",
        ariaDescription: "bars",
        fill: ({ value }) => (value < 0 ? "var(--down)" : "var(--up)"),
        fillOpacity: ({ depth, isOpen }) => (isOpen ? 0.35 : depth ? 0.75 : 1),
        ariaLabel: ({ name, value, to }) => `${name}: ${formats.change(value)}, to ${formats.value(to)}`,
        insetLeft: -0.5,
        insetRight: -0.5,
      }),
      Plot.tickX(ends, { x: "value", y: "key", strokeWidth: 4, stroke: "currentColor" }),
      Plot.text(bars, {
        x: ({ from, to }) => Math.max(from, to),
        y: "key",
        text: ({ value }) => formats.change(value),
        textAnchor: "start",
        ...HALO,
        dx: 5,
      }),
      Plot.text(ends, {
        x: "value",
        y: "key",
        text: ({ value }) => formats.value(value),
        textAnchor: "start",
        ...HALO,
        dx: 7,
        fontWeight: 700,
      }),
    ],
  });
}
