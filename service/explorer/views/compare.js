/** Two models, or two versions of one, side by side: features, edges, networks, and one window. */

import { titleBar } from "../actions.js";
import { ApiError, askJson, modelPath, reasonOf } from "../api.js";
import { APART, changedEdges, tellEdges, tellFeatures, tellSummary, tellWindow } from "../comparison.js";
import { h, widthOf } from "../dom.js";
import { enliven, fetchDrawing } from "../drawing.js";
import { amount } from "../figures.js";
import { edgeKey } from "../graph.js";
import { hasOutput } from "../intervals.js";
import { writeState } from "../state.js";
import { loadWindow } from "../window-input.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {import("../app.js").Page} Page */

const FIDELITY = "0.99";
const [TWO, GAP] = [900, 12]; // pixels from which two networks stand side by side, and between them

/**
 * @param {Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  const other = h("select", { id: "against", onchange: () => page.set({ against: other.value }) });
  const choice = h("span", { class: "row" }, h("label", { for: "against" }, "Compared with"), other);
  const problem = h("p", { role: "alert" });
  const summary = h("div", { class: "card stack", "aria-live": "polite" });
  const features = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Features of both" });
  const edges = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Edges of both" });
  const edgesNote = h("p", { class: "muted" });
  const networks = h("div", { class: "halves networks" });
  const index = h("input", {
    ...{ type: "number", id: "compared-window", min: 0, max: Math.max(0, page.model.reference_windows - 1) },
    onchange: () => index.value && page.set({ window: `ref:${Math.round(Number(index.value))}` }),
  });
  const window = h("div", { class: "stack", "aria-live": "polite" });
  const results = h(
    "div",
    { class: "view" },
    summary,
    h("section", { class: "card stack" }, h("h2", {}, "Features, by their share"), features),
    h("section", { class: "card stack" }, h("h2", {}, "Edges that either keeps"), edgesNote, edges),
    h("section", { class: "card stack" }, h("h2", {}, "Networks"), networks),
    h(
      "section",
      { class: "card stack" },
      h(
        "div",
        { class: "between" },
        h("h2", {}, "One window"),
        h("span", { class: "row" }, h("label", { for: "compared-window" }, "Reference window"), index),
      ),
      window,
    ),
  );
  const element = h(
    "div",
    { class: "view compare" },
    titleBar("Compare", () => shown),
    h("div", { class: "card row" }, choice, problem),
    results,
  );

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    const models = /** @type {Schemas["ModelList"]} */ (await askJson({ path: "models" }, signal));
    const { fitting, others } = await othersOf(models, page, signal);
    const isOffered = [...fitting, ...others].some(({ value }) => value === values.against);
    const chosen = isOffered ? values.against : fitting[0]?.value;
    choice.hidden = !fitting.length && !others.length;
    const options = (/** @type {Option[]} */ of) => of.map(({ value, label }) => h("option", { value }, label));
    other.replaceChildren(
      ...(chosen ? [] : [h("option", { value: "" }, "…")]),
      ...options(fitting),
      ...(others.length ? [h("optgroup", { label: "Of other inputs or outputs" }, ...options(others))] : []),
    );
    other.value = chosen ?? "";
    results.hidden = !chosen;
    problem.textContent = chosen ? "" : "There is no other version, and no model with the same inputs, to compare with.";
    shown = undefined;
    if (!chosen) return;
    const [name, version] = chosen.split("/");
    const against = { model: name, version };
    const query = { ...page.query, against_model: name, against_version: version, fidelity: values.fidelity ?? FIDELITY };
    const ask = { path: `${page.path}/comparison`, query };
    try {
      const answer = /** @type {Schemas["ModelComparisonResponse"]} */ (await askJson(ask, signal));
      const names =
        name === answer.model_name
          ? [`version ${answer.version}`, `version ${answer.against.version}`]
          : [answer.model_name, name];
      const toEdge = (/** @type {Schemas["EdgeChangeInfo"]} */ edge, /** @type {boolean} */ here) =>
        here ? page.link("edge", { edge: edgeKey(edge) }) : linkThere(chosen, page.output, edgeKey(edge));
      summary.replaceChildren(...tellSummary(answer, names, titleOf(answer.model_name, answer.version), page));
      features.replaceChildren(tellFeatures(answer, names));
      edges.replaceChildren(tellEdges(answer, names, page, toEdge));
      edgesNote.textContent = tellCounts(answer, names);
      shown = { ask, name: `${page.model.name}-comparison`, data: answer, rows: rowsOf(answer) };
      await Promise.all([
        showNetworks(answer, names, against, signal),
        showWindow(values.window ?? "ref:0", names, against, signal),
      ]);
    } catch (error) {
      if (signal.aborted || !(error instanceof ApiError) || ![404, 422].includes(error.status)) throw error;
      results.hidden = true;
      const reason = error.message.replace(/^against /, `${titleOf(name, version)} `);
      problem.textContent = `These two can't be compared: ${reason}.`;
    }
  };

  /**
   * @param {Schemas["ModelComparisonResponse"]} answer
   * @param {string[]} names
   * @param {{model: string, version: string | undefined}} against
   * @param {AbortSignal} signal
   */
  const showNetworks = async (answer, names, against, signal) => {
    const whole = widthOf(networks);
    const width = Math.floor(whole > TWO ? (whole - GAP) / 2 : whole);
    const query = { output: page.output, fidelity: answer.fidelity, color: "contribution", width };
    const [here, there] = await Promise.all([
      fetchDrawing({ path: `${page.path}/topology`, query: { ...query, ...page.version } }, signal),
      fetchDrawing({ path: `${modelPath(against.model)}/topology`, query: { ...query, version: against.version } }, signal),
    ]);
    const changes = new Map(answer.edges.map((edge) => [edgeKey(edge), edge]));
    const panels = [here, there].map(({ root }, side) => {
      for (const part of /** @type {NodeListOf<SVGGElement>} */ (root.querySelectorAll("g.edge[data-kind=edge]"))) {
        const change = changes.get(edgeKey(/** @type {any} */ (part.dataset)));
        if (change && change.kept !== change.against_kept) part.classList.add(side ? "went" : "came");
      }
      const tell = (/** @type {SVGGElement} */ part) => tellPart(part, changes, names, page.unit);
      const open = (/** @type {string} */ key) =>
        (location.hash = side ? linkThere(other.value, page.output, key) : page.link("edge", { edge: key }));
      return h("figure", { class: "chart" }, h("figcaption", {}, names[side]), enliven(root, tell, open));
    });
    networks.replaceChildren(...panels);
  };

  /**
   * @param {string} source of the window, as in the address
   * @param {string[]} names
   * @param {{model: string, version: string | undefined}} against
   * @param {AbortSignal} signal
   */
  const showWindow = async (source, names, against, signal) => {
    index.value = source.startsWith("ref:") ? source.slice(4) : "";
    try {
      const { window: instance } = await loadWindow(source, page, signal);
      const body = { instances: [instance], output: page.output, against };
      const ask = { path: `${page.path}:compare`, query: page.version, body };
      const answer = /** @type {Schemas["CompareResponse"]} */ (await askJson(ask, signal));
      window.replaceChildren(...tellWindow(answer.comparisons[0], page, names));
    } catch (error) {
      if (signal.aborted) throw error;
      const reason = reasonOf(error);
      window.replaceChildren(h("p", { class: "muted" }, `This window can't be compared: ${reason}.`));
    }
  };
  return { element, update };
}

