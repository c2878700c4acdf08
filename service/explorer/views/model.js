/** The model card: inputs and outputs, architecture, metrics, provenance and verification. */

import { titleBar } from "../actions.js";
import { h, table } from "../dom.js";
import { amount } from "../figures.js";
import { levelName } from "../intervals.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["ModelInfo"]} Model */

/**
 * @param {import("../app.js").Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  const { model } = page;
  const ask = { path: page.path, query: page.version };
  const rows = model.features.map((feature) => ({ ...feature }));
  const card = (/** @type {string} */ name, /** @type {HTMLElement[]} */ ...content) =>
    h("section", { class: "card stack" }, h("h2", {}, name), ...content);
  const element = h(
    "div",
    { class: "view model" },
    titleBar("Model", () => ({ ask, name: `${model.name}-model`, data: model, rows })),
    h(
      "div",
      { class: "halves" },
      card("What it is", facts(tellKind(model))),
      card("How good it is", facts(tellMetrics(model)), h("p", { class: "muted" }, "As measured in training.")),
    ),
    card("Where it comes from", verdictOf(model), facts(tellOrigin(model))),
    card(
      "The data it was trained on",
      h("p", { class: "muted" }, `${model.reference_windows} windows of it are the reference windows, over which everything here is averaged.`),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Features" }, featureTable(model)),
    ),
    h("p", {}, h("a", { href: page.link("story", { tour: "show" }) }, "Show me round the explorer")),
  );
  return { element, update: async () => {} };
}

/** @param {Record<string, string>} entries */
function facts(entries) {
  return h(
    "dl",
    { class: "facts" },
    ...Object.entries(entries).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );
}

/** @param {Model} model */
function tellKind({ targets, outputs, lookback, horizon, features, architecture, intervals }) {
  const { front, lstm, gru, head, readout, graph } = architecture;
  const cell = lstm ?? gru;
  const named = targets.map(({ name, unit }) => (unit ? `${name} (${unit})` : name));
  /** @type {Record<string, string>} */
  const kind = {
    Forecasts: named.join(", "),
    Outputs: outputs.length > 4 ? `${outputs.length}: ${outputs[0]} to ${outputs.at(-1)}` : outputs.join(", "),
    Reads: `${features.length} features over ${lookback} steps`,
    "Steps ahead": String(horizon),
  };
  if (intervals) {
    const { levels, calibration } = intervals;
    kind.Intervals = `${levels.map(levelName).join(", ")}, calibrated on ${calibration.windows} windows`;
  }
  if (front) kind["At every step"] = tellLayers(front);
  if (cell) kind[lstm ? "LSTM" : "GRU"] = `${cell.hidden_size} units${cell.bidirectional ? ", both directions" : ""}`;
  if (graph) {
    const count = (/** @type {string} */ name) => graph.filter(({ op }) => op === name).length;
    kind.Graph = `${count("layer")} layers and ${count("recurrent")} recurrent parts, in ${graph.length} operations`;
    return kind;
  }
  if (readout) kind["Read out"] = readout;
  kind.KAN = tellLayers(head);
  return kind;
}

/** @param {NonNullable<Schemas["Architecture"]["front"]>} layers */
function tellLayers({ width, grid_size: grid, spline_order: order }) {
  const sizes = width.map((size) => (typeof size === "number" ? size : size.reduce((sum, part) => sum + part, 0)));
  const edges = sizes.slice(1).reduce((sum, size, index) => sum + size * sizes[index], 0);
  const splines = grid === null || order === null ? "" : `, splines of order ${order} on ${grid} intervals`;
  return `${sizes.join(" → ")}, ${edges} edges${splines}`;
}

/** @param {Model} model */
function tellMetrics({ metrics }) {
  const known = Object.entries(metrics).map(([name, value]) => [nameMetric(name), Number.isInteger(value) ? String(value) : amount(value)]);
  return known.length ? Object.fromEntries(known) : { Metrics: "none are recorded" };
}

/**
 * Such as `test R²`.
 *
 * @param {string} name
 */
function nameMetric(name) {
  const words = { r2: "R²", mae: "MAE", rmse: "RMSE", mse: "MSE" };
  return name
    .split("_")
    .map((word) => words[/** @type {keyof typeof words} */ (word)] ?? word)
    .join(" ");
}

/** @param {Model} model */
function verdictOf({ provenance: { verified, not_told_apart: others } }) {
  const sure = verified && others.length === 0;
  const said = verified
    ? others.length
      ? `Its predictions were verified, but the check also fits other functions: ${others.join(", ")}.`
      : "Its predictions were verified to equal those of the model it was made from."
    : "Its predictions were not compared with those of the model it was made from.";
  const label = verified ? "verified" : "not verified";
  return h("p", {}, h("span", { class: `verdict ${sure ? "important" : "weak"}` }, label), " ", said);
}

/** @param {Model} model */
function tellOrigin({ provenance, checkpoint, version, versions }) {
  /** @type {Record<string, string>} */
  const origin = {
    "Made by": `${provenance.source}, with ${provenance.library}`,
    Made: provenance.created.replace("T", " ").replace("Z", " UTC"),
    Version: versions.length > 1 ? `${version} of ${versions.map((one) => one.version).join(", ")}` : version,
    Checkpoint: checkpoint,
  };
  if (provenance.parent) origin["Made from"] = provenance.parent;
  if (provenance.difference !== null) origin["Largest difference from it"] = amount(provenance.difference);
  return origin;
}

/** @param {Model} model */
function featureTable({ features }) {
  const rows = features.map(({ name, unit, mean, std, min, max }) =>
    h(
      "tr",
      {},
      h("td", {}, name, unit ? h("span", { class: "muted" }, ` ${unit}`) : null),
      ...[mean, std, min, max].map((value) => h("td", { class: "number" }, amount(value))),
    ),
  );
  return table(["Feature", "Mean", "Standard deviation", "Smallest", "Largest"], rows);
}
