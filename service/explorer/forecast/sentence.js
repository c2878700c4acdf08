/** The forecast in one sentence, after what is to be said first: what, when, how sure, why and how good; and what came. */

import { levelName } from "../history/spans.js";
import { draft, isPending } from "../draft.js";
import { byInput } from "../explain.js";
import { DAY, percent } from "../figures.js";
import { toldIn } from "../inputs.js";
import { html } from "../lib.js";
import { lit, part } from "../lit.js";
import { forecastOf } from "../model.js";
import { capitalise } from "../names.js";
import { address } from "../state.js";
import { bandOf, stepOf, targetTime, tellWhen } from "./facts.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Input} Input */
/** @typedef {import("../model.js").Schemas["Explanation"]} Explanation */
/** @typedef {import("../figures.js").Times} Times */
/** @typedef {import("./facts.js").Predicted} Predicted */

const N_REASONS = 3;
const WEAK = 0.08; // share of the largest reason under which one is only counted
const EVEN = 0.1; // difference of the two sides of an interval, of its half, that "±" may leave out
const FAR = 1; // standard deviations from the mean from which a value is high or low

/**
 * @typedef {object} Told
 * @property {Model} model
 * @property {string} name of the window in the address
 * @property {import("../windows.js").Window} known the window as it is recorded
 * @property {number[][]} instance the window with edits
 * @property {boolean} isChanged
 * @property {Predicted | undefined} predicted
 * @property {Explanation | undefined} shown the explanation, or while something is dragged what is interpolated
 * @property {Explanation | undefined} before that of the window as it is recorded
 * @property {Times | undefined} times
 */

/** @param {Told} props */
export function Sentence(props) {
  const { model, predicted, shown } = props;
  const { verdict, reason } = model.info.skill;
  const value = shown?.prediction ?? predicted?.values[model.info.outputs.indexOf(model.output)];
  if (value === undefined) return html`<h1 class="sentence muted">The forecast is being computed …</h1>`;
  const isRed = verdict === "red";
  return html`
    <div class=${`telling ${verdict} ${isPending.value ? "pending" : ""}`} aria-live=${draft.value ? "off" : "polite"}>
      <h1 class="sentence">
        ${isRed && html`<strong class="warning">${reason} </strong>`}
        ${verdict === "amber" && html`<span class="warning">${reason} Read its reasons with care. </span>`}
        ${tellForecast(props, value)}${shown && tellReasons(props, shown)}${!isRed && tellSkill(model, props.times)}.
      </h1>
      <p class="after">${[tellCame(props, value), tellChange(props, value), tellDoubt(model, shown), tellUnsure(model, verdict)].filter(Boolean).map((one) => html`<span>${one} </span>`)}</p>
    </div>
  `;
}

/**
 * What is forecast, as of the window: the target with its time, as far as they are known.
 *
 * @param {Model} model
 * @param {Times | undefined} times
 * @param {string} [output]
 */
export function nameForecast(model, times, output = model.forecast) {
  const { targets, horizon, ahead } = model.info;
  const { target, step } = stepOf(output);
  const named = targets.find(({ name }) => name === target);
  const quantile = /@(0\.\d+)$/.exec(output)?.[1];
  const name = (quantile ? `the ${quantile} quantile of ` : "") + (named?.title ?? named?.name ?? output);
  const when = targetTime(model, times, output);
  if (when !== undefined && times) return targets.length === 1 && !named?.title && !quantile ? tellWhen(when, times) : `${name} ${tellWhen(when, times)}`;
  if (step === undefined || (horizon === 1 && !ahead && (named?.title || model.isShare))) return name;
  if (ahead > 0 || horizon > 1) return `${name}, ${step} ${stepName(model)}${step === 1 ? "" : "s"} ahead`;
  return `the next value of ${name}`;
}

/** What a step is, such as a business day. @param {Model} model */
const stepName = ({ info }) => /^1 ([a-z ]+)$/.exec(info.table?.step ?? "")?.[1] ?? "step";

/**
 * What an output is: a forecast, or a bound or the width of its interval.
 *
 * @param {Model} model
 * @param {Times | undefined} times
 */
