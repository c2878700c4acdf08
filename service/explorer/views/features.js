/** The features: what each contributes over the reference windows, how sure that is, and which can replace it. */

import { titleBar } from "../actions.js";
import { askJson, askText } from "../api.js";
import { drawSteps } from "../charts.js";
import { h, svg, widthOf } from "../dom.js";
import { amount, percent, range, signed } from "../figures.js";
import { help } from "../help.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["FeatureAttribution"]} Feature */

/**
 * A column of the table.
 *
 * @typedef {object} Column
 * @property {string} label
 * @property {(feature: Feature) => number | string} order what rows are sorted by
 * @property {(feature: Feature) => import("../dom.js").Child} cell
 * @property {import("../help.js").Term} [term] what it is of
 * @property {boolean} [number] whether it is set to the right
 * @property {boolean} [largestFirst] whether it is sorted so at first; as numbers are
 */

const VERDICTS = ["important", "weak", "negligible", "disconnected"];
const BAR = { width: 110, height: 14 };

/**
 * @param {import("../app.js").Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  const note = h("p", { class: "muted" });
  const table = h("div", { class: "card scroll", tabindex: "0", role: "region", "aria-label": "Features" });
  const steps = h("figure", { class: "chart" });
  const element = h(
    "div",
    { class: "view features" },
    titleBar("Features", () => shown, true),
    note,
    table,
    h("section", { class: "card" }, h("h2", {}, "Which steps matter"), steps),
  );

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    const ask = { path: `${page.path}/attributions`, query: { ...page.query } };
    const answer = /** @type {Schemas["AttributionsResponse"]} */ (await askJson(ask, signal));
    const columns = columnsOf(answer, page);
    const [sort, direction] = (values.sort ?? "rank").split(":");
    const focused = table.contains(document.activeElement) ? document.activeElement?.textContent : null;
    table.replaceChildren(
      drawTable(answer.features, columns, sort in columns ? sort : "rank", direction, (sorted) =>
        page.set({ sort: sorted }),
      ),
    );
    if (focused) [...table.querySelectorAll("button")].find(({ textContent }) => textContent === focused)?.focus();
    note.textContent = tellNote(answer);
    steps.replaceChildren(drawSteps(answer.steps, page.unit, widthOf(steps)));
    const picture = () => askText({ ...ask, accept: "image/svg+xml" });
    shown = { ask, name: `${page.model.name}-features`, data: answer, rows: answer.features.map(rowOf), picture };
  };
  return { element, update };
}

/** @param {Schemas["AttributionsResponse"]} answer */
function tellNote({ reference, unit }) {
  const confidence = `${(reference.confidence * 100).toFixed(0)} %`;
  const amounts = unit ? `; amounts in ${unit}` : "";
  return `Over ${reference.windows} reference windows, with ${confidence} intervals${amounts}.`;
}

/**
 * @param {Schemas["AttributionsResponse"]} answer
 * @param {import("../app.js").Page} page
 * @returns {Record<string, Column>}
 */
