/** Summaries of sets of forecasts: their errors, what drove them, and both by week. */

import "./vendor/d3.min.js";
import { h, svg, table } from "./dom.js";
import { amount, percent } from "./figures.js";
import { levelName } from "./intervals.js";
import { nameMoment } from "./references.js";
import { summarise } from "./spans.js";
import { colorOf } from "./timeline.js";

/** @typedef {import("./references.js").Moment} Moment */
/** @typedef {import("./spans.js").Summary} Summary */
/** @typedef {import("./timeline.js").Scale} Scale */

const N_ROWS = 10; // groups of a comparison
const N_TOLD = 3; // groups that a sentence names
const BAR = { width: 88, height: 14 };
const NEAR = 0.8; // of the change of the actual values, that forecasts follow at least, and its inverse at most
const week = d3.utcFormat("%-d %b %Y");

/**
 * The legend of the chart.
 *
 * @param {import("./app.js").Page["model"]} model
 * @param {boolean} isCompared whether there are actual values
 * @param {string[]} [names] of groups that have a colour each
 */
export function seriesKey({ intervals }, isCompared, names) {
  const square = (/** @type {Record<string, string>} */ look) => svg("rect", { width: 12, height: 12, ...look });
  const line = (/** @type {string} */ kind) => svg("line", { x1: 0, x2: 24, y1: 6, y2: 6, class: kind });
  const kinds = [
    ...(isCompared ? [["actual value", line("actual")]] : []),
    ["forecast", line("forecast")],
    ...(intervals ? [[`${intervals.levels.map(levelName).join(" and ")} interval`, svg("rect", { width: 24, height: 12, class: "band" })]] : []),
    ...(names?.map((name, part) => [name, square({ fill: colorOf(part) })]) ?? [["raises", square({ class: "up" })], ["lowers", square({ class: "down" })]]),
  ];
  return h(
    "span",
    { class: "kinds muted" },
    ...kinds.map(([label, mark]) =>
      h("span", { class: "kind" }, svg("svg", { width: Number(/** @type {Element} */ (mark).getAttribute("width") ?? 24) + 2, height: 12, "aria-hidden": "true" }, /** @type {Node} */ (mark)), String(label)),
    ),
  );
}

/**
 * One sentence on all forecasts.
 *
 * @param {Moment[]} moments
 * @param {Summary} all
 * @param {string[]} names of the groups, the strongest first
 * @param {Scale} scale
 */
export function tellAll(moments, all, names, { value: say, short }) {
  if (!moments.length) return "";
  const [first, end] = [moments[0], moments[moments.length - 1]];
  const when = first.time === null ? "" : ` from ${nameMoment(first)} to ${nameMoment(end)}`;
  const count = `${all.count.toLocaleString("en")} forecasts${when}`;
  const errors =
    all.mae === undefined
      ? "; the actual values are not known"
      : ` were off by ${say(all.mae)} on average${all.coverage.map(({ level, covered }) => `; the ${levelName(level)} interval held ${percent(covered)}`).join("")}`;
  const driven = names.slice(0, N_TOLD).map((name) => `${short(name)} (${percent(all.shares[name])})`);
  const told = `${count}${errors}.${driven.length ? ` Mainly driven by ${listOf(driven)}.` : ""}`;
  return told.replaceAll(" %", "\u00a0%");
}

/**
 * What one set of forecasts was driven by, beside another, and why its errors are others.
 *
 * @param {Summary} first
 * @param {Summary} second
 * @param {boolean} isChosen whether the first is chosen; otherwise it is all of them
 * @param {boolean} isPicked whether the second is chosen; otherwise it is the rest
 * @param {Scale} scale
 */
export function tellSets(first, second, isChosen, isPicked, scale) {
  const { bare: { change }, short } = scale;
  const unit = scale.isShare ? "points" : scale.unit;
  const signed = (/** @type {number} */ value) => change(value).replace(/ points$/, "");
  const title = h("h2", {}, isChosen ? "What A was driven by" : "What they were driven by");
  const other = isPicked ? "B" : "the rest";
  const isCompared = isChosen && second.count > 0;
  const difference = (/** @type {string} */ name) => first.contributions[name] - (isCompared ? second.contributions[name] : 0);
  const names = d3.sort(Object.keys(first.contributions), (name) => -Math.abs(isCompared ? difference(name) : first.shares[name]));
  const shown = names.slice(0, N_ROWS);
  const largest = d3.max(shown, (name) => Math.abs(difference(name))) || 1;
  const heads = isCompared
    ? [`Mean contribution${unit ? `, ${unit}` : ""}`, `A minus ${isPicked ? "B" : "rest"}`, "A", isPicked ? "B" : "rest"]
    : [`Mean contribution${unit ? `, ${unit}` : ""}`, "Mean", "Share"];
  const cells = (/** @type {string} */ first, /** @type {number} */ share, /** @type {string[]} */ ...texts) => [
    h("td", { class: "number" }, barOf(share), first),
    ...texts.map((text) => h("td", { class: "number" }, text)),
  ];
  const rows = shown.map((name) =>
    h(
      "tr",
      { "data-feature": name },
      h("th", { scope: "row", title: name }, short(name)),
      ...(isCompared
        ? cells(signed(difference(name)), difference(name) / largest, signed(first.contributions[name]), signed(second.contributions[name]))
        : cells(signed(first.contributions[name]), difference(name) / largest, percent(first.shares[name]))),
    ),
  );
  const left = names.length - shown.length;
  const hint = `Brush a span in the chart to see what it was driven by${first.compared ? " and why it went wrong" : ""}.`;
  return [
    title,
    ...(isCompared ? tellDifference(first, second, names, difference, other, scale).map((text) => h("p", {}, text)) : [h("p", { class: "muted" }, hint)]),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Mean contributions" }, table(heads, rows)),
    ...(left > 0 ? [h("p", { class: "muted" }, `and ${left} more, each smaller`)] : []),
  ];
}

