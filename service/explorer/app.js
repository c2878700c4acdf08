/** The shell of the explorer: shows the model and view of the address, tabs, and the choice of model and output. */

import { askEarly, askJson, modelPath, reasonOf, unanswered } from "./api.js";
import { byId, h } from "./dom.js";
import { hideHint } from "./hint.js";
import { boundsOf, forecastOf } from "./intervals.js";
import { linkParts, relate } from "./selection.js";
import { carry, readState, writeState } from "./state.js";
import { isWanted, showRound } from "./tour.js";
import { isPassing, tellProgress, tellStopped, waitForNext } from "./waiting.js";

/** @typedef {import("./api.js").Schemas} Schemas */

/**
 * The context of a view.
 *
 * @typedef {object} Page
 * @property {string} path of the model, for requests
 * @property {{version: string | undefined}} version of the model, for the query of requests
 * @property {{version: string | undefined, output: string}} query the same with the output
 * @property {Schemas["ModelInfo"]} model
 * @property {string} output name of the output
 * @property {string | null} unit of the output
 * @property {(view: string, values?: Record<string, string>) => string} link to another view, with the current choices
 * @property {(values: Record<string, string>, replace?: boolean) => Promise<void>} set changes values of this view's
 *   address, as a new entry of the history or in place of the last, and settles when they are shown
 */

/**
 * A view, created once for a model and an output, and updated for each address.
 *
 * @typedef {object} View
 * @property {HTMLElement} element
 * @property {(values: Record<string, string>, signal: AbortSignal) => Promise<void>} update
 */

const VIEWS = {
  ...{ story: "Story", network: "Network", edge: "Edge", forecast: "Forecast", time: "Over time", features: "Features" },
  ...{ formula: "Formula", compare: "Compare", model: "Model", report: "Report" },
};
/** @type {Map<string, number>} how often a view could not be loaded; browsers do not ask for the same module again */
const failures = new Map();

/**
 * @param {string} view
 * @returns {Promise<{create: (page: Page) => View}>}
 */
function load(view) {
  const failed = failures.get(view) ?? 0;
  return import(`./views/${view}.js${failed ? `?${failed}` : ""}`).catch((error) => {
    failures.set(view, failed + 1);
    return unanswered(error);
  });
}

const place = byId("view");
/** @type {{key: string, view: View} | undefined} */
let current;
/** @type {Schemas["ModelInfo"] | undefined} the model shown last */
let last;
/** @type {Schemas["ModelList"]} */
let list = { models: [], details: [] };
let running = new AbortController();

/** Shows the view of the address; retries while the service is not ready, and keeps the previous view until then. */
async function show() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  hideHint();
  place.setAttribute("aria-busy", "true");
  for (let tries = 1; !signal.aborted; tries += 1) {
    const endProgress = tellProgress(signal, stop);
    try {
      await showState(signal);
      break;
    } catch (error) {
      if (signal.aborted) return;
      endProgress();
      if (!isPassing(error)) {
        tellProblem(error);
        break;
      }
      await waitForNext(error, tries, signal);
    } finally {
      endProgress();
    }
  }
  if (!signal.aborted) place.setAttribute("aria-busy", "false");
}

/** Stops what is computed for the view. */
function stop() {
  running.abort();
  place.setAttribute("aria-busy", "false");
  tellStopped(() => void show());
}

/** @param {AbortSignal} signal */
async function showState(signal) {
  const { view: asked, values: wanted } = readState(location.hash);
  const view = /** @type {keyof typeof VIEWS} */ (Object.hasOwn(VIEWS, asked) ? asked : "story");
  const loading = load(view);
  loading.catch(() => {}); // it is reported where it is awaited
  const early = wanted.model ? askModel(wanted.model, signal) : undefined;
  early?.catch(() => {});
  if (wanted.model && last?.name === wanted.model.split("/")[0]) // at once, since links keep what the address has
    showFrame(wanted.model, VIEWS[view], last, wanted.output ?? last.outputs[0]);
  list = /** @type {Schemas["ModelList"]} */ (await askJson({ path: "models" }, signal));
  const chosen = wanted.model ?? list.details.find(({ ready }) => ready)?.name ?? list.models[0];
  if (!chosen) throw new Error("the service has no model");
  const [name, version] = chosen.split("/"); // as in `modelOptions`
  if (last?.name !== name) showFrame(chosen, VIEWS[view]);
  refuseFailed(name, version);
  const path = modelPath(name);
  const model = await (early ?? askModel(chosen, signal));
  const kept = last && last.checkpoint !== model.checkpoint ? carry(wanted, last, model) : wanted;
  const newest = `ref:${model.reference_windows - 1}`;
  const values = view === "story" && !kept.window ? { ...kept, window: newest } : kept;
  if (values !== wanted) history.replaceState(null, "", writeState({ view, values }));
  last = model;
  const output = values.output ?? model.outputs[0];
  const key = JSON.stringify([VIEWS[view], chosen, model.checkpoint, output]);
  showFrame(chosen, VIEWS[view], model, output);
  if (current?.key !== key) {
    if (view === "story") askEarly(startOf(path, version, values.window), signal);
    const { create } = await loading;
    if (signal.aborted) return;
    relate(undefined);
    current = { key, view: create(pageOf(path, chosen, version, model, output)) };
    place.replaceChildren(current.view.element);
  }
  readPicked();
  await current.view.update(values, signal);
  if (view === "story" && isWanted(values)) {
    if (values.tour) history.replaceState(null, "", writeState({ view, values: { ...values, tour: "" } }));
    showRound();
  }
}

