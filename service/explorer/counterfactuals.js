/** Counterfactuals: the smallest changes of the window for which the forecast reaches a target. */

import { askJson, reasonOf } from "./api.js";
import { h, table } from "./dom.js";
import { mayChange, withFeature } from "./edits.js";
import { amount, formatChange, signed } from "./figures.js";
import { predictOutput } from "./intervals.js";
import { afterRest } from "./latest.js";
import { windowLink } from "./references.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./forecast-summary.js").Formats} Formats */
/** @typedef {import("./windows.js").Window} Window */

/**
 * A change that reaches the wanted forecast, or comes as near to it as was found.
 *
 * @typedef {object} Answer
 * @property {{feature: string, unit: string | null, shift: number, shift_in_std: number | null}[]} changes
 * @property {Window} window
 * @property {number} prediction of it
 * @property {number} distance sum of the magnitudes of its shifts in standard deviations
 */

const KINDS = { at_least: "at least", at_most: "at most", between: "between" };
const REST = 300; // ms without a change of the window before a search
const MOST = "2"; // default number of features that change together
const N_SINGLE = 5; // answers that change a single feature

/**
 * @param {Page} page
 * @param {{show: (answer: Window | undefined) => void, take: (answer: Window) => void}} actions `show` lays an answer
 *   over the window, `take` makes it the window
 */
export function counterfactuals(page, { show, take }) {
  const rest = afterRest();
  let running = new AbortController();
  let searched = ""; // for what
  let isShown = false; // whether an answer lies over the window
  const form = targetForm(page);
  const said = h("p", { role: "status" });
  const problem = h("p", { class: "refused", role: "alert" });
  const found = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Changes that were found" });
  const element = h("div", { class: "stack" }, form.element, said, problem, found);

  /**
   * Searches if the target or the window has changed.
   *
   * @param {Record<string, string>} values
   * @param {Window} window
   * @param {Formats} formats
   */
  const set = (values, window, formats) => {
    const wanted = JSON.stringify([values.target, values.most, values.beyond, window]);
    if (wanted === searched) return;
    form.set(values);
    running.abort();
    rest.stop();
    searched = wanted;
    for (const place of [said, problem, found]) place.replaceChildren();
    if (isShown) show(undefined);
    isShown = false;
    if (!values.target) return;
    said.textContent = "Searching …";
    rest.after(REST, () => void search(values, window, formats));
  };
  /**
   * @param {Record<string, string>} values
   * @param {Window} window
   * @param {Formats} formats
   */
  const search = async (values, window, formats) => {
    running = new AbortController();
    const { signal } = running;
    try {
      const best = await ask(page, values, window, signal);
      const singles = await askSingles(page, best, window, signal);
      const answers = [{ ...best, window: best.instance, prediction: best.new_prediction }, ...singles];
      said.replaceChildren(...tellFound(page, best, values.target ?? "", formats));
      if (!best.changes.length) return;
      found.replaceChildren(listAnswers(answers, page, formats, show, take));
      show(answers[0].window);
      isShown = true;
    } catch (error) {
      if (signal.aborted) return;
      searched = ""; // so that it can be tried again
      said.textContent = "";
      problem.textContent = reasonOf(error);
    }
  };
  return { element, set };
}

/** @param {Page} page */
function targetForm(page) {
  const option = ([value, label] = ["", ""]) => h("option", { value }, label);
  const kind = h("select", { id: "target", onchange: () => (upper.hidden = kind.value !== "between") });
  kind.append(...Object.entries(KINDS).map(option));
  const number = (/** @type {string} */ label) =>
    h("input", { type: "number", step: "any", required: true, "aria-label": label });
  const low = number("Wanted forecast");
  const high = number("Wanted forecast, at most");
  const upper = h("span", { class: "row", hidden: true }, "and", high);
  const most = h("select", { id: "most" }, ...["1", "2", "3"].map((count) => option([count, count])));
  const within = h("input", { type: "checkbox", id: "within" });
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const bounds = kind.value === "between" ? [low.value, high.value] : [low.value];
    const target = [kind.value, ...bounds].join(":");
    void page.set({ target, most: most.value === MOST ? "" : most.value, beyond: within.checked ? "" : "true" });
  };
  const clear = () => void page.set({ target: "", most: "", beyond: "" });
  const clearing = h("button", { type: "button", onclick: clear }, "Clear");
  const element = h(
    "form",
    { class: "row target", novalidate: true, onsubmit: submit },
    h("label", { for: "target" }, "The forecast should be"),
    kind,
    low,
    upper,
    h("span", { class: "muted" }, page.unit ?? ""),
    h("label", { for: "most" }, "by changing at most"),
    most,
    "features together",
    h("label", {}, within, " within the training range"),
    h("button", { class: "main" }, "Search"),
    clearing,
  );
  const set = (/** @type {Record<string, string>} */ values) => {
    const [wanted, first, second] = (values.target ?? "").split(":");
    clearing.hidden = !wanted;
    within.checked = values.beyond !== "true";
    most.value = values.most ?? MOST;
    if (!Object.hasOwn(KINDS, wanted)) return;
    kind.value = wanted;
    low.value = first ?? "";
    high.value = second ?? "";
    upper.hidden = wanted !== "between";
  };
  return { element, set };
}

