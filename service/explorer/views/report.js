/** The report: what the model does, and answers about the picture, each with its evidence and a link to a view. */

import { titleBar } from "../actions.js";
import { askJson } from "../api.js";
import { h } from "../dom.js";

/** @typedef {import("../api.js").Schemas} Schemas */
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

/**
 * @param {Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  const findings = h("div", { class: "findings" });
  const element = h(
    "div",
    { class: "view report" },
    titleBar("Report", () => shown),
    findings,
  );

  /** @type {import("../app.js").View["update"]} */
  const update = async (_, signal) => {
    const ask = { path: `${page.path}/report`, query: { ...page.query } };
    const answer = /** @type {Schemas["ReportResponse"]} */ (await askJson(ask, signal));
    findings.replaceChildren(...answer.findings.map((finding) => tellFinding(finding, page)));
    const rows = answer.findings.map(({ id, question, answer }) => ({ id, question, answer }));
    shown = { ask, name: `${page.model.name}-report`, data: answer, rows };
  };
  return { element, update };
}

/**
 * @param {Schemas["FindingInfo"]} finding
 * @param {Page} page
 */
function tellFinding({ id, question, answer, evidence }, page) {
  const { label, view, values } = PLACES[id];
  return h(
    "section",
    { class: "card finding", "aria-labelledby": `finding-${id}` },
    h("h2", { id: `finding-${id}` }, question),
    ...tellAnswer(answer),
    h("p", {}, h("a", { href: page.link(view, values) }, `${label} →`)),
    h(
      "details",
      {},
      h("summary", {}, "The numbers behind it"),
      h("pre", { tabindex: "0" }, JSON.stringify(evidence, null, 1)),
    ),
  );
}

/**
 * A paragraph, or a list of lines that begin with a dash.
 *
 * @param {string} answer
 */
function tellAnswer(answer) {
  if (!answer.startsWith("- ")) return [h("p", {}, ...withNames(answer))];
  return [h("ul", {}, ...answer.split("\n").map((line) => h("li", {}, ...withNames(line.slice(2)))))];
}

/**
 * A text in which backticks mark names.
 *
 * @param {string} text
 */
function withNames(text) {
  return text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}
