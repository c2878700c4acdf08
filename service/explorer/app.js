/** The frame of the explorer: which model and view the address names, and the choices that lead to others. */

import { ApiError, askJson, modelPath } from "./api.js";
import { byId, h } from "./dom.js";
import { hideHint } from "./drawing.js";
import { readState, writeState } from "./state.js";

/** @typedef {import("./api.js").Schemas} Schemas */

/**
 * What a view is given.
 *
 * @typedef {object} Page
 * @property {string} path of the model, for requests
 * @property {{version: string | undefined}} version of the model, for the query of requests
 * @property {{version: string | undefined, output: string}} query the same with the output
 * @property {Schemas["ModelInfo"]} model
 * @property {string} output name of the output
 * @property {string | null} unit of the output
 * @property {(view: string, values?: Record<string, string>) => string} link to another view of the same output
 * @property {(values: Record<string, string>) => void} set changes values of this view's address, in place
 */

/**
 * A view, built once for a model and an output, and brought up to date for each address.
 *
 * @typedef {object} View
 * @property {HTMLElement} element
 * @property {(values: Record<string, string>, signal: AbortSignal) => Promise<void>} update
 */

/** @type {Record<string, {label: string, load: () => Promise<{create: (page: Page) => View}>}>} */
const VIEWS = {
  network: { label: "Network", load: () => import("./views/network.js") },
  edge: { label: "Edge", load: () => import("./views/edge.js") },
  forecast: { label: "Forecast", load: () => import("./views/forecast.js") },
  features: { label: "Features", load: () => import("./views/features.js") },
  report: { label: "Report", load: () => import("./views/report.js") },
};

const place = byId("view");
/** @type {{key: string, view: View} | undefined} */
let current;
let running = new AbortController();

/** Shows what the address says. */
async function show() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  hideHint();
  place.setAttribute("aria-busy", "true");
  try {
    await showState(signal);
  } catch (error) {
    if (!signal.aborted) tellProblem(error);
  }
  if (!signal.aborted) place.setAttribute("aria-busy", "false");
}

/** @param {AbortSignal} signal */
async function showState(signal) {
  const { view, values } = readState(location.hash);
  const list = /** @type {Schemas["ModelList"]} */ (await askJson({ path: "models" }, signal));
  const chosen = values.model ?? list.details.find(({ ready }) => ready)?.name ?? list.models[0];
  if (!chosen) throw new Error("the service has no model");
  const [name, version] = chosen.split("/"); // as in `modelOptions`
  const path = modelPath(name);
  const model = /** @type {Schemas["ModelInfo"]} */ (await askJson({ path, query: { version } }, signal));
  const output = values.output ?? model.outputs[0];
  const definition = VIEWS[view] ?? VIEWS.network;
  const key = JSON.stringify([definition.label, chosen, model.checkpoint, output]);
  showFrame(list, chosen, model, output, definition.label);
  if (current?.key !== key) {
    const { create } = await definition.load();
    if (signal.aborted) return;
    current = { key, view: create(pageOf(path, chosen, version, model, output)) };
    place.replaceChildren(current.view.element);
  }
  await current.view.update(values, signal);
}

/**
 * @param {string} path
 * @param {string} chosen
 * @param {string | undefined} version
 * @param {Schemas["ModelInfo"]} model
 * @param {string} output
 * @returns {Page}
 */
function pageOf(path, chosen, version, model, output) {
  const target = model.targets.find(({ name }) => output.replace(/\+\d+$/, "") === name);
  return {
    path,
    version: { version },
    query: { version, output },
    model,
    output,
    unit: target?.unit ?? null,
    link: (view, values = {}) => writeState({ view, values: { model: chosen, output, ...values } }),
    set: (values) => {
      const state = readState(location.hash);
      history.replaceState(null, "", writeState({ ...state, values: { ...state.values, ...values } }));
      void show();
    },
  };
}

/**
 * The tabs, and the choice of model and output.
 *
 * @param {Schemas["ModelList"]} list
 * @param {string} chosen
 * @param {Schemas["ModelInfo"]} model
 * @param {string} output
 * @param {string} label of the view
 */
function showFrame(list, chosen, model, output, label) {
  const { view } = readState(location.hash);
  document.title = `${label} of ${model.name} · Kanscope`;
  const to = (/** @type {string} */ name) => writeState({ view: name, values: { model: chosen, output } });
  const tabs = Object.entries(VIEWS).map(([name, definition]) =>
    h("a", { href: to(name), "aria-current": definition.label === label ? "page" : null }, definition.label),
  );
  replaceKeepingFocus(byId("tabs"), tabs);
  const models = h("select", { id: "model" }, ...modelOptions(list));
  models.value = chosen;
  models.onchange = () => (location.hash = writeState({ view, values: { model: models.value } }));
  const outputs = h("select", { id: "output" }, ...model.outputs.map((name) => h("option", { value: name }, name)));
  outputs.value = output;
  outputs.onchange = () => (location.hash = writeState({ view, values: { model: chosen, output: outputs.value } }));
  replaceKeepingFocus(byId("choices"), [
    h("label", { for: "model" }, "Model"),
    models,
    h("label", { for: "output" }, "Output"),
    outputs,
  ]);
}

/**
 * Puts elements in the place of others, and the focus on the one that stands where it was.
 *
 * @param {HTMLElement} parent
 * @param {HTMLElement[]} children
 */
function replaceKeepingFocus(parent, children) {
  const focused = [...parent.children].findIndex((child) => child === document.activeElement);
  parent.replaceChildren(...children);
  children[focused]?.focus();
}

/**
 * The models, and each version as `name/version` where there are several.
 *
 * @param {Schemas["ModelList"]} list
 */
function modelOptions(list) {
  return list.details.flatMap(({ name, ready, state, versions }) => [
    h("option", { value: name, disabled: !ready }, ready ? name : `${name} (${state})`),
    ...(versions.length > 1 ? versions : []).map((version) =>
      h(
        "option",
        { value: `${name}/${version.version}`, disabled: !version.ready },
        `${name}, version ${version.version}`,
      ),
    ),
  ]);
}

/** @param {unknown} error */
function tellProblem(error) {
  current = undefined;
  const message = error instanceof Error ? error.message : String(error);
  const waiting = error instanceof ApiError && error.status === 503;
  place.replaceChildren(
    h(
      "div",
      { class: "card problem", role: "alert" },
      h("h1", {}, waiting ? "Not ready yet" : "That can't be shown"),
      h("p", {}, message),
      h("button", { type: "button", class: "main", onclick: () => void show() }, "Try again"),
    ),
  );
}

addEventListener("hashchange", () => void show());
void show();
