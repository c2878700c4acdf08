/** The explorer: the bar with the three destinations, the model and its skill; below it the destination of the address. */

import { Forecast } from "./forecast/forecast.js";
import { later } from "./later.js";
import { html, render, useEffect, useRef } from "./lib.js";
import { boundsOf, useModel, useModels } from "./model.js";
import { address, go, link, PLACES, redo, undo } from "./state.js";
import { Drop, isText } from "./ui/drop.js";
import { Tip } from "./ui/float.js";
import { Problem, Replaced } from "./ui/problem.js";
import { Said } from "./ui/said.js";
import { Select } from "./ui/select.js";
import { SkillChip } from "./ui/skill.js";
import { KeyDialog, Status } from "./ui/status.js";
import { useWindow } from "./windows.js";

const ModelPage = later("ModelPage", () => import("./model/page.js"));
const History = later("History", () => import("./history/history.js"));
const PAGES = { forecast: Forecast, model: ModelPage, history: History };
const Ribbon = later("Ribbon", () => import("./history/ribbon.js"));
const Palette = later("Palette", () => import("./ui/palette.js"));
const Tools = later("Tools", () => import("./ui/tools.js"));
const POLL = 3000; // ms until models that are being loaded are asked for again

function App() {
  const { place, values } = address.value;
  const models = useModels();
  const chosen = useChosen(models.value);
  const problem = problemOf(models, chosen);
  const model = useModel(problem ? undefined : chosen, values.output); // a failed one would be waited for
  const versus = useModel(values.versus || undefined, values.output);
  const window = useWindow(model.value);
  useEffect(() => {
    document.title = `${PLACES[place]} of ${chosen ?? "no model"} · Kanscope`;
  }, [place, chosen]);
  useFocus(place);
  useLoadingModels(models);
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  const Page = PAGES[place];
  const error = problem ?? model.error ?? (model.value ? undefined : models.error);
  const shown = !error && model.value;
  const isBusy = model.pending || window.pending || (!models.value && models.pending);
  const given = { model: model.value, versus: versus.value, window, place, models: models.value };
  return html`
    <a class="skip" href="#page" onClick=${skip}>Skip to the page</a>
    <${Bar} ...${given} chosen=${chosen} />
    <${Status} />
    <${Replaced} />
    <main id="page" tabindex="-1" class=${`${place}${model.stale ? " stale" : ""}`} aria-busy=${isBusy ? "true" : "false"}>
      ${error && html`<${Problem} error=${error} again=${model.error ? model.again : models.again} models=${models.value} />`}
      ${versus.error && html`<${Problem} error=${versus.error} again=${versus.again} isPart />`}
      ${shown && html`<${Page} key=${`${shown.chosen} ${shown.info.checkpoint}`} ...${given} />`}
    </main>
    ${shown && html`<${Ribbon} model=${shown} window=${window} />`}
    <${Drop} model=${shown || undefined} />
    <${Palette} ...${given} />
    <${Said} />
    <${KeyDialog} />
    <${Tip} />
  `;
}

/**
 * The model of the address, or else the first that was ready, which then stays.
 *
 * @param {any} models
 * @returns {string | undefined}
 */
function useChosen(models) {
  const first = useRef(/** @type {string | undefined} */ (undefined));
  const details = models?.details ?? [];
  first.current ??= (details.find((one) => one.ready) ?? details.find((one) => one.state !== "failed") ?? details[0])?.name;
  return address.value.values.model ?? first.current;
}

/** Moves the focus to the page where another destination is opened. @param {string} place */
function useFocus(place) {
  const before = useRef(place);
  useEffect(() => {
    if (before.current === place) return;
    before.current = place;
    scrollTo(0, 0);
    document.getElementById("page")?.focus({ preventScroll: true });
  }, [place]);
}

