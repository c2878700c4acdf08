/** Can it be trusted here: first whether the model knows anything, then whether this window is like those it was judged on. */

import { useMoments } from "../history/moments.js";
import { levelName } from "../history/spans.js";
import { reasonOf } from "../api.js";
import { amount } from "../figures.js";
import { isCycle, told } from "../inputs.js";
import { html } from "../lib.js";
import { useAsk } from "../load.js";
import { capitalise } from "../names.js";
import { go } from "../state.js";
import { SkillTable } from "../ui/skill.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Schemas["TrustInfo"]} TrustInfo */

const VERDICTS = {
  usual: "the inputs are usual",
  unusual: "with care: the inputs are unusual",
  outside: "hardly: inputs are outside the training range",
};
const LEVEL = 0.8; // share of errors that is told
const N_OUTSIDE = 5; // inputs outside the training range that are named

/** @param {import("./questions.js").Asked} props */
export function Trust({ model, instance, known, isChanged, predicted }) {
  const { info } = model;
  const isKnown = info.reference_windows > 0;
  const { value, error } = useAsk(isKnown ? { path: `${model.path}:predict`, query: model.version, body: { instances: [instance], trust: true } } : undefined);
  const moments = useMoments(model).value?.all ?? [];
  const trust = /** @type {TrustInfo | undefined} */ (value?.trust?.[0]);
  const { skill } = info;
  const verdict = skill.verdict === "red" ? "No" : trust ? VERDICTS[trust.verdict] : "what it was judged on is not known";
  const good = trust?.verdict === "usual" ? "Yes, as far as any of its forecasts: " : "";
  const lead = { green: good, amber: "With care: the model is hardly better than simple forecasts; here " }[skill.verdict] ?? "";
  const place = info.outputs.indexOf(model.forecast);
  const came = isChanged ? undefined : known.target?.[place];
  const off = came == null || !predicted ? undefined : Math.abs(predicted.values[place] - came);
  return html`
    <div class="trust">
      <div>
        <p class="judged">${capitalise(`${lead}${verdict}.`)}</p>
        <${SkillTable} model=${model} />
      </div>
      <ul>
        ${error && html`<li class="refused">${reasonOf(error)}</li>`}
        ${tellErrors(model, moments, off).map((fact) => html`<li>${fact}</li>`)}
        ${trust && tellTrust(model, trust).map((fact) => html`<li>${fact}</li>`)}
        ${trust && trust.nearest_reference.distance > 0 && html`<li><${Nearest} ...${trust.nearest_reference} moments=${moments} /></li>`}
      </ul>
    </div>
  `;
}

/** @param {any} props the reference window that is most like this one */
function Nearest({ index, distance, typical, moments }) {
  const window = `ref:${index}`;
  const name = moments.find((/** @type {any} */ one) => one.window === window)?.label ?? `number ${index}`;
  const usual = typical == null ? "" : `; ${amount(typical)} is usual`;
  return html`The nearest reference window is <button type="button" class="small" onClick=${() => go({ window, edit: "" })}>${name}</button>,
    ${" "}${amount(distance)} standard deviations away${usual}.`;
}

/**
 * @param {Model} model
 * @param {import("../history/moments.js").Moment[]} moments
 * @param {number | undefined} off
 */
function tellErrors(model, moments, off) {
  const errors = moments.flatMap(({ error }) => (error === undefined ? [] : [Math.abs(error)]));
  if (!errors.length) return ["Nothing is known of its errors: the model comes without actual values."];
  const usual = `On ${errors.length} windows, forecasts are off by ${model.size(d3.mean(errors) ?? 0)} on average, and 8 of 10 by less than ${model.size(d3.quantile(errors, LEVEL) ?? 0)}.`;
  const worse = off === undefined ? 0 : (d3.mean(errors, (one) => Number(one > off)) ?? 0);
  return off === undefined ? [usual] : [usual, `This one was off by ${model.size(off)}; ${Math.round(100 * worse)} % of them were worse.`];
}

/**
 * What the window is like, with values in the terms of the table.
 *
 * @param {Model} model
 * @param {TrustInfo} trust
 */
function tellTrust(model, trust) {
  const { outside, coverage, mean_abs_error: near, shares } = trust;
  const facts = [];
  const sums = model.inputs.map((input) => ({ input, share: d3.sum(input.features, (feature) => shares[feature] ?? 0) }));
  const strange = d3.sort(sums, ({ share }) => -share).slice(0, 3).filter(({ share }) => share > 0.1);
  if (trust.verdict !== "usual" && strange.length) facts.push(`It is unusual mostly in ${strange.map(({ input, share }) => `${input.label} (${Math.round(100 * share)} %)`).join(", ")}.`);
  facts.push(...outside.filter(isTold(model)).slice(0, N_OUTSIDE).map((one) => tellOutside(model, one)));
  if (near?.[model.forecast] !== undefined) facts.push(`On reference windows as far from others as this, forecasts are off by ${model.size(near[model.forecast])}.`);
  for (const { level, covered } of coverage ?? []) facts.push(`Of the actual values of such windows, ${Math.round(100 * covered)} % were in the ${levelName(level)} interval.`);
  return facts;
}

/** @param {Model} model @param {any} outside a value outside the training range */
function tellOutside(model, { feature, value, min, max }) {
  const input = /** @type {import("../model.js").Input} */ (model.inputOf.get(feature));
  const range = min == null || max == null ? "" : `, ${told(model, input, min)} to ${told(model, input, max)}`;
  return `${input.label} ${told(model, input, value)} is outside the training range${range}.`;
}

/**
 * What an answer warns of, folded: series that training did not have, filled cells, values outside the training range.
 *
 * @param {{model: Model, answer: {warnings: any[], warnings_omitted?: number} | undefined}} props
 */
export function Warnings({ model, answer }) {
  const found = (answer?.warnings ?? []).filter((one) => one.feature === undefined || isTold(model)(one));
  if (!found.length) return null;
  const count = found.length + (answer?.warnings_omitted ?? 0);
  const tell = (/** @type {any} */ one) => (one.feature === undefined ? one.message : capitalise(tellOutside(model, one)));
  return html`
    <details class="warnings">
      <summary>${count} ${count === 1 ? "warning" : "warnings"} about the values of this window</summary>
      <ul>${found.map((one) => html`<li>${tell(one)}</li>`)}</ul>
    </details>
  `;
}

/**
 * Whether a value outside the training range is one that readers know: a sine of an hour has none.
 *
 * @param {Model} model
 * @returns {(outside: {feature: string}) => boolean}
 */
const isTold = (model) => ({ feature }) => {
  const input = model.inputOf.get(feature);
  return input !== undefined && !isCycle(input) && input.kind !== "level";
};
