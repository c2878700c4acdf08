/** Which window is explained, and with what it is compared: reference windows, or what is pasted, dropped or chosen. */

import "./vendor/d3.min.js";
import { askJson, reasonOf } from "./api.js";
import { dropsTo, freshLink, h, segments } from "./dom.js";
import { findDay, wallClock } from "./references.js";
import { askWindow, columnsOf, findTable, isRaw, keepTable, nameOf, numberOf, readFile, readSeries } from "./tables.js";
import { findWindow, keepSeveral, keepWindow, readWindow, unpackWindow } from "./windows.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./windows.js").Window} Window */

/**
 * A window, and what is known of it.
 *
 * @typedef {object} Loaded
 * @property {Window} window
 * @property {string} note of what it is
 * @property {number} [index] of a reference window
 * @property {string | null} [time] of its newest row
 * @property {number[] | null} [actual] values of the outputs
 */

/**
 * What the address says of the window, loaded.
 *
 * @typedef {object} Chosen
 * @property {string} source of the window, as `loadWindow` reads it
 * @property {string} origin of it: another source where the window was changed since
 * @property {Window} window
 * @property {Window} [before] it was changed
 * @property {string} note of what it is
 * @property {string | null | undefined} time of its newest row
 * @property {number[] | null | undefined} actuals values of all outputs, likewise
 * @property {number | undefined} actual value of the output, which a changed window has none of
 * @property {unknown} baseline as :explain takes it
 * @property {Window} [other] that it is compared with
 */

const BASELINES = {
  mean: "mean of the reference windows",
  zero: "mean of the training rows",
  reference: "reference windows, averaged",
  window: "another window",
};

/**
 * @param {Page} page
 * @param {() => void} reject called where what was given is no window
 */
export function windowInput(page, reject) {
  let shown = "ref:0"; // what the address says of the window
  const reference = referenceChoice(page, "Number", "window", (source) => page.set({ window: source, from: "" }));
  const problem = h("p", { class: "wrong", role: "alert" });
  const refuse = (/** @type {unknown} */ error) => {
    problem.textContent = `${reasonOf(error)}. Nothing is shown.`;
    reject();
  };
  const own = ownWindow(page, (source, file) => page.set({ window: source, from: "", ...(file ? { file } : {}) }), refuse);
  const show = (/** @type {string} */ source) => {
    kind.set(source);
    reference.element.hidden = source !== "reference";
    own.element.hidden = source === "reference";
  };
  const kind = segments("Window", { reference: "reference", own: "your own" }, (source) => {
    show(source);
    if (source === "reference") page.set({ window: "", from: "" });
    else own.focus();
  });
  const baseline = baselineChoice(page, () => shown);
  const element = h(
    "section",
    { class: "card window", "aria-label": "Window and baseline" },
    kind.element,
    reference.element,
    own.element,
    baseline.element,
    problem,
  );

  /**
   * The window that the address names, and the baseline as :explain takes it.
   *
   * @param {Record<string, string>} values
   * @param {AbortSignal} signal
   * @returns {Promise<Chosen>}
   */
  const set = async (values, signal) => {
    shown = values.window ?? "ref:0";
    const origin = values.from ?? shown;
    const isReference = origin.startsWith("ref:");
    show(isReference ? "reference" : "own");
    own.set(origin);
    const [{ window, note, time, actual }, before, other] = await Promise.all([
      loadWindow(shown, page, signal),
      values.from ? loadWindow(values.from, page, signal) : undefined,
      baseline.set(values.baseline ?? "mean", signal),
    ]);
    problem.textContent = "";
    if (isReference) reference.set(origin, before ? before.time : time);
    else own.set(origin, before?.window ?? window);
    const compared = other ? { kind: "instance", instance: other.window } : { kind: values.baseline ?? "mean" };
    const said = before ? `changed from ${before.note}` : note;
    return {
      ...{ source: shown, origin, window, before: before?.window, other: other?.window },
      note: other ? `${said}; compared with ${other.note}` : said,
      time: before ? before.time : time,
      actuals: actual,
      actual: actual?.[page.model.outputs.indexOf(page.output)],
      baseline: compared,
    };
  };
  const ask = (/** @type {string} */ why) => {
    show("own");
    problem.textContent = why;
  };
  return { element, ask, set, isOwn: () => !shown.startsWith("ref:"), refuse };
}

/**
 * The window of an address: `ref:` and the number of a reference window, `row:`, the number of the newest row and the id
 * of a table, `z:` and the window itself, or `kept:` and a name by which this tab has it.
 *
 * @param {string} source
 * @param {Page} page
 * @param {AbortSignal} [signal]
 * @returns {Promise<Loaded>}
 */
