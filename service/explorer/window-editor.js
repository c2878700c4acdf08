/** The editor of a window: changes single values, or shifts a feature or holds it constant at all steps. */

import { h } from "./dom.js";
import { changedFeatures, countChanges, fit, nameStep, withFeature, withValue } from "./edits.js";
import { amount } from "./figures.js";

/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./series.js").Change} Change */
/** @typedef {import("./windows.js").Window} Window */

const N_NAMED = 3; // changed features that are named
const TYPE_REST = 600; // ms without typing before a value is used

/**
 * @param {Page} page
 * @param {Change} change
 * @param {{choose: (index: number, step: number) => void, undo: () => void, compare: () => void}} actions
 */
export function windowEditor({ model: { features, lookback } }, change, { choose, undo, compare }) {
  /** @type {Window} */
  let window = [];
  let at = { index: 0, step: lookback - 1 };
  const feature = h("select", { id: "edit-feature", onchange: () => choose(feature.selectedIndex, at.step) });
  feature.append(...features.map(({ name }) => h("option", { value: name }, name)));
  const step = h("input", {
    ...{ type: "number", id: "edit-step", min: 1 - lookback, max: 0 },
    onchange: () => {
      const wanted = Math.round(step.valueAsNumber || 0) + lookback - 1;
      choose(at.index, Math.max(0, Math.min(lookback - 1, wanted)));
    },
  });
  const put = (/** @type {number} */ rest) => {
    const given = value.valueAsNumber;
    if (Number.isFinite(given)) change(withValue(window, at.step, at.index, given), rest);
  };
  const value = h("input", {
    ...{ type: "number", id: "edit-value", step: "any" },
    oninput: () => put(TYPE_REST),
    onchange: () => put(0),
  });
  const unit = h("span", { class: "muted" });
  const shift = h("input", { type: "number", id: "edit-shift", step: "any", value: "1" });
  const shiftAll = (/** @type {number} */ by) =>
    change(
      withFeature(window, at.index, (old) => fit(old + by, features[at.index])),
      0,
    );
  const shiftUnit = h("span", { class: "muted" });
  const held = h("select", { id: "edit-hold" });
  const hold = () => change(withFeature(window, at.index, () => Number(held.value)), 0);
  const said = h("p", { class: "muted", role: "status" });
  const back = h(
    "div",
    { class: "row changes" },
    said,
    h("button", { type: "button", onclick: undo }, "Back to the window as it was"),
    h("button", { type: "button", onclick: compare }, "Compare with it"),
  );
  const field = (/** @type {string} */ label, /** @type {HTMLElement} */ input, /** @type {HTMLElement[]} */ ...more) =>
    h("div", { class: "field" }, h("label", { for: input.id }, label), h("div", { class: "row" }, input, ...more));
  const element = h(
    "div",
    { class: "editor", role: "group", "aria-label": "Values to change" },
    field("Feature", feature),
    field("Step, the newest is 0", step),
    field("Value", value, unit),
    field(
      "Shift all its steps by",
      shift,
      shiftUnit,
      h("button", { type: "button", onclick: () => shiftAll(shift.valueAsNumber || 0) }, "Shift"),
    ),
    field("Hold it at every step at", held, h("button", { type: "button", onclick: hold }, "Hold")),
  );

  const fill = () => {
    const chosen = features[at.index];
    const now = window[at.step][at.index];
    feature.selectedIndex = at.index;
    step.value = String(at.step - lookback + 1);
    if (value.valueAsNumber !== now) value.value = String(Number(now.toPrecision(6)));
    for (const place of [unit, shiftUnit]) place.textContent = chosen.unit ?? "";
    const levels = [
      { label: "its training mean", level: chosen.mean },
      { label: `its oldest value, ${lookback - 1} before the newest`, level: window[0][at.index] },
      { label: `its value at the ${nameStep(at.step, lookback)}`, level: now },
    ];
    const place = Math.max(0, held.selectedIndex);
    held.replaceChildren(
      ...levels.flatMap(({ label, level }) =>
        level === null
          ? []
          : [h("option", { value: fit(level, chosen) }, `${label}: ${amount(level, chosen.unit)}`)],
      ),
    );
    held.selectedIndex = Math.min(place, held.options.length - 1);
  };

  /**
   * @param {Window} given the shown window
   * @param {Window} [before] the window before it was changed
   */
  const set = (given, before) => {
    window = given;
    const changed = before ? changedFeatures(window, before) : [];
    back.hidden = changed.length === 0;
    if (before) said.textContent = tellChanges(changed.map((index) => features[index].name), countChanges(window, before));
    fill();
  };
  const chosen = (/** @type {number} */ index, /** @type {number} */ wanted) => {
    at = { index, step: wanted };
    if (window.length) fill();
  };
  return { element, changes: back, set, chosen, focus: () => value.select(), focusShift: () => shift.select() };
}

/**
 * @param {string[]} names of the features that are changed
 * @param {number} count of values
 */
function tellChanges(names, count) {
  const more = names.length - N_NAMED;
  const listed = names.slice(0, N_NAMED).join(", ") + (more > 0 ? ` and ${more} more` : "");
  return `${count} ${count === 1 ? "value is" : "values are"} changed, of ${listed}.`;
}
