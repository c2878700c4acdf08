/** Many windows of one's own, explained part by part into one table. */

import { save, writeCsv } from "./actions.js";
import { askJson, reasonOf } from "./api.js";
import { h } from "./dom.js";
import { isPassing, waitForNext } from "./waiting.js";
import { readWindows } from "./windows.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./windows.js").Numbered} Numbered */

const PART = 32; // windows of a request
const N_PROBLEMS = 3; // that are spelled out

/**
 * Offers a table of contributions where what is given holds several windows. Each is a row as `kanscope explain` writes
 * it, with the columns of the given table that are no features.
 *
 * @param {Page} page
 */
export function windowTable(page) {
  /** @type {Numbered[]} */
  let windows = [];
  /** @type {Record<string, unknown>[]} */
  let rows = [];
  /** @type {Record<string, unknown>} baseline and groups, as :explain takes them */
  let options = {};
  let running = new AbortController();
  const said = h("p", { role: "status" });
  const problem = h("p", { class: "rejected", role: "alert" });
  const bar = h("progress", { "aria-label": "Windows explained" });
  const button = (/** @type {string} */ label, /** @type {() => void} */ act) =>
    h("button", { type: "button", onclick: act }, label);
  const begin = button("Explain all", () => void run());
  const cancel = button("Cancel", () => stop(`Cancelled: ${count()}.`));
  const keep = button("Save the table", () => {
    save(`${page.model.name}-contributions.csv`, "text/csv", writeCsv(rows));
  });
  const element = h("div", { class: "many" }, said, problem, bar, h("div", { class: "row" }, begin, cancel, keep));
  const count = () => `${rows.length} of ${windows.length} windows explained`;

  /** @param {boolean} isRunning */
  const show = (isRunning) => {
    element.hidden = windows.length < 2;
    for (const part of [bar, cancel]) part.hidden = !isRunning;
    begin.hidden = isRunning || rows.length === windows.length;
    keep.hidden = isRunning || rows.length === 0;
    Object.assign(bar, { max: windows.length, value: rows.length });
  };
  const stop = (/** @type {string} */ why) => {
    const focused = element.contains(document.activeElement);
    running.abort();
    said.textContent = why;
    show(false);
    if (focused) (keep.hidden ? begin : keep).focus();
  };
  const forget = () => {
    rows = [];
    stop(`${windows.length} windows, of which the last is shown. All can be explained into one table.`);
  };
  const run = async () => {
    running = new AbortController();
    const { signal } = running;
    rows = [];
    problem.textContent = "";
    said.textContent = `${count()}.`;
    show(true);
    cancel.focus();
    while (rows.length < windows.length) {
      const part = windows.slice(rows.length, rows.length + PART);
      try {
        const answer = await explainPart(page, part, options, signal);
        if (signal.aborted) return;
        rows.push(...answer.explanations.map((one, place) => rowOf(one, part[place])));
      } catch (error) {
        if (signal.aborted) return;
        problem.textContent = `${nameRows(reasonOf(error), part)}.`;
        stop(`Stopped: ${count()}.`);
        return;
      }
      if (!element.isConnected) return; // another view is shown
      said.textContent = `${count()}.`;
      show(true);
    }
    stop(`${count()}.`);
  };

  /** @param {string} text that may hold several windows */
  const offer = (text) => {
    windows = [];
    problem.textContent = "";
    try {
      const found = readWindows(text, page.model);
      windows = found.windows;
      problem.textContent = tellProblems(found.problems);
    } catch {
      // whoever reads the text as one window says why
    }
    forget();
  };
  /** @param {Record<string, unknown>} chosen baseline and groups */
  const set = (chosen) => {
    if (JSON.stringify(chosen) === JSON.stringify(options)) return;
    options = chosen;
    forget();
  };
  show(false);
  return { element, offer, set };
}

/**
 * @param {Page} page
 * @param {Numbered[]} part
 * @param {Record<string, unknown>} options
 * @param {AbortSignal} signal
 * @returns {Promise<Schemas["ExplainResponse"]>}
 */
async function explainPart(page, part, options, signal) {
  const body = { instances: part.map(({ window }) => window), output: page.output, ...options };
  for (let tries = 1; ; tries += 1) {
    try {
      return await askJson({ path: `${page.path}:explain`, query: page.version, body }, signal);
    } catch (error) {
      if (signal.aborted || !isPassing(error)) throw error;
      await waitForNext(error, tries, signal);
    }
  }
}

/**
 * @param {Schemas["Explanation"]} explanation
 * @param {Numbered} of
 */
function rowOf(explanation, { number, more }) {
  const { prediction, baseline_prediction: baseline, residual, error, converged } = explanation;
  const summed = { ...explanation.contributions, ...explanation.contributions_by_group };
  const added = Object.entries(summed).map(([name, value]) => [`contribution_${name}`, value]);
  return { ...more, window: number, prediction, baseline, ...Object.fromEntries(added), residual, error, converged };
}

/** @param {string[]} problems */
function tellProblems(problems) {
  if (!problems.length) return "";
  const others = problems.length - N_PROBLEMS;
  const more = others > 0 ? ` and ${others} more rows are wrong` : "";
  return `No window holds ${problems.length === 1 ? "this row" : "these rows"}: ${problems.slice(0, N_PROBLEMS).join("; ")}${more}.`;
}

/**
 * An error of the service with the row of the table, or the window, in the place of the instance of the request.
 *
 * @param {string} message
 * @param {Numbered[]} part
 */
function nameRows(message, part) {
  return message.replace(/(\w+)\[(\d+)\](?:\[(\d+)\])?(?:\[\d+\])*/, (all, name, index, step) => {
    const { number, first } = part[Number(index)] ?? part[0];
    if (first === undefined) return `window ${number + 1}`;
    return `row ${name === "instances" && step !== undefined ? first + Number(step) + 1 : number + 1}`;
  });
}