export async function loadWindow(source, page, signal) {
  const [kind, given] = source.split(/:(.*)/s);
  if (kind === "row") {
    const { place, time, ...found } = await askWindow(source, page, signal);
    return { ...found, time, note: `${place}${time ? `, ${time.replace("T", " ")}` : ""}` };
  }
  if (kind === "kept") return { window: findWindow(source), note: "your own window" };
  if (kind !== "ref") return { window: await unpackWindow(given, page.model), note: "your own window" };
  const answer = await loadReference(given, page, signal);
  const { instance: window, index, time, target: actual } = answer;
  return { window, index, time, actual, note: `reference window ${index}${time ? `, ${time.replace("T", " ")}` : ""}` };
}

/**
 * @param {string | number} index
 * @param {Page} page
 * @param {AbortSignal} [signal]
 * @returns {Promise<Schemas["ReferenceWindow"]>}
 */
function loadReference(index, page, signal) {
  return askJson({ path: `${page.path}/reference/${encodeURIComponent(index)}`, query: page.version }, signal);
}

/**
 * A reference window by its number, the one before or after, or the nearest to a date.
 *
 * @param {Page} page
 * @param {string} label
 * @param {string} what the window is
 * @param {(source: string) => void} choose
 */
export function referenceChoice(page, label, what, choose) {
  const count = page.model.reference_windows;
  const id = `index-${what}`;
  const take = (/** @type {number} */ number) => {
    if (Number.isFinite(number)) choose(`ref:${Math.min(Math.max(0, Math.round(number)), count - 1)}`);
  };
  const index = h("input", { type: "number", id, min: 0, max: count - 1, onchange: () => take(index.valueAsNumber) });
  const step = (/** @type {string} */ name, /** @type {number} */ by) =>
    h(
      "button",
      { type: "button", "aria-label": `${name} ${what}`, onclick: () => take(index.valueAsNumber + by) },
      by < 0 ? "←" : "→",
    );
  const date = h("input", {
    type: "date",
    "aria-label": `Date of the ${what}`,
    onchange: async () => date.value && take(await findDay(date.value, page)),
  });
  const element = h(
    "div",
    { class: "row" },
    h("label", { for: id }, label),
    step("Previous", -1),
    index,
    step("Next", 1),
    h("span", { class: "muted" }, `of ${count}`),
    date,
  );
  const set = (/** @type {string} */ source, /** @type {string | null | undefined} */ time = undefined) => {
    index.value = source.startsWith("ref:") ? source.slice(4) : "";
    const ms = time ? wallClock(time) : NaN;
    date.value = Number.isFinite(ms) ? new Date(ms).toISOString().slice(0, 10) : "";
    date.hidden = time === null;
  };
  return { element, set };
}

/**
 * What windows are compared with.
 *
 * @param {Page} page
 * @param {() => string} shown window, by its address
 */
function baselineChoice(page, shown) {
  const choose = (/** @type {string} */ value) => page.set({ baseline: value === "mean" ? "" : value });
  const select = h("select", {
    id: "baseline",
    onchange: () => choose(select.value === "window" ? shown() : select.value),
  });
  select.append(...Object.entries(BASELINES).map(([value, label]) => h("option", { value }, label)));
  const other = referenceChoice(page, "Its number", "baseline", choose);
  const pin = h("button", { type: "button", onclick: () => choose(shown()) }, "The window shown");
  other.element.append(pin);
  const element = h(
    "div",
    { class: "baseline" },
    h("div", { class: "row" }, h("label", { for: "baseline" }, "Compared with"), select),
    other.element,
  );
  /**
   * @param {string} source
   * @param {AbortSignal} signal
   * @returns {Promise<Loaded | undefined>} the window, where it is one
   */
  const set = async (source, signal) => {
    const isWindow = source.includes(":");
    select.value = isWindow ? "window" : source;
    other.element.hidden = !isWindow;
    other.set(source.startsWith("ref:") ? source : "");
    return isWindow ? loadWindow(source, page, signal) : undefined;
  };
  return { element, set };
}

/**
 * A window of one's own: as text, or one of those of a table, among which it is chosen by its newest line.
 *
 * @param {Page} page
 * @param {(source: string, table?: string) => void} accept
 * @param {(error: unknown) => void} refuse
 */
