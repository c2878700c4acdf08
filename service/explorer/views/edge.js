/** The function of one edge: the service's picture of it, its figures, and formulas for it. */

import { titleBar } from "../actions.js";
import { askJson } from "../api.js";
import { h, segments, table, widthOf } from "../dom.js";
import { fetchDrawing } from "../drawing.js";
import { amount, fixed, percent } from "../figures.js";
import { askTopology, edgeKey, labelsOf, nameEdge, strongestFirst } from "../graph.js";
import { help, withHelp } from "../help.js";
import { titlesOf } from "../names.js";
import { tellMakers } from "../paths.js";
import { ruleQuery } from "../pruning.js";
import { relate } from "../selection.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["EdgeResponse"]} Edge */

const LEAST = 240; // pixels of a picture
/** @type {Record<string, import("../help.js").Term>} */
const HELPED = { "Mean |contribution|": "contribution", "Backward score": "score" };

/**
 * @param {import("../app.js").Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  const drawing = h("div", {
    class: "card drawing",
    tabindex: "0",
    role: "region",
    "aria-label": "Picture of the edge",
  });
  const facts = h("dl", { class: "facts" });
  const formulas = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Formulas" });
  const choice = h("select", { id: "edge", onchange: () => page.set({ edge: choice.value }) });
  const step = (/** @type {string} */ label, /** @type {number} */ by) =>
    h("button", { type: "button", "aria-label": label, onclick: () => move(by) }, by < 0 ? "←" : "→");
  const move = (/** @type {number} */ by) => {
    const next = choice.options[choice.selectedIndex + by];
    if (next) page.set({ edge: next.value });
  };
  const span = segments(
    "Sampled over",
    { support: "1st–99th percentile", reference: "all data", grid: "grid" },
    (value) => page.set({ range: value === "support" ? "" : value }),
  );
  const ends = h("p", {});
  const makers = h("div", { class: "scroll makers", tabindex: "0", role: "region", "aria-label": "Features of its input" });
  const element = h(
    "div",
    { class: "view edge" },
    titleBar("Edge", () => shown, true),
    h(
      "div",
      { class: "columns wide" },
      h(
        "div",
        { class: "stack" },
        drawing,
        h("section", { class: "card" }, h("h2", {}, "Formulas that come near"), formulas),
      ),
      h(
        "aside",
        { "aria-label": "Which edge, and what it is" },
        h(
          "section",
          { class: "card" },
          h("label", { for: "edge" }, "Edge, the strongest first"),
          h("div", { class: "row" }, step("Previous edge", -1), choice, step("Next edge", 1)),
          span.element,
          ends,
        ),
        h("section", { class: "card" }, h("h2", {}, "Figures"), facts),
        h("section", { class: "card" }, h("h2", {}, "What its input is made of ", help("profile")), makers),
      ),
    ),
  );

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    const rule = { ...page.query, ...ruleQuery(values) };
    const all = askTopology(page, undefined, signal);
    const key = values.edge ?? strongestKey(await all);
    const [stage, layer, i, j] = key.split("/");
    const path = `${page.path}/edges/${[layer, i, j].map(encodeURIComponent).join("/")}`;
    const ask = { path, query: { ...rule, stage, range: values.range } };
    const full = { ...ask, query: { ...ask.query, formulas: true } };
    span.set(values.range ?? "support");
    const [{ root, text }, edge, topology] = await Promise.all([
      fetchDrawing({ ...ask, query: { ...ask.query, width: Math.max(LEAST, widthOf(drawing)) } }, signal),
      /** @type {Promise<Edge>} */ (askJson(full, signal)),
      all,
    ]);
    relate(topology);
    choice.replaceChildren(...optionsOf(topology));
    choice.value = key;
    drawing.replaceChildren(root);
    facts.replaceChildren(...tellFacts(edge, page.unit));
    const toPaths = (/** @type {string} */ node) => page.link("network", { through: node });
    const names = labelsOf(topology);
    const pathsLink = (/** @type {string} */ node) =>
      h("a", { href: toPaths(node) }, node ? (names.get(node) ?? node) : "the whole network");
    ends.replaceChildren(
      ...["Paths through ", pathsLink(edge.source), ", ", pathsLink(edge.target), ", or ", pathsLink("")],
    );
    makers.replaceChildren(
      table(["Feature", "Share", "Most of it"], tellMakers(topology.nodes.find(({ id }) => id === edge.source), toPaths, titlesOf(page.model.features)), {
        class: "tight",
      }),
    );
    formulas.replaceChildren(tellFormulas(edge));
    const name = `${page.model.name}-edge-${key.replaceAll("/", "-")}`;
    shown = { ask: full, name, data: edge, rows: curveRows(edge), picture: () => text };
  };
  return { element, update };
}

/** @param {Schemas["TopologyResponse"]} topology */
function strongestKey(topology) {
  const [edge] = strongestFirst(topology);
  return edge ? edgeKey(edge) : "";
}

/** @param {Schemas["TopologyResponse"]} topology */
function optionsOf(topology) {
  const labels = labelsOf(topology);
  return strongestFirst(topology).map((edge) => h("option", { value: edgeKey(edge) }, nameEdge(edge, labels)));
}

/**
 * @param {Edge} edge
 * @param {string | null} unit
 */
function tellFacts(edge, unit) {
  /** @type {Record<string, string>} */
  const facts = {
    Shape: edge.shape.replace("_", " "),
    "Mean |contribution|": amount(edge.contribution, unit),
    "R² of the nearest line": fixed(edge.line.r2, 4),
    "Slope of that line": amount(edge.line.slope),
    "Data from": `${amount(edge.support.p01)} to ${amount(edge.support.p99)}`,
    "By this rule": edge.kept ? "kept" : "pruned",
  };
  if (edge.support.outside_grid !== null) facts["Data outside the grid"] = percent(edge.support.outside_grid);
  if (edge.scores) facts["Backward score"] = amount(edge.scores.backward);
  return Object.entries(facts).flatMap(([name, value]) => [
    h("dt", {}, Object.hasOwn(HELPED, name) ? withHelp(name, HELPED[name]) : name),
    h("dd", {}, value),
  ]);
}

/**
 * A known function with five digits, and the larger of x and 0 by its name.
 *
 * @param {string} expression
 */
function tidy(expression) {
  const rounded = expression.replace(/\d+\.\d{6,}/g, (digits) => String(Number(Number(digits).toPrecision(5))));
  return rounded.replace("((x) + abs(x))/2", "max(x, 0)");
}

/** @param {Edge} edge */
function tellFormulas({ formulas }) {
  if (!formulas) return h("p", { class: "muted" }, "It is not a function of a single number, so there is no formula for it.");
  const rows = formulas.map(({ expression, r2, complexity }) =>
    h(
      "tr",
      {},
      h("td", {}, h("code", {}, tidy(expression))),
      h("td", { class: "number" }, fixed(r2, 4)),
      h("td", { class: "number" }, String(complexity)),
    ),
  );
  return table(["Formula of x", "R²", withHelp("Price", "price")], rows, { class: "tight" });
}

/** @param {Edge} edge */
function curveRows({ x, y, base, spline, symbolic, slope, x_original, y_original }) {
  return x.map((value, index) => ({
    ...{ x: value, y: y[index], base: base[index], spline: spline[index], slope: slope[index] },
    ...(symbolic && { symbolic: symbolic[index] }),
    ...(x_original && { x_original: x_original[index] }),
    ...(y_original && { y_original: y_original[index] }),
  }));
}
