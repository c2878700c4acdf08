/** The explorer: the bar with the three destinations, the model and its skill; below it the destination of the address. */

import { reasonOf } from "./api.js";
import { Forecast } from "./forecast/forecast.js";
import { History } from "./history/history.js";
import { Ribbon } from "./history/ribbon.js";
import { html, render, useEffect } from "./lib.js";
import { replaced } from "./load.js";
import { ModelPage } from "./model/page.js";
import { boundsOf, useModel, useModels } from "./model.js";
import { address, go, link, PLACES, redo, undo } from "./state.js";
import { Drop } from "./ui/drop.js";
import { Tip } from "./ui/float.js";
import { Palette } from "./ui/palette.js";
import { KeyDialog, Status } from "./ui/status.js";
import { SkillChip } from "./ui/skill.js";
import { Tools } from "./ui/tools.js";
import { useWindow } from "./windows.js";

const PAGES = { forecast: Forecast, model: ModelPage, history: History };

function App() {
  const { place, values } = address.value;
  const models = useModels();
  const chosen = values.model ?? models.value?.details.find((/** @type {any} */ one) => one.ready)?.name;
  const model = useModel(chosen, values.output);
  const versus = useModel(values.versus || undefined, values.output);
  const window = useWindow(model.value);
  const failed = models.value?.details.find((/** @type {any} */ one) => one.name === chosen?.split("/")[0] && one.state === "failed");
  const error = failed ? new Error(`${failed.name} could not be loaded: ${failed.reason}`) : (model.error ?? models.error);
  const isEmpty = models.value && !chosen;
  useEffect(() => {
    document.title = `${PLACES[/** @type {keyof typeof PLACES} */ (place)]} of ${chosen ?? "no model"} · Kanscope`;
  }, [place, chosen]);
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  const Page = PAGES[/** @type {keyof typeof PAGES} */ (place)];
  const shown = model.value && !error;
  return html`
    <a class="skip" href="#page" onClick=${skip}>Skip to the page</a>
    <${Bar} models=${models.value} model=${model.value} chosen=${chosen} place=${place} window=${window} />
    <${Status} />
    ${replaced.value && html`<p class="banner" role="status">
      The model ${replaced.value} was replaced while you looked at it: all numbers are now those of the new one.
      <button type="button" onClick=${() => (replaced.value = undefined)}>Understood</button>
    </p>`}
    <main id="page" tabindex="-1" class=${place} aria-busy=${model.pending || window.pending ? "true" : "false"}>
      ${error && html`<${Problem} error=${error} again=${model.again} models=${models.value} />`}
      ${isEmpty && html`<${Problem} error=${new Error("The service has no model.")} again=${models.again} />`}
      ${shown && html`<${Page} key=${`${model.value?.chosen} ${model.value?.info.checkpoint}`} model=${model.value} versus=${versus.value} window=${window} />`}
    </main>
    ${shown && html`<${Ribbon} model=${model.value} window=${window} />`}
    <${Drop} model=${model.value} />
    <${Palette} model=${model.value} models=${models.value} />
    <${KeyDialog} />
    <${Tip} />
  `;
}

/** @param {any} props */
function Bar({ models, model, chosen, place, window }) {
  const options = (models?.details ?? []).flatMap((/** @type {any} */ one) => [
    { value: one.name, label: one.state === "ready" ? one.name : `${one.name} (${one.state})` },
    ...(one.versions.length > 1 ? one.versions : []).map((/** @type {any} */ version) => ({
      value: `${one.name}/${version.version}`,
      label: `${one.name}, version ${version.version}${version.state === "ready" ? "" : ` (${version.state})`}`,
    })),
  ]);
  const outputs = model?.info.outputs ?? [];
  const bounds = model ? boundsOf(model.info, model.forecast) : [];
  return html`
    <header class="bar">
      <a class="brand" href="#/forecast"><img src=${new URL("icon.svg", import.meta.url).href} alt="" width="24" height="24" /> Kanscope</a>
      <nav aria-label="Destinations">
        ${Object.entries(PLACES).map(([name, label]) => html`<a href=${link(name)} aria-current=${name === place ? "page" : undefined} onClick=${(/** @type {Event} */ event) => (event.preventDefault(), go({}, { place: name }))}>${label}</a>`)}
      </nav>
      <div class="choices">
        ${model && html`<${SkillChip} model=${model} />`}
        <${Select} label="Model" value=${chosen} options=${options} choose=${(/** @type {string} */ value) => go({ model: value, pick: "", edit: "", window: "" })} />
        ${outputs.length + bounds.length > 1 && html`<${Select}
          label="Output"
          value=${model.output}
          options=${[...outputs, ...bounds].map((value) => ({ value, label: value }))}
          choose=${(/** @type {string} */ value) => go({ output: value })}
        />`}
        ${model && html`<${Tools} model=${model} window=${window} place=${place} />`}
      </div>
    </header>
  `;
}

/** @param {{label: string, value?: string, options: {value: string, label: string}[], choose: (value: string) => void}} props */
export function Select({ label, value, options, choose }) {
  const change = (/** @type {any} */ event) => choose(event.currentTarget.value);
  return html`
    <label class="select">
      <span>${label}</span>
      <select value=${value} onChange=${change}>
        ${options.map((one) => html`<option value=${one.value} selected=${one.value === value}>${one.label}</option>`)}
      </select>
    </label>
  `;
}

/** @param {{error: unknown, again: () => void, models?: any}} props */
function Problem({ error, again, models }) {
  const ready = (models?.details ?? []).filter((/** @type {any} */ one) => one.ready);
  return html`
    <div class="card problem" role="alert">
      <h1>This can't be shown</h1>
      <p>${reasonOf(error)}</p>
      <button type="button" class="main" onClick=${again}>Try again</button>
      ${ready.length > 0 && html`<p>Models that are ready:</p><ul>${ready.map((/** @type {any} */ one) => html`<li><a href=${`#/forecast?model=${encodeURIComponent(one.name)}`}>${one.name}</a></li>`)}</ul>`}
    </div>
  `;
}

/** @param {Event} event the address must stay that of the page */
function skip(event) {
  event.preventDefault();
  document.getElementById("page")?.focus();
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const isText = /** @type {Element} */ (event.target).closest("input:not([type=range]), textarea");
  const isUndo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
  if (event.key === "Escape" && !isText && !document.querySelector("dialog[open]")) go({ pick: "" });
  if (!isUndo || isText) return;
  event.preventDefault();
  if (event.shiftKey) redo();
  else undo();
}

const root = /** @type {Element} */ (document.getElementById("app"));
root.replaceChildren();
render(html`<${App} />`, root);
