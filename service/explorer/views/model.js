/** The model card: inputs and outputs, architecture, metrics, provenance and verification. */

import { titleBar } from "../actions.js";
import { h, table } from "../dom.js";
import { amount, fixed, formatValue, percent } from "../figures.js";
import { levelName } from "../intervals.js";
import { distinctNames } from "../names.js";

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
    h("div", { class: "card" }, h("p", { class: "lead" }, tellAnswer(model))),
    h(
      "div",
      { class: "halves" },
      card("What it is", facts(tellKind(model))),
      card("How good it is", facts(tellMetrics(model)), h("p", { class: "muted" }, "As measured after the training, on its test rows. Errors in other views are those of the reference windows, which are others.")),
    ),
    ...outputTable(model).map((content) => card("How good each output is", content)),
    card("Where it comes from", verdictOf(model), facts(tellOrigin(model))),
    card(
      "The data it was trained on",
      h("p", { class: "muted" }, `${model.reference_windows} windows of it are the reference windows, over which everything here is averaged.`),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Features" }, featureTable(model, page)),
    ),
    h("p", {}, h("a", { href: page.link("story", { tour: "show" }) }, "Show me round the explorer")),
  );
  return { element, update: async () => {} };
}

/**
 * What it forecasts from what, and how well, in a sentence each.
 *
 * @param {Model} model
 */
function tellAnswer({ targets, horizon, features, lookback, metrics, architecture: { output_function: last } }) {
  const names = targets.map(({ name, title }) => title ?? name);
  const what = names.length > 3 ? `${names.length} targets` : names.join(", ");
  const kind = last === "softmax" || last === "sigmoid" ? `The probability of ${what}` : `Forecasts of ${what}`;
  const steps = horizon > 1 ? `, ${horizon} steps ahead,` : "";
  const { test_r2: r2, ridge_r2: ridge } = metrics;
  const explained = r2 === undefined ? "No test is recorded." : `On its test data it explains ${percent(Math.max(0, r2))} of the variance`;
  const compared = ridge === undefined || r2 === undefined ? "" : `, a ridge regression ${percent(Math.max(0, ridge))}`;
  const reads = `${features.length} features${lookback > 1 ? ` over ${lookback} steps` : " of one step"}`;
  return `${kind}${steps} from ${reads}. ${explained}${compared}${r2 === undefined ? "" : "."}`;
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
  const named = targets.map(({ name, title, unit }) => (title ? `${title}: ${name}` : name) + (unit ? ` (${unit})` : ""));
  /** @type {Record<string, string>} */
  const kind = {
    Forecasts: named.join(", "),
    Outputs: outputs.length > 4 ? `${outputs.length}: ${outputs[0]} to ${outputs.at(-1)}` : outputs.join(", "),
    Reads: `${features.length} features over ${lookback} ${lookback === 1 ? "step" : "steps"}`,
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
  kind[head.layers.every(({ basis }) => basis.kind === "line") ? "Head" : "KAN"] = tellLayers(head);
  return kind;
}

/** @param {NonNullable<Schemas["Architecture"]["front"]>} layers */
function tellLayers({ width, layers }) {
  const sizes = width.map((size) => (typeof size === "number" ? size : size.reduce((sum, part) => sum + part, 0)));
  const edges = sizes.slice(1).reduce((sum, size, index) => sum + size * sizes[index], 0);
  const functions = [...new Set(layers.map(tellFunctions))];
  return `${sizes.join(" → ")}, ${edges} edges, ${functions.join(" and ")}`;
}

/** @param {Schemas["LayerInfo"]} layer */
function tellFunctions({ basis: { kind, grid_size: grid, order }, before }) {
  /** @type {Record<string, string>} */
  const names = { line: "straight lines", bspline: `splines of order ${order} on ${grid} intervals` };
  const after = before.join(" and ");
  return (names[kind] ?? `functions of ${kind}`) + (after && ` after ${after}`);
}

/**
 * @param {Model} model
 * @param {boolean} ofOutputs whether those of single outputs, or all others
 */
function metricsOf({ metrics, outputs }, ofOutputs) {
  return Object.entries(metrics).flatMap(([name, value]) => {
    const output = outputs.find((one) => name.endsWith(` ${one}`));
    return ofOutputs === (output !== undefined) ? [{ name: output ? name.slice(0, -output.length - 1) : name, output, value }] : [];
  });
}

/** @param {Model} model */
function tellMetrics(model) {
  const known = metricsOf(model, false).map(({ name, value }) => [nameMetric(name), writeMetric(name, value, model)]);
  return known.length ? Object.fromEntries(known) : { Metrics: "none are recorded" };
}

/**
 * The metrics of each output, where they are known.
 *
 * @param {Model} model
 */
export function outputTable(model) {
  const known = metricsOf(model, true);
  if (!known.length) return [];
  const kinds = [...new Set(known.map(({ name }) => name))];
  const rows = model.outputs.map((output) => {
    const cells = kinds.map((kind) => known.find((one) => one.name === kind && one.output === output));
    return h(
      "tr",
      {},
      h("td", {}, output),
      ...cells.map((cell) => h("td", { class: "number" }, cell ? writeMetric(cell.name, cell.value, model) : "")),
    );
  });
  const region = { class: "scroll outputs", tabindex: "0", role: "region", "aria-label": "Metrics by output" };
  return [h("div", region, table(["Output", ...kinds.map(nameMetric)], rows))];
}

/**
 * @param {string} name
 * @param {number} value
 * @param {Model} model
 */
function writeMetric(name, value, { targets }) {
  const unit = targets.every((target) => target.unit === targets[0].unit) ? targets[0].unit : null;
  if (name.endsWith("_r2")) return fixed(value, 3);
  if (name.includes("coverage")) return percent(value);
  if (name.endsWith("windows")) return fixed(value, 0);
  return formatValue(value, unit, value);
}

/**
 * Such as `test R²`, or `test coverage of the 80 % interval`.
 *
 * @param {string} name
 */
function nameMetric(name) {
  const words = { r2: "R²", mae: "MAE", rmse: "RMSE", mse: "MSE", coverage: "coverage of the", winkler: "Winkler score of the" };
  return name
    .split(/[_ ]/)
    .map((word) => words[/** @type {keyof typeof words} */ (word)] ?? (/^0\.\d+$/.test(word) ? `${levelName(Number(word))} interval` : word))
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

/**
 * @param {Model} model
 * @param {import("../app.js").Page} page
 */
function featureTable({ features }, page) {
  const short = distinctNames(features.map(({ name }) => name));
  const rows = features.map(({ name, title, unit, mean, std, min, max }) => {
    const write = (/** @type {number} */ value) => formatValue(value, null, std);
    return h(
      "tr",
      { "data-feature": name },
      h("td", { title: title ?? name }, h("a", { href: page.link("network", { through: `feature:${name}` }) }, short.get(name) ?? name), unit ? h("span", { class: "muted" }, ` ${unit}`) : null),
      ...[mean, std].map((value) => h("td", { class: "number" }, value === null ? "–" : write(value))),
      h("td", { class: "number range" }, min === null || max === null ? "–" : `${write(min)} to ${write(max)}`),
    );
  });
  return table(["Feature", "Mean", "Standard deviation", "Range"], rows);
}
