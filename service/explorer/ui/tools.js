/** The menu of what can be done with what is in view: requests and data, pictures, the report, print, undo and keys. */

import { askText, curlOf } from "../api.js";
import { exportPng, exportSvg, hasPicture } from "../flow/export.js";
import { html, signal, useEffect, useRef } from "../lib.js";
import { inView } from "../load.js";
import { canMove, redo, undo } from "../state.js";
import { paste } from "./drop.js";
import { Menu } from "./float.js";
import { openPalette } from "./palette.js";
import { attempt } from "./said.js";
import { copyText, rowsOf, save, writeCsv } from "./save.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {{label: string, keys?: string, act: () => unknown}} Action */

const KEYS = {
  "Ctrl K or /": "find an input, a date, a node, a question or an action",
  "Ctrl Z": "undo the last change",
  "Ctrl Shift Z": "do it again",
  "Ctrl V": "show a window or a table from the clipboard",
  "Tab, arrows": "go through the parts of a picture, and change what has the focus",
  "Enter": "choose what has the focus, so that it stays lit",
  "Escape": "close what is open, or leave what was chosen",
};

/** @type {Action[]} */
const PICTURES = [
  { label: "Save the picture as SVG", act: () => attempt(() => exportSvg()) },
  { label: "Save the picture as PNG", act: () => attempt(() => exportPng()) },
  { label: "Save the picture as a slide (16:9)", act: () => attempt(() => exportPng("slide")) },
  { label: "Save the picture as a page of A4", act: () => attempt(() => exportSvg("a4")) },
];

const isAsked = signal(false); // whether the keys are shown

/** @param {{model?: Model, place: string}} of what is in view @returns {Action[]} */
export function actionsOf({ model, place }) {
  const name = model ? `${model.name}-${place}` : "";
  const ofModel = model && [
    { label: "Paste a window or table", keys: "Ctrl V", act: paste },
    { label: "Copy the requests as curl", act: () => attempt(() => copyText(inView().map(({ ask }) => curlOf(ask)).join("\n")), "The requests are copied.") },
    { label: "Save the answers as JSON", act: () => attempt(() => saveJson(name, inView().map(({ ask, answer }) => ({ request: curlOf(ask), answer })))) },
    ...(hasPicture() ? PICTURES : []),
    { label: "Save the report as HTML", act: () => attempt(() => saveReport(model, "text/html", "html")) },
    { label: "Save the report as Markdown", act: () => attempt(() => saveReport(model, "text/markdown", "md")) },
  ];
  return [
    ...(ofModel || []),
    { label: "Copy the link", act: () => attempt(() => copyText(location.href), "The link is copied.") },
    { label: "Print", act: () => print() },
    ...(canMove().undo ? [{ label: "Undo", keys: "Ctrl Z", act: undo }] : []),
    ...(canMove().redo ? [{ label: "Do it again", keys: "Ctrl Shift Z", act: redo }] : []),
    { label: "Show the keys", act: () => (isAsked.value = true) },
  ];
}

/** @param {any} props */
export function Tools({ model, place }) {
  return html`
    <button type="button" class="find" aria-label="Find (Ctrl K)" data-tip="Find: Ctrl K or /" onClick=${openPalette}>
      <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"><circle cx="6.5" cy="6.5" r="4.5" /><path d="M10 10l4.5 4.5" /></svg>
    </button>
    <${Menu} label="⋯" name="More">${model && html`<${Panel} model=${model} place=${place} />`}<//>
    ${isAsked.value && html`<${Keys} />`}
  `;
}

/** @param {{model: Model, place: string}} props */
function Panel({ model, place }) {
  const name = `${model.name}-${place}`;
  return html`
    <ul class="actions">
      ${actionsOf({ model, place }).map(({ label, keys, act }) => html`
        <li><button type="button" data-close onClick=${act}><span>${label}</span><span class="muted">${keys}</span></button></li>`)}
    </ul>
    <h2>Requests in view</h2>
    <ul class="requests">
      ${inView().map(({ ask, answer }) => html`
        <li>
          <code>${shortOf(ask)}</code>
          <button type="button" class="small" aria-label=${`Copy ${shortOf(ask)} as curl`} onClick=${() => attempt(() => copyText(curlOf(ask)), "The request is copied.")}>curl</button>
          <button type="button" class="small" aria-label=${`Save ${shortOf(ask)} as JSON`} onClick=${() => saveJson(name, answer)}>JSON</button>
          <button type="button" class="small" aria-label=${`Save ${shortOf(ask)} as CSV`} onClick=${() => save(`${name}.csv`, "text/csv", writeCsv(rowsOf(answer)))}>CSV</button>
        </li>`)}
    </ul>
  `;
}

/** @param {import("../api.js").Ask} ask its path below the model */
const shortOf = ({ path }) => path.replace(/^models\/[^/:]+/, "") || "the model";

/** @param {string} name @param {unknown} data */
const saveJson = (name, data) => save(`${name}.json`, "application/json", JSON.stringify(data, null, 1));

/** @param {Model} model @param {string} type @param {string} ending */
async function saveReport(model, type, ending) {
  const text = await askText({ path: `${model.path}/report`, query: model.query, accept: type });
  save(`${model.name}-report.${ending}`, type, text);
}

function Keys() {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => dialog.current?.showModal(), []);
  const close = () => (isAsked.value = false);
  return html`
    <dialog class="card" ref=${dialog} aria-labelledby="keys-title" onClose=${close}>
      <h2 id="keys-title">Keys</h2>
      <table><tbody>${Object.entries(KEYS).map(([keys, what]) => html`<tr><th scope="row"><kbd>${keys}</kbd></th><td>${what}</td></tr>`)}</tbody></table>
      <button type="button" class="main" onClick=${close}>Close</button>
    </dialog>
  `;
}