function columnsOf({ features }, page) {
  const largest = Math.max(...features.map(({ share_interval }) => share_interval[1]), Number.MIN_VALUE);
  const units = new Map(page.model.features.map(({ name, unit }) => [name, unit]));
  /** @type {Record<string, Column>} */
  const columns = {
    rank: { label: "#", order: ({ rank }) => rank, cell: ({ rank }) => String(rank) },
    name: { label: "Feature", order: ({ name }) => name, cell: ({ name }) => nameCell(name, units.get(name)) },
    verdict: {
      label: "Verdict",
      term: "verdict",
      order: ({ verdict }) => VERDICTS.indexOf(verdict),
      cell: ({ verdict }) => h("span", { class: `verdict ${verdict}` }, verdict),
    },
    share: {
      label: "Share",
      term: "share",
      number: true,
      order: ({ share }) => share,
      cell: (feature) => shareCell(feature, largest),
    },
    contribution: {
      label: "Mean |contribution|",
      term: "contribution",
      number: true,
      order: ({ mean_abs_contribution: value }) => value,
      cell: ({ mean_abs_contribution: value, interval }) => pair(amount(value), range(interval)),
    },
    mean: {
      label: "Mean, signed",
      number: true,
      order: ({ mean_contribution: value }) => value,
      cell: ({ mean_contribution: value }) => signed(value),
    },
    permutation: {
      label: "Error when shuffled",
      number: true,
      order: ({ permutation_mae_increase: value }) => value ?? -Infinity,
      cell: ({ permutation_mae_increase: value, permutation_interval: interval }) =>
        value === null ? "unknown" : pair(signed(value), range(interval)),
    },
    score: {
      label: "pykan's score",
      term: "score",
      number: true,
      order: ({ pykan_feature_score: score }) => score ?? -Infinity,
      cell: ({ pykan_feature_score: score }) => amount(score),
    },
    redundant: {
      label: "Moves with",
      largestFirst: true,
      order: ({ redundant_with: partners }) => Math.max(0, ...partners.map(({ correlation }) => Math.abs(correlation))),
      cell: ({ redundant_with: partners }) =>
        partners.map(({ name, correlation }) => `${name} (${signed(correlation)})`).join(", "),
    },
  };
  if (features.every(({ pykan_feature_score: score }) => score === null)) delete columns.score;
  return columns;
}

/**
 * @param {string} name
 * @param {string | null | undefined} unit
 */
function nameCell(name, unit) {
  return h("span", {}, name, unit ? h("span", { class: "muted" }, ` ${unit}`) : null);
}

/**
 * @param {string} value
 * @param {string} interval
 */
function pair(value, interval) {
  return h("span", {}, value, h("span", { class: "muted interval" }, interval));
}

/**
 * @param {Feature} feature
 * @param {number} largest
 */
function shareCell({ share, share_interval: [low, high] }, largest) {
  const at = (/** @type {number} */ value) => (value / largest) * BAR.width;
  const middle = BAR.height / 2;
  return h(
    "span",
    { class: "share" },
    svg(
      "svg",
      { ...BAR, "aria-hidden": "true" },
      svg("rect", { width: at(share), height: BAR.height, rx: 2, class: "bar" }),
      svg("path", { d: `M${at(low)} ${middle}H${at(high)}`, class: "whisker" }),
    ),
    h("span", {}, percent(share)),
  );
}

/**
 * @param {Feature[]} features
 * @param {Record<string, Column>} columns
 * @param {string} sort key of the column
 * @param {string | undefined} direction `up` or `down`; the column's own where it is neither
 * @param {(sort: string) => void} choose
 */
function drawTable(features, columns, sort, direction, choose) {
  const { number, largestFirst = Boolean(number), order } = columns[sort];
  const descending = direction ? direction === "down" : largestFirst;
  const sorted = [...features].sort((a, b) => compare(order(a), order(b)) * (descending ? -1 : 1));
  const head = Object.entries(columns).map(([key, { label, number, term }]) => {
    const state = key === sort ? (descending ? "descending" : "ascending") : null;
    const next = key === sort ? `${key}:${descending ? "up" : "down"}` : key;
    const button = h("button", { type: "button", class: "sort", onclick: () => choose(next) }, label);
    return h("th", { scope: "col", class: number ? "number" : null, "aria-sort": state }, button, term && help(term));
  });
  const rows = sorted.map((feature) =>
    h(
      "tr",
      { "data-feature": feature.name },
      ...Object.values(columns).map(({ cell, number }) => h("td", { class: number ? "number" : null }, cell(feature))),
    ),
  );
  return h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
}

/**
 * @param {number | string} a
 * @param {number | string} b
 */
function compare(a, b) {
  return typeof a === "string" ? a.localeCompare(String(b)) : a < Number(b) ? -1 : a > Number(b) ? 1 : 0;
}

/** @param {Feature} feature */
function rowOf({ interval, share_interval, permutation_interval, redundant_with, ...feature }) {
  return {
    ...feature,
    ...{ interval_low: interval[0], interval_high: interval[1] },
    ...{ share_low: share_interval[0], share_high: share_interval[1] },
    ...{ permutation_low: permutation_interval?.[0], permutation_high: permutation_interval?.[1] },
    redundant_with: redundant_with.map(({ name }) => name).join(" "),
  };
}