/** @param {import("./load.js").Loaded<any>} models asked for again while one is being loaded */
function useLoadingModels({ value, again }) {
  const isLoading = value?.details.some((one) => !one.ready && one.state !== "failed");
  useEffect(() => {
    if (!isLoading) return undefined;
    const timer = setTimeout(again, POLL);
    return () => clearTimeout(timer);
  }, [value, isLoading]);
}

/**
 * Why the chosen model can't be there, which only the list of models tells.
 *
 * @param {import("./load.js").Loaded<any>} models
 * @param {string | undefined} chosen
 */
function problemOf({ value }, chosen) {
  if (!value) return undefined;
  if (!chosen) return new Error("The service has no model.");
  const [name, version] = chosen.split("/");
  const one = value.details.find((model) => model.name === name);
  const found = version ? one?.versions.find((each) => each.version === version) : one;
  return found?.state === "failed" ? new Error(`${name} could not be loaded: ${found.reason ?? "no reason is known"}`) : undefined;
}

/** @param {any} props */
function Bar({ models, model, chosen, place }) {
  const outputs = model ? [...model.info.outputs, ...boundsOf(model.info, model.forecast)] : [];
  return html`
    <header class="bar">
      <a class="brand" href="#/forecast" onClick=${(event) => (event.preventDefault(), go({}, { place: "forecast" }))}>
        <img src=${new URL("icon.svg", import.meta.url).href} alt="" width="24" height="24" /> <span>Kanscope</span>
      </a>
      <nav aria-label="Destinations">${Object.keys(PLACES).map((name) => html`<${Destination} name=${name} isHere=${name === place} />`)}</nav>
      <div class="choices">
        ${model && html`<${SkillChip} model=${model} />`}
        <${Select} label="Model" value=${chosen} options=${optionsOf(models, chosen)} choose=${(value) => go({ model: value, pick: "", edit: "", window: "", versus: "" })} />
        ${outputs.length > 1 && html`<${Select} label="Output" value=${model.output} options=${outputs.map((value) => ({ value, label: value }))} choose=${(output) => go({ output })} />`}
      </div>
      <div class="tools"><${Tools} model=${model} place=${place} /></div>
    </header>
  `;
}

/** @param {{name: string, isHere: boolean}} props a click on it is a change that can be undone */
function Destination({ name, isHere }) {
  const open = (/** @type {MouseEvent} */ event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // in a tab of its own
    event.preventDefault();
    go({}, { place: name });
  };
  return html`<a href=${link(name)} aria-current=${isHere ? "page" : undefined} onClick=${open}>${PLACES[name]}</a>`;
}

/**
 * The models to choose from, with the versions of those that have several.
 *
 * @param {any} models
 * @param {string | undefined} chosen
 */
function optionsOf(models, chosen) {
  const label = (text, state) => (state === "ready" ? text : `${text} (${state})`);
  const options = (models?.details ?? []).flatMap(({ name, state, versions }) => [
    { value: name, label: label(name, state) },
    ...(versions.length > 1 ? versions : []).map((one) => ({ value: `${name}/${one.version}`, label: label(`${name}, version ${one.version}`, one.state) })),
  ]);
  return chosen && !options.some(({ value }) => value === chosen) ? [{ value: chosen, label: chosen }, ...options] : options;
}

/** @param {Event} event the address must stay that of the page */
function skip(event) {
  event.preventDefault();
  document.getElementById("page")?.focus();
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const isFree = !isText(event.target) && !document.querySelector("dialog[open], .panel");
  const key = event.key.toLowerCase();
  const isCommand = event.ctrlKey || event.metaKey;
  if (!isFree) return;
  if (key === "escape") go({ pick: "" });
  if (!isCommand || (key !== "z" && key !== "y")) return;
  event.preventDefault();
  if (event.shiftKey || key === "y") redo();
  else undo();
}

const root = /** @type {Element} */ (document.getElementById("app"));
root.replaceChildren();
render(html`<${App} />`, root);