function ownWindow(page, accept, refuse) {
  const { model } = page;
  const text = h("textarea", { id: "window", rows: 5, spellcheck: "false", placeholder: placeholderOf(model) });
  const accepted = { source: "", text: "" };
  let origin = "";
  const seriesOf = (/** @type {string} */ id) => readSeries(findTable(id), model, model.targets[0].name);
  const take = async (/** @type {string} */ given, name = "pasted.csv") => {
    try {
      const several = keepSeveral(name.replace(/^pasted.csv$/, "pasted.json"), given, model);
      if (several) {
        location.hash = page.link("time", { file: several.id, window: "", from: "", a: "", b: "", zoom: "" });
        return;
      }
      const source = /^\s*[[{]/.test(given) ? await keepWindow(readWindow(given, model)) : await readTable(given, name);
      Object.assign(accepted, { source, text: given });
      accept(source, idOf(source));
    } catch (error) {
      refuse(new Error(`That is no window: ${reasonOf(error)}`));
    }
  };
  const readTable = async (/** @type {string} */ given, /** @type {string} */ name) => {
    const { id, rows } = keepTable(name, given);
    const isOne = isRaw(model) && rows.length <= model.lookback;
    if (isOne) return keepWindow(readWindow(given, model));
    const { ends, problems } = seriesOf(id);
    if (idOf(origin) === id) return origin; // chosen again after a reload
    if (ends.length) return `row:${ends[ends.length - 1]}:${id}`;
    const needed = model.table?.rows ?? model.lookback;
    throw new Error(`no ${needed} rows in a row are whole${problems.length ? `: ${problems[0]}` : ""}`);
  };
  const readFiles = async (/** @type {FileList | null | undefined} */ files) => {
    if (files?.length) await take(await readFile(files[0]), files[0].name);
  };
  const file = h("input", {
    type: "file",
    id: "file",
    accept: ".csv,.tsv,.txt,.json,.gz,text/csv,text/tab-separated-values,application/json",
    onchange: () => void readFiles(file.files),
  });
  const line = h("input", { type: "number", id: "line", onchange: () => move(line.valueAsNumber) });
  const label = h("label", { for: "line" });
  const count = h("span", { class: "muted" });
  const move = (/** @type {number} */ number) => {
    const id = idOf(origin);
    const { ends, table } = seriesOf(id);
    const nearest = d3.least(ends, (end) => Math.abs(numberOf(table, end, model) - number));
    if (nearest !== undefined) accept(`row:${nearest}:${id}`);
  };
  const step = (/** @type {string} */ name, /** @type {number} */ by) => {
    const act = () => {
      const { ends, table } = seriesOf(idOf(origin));
      const numbers = ends.map((end) => numberOf(table, end, model));
      move(numbers[Math.max(0, Math.min(ends.length - 1, numbers.indexOf(line.valueAsNumber) + by))]);
    };
    return h("button", { type: "button", "aria-label": `${name} window of the table`, onclick: act }, by < 0 ? "←" : "→");
  };
  const lines = h(
    "div",
    { class: "row", hidden: true },
    ...[label, step("Previous", -1), line, step("Next", 1), count],
    freshLink(() => page.link("time", { file: idOf(origin), a: "", b: "", zoom: "" }), "All of them over time"),
  );
  const element = h(
    "div",
    { class: "own", ...dropsTo(readFiles) },
    lines,
    h("label", { for: "window" }, `JSON or a table of ${model.table?.rows ?? model.lookback} rows or more, oldest first; paste it, or drop a file here`),
    text,
    h(
      "div",
      { class: "row" },
      h("button", { type: "button", class: "main", onclick: () => void take(text.value) }, "Explain it"),
      h("label", { for: "file" }, "or a file"),
      file,
    ),
  );
  /**
   * Shows the window of the address, as it was given where it was given here.
   *
   * @param {string} source
   * @param {Window} [window] undefined where this tab does not have it
   */
  const set = (source, window) => {
    origin = source;
    lines.hidden = !idOf(source) || !window;
    if (!window) return;
    text.value = source === accepted.source ? accepted.text : JSON.stringify(window);
    if (lines.hidden) return;
    const { ends, table } = seriesOf(idOf(source));
    const [first, shown, last] = [ends[0], Number(/^row:(\d+)/.exec(source)?.[1]), ends[ends.length - 1]].map((end) => numberOf(table, end, model));
    Object.assign(line, { value: String(shown), min: first, max: last });
    label.textContent = table.windows ? "Window" : "Newest line";
    count.textContent = `of ${ends.length.toLocaleString("en")} windows in ${nameOf(table.id)}`;
  };
  return { element, set, focus: () => text.focus() };
}

/**
 * The id of the table of a source; empty where it is of none.
 *
 * @param {string} source
 */
function idOf(source) {
  return source.split(/^row:\d+:/)[1] ?? "";
}

/** @param {Schemas["ModelInfo"]} model */
function placeholderOf(model) {
  const columns = columnsOf(model).map(({ name }) => name);
  const names = columns.slice(0, 3);
  const more = columns.length > names.length ? ",…" : "";
  return `${names.join(",")}${more}\n${names.map(() => "0").join(",")}${more}\n(${model.table?.rows ?? model.lookback} rows)`;
}
