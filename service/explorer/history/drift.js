/** Drift: did the inputs move, does the model use what moved, are the errors worse; of what the monitor has counted. */

import { ApiError, reasonOf } from "../api.js";
import { formatValue } from "../figures.js";
import { html } from "../lib.js";
import { useAsk } from "../load.js";
import { address, go } from "../state.js";
import { Select } from "../ui/select.js";
import { counted, levelName, listOf, share } from "./spans.js";
import { tellTime } from "./moments.js";
import { Table } from "./table.js";

/** @typedef {import("../model.js").Model} Model */

const SINCE = Object.entries({ "24h": "24 hours", "7d": "7 days", "4w": "4 weeks" }).map(([value, label]) => ({ value, label: `${label} ago` }));
const N_ROWS = 8;
const UNCOUNTED =
  "Forecasts are not counted here: start the service with KANSCOPE_MONITOR set to a file, or without KANSCOPE_MONITOR=off, and ask :predict.";
const NONE = "No forecast has been counted since then: forecasts that programs ask :predict for are counted from the first one on.";

/** @param {{model: Model}} props */
export function Drift({ model }) {
  const since = address.value.values.since ?? "24h";
  const { value: found, error, again } = useAsk({ path: `${model.path}/drift`, query: { ...model.version, since } });
  return html`
    <section class="card drift" aria-label="Drift">
      <div class="between">
        <p class="lead">${tellCounts(found, error)}</p>
        <${Select} label="Since" value=${since} options=${SINCE} choose=${(value) => go({ since: value })} />
        <button type="button" onClick=${again}>Count again</button>
      </div>
      ${found && !error && html`<p class="muted">
        Compared with the ${counted(found.reference.windows)} reference windows${spanOf(found.reference)}; the output is ${found.output}. What is
        looked at here is not counted.
      </p>`}
    </section>
    ${found && !error && html`<div class="halves">
      <${Question} title="Did the inputs move?" verdict=${verdictOf(found, "inputs")}><${Inputs} model=${model} found=${found} /><//>
      <${Question} title="Does the model use what moved?" verdict=${verdictOf(found, "use")}><${Use} model=${model} found=${found} /><//>
      <${Question} title="Are the errors worse?" verdict=${verdictOf(found, "errors")}><${Errors} model=${model} found=${found} /><//>
    </div>`}
  `;
}

const spanOf = ({ first, last }) => (first ? `, ${tellTime(first)} to ${tellTime(last)}` : "");
const verdictOf = (found, question) => found.verdicts.find((one) => one.question === question);

/** What was counted; or what has to be done so that something is. */
function tellCounts(found, error) {
  if (error instanceof ApiError && /monitor/.test(error.message)) return UNCOUNTED;
  if (error) return `${reasonOf(error)}.`;
  if (!found) return "Counting …";
  if (!found.forecasts) return NONE;
  const since = tellTime(found.counted_since ?? found.since);
  return `${counted(found.forecasts)} forecasts since ${since} UTC, of which ${counted(found.explained)} were explained, on ${found.host}.`;
}

/** @param {{title: string, verdict: any, children: unknown}} props a question, its answer, and how sure it is */
function Question({ title, verdict, children }) {
  const { alarm, missing, p_value: p, false_alarms: rate } = verdict;
  const answer = alarm === null ? "Not known yet" : alarm ? "Yes" : "No";
  const sure = `p = ${p === null ? "unknown" : p?.toPrecision(2)}; where nothing has changed, ${share(rate)} of such answers are yes.`;
  return html`
    <section class="card" aria-label=${title} data-question=${verdict.question}>
      <h2>${title} <strong class=${alarm ? "alarm" : ""}>${answer}</strong></h2>
      <p class="muted">${alarm === null ? `${missing.replace("the current side has", "Since then there is")}.` : sure}</p>
      ${children}
    </section>
  `;
}

/** @param {{model: Model, found: any}} props inputs by how far they moved, in the terms of the table */
function Inputs({ model, found }) {
  const rows = model.inputs.flatMap((input) => {
    const parts = input.features.map((feature) => found.inputs.find((one) => one.feature === feature)).filter(Boolean);
    const far = d3.greatest(parts, ({ psi }) => psi);
    return far ? [{ input, far, isMoved: parts.some(({ moved }) => moved) }] : [];
  });
  const shown = d3.sort(rows, ({ isMoved }) => Number(!isMoved), ({ far }) => -far.psi).slice(0, N_ROWS);
  if (!found.forecasts) return "";
  const moved = shown.filter(({ isMoved }) => isMoved).map(({ input }) => input.short);
  const say = (input, far, mean) => {
    if (mean === null || mean === undefined) return "";
    if (input.kind === "level") return `${share(mean)} ${input.levels[input.features.indexOf(far.feature)] ?? ""}`;
    if (input.kind === "flag") return `${share(mean)} yes`;
    return input.features.length > 1 ? "other times" : formatValue(mean, input.unit, model.info.features[input.places[0]]?.std);
  };
  const row = ({ input, far }) => {
    return { cells: [input.short, say(input, far, far.mean_reference), say(input, far, far.mean), far.psi.toFixed(2)] };
  };
  return html`
    <p>${moved.length > 0 && `${listOf(moved)} moved.`}</p>
    <${Table}
      label="Inputs by how far they moved"
      heads=${["Input", "Mean then", "Now", "PSI"]}
      rows=${shown.map(row)}
    />
  `;
}

/** @param {{model: Model, found: any}} props what the model uses, and what that did to the forecast */
function Use({ model, found }) {
  if (!found.explained) return "";
  const { effect, unused } = found;
  const name = (one) => model.inputOf.get(one)?.short ?? one;
  const rows = d3.sort(found.use, (one) => -Math.abs(one.effect ?? 0)).slice(0, N_ROWS);
  const change = (value) => (value === null ? "" : model.change(value));
  const row = (one) => ({ cells: [name(one.name), share(one.share_reference), share(one.share), change(one.effect)] });
  const went = `went from ${model.value(effect.forecast_reference)} to ${model.value(effect.forecast)} (${change(effect.total)})`;
  const idle = unused.length ? ` ${listOf([...new Set(unused.map(name))].slice(0, 4))} moved, and the model hardly uses it.` : "";
  return html`
    <p>The mean forecast ${effect.total === null ? "is not known" : went}.${idle}</p>
    <${Table} label="What the model uses" heads=${["Input", "Share then", "Now", "Effect"]} rows=${rows.map(row)} />
  `;
}

/** @param {{model: Model, found: any}} props errors and coverage of the outcomes that came */
function Errors({ model, found }) {
  const { errors, coverage } = found;
  if (!errors) return html`<p class="muted">Send what came to :outcomes, with the receipts of :predict, and errors are compared.</p>`;
  const rows = [
    ["Mean error, either way", model.size(errors.mae_reference), model.size(errors.mae)],
    ["Mean error", model.change(errors.bias_reference ?? 0), model.change(errors.bias ?? 0)],
    ...coverage.map((one) => [`In the ${levelName(one.level)} interval`, share(one.covered_reference ?? undefined), share(one.covered ?? undefined)]),
  ];
  return html`<${Table} label="Errors then and now" heads=${["", "Then", "Now"]} rows=${rows.map((cells) => ({ cells }))} />`;
}
