/** The report: what the model does, answer first, with its pictures beside, and each answer's place in the views. */

import { titleBar } from "../actions.js";
import { askLines } from "../api.js";
import { breakable, h, table } from "../dom.js";
import { parseDrawing } from "../drawing.js";
import { amount } from "../figures.js";
import { timed } from "../graph.js";
import { titlesOf } from "../names.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["FindingInfo"]} Finding */
/** @typedef {import("../app.js").Page} Page */
/** @typedef {{label: string, view: string, values?: Record<string, string>}} Place */

/** @type {Record<Schemas["FindingId"], Place>} where each finding shows */
const PLACES = {
  forecast: { label: "A forecast", view: "forecast" },
  accuracy: { label: "Forecasts and actual values", view: "forecast" },
  intervals: { label: "A forecast and its interval", view: "forecast" },
  drivers: { label: "The features by share", view: "features", values: { sort: "share" } },
  response: { label: "The forecast, and what if", view: "forecast" },
  limits: { label: "All features", view: "features" },
  sparsity: { label: "The pruned network", view: "network", values: { pruned: "" } },
  features: { label: "The features by share", view: "features", values: { sort: "share" } },
  independence: { label: "Features that move together", view: "features", values: { sort: "redundant" } },
  opacity: { label: "All edges, by their scores", view: "network", values: { pruned: "show" } },
  depth: { label: "The nodes and what they are made of", view: "network", values: { color: "contribution" } },
  shapes: { label: "The strongest edge", view: "edge", values: { edge: "", range: "grid" } },
  trust: { label: "A forecast and how exactly it adds up", view: "forecast" },
};
const NETWORK = ["sparsity", "features", "independence", "opacity", "depth", "shapes", "trust"]; // questions about it
const FIRST = /^.+?[^.]\.(?= [A-Z`])/; // sentence of an answer
const BEFORE_UNIT = /(\d) (?=[^\s\d]{1,4}(?:[\s.,;:)]|$))/g; // where no line breaks
const NEGATIVE = /(^|[\s(])-(?=\d)/g;

/** @type {Map<string, string>} the features' names without what is common to them */
let names = new Map();

/**
 * @param {Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  names = titlesOf(page.model.features);
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  const headlines = h("ul", { class: "headlines", "aria-label": "At a glance" });
  const findings = h("div", { class: "findings" });
  const element = h(
    "div",
    { class: "view report" },
    titleBar("Report", () => shown),
    findings,
  );

  /** @type {Map<string, {finding: Finding, section: HTMLElement}>} what is answered, by id */
  const known = new Map();
  /** @param {Finding[]} answered */
  const draw = (answered) => {
    for (const finding of answered) {
      const before = known.get(finding.id);
      if (JSON.stringify(before?.finding) !== JSON.stringify(finding)) known.set(finding.id, { finding, section: tellFinding(finding, page) });
    }
    const all = Object.keys(PLACES).flatMap((id) => known.get(id) ?? []);
    headlines.replaceChildren(
      ...all.flatMap(({ finding }) =>
        finding.headlines.map(([figure, what]) => h("li", {}, h("strong", {}, ...withNames(figure)), h("span", {}, ...withNames(what)))),
      ),
    );
    const isOfNetwork = ({ finding = { id: "" } }) => NETWORK.includes(finding.id);
    const [first, ...others] = all.filter((one) => !isOfNetwork(one)).map(({ section }) => section);
    const terms = all.filter(isOfNetwork).map(({ section }) => section);
    findings.replaceChildren(
      h("div", { class: "card first" }, first, headlines),
      ...others.map((section) => h("div", { class: "card" }, section)),
      ...(terms.length ? [h("div", { class: "card stack" }, h("h2", {}, "Questions about the network"), h("div", { class: "terms" }, ...terms))] : []),
    );
    element.classList.add("answered");
  };

  /** @type {import("../app.js").View["update"]} */
  const update = async (_, signal) => {
    const ask = { path: `${page.path}/report`, query: { ...page.query } };
    const lines = askLines(ask, signal);
    for (let next = await timed(page.model, lines.next(), 2); !next.done; next = await lines.next()) {
      const answer = next.value;
      draw(answer.findings ?? [answer.finding]);
      if (!answer.findings) continue;
      const rows = answer.findings.map((/** @type {Finding} */ { id, question, answer }) => ({ id, question, answer }));
      shown = { ask, name: `${page.model.name}-report`, data: answer, rows };
    }
  };
  return { element, update };
}

/**
 * @param {Finding} finding
 * @param {Page} page
 */
function tellFinding({ id, question, answer, brief, evidence, pictures, caption }, page) {
  const { label, view, values } = PLACES[id];
  const isShort = !brief || id === "intervals" || brief === answer;
  const drawn = pictures.map((text) => h("div", {}, parseDrawing(text)));
  return h(
    "section",
    { class: `finding${drawn.length ? " pictured" : ""}`, "aria-labelledby": `finding-${id}` },
    h(
      "div",
      { class: "stack" },
      h(NETWORK.includes(id) ? "h3" : "h2", { id: `finding-${id}` }, question),
      ...tellAnswer(brief || answer),
      h("p", {}, h("a", { href: page.link(view, values) }, `${label} →`)),
      h(
        "details",
        {},
        h("summary", {}, isShort ? "The numbers behind it" : "The whole answer and its numbers"),
        ...(isShort ? [] : tellAnswer(answer)),
        h("div", { class: "evidence", tabindex: "0", role: "region", "aria-label": `Numbers of: ${question}` }, tellEvidence(evidence)),
      ),
    ),
    drawn.length > 0 &&
      h("figure", {}, h("div", { class: `pictures${drawn.length > 2 ? " small" : ""}` }, drawn), caption && h("figcaption", { class: "muted" }, caption)),
  );
}

/**
 * The first sentence, then the others; or a list of lines that begin with a dash.
 *
 * @param {string} answer
 */
function tellAnswer(answer) {
  if (answer.startsWith("- ")) {
    return [h("ul", {}, ...answer.split("\n").map((line) => h("li", {}, ...withNames(line.slice(2)))))];
  }
  const [first = answer] = FIRST.exec(answer) ?? [];
  const rest = answer.slice(first.length).trim();
  return [h("p", { class: "lead" }, ...withNames(first)), ...(rest ? [h("p", {}, ...withNames(rest))] : [])];
}

/**
 * A text in which backticks mark names.
 *
 * @param {string} text
 */
function withNames(text) {
  return text
    .split("`")
    .map((part, index) =>
      index % 2 ? writeName(part) : part.replace(BEFORE_UNIT, "$1\u00a0").replace(NEGATIVE, "$1\u2212"),
    );
}

/**
 * Evidence as people read it: members by name, lists of objects as tables.
 *
 * @param {unknown} value JSON
 * @returns {import("../dom.js").Child}
 */
function tellEvidence(value) {
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : amount(value);
  if (value === null || typeof value !== "object") return value === null ? "unknown" : String(value);
  const rows = /** @type {Record<string, unknown>[]} */ (Array.isArray(value) ? value : [value]);
  if (Array.isArray(value) && !rows.some(isObject)) return h("span", {}, ...value.flatMap((one) => [tellEvidence(one), " "]));
  if (Array.isArray(value)) {
    const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
    const lines = rows.map((row) => h("tr", {}, ...columns.map((name) => h("td", {}, tellEvidence(row[name] ?? null)))));
    return table(columns.map(nameOf), lines, { class: "tight" });
  }
  const members = Object.entries(rows[0]).flatMap(([name, member]) => [h("dt", {}, nameOf(name)), h("dd", {}, tellEvidence(member))]);
  return members.length ? h("dl", { class: "facts" }, ...members) : "none";
}

/** @param {unknown} value */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @param {string} name of a member, such as `mean_abs_contribution` */
function nameOf(name) {
  return names.has(name) ? name : name.replaceAll("_", " ");
}

/** @param {string} name of a feature, an output or a node */
function writeName(name) {
  const isFeature = names.has(name);
  return h("code", { "data-feature": isFeature && name, title: isFeature && name }, ...breakable(names.get(name) ?? name));
}
