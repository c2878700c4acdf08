/** What groups of inputs do: contributions, effects and Shapley values of the groups that the address says, or the checkpoint's. */

import { reasonOf } from "../api.js";
import { html } from "../lib.js";
import { useAsk } from "../load.js";
import { groupsOf } from "../model/parts.js";
import { address, go } from "../state.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Input} Input */
/** @typedef {Record<string, string[]>} Groups name to names of inputs */

const ALL = "all steps"; // the segment of sums without segments

/** @param {import("./questions.js").Asked} props */
export function Parts({ model, instance }) {
  const groups = readGroups(model);
  const body = { instances: [instance], output: model.output, groups: featuresOf(model, groups), effects: true, method: "shapley" };
  const { value, error } = useAsk({ path: `${model.path}:explain`, query: model.version, body });
  if (error) return html`<p class="refused" role="alert">${reasonOf(error)}</p>`;
  if (!value) return html`<p class="muted">Computing Shapley values …</p>`;
  const explanation = /** @type {import("../model.js").Schemas["Explanation"]} */ (value.explanations[0]);
  const sums = explanation.contributions_by_group ?? Object.fromEntries(Object.entries(explanation.contributions).map(([name, sum]) => [name, { [ALL]: sum }]));
  const rows = d3.sort(partsOf(model, groups), ({ key }) => -Math.abs(sums[key]?.[ALL] ?? 0));
  const figure = (/** @type {number | undefined} */ number) => (number === undefined ? "" : model.change(number, false));
  const effect = (/** @type {string} */ key) => explanation.effects_by_group?.[key]?.[ALL] ?? explanation.effects?.[key];
  const shapley = (/** @type {string} */ key) => {
    const error_ = explanation.shapley_standard_error?.[key]?.[ALL];
    return `${figure(explanation.shapley?.[key]?.[ALL])}${error_ ? ` ± ${figure(error_).replace("+", "")}` : ""}`;
  };
  return html`
    <p class="muted">A contribution is along the straight path from average inputs; a Shapley value is the mean over all
      orders in which parts come in. Both sum to ${model.change(explanation.prediction - explanation.baseline_prediction)}.</p>
    <div class="scroll" tabindex="0" role="region" aria-label="Parts and what they do">
      <table class="parts">
        <thead><tr><th scope="col">Part</th>${["Contribution", "Shapley value", "Lost without it", "Alone"].map((name) => html`<th scope="col" class="number">${name}</th>`)}<th scope="col">In the group</th></tr></thead>
        <tbody>
          ${rows.map(
            ({ key, label, inputs }) => html`
              <tr>
                <th scope="row">${label}</th>
                <td class="number">${figure(sums[key]?.[ALL])}</td>
                <td class="number">${shapley(key)}</td>
                <td class="number">${figure(effect(key)?.removed)}</td>
                <td class="number">${figure(effect(key)?.alone)}</td>
                <td class="members">${inputs.map((input) => html`<${Member} groups=${groups} input=${input} isAlone=${inputs.length === 1} />`)}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
    ${address.value.values.groups && html`<button type="button" onClick=${() => go({ groups: "" })}>The groups of the checkpoint</button>`}
  `;
}

/** @param {{groups: Groups, input: Input, isAlone: boolean}} props an input, and the choice of another group */
function Member({ groups, input, isAlone }) {
  const names = Object.keys(groups);
  const own = names.find((name) => groups[name].includes(input.name)) ?? "";
  const fresh = d3.range(1, names.length + 2).map((number) => `group ${number}`).find((name) => !names.includes(name)) ?? "";
  const choose = (/** @type {any} */ event) => {
    const name = event.currentTarget.value;
    const left = Object.entries(groups).map(([of, members]) => [of, members.filter((member) => member !== input.name)]);
    const next = /** @type {Groups} */ (Object.fromEntries(left));
    if (name) next[name] = [...(next[name] ?? []), input.name];
    const full = Object.fromEntries(Object.entries(next).filter(([, members]) => members.length));
    go({ groups: JSON.stringify(full) });
  };
  return html`
    <label>${!isAlone && html`<span class="short">${input.short} </span>`}
      <select aria-label=${`Group of ${input.label}`} value=${own} onChange=${choose}>
        <option value="" selected=${!own}>alone</option>
        ${names.map((name) => html`<option value=${name} selected=${name === own}>${name}</option>`)}
        <option value=${fresh}>a new group</option>
      </select>
    </label>
  `;
}

/**
 * The groups of the address, or those of the checkpoint that hold more than one input.
 *
 * @param {Model} model
 * @returns {Groups}
 */
function readGroups(model) {
  const written = address.value.values.groups;
  const known = new Set(model.inputs.map(({ name }) => name));
  try {
    const given = written ? /** @type {Groups} */ (JSON.parse(written)) : undefined;
    if (given) return Object.fromEntries(Object.entries(given).map(([name, members]) => [name, members.filter((member) => known.has(member))]));
  } catch {
    // an address that somebody cut: the groups of the checkpoint stand
  }
  const outer = groupsOf(model).parts.filter(({ kind }) => kind === "group");
  const all = outer.map(({ label, features }) => [label, [...new Set(features.map((name) => model.inputOf.get(name)?.name ?? ""))]]);
  return Object.fromEntries(all.filter(([, members]) => members.length > 1));
}

/**
 * The parts that the forecast is divided into: groups, and inputs that are in none. The service knows each by `key`.
 *
 * @param {Model} model
 * @param {Groups} groups
 */
function partsOf(model, groups) {
  const grouped = new Set(Object.values(groups).flat());
  const own = Object.entries(groups).map(([name, members]) => ({ key: name, label: name, inputs: model.inputs.filter((input) => members.includes(input.name)) }));
  const alone = model.inputs.filter(({ name }) => !grouped.has(name)).map((input) => ({ key: keyOf(input, groups), label: input.label, inputs: [input] }));
  return [...own, ...alone];
}

/**
 * What the service calls an input that is in no group: its feature, or of several a group of its own.
 *
 * @param {Input} input
 * @param {Groups} groups
 */
function keyOf({ name, label, features }, groups) {
  if (features.length < 2) return features[0];
  return Object.hasOwn(groups, name) ? `${label} alone` : name;
}

/**
 * The groups as the service takes them, of features: what is encoded in several is one.
 *
 * @param {Model} model
 * @param {Groups} groups
 */
function featuresOf(model, groups) {
  const parts = partsOf(model, groups).map(({ key, inputs }) => [key, inputs.flatMap(({ features }) => features)]);
  return Object.fromEntries(parts.filter(([key, features]) => features.length > 1 || Object.hasOwn(groups, /** @type {string} */ (key))));
}