/**
 * The models to compare with: other versions first, then other models with the same inputs; and those of other ones, of
 * which the service says what differs.
 *
 * @typedef {{name: string, value: string, label: string}} Option
 * @param {Schemas["ModelList"]} models
 * @param {Page} page
 * @param {AbortSignal} signal
 */
async function othersOf({ details }, page, signal) {
  const ready = details.filter((one) => one.ready);
  const fits = await Promise.all(
    ready.map(async ({ name }) => {
      if (name === page.model.name) return true;
      const model = /** @type {Schemas["ModelInfo"]} */ (await askJson({ path: modelPath(name) }, signal));
      return inputsOf(model) === inputsOf(page.model) && hasOutput(model, page.output);
    }),
  );
  const optionsOf = (/** @type {boolean} */ fit) =>
    ready
      .filter((_, index) => fits[index] === fit)
      .flatMap(({ name, versions }) =>
        versions
          .filter((one) => one.ready && !(name === page.model.name && one.version === page.model.version))
          .map(({ version }) => ({ name, value: `${name}/${version}`, label: titleOf(name, version) })),
      );
  const isOwn = (/** @type {Option} */ { name }) => Number(name === page.model.name);
  return { fitting: optionsOf(true).sort((a, b) => isOwn(b) - isOwn(a)), others: optionsOf(false) };
}

/**
 * What models must have in common: steps, features, and units.
 *
 * @param {Schemas["ModelInfo"]} model
 */
function inputsOf({ features, targets, lookback }) {
  return JSON.stringify([lookback, [...features, ...targets].map(({ name, unit }) => [name, unit])]);
}

/**
 * @param {string} name
 * @param {string} version
 */
function titleOf(name, version) {
  return `${name}, version ${version}`;
}

/**
 * @param {string} model
 * @param {string} output
 * @param {string} edge
 */
function linkThere(model, output, edge) {
  return writeState({ view: "edge", values: { model, output, edge } });
}

/**
 * @param {Schemas["ModelComparisonResponse"]} answer
 * @param {string[]} names
 */
function tellCounts(answer, [one, other]) {
  const { came, went, bent, neither } = changedEdges(answer.edges);
  return (
    `Pruned to an R² of ${answer.fidelity}: ${came.length} are in ${one} alone (came), ${went.length} in ${other} alone ` +
    `(went), and of those that both keep ${bent.length} bend differently: their curves differ by more than ${APART} ` +
    `model units somewhere. ${neither.length} are kept by neither.`
  );
}

/**
 * @param {SVGGElement} part
 * @param {Map<string, Schemas["EdgeChangeInfo"]>} changes
 * @param {string[]} names
 * @param {string | null} unit
 */
function tellPart(part, changes, names, unit) {
  const [name] = (part.getAttribute("aria-label") ?? "").split("; ");
  const change = part.dataset.kind === "edge" && changes.get(edgeKey(/** @type {any} */ (part.dataset)));
  if (!change) return [name];
  return [
    name,
    `${names[0]}: ${amount(change.contribution, unit)}`,
    `${names[1]}: ${amount(change.against_contribution, unit)}`,
    ...(change.kept === change.against_kept ? [] : [change.kept ? "came" : "went"]),
  ];
}

/** @param {Schemas["ModelComparisonResponse"]} answer */
function rowsOf({ features, edges }) {
  return [
    ...features.map(({ interval, ...feature }) => ({
      ...{ part: "feature", ...feature },
      ...{ interval_low: interval[0], interval_high: interval[1] },
    })),
    ...edges.map(({ interval, ...edge }) => ({
      ...{ part: "edge", ...edge },
      ...{ interval_low: interval?.[0], interval_high: interval?.[1] },
    })),
  ];
}