function nameOutput(model, times) {
  const { kind, level = 0 } = forecastOf(model.info, model.output);
  const name = nameForecast(model, times);
  if (!kind) return name;
  return `${kind === "width" ? "the width" : `the ${kind} bound`} of the ${levelName(level)} interval of ${name}`;
}

/** @param {Told} props @param {number} value */
function tellForecast({ model, predicted, shown, times }, value) {
  const name = capitalise(nameOutput(model, times));
  const figure = html`<button type="button" class="word figure" aria-pressed=${lit.value === `output:${model.output}`} ...${part(`output:${model.output}`)}>${model.value(value)}</button>`;
  if (model.isShare) return html`The chance of ${nameOutput(model, times)} is ${figure}${tellRank(model, predicted)}`;
  if (model.output !== model.forecast) return html`${name} is ${figure}${tellOwn(model, predicted)}`;
  const band = shown?.intervals?.find(({ level }) => level >= 0.8) ?? bandOf(predicted, model.forecast);
  const mae = model.info.skill.mae;
  return html`${name}: ${figure}${band ? tellBand(model, value, band) : mae != null ? `, usually off by ${model.error(mae)}` : ""}`;
}

/** @param {Model} model @param {number} value @param {import("./facts.js").Interval} band */
function tellBand(model, value, { level, lower, upper }) {
  const half = (upper - lower) / 2;
  const isEven = Math.abs(upper + lower - 2 * value) < EVEN * half;
  const ends = `${model.value(lower, false)} to ${model.value(upper, false)}`;
  return html` <span class="band" data-tip=${`${levelName(level)} interval: ${ends}${model.unit ? ` ${model.unit}` : ""}`}>${isEven ? `± ${model.value(half, false)}` : `(${ends})`}</span>`;
}

/** @param {Model} model @param {Predicted | undefined} predicted */
function tellOwn(model, predicted) {
  const own = predicted?.values[model.info.outputs.indexOf(model.forecast)];
  const isWidth = forecastOf(model.info, model.output).kind === "width";
  const of = own === undefined ? "" : isWidth ? ` around the forecast of ${model.value(own)}` : `, which is ${model.value(own)}`;
  return isWidth ? of : `: a bound, not the forecast${of}`;
}

/** @param {Model} model @param {Predicted | undefined} predicted */
function tellRank({ info, output }, predicted) {
  const values = predicted?.values ?? [];
  if (values.length < 2) return "";
  const likeliest = d3.maxIndex(values);
  return info.outputs[likeliest] === output ? `, the likeliest of ${values.length}` : `; likelier is ${info.targets[likeliest]?.title ?? info.targets[likeliest]?.name} (${percent(values[likeliest])})`;
}

/**
 * The strongest inputs with their values and what they add, and what the others do together.
 *
 * @param {Told} props
 * @param {Explanation} shown
 */
function tellReasons({ model, instance, times }, shown) {
  const newest = instance[instance.length - 1];
  const sums = byInput(model, shown.contributions);
  const reasons = d3.sort(model.inputs, ({ name }) => -Math.abs(sums.get(name) ?? 0)).map((input) => ({ input, value: sums.get(input.name) ?? 0 }));
  const [largest] = reasons;
  if (!largest?.value) return ", whatever the inputs";
  if (!/[1-9]/.test(model.size(largest.value, model.isShare))) return ", and no input changes a digit of it";
  const isTold = (/** @type {number} */ value) => Math.abs(value) >= WEAK * Math.abs(largest.value) && /[1-9]/.test(model.size(value, model.isShare));
  const named = reasons.slice(0, N_REASONS).filter(({ value }) => isTold(value));
  const others = reasons.slice(named.length);
  const rest = d3.sum(others, ({ value }) => value);
  const words = named.map(({ input, value }, place) => {
    const isSame = place > 0 && value > 0 === named[place - 1].value > 0;
    const verb = isSame ? "" : value > 0 ? "adds " : "takes ";
    return html`${place ? ", " : ""}<${Word} model=${model} input=${input} row=${newest} ahead=${stepOf(model.forecast).step} /> ${verb}${model.size(value, model.isShare)}`;
  });
  const more = others.length ? html`, ${others.length === 1 ? "another input" : `${others.length} others together`} ${model.change(rest, model.isShare)}` : "";
  return html`<span class="reasons">. From the ${model.value(shown.baseline_prediction, false)} of average inputs, ${words}${more}</span>`;
}