/**
 * Why one set of forecasts is more or less wrong than another. The mean forecasts differ by the sum of the differences of
 * the mean contributions, as all have one baseline.
 *
 * @param {Summary} first
 * @param {Summary} second
 * @param {string[]} names by how much they differ
 * @param {(name: string) => number} difference
 * @param {string} other
 * @param {Scale} scale
 */
function tellDifference(first, second, names, difference, other, { difference: say, change, short }) {
  const { mae, bias = 0, forecast = NaN, actual } = first;
  const by = forecast - (second.forecast ?? NaN);
  const drivers = names.slice(0, N_TOLD).map((name) => `${short(name)} ${change(difference(name))}`);
  const because = drivers.length ? `: ${listOf(drivers)}` : "";
  const forecasts = `On average these ${first.count.toLocaleString("en")} forecasts were ${say(Math.abs(by))} ${by < 0 ? "lower" : "higher"} than ${other}${because}.`;
  if (mae === undefined || second.mae === undefined || actual === undefined || second.actual === undefined) return [forecasts];
  const covered = first.coverage.map(({ level, covered: share }, place) => `; the ${levelName(level)} interval held ${percent(share)}, of ${other} ${percent(second.coverage[place]?.covered)}`);
  const tendency = Math.abs(bias) > mae / 2 ? `, ${bias > 0 ? "too high" : "too low"} by ${say(Math.abs(bias))} on average` : "";
  const errors = `They were off by ${say(mae)}${tendency}; ${other} by ${say(second.mae)}${covered.join("")}.`;
  const came = actual - second.actual;
  const share = by / came;
  const isSmall = Math.abs(came) < second.mae / 2;
  const actuals = `Actual values were ${say(Math.abs(came))} ${came < 0 ? "lower" : "higher"}`;
  const told = isSmall
    ? `${actuals}, hardly another level: the errors are in the single forecasts, not in their mean`
    : share < 0
      ? `${actuals}: the forecasts went the other way`
      : share < NEAR
        ? `${actuals}: the forecasts followed ${percent(share)} of that`
        : share > 1 / NEAR
          ? `${actuals}: the forecasts went ${amount(share)} times as far`
          : `${actuals}, which the forecasts followed: the errors are in the single forecasts, not in their mean`;
  return [errors, `${forecasts} ${told}.`];
}

/**
 * A bar to the right or to the left of the middle.
 *
 * @param {number} share of half the width
 */
function barOf(share) {
  const { width, height } = BAR;
  const size = (Math.abs(share) * width) / 2;
  return svg(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    svg("line", { x1: width / 2, x2: width / 2, y1: 0, y2: height, stroke: "var(--line)" }),
    svg("rect", { x: width / 2 - (share < 0 ? size : 0), y: 2, width: size, height: height - 4, fill: `var(${share < 0 ? "--down" : "--up"})` }),
  );
}

/**
 * Errors, coverage and shares of each week; its name chooses it.
 *
 * @param {{monday: Date, moments: Moment[]}[]} weeks
 * @param {string[]} names of the groups with a share
 * @param {Scale} scale
 * @param {(first: number, last: number) => void} choose a span, by the indices of its ends
 */
export function tellWeeks(weeks, names, { unit, bare, short }, choose) {
  const found = weeks.map(({ monday, moments }) => ({ monday, moments, of: summarise(moments) }));
  const levels = found[0]?.of.coverage.map(({ level }) => level) ?? [];
  const largest = d3.max(found, ({ of }) => of.mae ?? 0) || 1;
  const isCompared = found.some(({ of }) => of.compared);
  const rows = found.map(({ monday, moments, of }) => {
    const take = () => choose(moments[0].index, moments[moments.length - 1].index);
    const name = week(monday);
    return h(
      "tr",
      { "data-week": monday.toISOString().slice(0, 10) },
      h("th", { scope: "row" }, h("button", { type: "button", class: "plain", "aria-label": `Choose the week of ${name}`, onclick: take }, name)),
      h("td", { class: "number" }, of.count.toLocaleString("en")),
      ...(isCompared ? [h("td", { class: "number" }, inkBar((of.mae ?? 0) / largest), of.mae === undefined ? "" : bare.difference(of.mae)), h("td", { class: "number" }, of.bias === undefined ? "" : bare.change(of.bias))] : []),
      ...levels.map((level) => h("td", { class: "number" }, tellShare(of.coverage.find((one) => one.level === level)?.covered))),
      ...names.map((group) => h("td", { class: "number" }, tellShare(of.shares[group]))),
    );
  });
  const ofUnit = unit ? `, ${unit}` : "";
  const ofErrors = isCompared ? [`Mean |error|${ofUnit}`, `Mean error${ofUnit}`] : [];
  return table(["Week of", "Forecasts", ...ofErrors, ...levels.map((level) => `In the ${levelName(level)} interval`), ...names.map((name) => `Share of ${short(name)}`)], rows);
}

/** @param {number} share */
function inkBar(share) {
  const width = 56;
  return svg("svg", { class: "ink", width, height: 10, "aria-hidden": "true" }, svg("rect", { x: width * (1 - share), width: width * share, height: 10 }));
}

/** @param {number | undefined} share */
function tellShare(share) {
  return share === undefined || Number.isNaN(share) ? "" : percent(share);
}

/** @param {string[]} parts */
function listOf(parts) {
  return parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}`;
}