/**
 * @param {string} chosen as in `modelOptions`
 * @param {AbortSignal} signal
 * @returns {Promise<Schemas["ModelInfo"]>}
 */
function askModel(chosen, signal) {
  const [name, version] = chosen.split("/");
  return askJson({ path: modelPath(name), query: { version } }, signal);
}

/**
 * What the story asks for first, so that it is there when the story is loaded: its window, and all others.
 *
 * @param {string} path of the model
 * @param {string | undefined} version
 * @param {string} window
 */
function startOf(path, version, window) {
  const query = { version };
  const all = { path: `${path}/reference`, query: { ...query, offset: 0, limit: 1000 } }
  return window.startsWith("ref:") ? [{ path: `${path}/reference/${window.slice(4)}`, query }, all] : [];
}

/**
 * Throws the reason why a model is not available, which only the list of models has.
 *
 * @param {string} name
 * @param {string | undefined} version
 */
function refuseFailed(name, version) {
  const summary = list.details.find((model) => model.name === name);
  const found = version ? summary?.versions.find((one) => one.version === version) : summary;
  if (found?.state === "failed") throw new Error(`${name} could not be loaded: ${found.reason ?? "no reason is known"}`);
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
  const { output: forecast } = forecastOf(model, output);
  const target = model.targets.find(({ name }) => forecast.replace(/\+\d+(?=$|@)/, "") === name);
  const here = () => ({ ...readState(location.hash).values, model: chosen, output });
  return {
    path,
    version: { version },
    query: { version, output },
    model,
    output,
    unit: target?.unit ?? null,
    link: (view, values = {}) => writeState({ view, values: { ...here(), ...values } }),
    set: go,
  };
}

/**
 * Changes values of the address, and shows the result.
 *
 * @param {Record<string, string>} values
 * @param {boolean} [replace] whether to replace the last entry of the history
 */
function go(values, replace = false) {
  const state = readState(location.hash);
  const address = writeState({ ...state, values: { ...state.values, ...values } });
  if (replace || address === location.hash) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  return show();
}

/**
 * The tabs, and the choice of model and output, which keep all other choices.
 *
 * @param {string} chosen
 * @param {string} label of the view
 * @param {Schemas["ModelInfo"]} [model] if already known
 * @param {string} [output]
 */
function showFrame(chosen, label, model, output) {
  document.title = `${label} of ${chosen} · Kanscope`;
  const { values } = readState(location.hash);
  const here = model ? { ...values, model: chosen, output: output ?? "" } : {};
  const tabs = Object.entries(VIEWS).map(([view, name]) =>
    h("a", { href: writeState({ view, values: here }), "aria-current": name === label ? "page" : null }, name),
  );
  replaceKeepingFocus(byId("tabs"), tabs);
  const models = h("select", { id: "model" }, ...modelOptions());
  models.value = chosen;
  models.onchange = () => go({ model: models.value });
  const options = model ? outputOptions(model, output ?? "") : [];
  const hidden = options.length === 1; // nothing to choose
  const outputs = h("select", { id: "output", hidden }, ...options);
  outputs.value = output ?? "";
  outputs.onchange = () => go({ output: outputs.value });
  replaceKeepingFocus(byId("choices"), [
    h("label", { for: "model" }, "Model"),
    models,
    h("label", { for: "output", hidden }, "Output"),
    outputs,
  ]);
}

/**
 * Replaces elements by others, and moves the focus to the one at the same position.
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
 * The outputs, and the bounds and widths of the one that is shown.
 *
 * @param {Schemas["ModelInfo"]} model
 * @param {string} output
 */
function outputOptions(model, output) {
  const option = (/** @type {string} */ name) => h("option", { value: name }, name);
  const { output: forecast } = forecastOf(model, output);
  const bounds = boundsOf(model, forecast);
  const group = bounds.length ? [h("optgroup", { label: `Intervals of ${forecast}` }, ...bounds.map(option))] : [];
  return [...model.outputs.map(option), ...group];
}

/** The models, and each version as `name/version` if there are several; choosing a failed one shows the reason. */
function modelOptions() {
  const label = (/** @type {string} */ name, /** @type {string} */ state) =>
    state === "ready" ? name : `${name} (${state})`;
  return list.details.flatMap(({ name, state, versions }) => [
    h("option", { value: name }, label(name, state)),
    ...(versions.length > 1 ? versions : []).map((one) =>
      h("option", { value: `${name}/${one.version}` }, label(`${name}, version ${one.version}`, one.state)),
    ),
  ]);
}

/**
 * Shows an error, and links to models that are ready.
 *
 * @param {unknown} error
 */
function tellProblem(error) {
  current = undefined;
  const { view } = readState(location.hash);
  const others = list.details
    .filter(({ ready }) => ready)
    .map(({ name }) => h("li", {}, h("a", { href: writeState({ view, values: { model: name } }) }, name)));
  place.replaceChildren(
    h(
      "div",
      { class: "card problem", role: "alert" },
      h("h1", {}, "This can't be shown"),
      h("p", {}, reasonOf(error)),
      h("button", { type: "button", class: "main", onclick: () => void show() }, "Try again"),
      ...(others.length ? [h("p", {}, "Models that are ready:"), h("ul", {}, ...others)] : []),
    ),
  );
}

byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address must stay that of the view
  place.focus();
});
const readPicked = linkParts(place, byId("picked"));
addEventListener("hashchange", () => void show());
void show();
