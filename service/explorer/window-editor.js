/** The editor of a window: changes single values, or shifts a feature or holds it constant at all steps. */

import "./vendor/d3.min.js";
import { h } from "./dom.js";
import { changedFeatures, countChanges, fit, withFeature, withValue } from "./edits.js";
import { formatChange, formatValue, stepLabel } from "./figures.js";

/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./figures.js").Times} Times */
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
  /** @type {Times | undefined} */
  let times;
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
  const clock = h("span", { class: "muted" });
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
    ...(lookback > 1 ? [field("Step, the newest is 0", step, clock)] : []),
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
    clock.textContent = times ? stepLabel(at.step - lookback + 1, times) : "";
    for (const place of [unit, shiftUnit]) place.textContent = chosen.unit ?? "";
    const levels = [
      { label: "its training mean", level: chosen.mean },
      { label: `its oldest value, ${lookback - 1} before the newest`, level: window[0][at.index] },
      { label: `its value ${times ? "at" : "at the"} ${stepLabel(at.step - lookback + 1, times)}`, level: now },
    ];
    const place = Math.max(0, held.selectedIndex);
    held.replaceChildren(
      ...levels.flatMap(({ label, level }) =>
        level === null
          ? []
          : [h("option", { value: fit(level, chosen) }, `${label}: ${formatValue(level, chosen.unit, chosen)}`)],
      ),
    );
    held.selectedIndex = Math.min(place, held.options.length - 1);
  };

  /**
   * @param {Window} given the shown window
   * @param {Window} [before] the window before it was changed
   * @param {Times} [clocks] of its steps
   */
  const set = (given, before, clocks = times) => {
    window = given;
    times = clocks;
    const changed = before ? changedFeatures(window, before) : [];
    back.hidden = changed.length === 0;
    if (before) said.textContent = tellChanges(window, before, features, times);
    fill();
  };
  const chosen = (/** @type {number} */ index, /** @type {number} */ wanted) => {
    at = { index, step: wanted };
    if (window.length) fill();
  };
  return { element, changes: back, set, chosen, focus: () => value.select(), focusShift: () => shift.select() };
}

/**
 * What was changed, from what and by how much.
 *
 * @param {Window} window
 * @param {Window} before
 * @param {import("./edits.js").Feature[]} features
 * @param {Times | undefined} times
 */
function tellChanges(window, before, features, times) {
  const changed = changedFeatures(window, before);
  const more = changed.length - N_NAMED;
  const told = changed.slice(0, N_NAMED).map((index) => {
    const feature = features[index];
    const steps = d3.range(window.length).filter((step) => window[step][index] !== before[step][index]);
    const [low, high] = d3.extent(steps, (step) => window[step][index] - before[step][index]);
    const say = (/** @type {number} */ value) => formatValue(value, feature.unit, feature);
    const by = [low ?? 0, high ?? 0].map((change) => formatChange(change, feature.unit, feature));
    if (steps.length === 1) {
      const [step] = steps;
      const when = stepLabel(step - window.length + 1, times);
      const [from, to] = [before, window].map((rows) => say(rows[step][index]));
      return `${feature.name} at ${times ? when : `the ${when}`} from ${from} to ${to}`;
    }
    const where = steps.length === window.length ? "every step" : `${steps.length} steps`;
    return `${feature.name} at ${where} by ${by[0] === by[1] ? by[0] : `${by[0]} to ${by[1]}`}`;
  });
  const count = countChanges(window, before);
  const listed = told.join("; ") + (more > 0 ? `; and ${more} more features` : "");
  return `${count} ${count === 1 ? "value is" : "values are"} changed: ${listed}.`;
}
