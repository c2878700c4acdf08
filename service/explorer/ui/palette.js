/** The palette (Ctrl+K or /): inputs, dates, nodes, outputs, models, destinations, questions and actions, found by a few letters. */

import { DAY, timeLabel } from "../figures.js";
import { useNetwork } from "../flow/data.js";
import { html, signal, useEffect, useRef, useState } from "../lib.js";
import { useAsk } from "../load.js";
import { go, PLACES } from "../state.js";
import { isText } from "./drop.js";
import { QUESTIONS } from "./questions.js";
import { actionsOf } from "./tools.js";

/** @typedef {{kind: string, label: string, about?: string, act: () => unknown}} Entry */

const MOST = 40; // entries shown
const BEST = 4; // score of what is called exactly so
const WIDEST = 3; // letters between which others stand, as a multiple of them

const isOpen = signal(false);

/** Opens the palette. */
export const openPalette = () => (isOpen.value = true);

/** @param {any} props */
export function Palette(props) {
  useEffect(() => {
    const open = (/** @type {KeyboardEvent} */ event) => {
      const isCommand = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k";
      const isSlash = event.key === "/" && !event.ctrlKey && !event.metaKey && !isText(event.target);
      if (!isCommand && !isSlash) return;
      event.preventDefault();
      if (!document.querySelector("dialog[open]")) openPalette();
    };
    addEventListener("keydown", open);
    return () => removeEventListener("keydown", open);
  }, []);
  return isOpen.value ? html`<${Dialog} ...${props} />` : null;
}

