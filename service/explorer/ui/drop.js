/** Windows and tables of one's own: a file that is dropped anywhere, or a text that is pasted. What can't be read is said, and all stays. */

import { reasonOf } from "../api.js";
import { readFile, readGiven } from "../files.js";
import { html, signal, useEffect, useLayoutEffect, useRef, useState } from "../lib.js";
import { address, go } from "../state.js";
import { complain } from "./said.js";

/** @typedef {import("../model.js").Model} Model */

/** The text of the paste dialog and why it could not be read, while the dialog is open. */
const pasting = signal(/** @type {{text: string, problem?: string} | undefined} */ (undefined));

/** Opens the dialog into which a window or a table is pasted. */
export const paste = () => (pasting.value = { text: "" });

/** Shows what a file or a text holds. @param {Model} model @param {File | string} given */
async function take(model, given) {
  const [text, name] = given instanceof File ? [await readFile(given), given.name] : [given, /^\s*[[{]/.test(given) ? "pasted.json" : "pasted.csv"];
  const values = await readGiven(text, name, model);
  go(values, { place: address.value.place === "model" ? "forecast" : undefined });
}

/** @param {{model?: Model}} props */
export function Drop({ model }) {
  const [isOver, setOver] = useState(false);
  useLayoutEffect(() => {
    if (!model) return undefined; // of a layout: the page listens before it is painted, and misses no file
    const leave = new AbortController();
    const hasFile = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
    const on = (/** @type {string} */ name, /** @type {(event: any) => void} */ act) => addEventListener(name, act, { signal: leave.signal });
    on("dragover", (/** @type {DragEvent} */ event) => hasFile(event) && (event.preventDefault(), setOver(true)));
    on("dragleave", (/** @type {DragEvent} */ event) => event.relatedTarget === null && setOver(false));
    on("drop", (/** @type {DragEvent} */ event) => {
      setOver(false);
      const [file] = event.dataTransfer?.files ?? [];
      if (!file) return;
      event.preventDefault();
      take(model, file).catch(complain);
    });
    on("paste", (/** @type {ClipboardEvent} */ event) => {
      const text = event.clipboardData?.getData("text/plain") ?? "";
      if (isText(event.target) || !isTable(text)) return;
      event.preventDefault();
      take(model, text).catch((error) => (pasting.value = { text, problem: reasonOf(error) }));
    });
    return () => leave.abort();
  }, [model]);
  return html`
    <div class="drop" hidden=${!isOver}><p class="card">Drop a table (CSV) or a window (JSON) to see its forecasts</p></div>
    ${model && pasting.value && html`<${PasteDialog} model=${model} />`}
  `;
}

/** @param {{model: Model}} props */
function PasteDialog({ model }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const { text, problem } = pasting.value ?? { text: "" };
  useEffect(() => dialog.current?.showModal(), []);
  const close = () => (pasting.value = undefined);
  const write = (/** @type {any} */ event) => (pasting.value = { text: event.currentTarget.value });
  const show = (/** @type {Event} */ event) => {
    event.preventDefault();
    take(model, text).then(close, (error) => (pasting.value = { text, problem: reasonOf(error) }));
  };
  const choose = (/** @type {any} */ event) => {
    const [file] = event.currentTarget.files;
    if (file) take(model, file).then(close, (error) => (pasting.value = { text, problem: reasonOf(error) }));
  };
  const rows = model.info.table?.rows ?? model.info.lookback;
  return html`
    <dialog class="card paste" ref=${dialog} aria-labelledby="paste-title" onClose=${close}>
      <form onSubmit=${show}>
        <h2 id="paste-title">A window or a table of your own</h2>
        <label for="paste">A table of ${rows} rows or more, oldest first, with the names of its columns; or a window as JSON</label>
        <textarea id="paste" rows="10" spellcheck="false" value=${text} onInput=${write}></textarea>
        <p class="refused" role="alert">${problem}</p>
        <label>Or a file <input type="file" accept=".csv,.tsv,.txt,.json,.gz" onChange=${choose} /></label>
        <div class="row">
          <button class="main" disabled=${!text.trim()}>Show it</button>
          <button type="button" onClick=${close}>Cancel</button>
        </div>
      </form>
    </dialog>
  `;
}

/** @param {EventTarget | null} target */
export const isText = (target) => target instanceof Element && target.closest("input:not([type=range]), textarea, select, [contenteditable]") !== null;

/** Whether a text looks like a table or like JSON. @param {string} text */
const isTable = (text) => /^\s*[[{]/.test(text) || /[,;\t].*\r?\n.*[,;\t]/.test(text);