/**
 * An input with its value, which lights up its paths.
 *
 * @param {{model: Model, input: Input, row: number[], ahead: number | undefined}} props
 */
function Word({ model, input, row, ahead }) {
  const name = `input:${input.name}`;
  const isLit = lit.value === name || lit.value?.startsWith(`${name}@`);
  return html`<button type="button" class=${`word ${isLit ? "lit" : ""}`} style=${{ "--color": input.color }} aria-pressed=${address.value.values.pick === name} ...${part(name)}>${phrase(model, input, row, ahead)}</button>`;
}

/**
 * @param {Model} model
 * @param {Input} input
 * @param {number[]} row
 * @param {number} [ahead] steps of the forecast; of an input known for that time this need not be said
 */
function phrase(model, input, row, ahead) {
  const value = toldIn(model, input, row);
  const name = input.later && input.later === ahead ? (input.title ?? input.name) : input.label;
  const feature = model.info.features[input.places[0]];
  const by = input.kind === "number" && feature?.std ? (row[input.places[0]] - feature.mean) / feature.std : 0;
  return Math.abs(by) < FAR ? `${name} ${value}` : `${by > 0 ? "high" : "low"} ${name} (${value})`;
}

/** @param {Model} model @param {Times | undefined} times */
function tellSkill(model, times) {
  const { better_by: by, baselines, verdict } = model.info.skill;
  const best = baselines?.[0];
  if (verdict === "unknown" || !best || by == null || by <= 0) return "";
  return `; ${Math.round(100 * by)} % better than ${nameBaseline(best, times)}`;
}

/**
 * What a simple forecast repeats: yesterday's value, the last value.
 *
 * @param {{name: string, season?: number | null}} baseline
 * @param {Times | undefined} times
 */
function nameBaseline({ name, season }, times) {
  const days = times && season ? (season * times.step) / DAY : undefined;
  if (days === 1) return "yesterday's value";
  if (days === 7) return "last week's value";
  if (season) return `the value ${season} steps before`;
  return { persistence: "the last value", average: "the average", ridge: "a ridge regression" }[name] ?? name;
}

/** @param {Told} props @param {number} value */
function tellCame({ model, known, isChanged, predicted }, value) {
  const place = model.info.outputs.indexOf(model.forecast);
  const came = known.target?.[place];
  if (came == null || isChanged) return "";
  const { kind } = forecastOf(model.info, model.output);
  if (kind === "width") return `What came was ${model.value(came)}.`;
  if (kind) return `What came, ${model.value(came)}, is ${came > value ? "above" : "below"} this bound.`;
  if (model.isShare) return came === 1 ? "It came." : came === 0 ? "It did not come." : `What came: ${model.value(came)}.`;
  const off = (predicted?.values[place] ?? value) - came;
  const by = model.size(off);
  if (!/[1-9]/.test(by)) return `What came was ${model.value(came)}, as forecast.`;
  return `What came was ${model.value(came)}: the forecast was ${by} too ${off > 0 ? "high" : "low"}.`;
}

/** @param {Told} props @param {number} value */
function tellChange({ model, isChanged, before }, value) {
  if (!isChanged || !before) return "";
  const by = value - before.prediction;
  const lead = `As recorded it was ${model.value(before.prediction)}`;
  return by ? `${lead}: the change makes it ${model.size(by)} ${by < 0 ? "lower" : "higher"}.` : `${lead}; the change makes no difference.`;
}

/** @param {Model} model @param {Explanation | undefined} shown */
function tellDoubt(model, shown) {
  if (!shown || shown.converged) return "";
  return `Not converged: the contributions may be off by more than ${model.size(shown.tolerance)}.`;
}

/** @param {Model} model @param {string} verdict */
function tellUnsure({ info }, verdict) {
  return verdict === "unknown" && info.skill.reason ? info.skill.reason : "";
}
