/** What would change it: the smallest changes of inputs, along values that exist, for which the forecast is as wanted. */

import { reasonOf } from "../api.js";
import { amount, formatChange } from "../figures.js";
import { change, editOf, isCycle, isFixed, told, valueOf } from "../inputs.js";
import { html, useState } from "../lib.js";
import { part } from "../lit.js";
import { askNoted, keyOf, useLoad } from "../load.js";
import { address, go } from "../state.js";
import { writeEdit } from "../windows.js";
import { predictOutput } from "./facts.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Input} Input */
/** @typedef {{input: Input, to: number}} To an input and the value that it takes at the newest step */
/** @typedef {{changes: To[], prediction: number, distance: number}} Answer */
/** @typedef {{isReached: boolean, answers: Answer[], near: import("../model.js").Schemas["NearestReference"]}} Found */

const KINDS = { at_least: "at least", at_most: "at most", between: "between" };
const MOST = "2"; // inputs that change together, by default
const N_SINGLE = 5; // answers that change one input

/** @param {import("./questions.js").Asked} props */
export function Change(props) {
  const { model, instance, answer } = props;
  const { target, most = MOST, beyond } = address.value.values;
  const goal = readTarget(target);
  const able = ableOf(model);
  const body = goal && { instances: [instance], output: model.output, target: goal, max_features: Number(most), within_training_range: beyond !== "true", features: able.map(({ name }) => name) };
  const ask = body && able.length ? { path: `${model.path}:counterfactual`, query: model.version, body } : undefined;
  const { value, error, pending } = useLoad(ask && `change ${model.info.checkpoint} ${keyOf(ask)}`, (signal) => search(model, instance, /** @type {any} */ (ask), signal));
  const now = answer?.explanations[0].prediction;
  return html`
    <${Form} model=${model} target=${target} most=${most} beyond=${beyond === "true"} />
    ${!able.length && html`<p>No input of this model can be changed.</p>`}
    ${target && !goal && html`<p class="refused" role="alert">Enter the wanted forecast as a number.</p>`}
    ${pending && html`<p role="status">Searching …</p>`}
    ${error && html`<p class="refused" role="alert">${reasonOf(error)}</p>`}
    ${ask && value && !error && !pending && html`<${Answers} ...${props} found=${value} wanted=${tellTarget(model, target)} now=${now} />`}
  `;
}

/**
 * Inputs that somebody can change: not the calendar, and not the past of what is forecast.
 *
 * @param {Model} model
 */
function ableOf(model) {
  const targets = new Set(model.info.targets.map(({ name }) => name));
  return model.inputs.filter((input) => !isCycle(input) && !isFixed(model, input) && !input.features.some((feature) => targets.has(feature)));
}

/** @param {string | undefined} target such as `at_most:5` */
function readTarget(target) {
  const [kind, ...bounds] = (target ?? "").split(":");
  const numbers = bounds.map((bound) => (bound.trim() ? Number(bound) : NaN));
  const isWhole = Object.hasOwn(KINDS, kind) && numbers.length === (kind === "between" ? 2 : 1) && numbers.every(Number.isFinite);
  return isWhole ? { [kind]: kind === "between" ? numbers : numbers[0] } : undefined;
}

/** @param {Model} model @param {string} target */
function tellTarget(model, target) {
  const [kind, ...bounds] = target.split(":");
  return `${KINDS[/** @type {keyof typeof KINDS} */ (kind)]} ${bounds.map((bound) => amount(Number(bound), model.unit)).join(" and ")}`;
}

/** @param {{model: Model, target: string | undefined, most: string, beyond: boolean}} props */
function Form({ model, target, most, beyond }) {
  const [wanted = "at_least", first = "", second = ""] = (target || "at_least").split(":");
  const [kind, setKind] = useState(wanted);
  const submit = (/** @type {any} */ event) => {
    event.preventDefault();
    const given = new FormData(event.currentTarget);
    const bounds = (kind === "between" ? ["low", "high"] : ["low"]).map((name) => given.get(name));
    const count = String(given.get("most"));
    go({ target: [kind, ...bounds].join(":"), most: count === MOST ? "" : count, beyond: given.get("within") ? "" : "true" });
  };
  const number = (/** @type {string} */ name, /** @type {string} */ label, /** @type {string} */ value) => html`<input type="number" step="any" name=${name} aria-label=${label} value=${value} />`;
  return html`
    <form class="row" novalidate onSubmit=${submit}>
      <label>The forecast should be ${" "}
        <select name="kind" value=${kind} onChange=${(/** @type {any} */ event) => setKind(event.currentTarget.value)}>
          ${Object.entries(KINDS).map(([value, label]) => html`<option value=${value} selected=${value === kind}>${label}</option>`)}
        </select>
      </label>
      ${number("low", "Wanted forecast", first)}
      ${kind === "between" && html`<span>and</span> ${number("high", "Wanted forecast, at most", second)}`}
      <span class="muted">${model.unit ?? ""}</span>
      <label>by changing at most <select name="most">${["1", "2", "3"].map((count) => html`<option value=${count} selected=${count === most}>${count}</option>`)}</select> inputs</label>
      <label><input type="checkbox" name="within" checked=${!beyond} /> within the training range</label>
      <button class="main">Search</button>
      ${target && html`<button type="button" onClick=${() => go({ target: "", most: "", beyond: "" })}>Clear</button>`}
    </form>
  `;
}