/**
 * @param {Page} page
 * @param {Record<string, string>} values
 * @param {Window} window
 * @param {AbortSignal} signal
 * @returns {Promise<Schemas["CounterfactualInfo"]>}
 */
async function ask({ path, version, output, model }, { target = "", most = MOST, beyond }, window, signal) {
  const [kind, ...bounds] = target.split(":");
  const numbers = bounds.map((bound) => (bound.trim() ? Number(bound) : NaN));
  if (!Object.hasOwn(KINDS, kind) || numbers.length !== (kind === "between" ? 2 : 1) || !numbers.every(Number.isFinite)) {
    throw new Error("enter the wanted forecast as a number");
  }
  const targets = new Set(model.targets.map(({ name }) => name)); // whose history nobody changes
  const body = {
    ...{ instances: [window], output, target: { [kind]: kind === "between" ? numbers : numbers[0] } },
    ...{ max_features: Number(most), within_training_range: beyond !== "true" },
    features: model.features.filter(mayChange).map(({ name }) => name).filter((name) => !targets.has(name)),
  };
  const answer = /** @type {Schemas["CounterfactualResponse"]} */ (
    await askJson({ path: `${path}:counterfactual`, query: version, body }, signal)
  );
  return answer.counterfactuals[0];
}

/**
 * The answers that change a single feature, with the forecasts of their windows, the smallest first.
 *
 * @param {Page} page
 * @param {Schemas["CounterfactualInfo"]} best which is left out
 * @param {Window} window
 * @param {AbortSignal} signal
 * @returns {Promise<Answer[]>}
 */
async function askSingles(page, { changes, single_features: singles }, window, signal) {
  const reaching = singles.filter(
    ({ feature, shift }) => shift && !(changes.length === 1 && changes[0].feature === feature),
  );
  const chosen = d3
    .sort(reaching, ({ shift_in_std: size }) => Math.abs(size ?? Infinity))
    .slice(0, N_SINGLE)
    .map(({ feature, unit, shift, shift_in_std }) => ({ feature, unit, shift: shift ?? 0, shift_in_std }));
  if (!chosen.length || !changes.length) return [];
  const windows = chosen.map(({ feature, shift }) => {
    const index = page.model.features.findIndex(({ name }) => name === feature);
    return withFeature(window, index, (value) => value + shift);
  });
  const predictions = await predictOutput(page, windows, signal);
  return chosen.map((change, number) => ({
    ...{ changes: [change], window: windows[number], prediction: predictions[number] },
    distance: Math.abs(change.shift_in_std ?? 0),
  }));
}

/**
 * @param {Page} page
 * @param {Schemas["CounterfactualInfo"]} best
 * @param {string} target
 * @param {Formats} formats
 */
function tellFound(page, { reached, changes, prediction, new_prediction, nearest_reference: near }, target, formats) {
  const [kind, ...bounds] = target.split(":");
  const wanted = `${KINDS[/** @type {keyof typeof KINDS} */ (kind)]} ${bounds.map((bound) => amount(Number(bound), page.unit)).join(" and ")}`;
  if (reached && !changes.length) return [`The forecast is already ${wanted}.`];
  const how = reached
    ? `These are the smallest changes found that make the forecast ${wanted}.`
    : `No change found makes the forecast ${wanted}; the nearest is ${formats.value(new_prediction)}, from ${formats.value(prediction)}.`;
  const usual = near.typical === null ? "" : `; between two reference windows, ${amount(near.typical)} is usual`;
  return [
    `${how} The first window is ${amount(near.distance)} standard deviations from the nearest reference window, `,
    windowLink(page, { index: near.index }, `number ${near.index}`),
    `${usual}.`,
  ];
}

/**
 * @param {Answer[]} answers
 * @param {Page} page
 * @param {Formats} formats
 * @param {(window: Window) => void} show
 * @param {(window: Window) => void} take
 */
function listAnswers(answers, { model }, formats, show, take) {
  const rows = answers.map(({ changes, window, prediction, distance }, number) => {
    const words = changes.map((change) => tellChange(change, model.features)).join("; ");
    const choice = h("input", { type: "radio", name: "answer", checked: number === 0, onchange: () => show(window) });
    return h(
      "tr",
      { "data-answer": number },
      h("th", { scope: "row" }, h("label", { class: "answer" }, choice, words)),
      h("td", { class: "number" }, formats.value(prediction)),
      h("td", { class: "number" }, amount(distance)),
      h("td", { class: "number" }, h("button", { type: "button", onclick: () => take(window) }, "Use as the window")),
    );
  });
  return table(["Change, at every step", "Forecast", "Distance, std", "To use"], rows);
}

/**
 * @param {Answer["changes"][number]} change
 * @param {Schemas["ModelInfo"]["features"]} features
 */
function tellChange({ feature, unit, shift, shift_in_std: size }, features) {
  const by = formatChange(shift, unit, features.find(({ name }) => name === feature));
  return `${feature} ${by}${size === null ? "" : ` (${signed(size)} std)`}`;
}