/** @param {any} props */
function Dialog({ model, models, place }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const [asked, setAsked] = useState("");
  const [at, setAt] = useState(0);
  const windows = useAsk(model && { path: `${model.path}/reference`, query: { ...model.version, offset: 0, limit: 1000 } });
  const { topology } = useNetwork(model);
  useEffect(() => dialog.current?.showModal(), []);
  const entries = [
    ...QUESTIONS.map(({ label, place: to, values = {} }) => ({ kind: "question", label, act: () => go(values, { place: to }) })),
    ...Object.entries(PLACES).map(([name, label]) => ({ kind: "go to", label, act: () => go({}, { place: name }) })),
    ...(model ? entriesOf(model, windows.value?.windows ?? [], topology?.nodes ?? []) : []),
    ...modelsOf(models),
    ...actionsOf({ model, place }).map(({ label, keys, act }) => ({ kind: "action", label, about: keys, act })),
  ];
  const found = find(entries, asked);
  const chosen = Math.min(at, found.length - 1);
  useEffect(() => dialog.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" }), [chosen, asked]);
  const close = () => (isOpen.value = false);
  const choose = (/** @type {Entry | undefined} */ entry) => {
    if (!entry) return;
    dialog.current?.close(); // the focus returns to where it was before what is chosen may move it
    close();
    void entry.act();
  };
  const press = (/** @type {KeyboardEvent} */ event) => {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (by) setAt(Math.max(0, Math.min(found.length - 1, chosen + by)));
    else if (event.key === "Enter") choose(found[chosen]);
    else return;
    event.preventDefault();
  };
  const write = (/** @type {any} */ event) => (setAsked(event.currentTarget.value), setAt(0));
  return html`
    <dialog class="card palette" ref=${dialog} aria-label="Find" onClose=${close} onClick=${(/** @type {Event} */ event) => event.target === dialog.current && close()}>
      <input
        role="combobox" aria-expanded="true" aria-controls="found" aria-autocomplete="list" aria-label="Find an input, a date, a node, an output, a model, a question or an action"
        aria-activedescendant=${chosen >= 0 ? `found-${chosen}` : undefined}
        type="text" autocomplete="off" spellcheck="false" placeholder="An input, a date, a node, a question …" value=${asked} onInput=${write} onKeyDown=${press} />
      <ul role="listbox" id="found" aria-label="Found">
        ${found.map((entry, number) => html`
          <li role="option" id=${`found-${number}`} key=${`${entry.kind} ${entry.label}`} aria-selected=${number === chosen ? "true" : "false"} onClick=${() => choose(entry)} onPointerMove=${() => setAt(number)}>
            <span>${entry.label}</span><span class="muted">${entry.about ? `${entry.about} · ` : ""}${entry.kind}</span>
          </li>`)}
      </ul>
      <p class="muted" role="status">${found.length ? "" : `Nothing is called “${asked}”.`}</p>
    </dialog>
  `;
}

/**
 * What a model has: inputs, nodes, outputs, and the days of its reference windows.
 *
 * @param {import("../model.js").Model} model
 * @param {any[]} windows
 * @param {any[]} nodes
 * @returns {Entry[]}
 */
function entriesOf(model, windows, nodes) {
  const pick = (/** @type {string} */ part) => () => go({ pick: part }, { place: "forecast" });
  const inner = nodes.filter(({ kind }) => kind !== "input" && kind !== "output");
  return [
    ...model.inputs.map(({ name, label }) => ({ kind: "input", label, about: label === name ? "" : name, act: pick(`input:${name}`) })),
    ...inner.map(({ id, label }) => ({ kind: "node", label: label || id, about: label ? id.replaceAll(":", " ") : "", act: pick(`unit:${id}`) })),
    ...(model.info.outputs.length > 1 ? model.info.outputs : []).map((output) => ({ kind: "output", label: output, act: () => go({ output }) })),
    ...daysOf(windows),
  ];
}

/**
 * An entry for each day that a reference window forecasts from: its first one.
 *
 * @param {{index: number, time?: string | null}[]} windows
 */
function daysOf(windows) {
  const days = new Map();
  for (const { index, time } of windows) {
    const day = time?.slice(0, 10); // as its clock shows it
    if (day && !days.has(day)) days.set(day, index);
  }
  return [...days].map(([day, index]) => ({
    kind: "date",
    label: timeLabel(Date.parse(day), DAY, 0),
    about: day,
    act: () => go({ window: `ref:${index}`, edit: "" }, { place: "forecast" }),
  }));
}

/** @param {any} models */
function modelsOf(models) {
  return (models?.details ?? []).map((/** @type {any} */ one) => ({
    kind: "model",
    label: one.name,
    about: one.state === "ready" ? "" : one.state,
    act: () => go({ model: one.name, pick: "", edit: "", window: "", output: "", versus: "" }),
  }));
}

/**
 * The entries that a text finds, the best first, and of equal ones as they come.
 *
 * @param {Entry[]} entries
 * @param {string} asked
 */
export function find(entries, asked) {
  const words = asked.toLowerCase().split(/\s+/).filter(Boolean);
  const whole = words.join(" ");
  return entries
    .map((entry) => {
      const text = `${entry.label} ${entry.about ?? ""} ${entry.kind}`.toLowerCase();
      return { entry, score: entry.label.toLowerCase() === whole ? BEST : (d3.min(words, (word) => scoreOf(word, text)) ?? 1) };
    })
    .filter(({ score }) => score > 0)
    .sort((one, other) => other.score - one.score)
    .slice(0, MOST)
    .map(({ entry }) => entry);
}

/**
 * How well a word is found in a text: at the beginning of a word, within one, or with other letters between its own.
 *
 * @param {string} word
 * @param {string} text
 */
function scoreOf(word, text) {
  if (text.replace(/[^\p{L}\p{N}]+/gu, " ").split(" ").some((one) => one.startsWith(word))) return 3;
  if (text.includes(word)) return 2;
  const first = text.indexOf(word[0]);
  let last = first - 1;
  for (const letter of word) {
    last = text.indexOf(letter, last + 1);
    if (last < 0) return 0;
  }
  return first >= 0 && last - first < WIDEST * word.length ? 1 : 0;
}