/**
 * The smallest change, and the smallest of single inputs, each as the values that inputs take; a level or a flag takes one
 * that exists, and the forecast is that of these values.
 *
 * @param {Model} model
 * @param {number[][]} instance
 * @param {import("../api.js").Ask} ask
 * @param {AbortSignal} signal
 * @returns {Promise<Found>}
 */
async function search(model, instance, ask, signal) {
  const { counterfactuals } = /** @type {import("../model.js").Schemas["CounterfactualResponse"]} */ (await askNoted(ask, signal));
  const [best] = counterfactuals;
  const { reached, changes, distance, single_features: singles, nearest_reference: near } = best;
  const lists = [{ list: /** @type {{feature: string, shift: number | null, level?: string | null}[]} */ (changes), distance }];
  const alone = singles.filter(({ feature, shift }) => shift && !(changes.length === 1 && changes[0].feature === feature));
  for (const one of d3.sort(alone, ({ shift_in_std: by }) => Math.abs(by ?? Infinity)).slice(0, N_SINGLE)) {
    lists.push({ list: [one], distance: Math.abs(one.shift_in_std ?? 0) });
  }
  const rows = changes.length ? lists.map(({ list, distance: far }) => ({ changes: list.map((one) => valueAfter(model, instance, one)), distance: far })) : [];
  if (!rows.length) return { isReached: reached, answers: [], near };
  const windows = rows.map(({ changes: of }) => change(instance, model.inputs, Object.fromEntries(of.map(({ input, to }) => [input.name, editOf(input, valueOf(input, instance[instance.length - 1]), to)]))));
  const predictions = await predictOutput(model, windows, signal);
  return { isReached: reached, near, answers: rows.map((row, place) => ({ ...row, prediction: predictions[place] })) };
}

/**
 * The value that a change leads to: a number, or the place of a level, which is named or stands as `daytype=holiday`.
 *
 * @param {Model} model
 * @param {number[][]} instance
 * @param {{feature: string, shift: number | null, level?: string | null}} change
 * @returns {To}
 */
function valueAfter(model, instance, { feature, shift, level }) {
  const input = model.inputs.find(({ name }) => feature === name || feature.startsWith(`${name}=`)) ?? model.inputOf.get(feature) ?? model.inputs[0];
  const place = input.levels.indexOf(level ?? feature.slice(input.name.length + 1));
  return { input, to: place >= 0 ? place : valueOf(input, instance[instance.length - 1]) + (shift ?? 0) };
}

/** @param {import("./questions.js").Asked & {found: Found, wanted: string, now: number | undefined}} props */
function Answers({ model, found, wanted, now, recorded, instance, edit }) {
  const { isReached, answers, near } = found;
  if (!answers.length) return html`<p role="status">${isReached ? `The forecast is already ${wanted}.` : `No change was found that makes the forecast ${wanted}.`}</p>`;
  const newest = instance[instance.length - 1];
  const use = (/** @type {Answer} */ { changes }) => {
    const own = changes.map(({ input, to }) => [input.name, editOf(input, valueOf(input, recorded[recorded.length - 1]), to)]);
    go({ edit: writeEdit({ ...edit, ...Object.fromEntries(own) }) });
  };
  const words = (/** @type {To} */ { input, to }) => {
    const [before, after] = [valueOf(input, newest), to].map((value) => told(model, input, value));
    const by = input.kind === "number" || input.kind === "integer" ? ` (${formatChange(to - valueOf(input, newest), input.unit, /** @type {any} */ (model.info.features[input.places[0]]))})` : "";
    return html`<span ...${part(`input:${input.name}`, { pick: false })}>${input.label} from ${before} to ${after}${by}</span>`;
  };
  const lead = isReached ? `The smallest changes found that make the forecast ${wanted}` : `No change found makes the forecast ${wanted}; the nearest`;
  const from = now === undefined ? "" : `, from ${model.value(now)}`;
  const usual = near.typical == null ? "" : `; ${amount(near.typical)} is usual between two`;
  return html`
    <p role="status">${lead}${from}. The first is ${amount(near.distance)} standard deviations from the nearest reference window${usual}.</p>
    <div class="scroll" tabindex="0" role="region" aria-label="Changes that were found">
      <table class="found">
        <thead><tr><th scope="col">Change, at every step</th><th scope="col" class="number">Forecast</th><th scope="col" class="number">Distance, std</th><td></td></tr></thead>
        <tbody>${answers.map((answer) => html`<tr>
          <th scope="row">${answer.changes.map((one, place) => html`${place ? "; " : ""}${words(one)}`)}</th>
          <td class="number">${model.value(answer.prediction)}</td><td class="number">${amount(answer.distance)}</td>
          <td><button type="button" class="small" onClick=${() => use(answer)}>Use it</button></td>
        </tr>`)}</tbody>
      </table>
    </div>
  `;
}
