/** History: forecasts over time, how wrong they were and what drove them, over all of them and in a span; and drift. */

import { reasonOf } from "../api.js";
import { findTable } from "../files.js";
import { html, useMemo } from "../lib.js";
import { capitalise } from "../names.js";
import { address, go } from "../state.js";
import { Select } from "../ui/select.js";
import { Drift } from "./drift.js";
import { fileInView, isHidden, useContributions, useMoments } from "./moments.js";
import { Periods, Segments, WorstErrors } from "./errors.js";
import { chooseSpan, counted, differences, hasSkill, labelOf, levelName, listOf } from "./spans.js";
import { share, strongest, summarise, tellAll, tellDifference, UNSKILLED } from "./spans.js";
import { Strips } from "./strips.js";
import { Table } from "./table.js";

/** @typedef {import("./moments.js").Moment} Moment */
/** @typedef {import("../model.js").Model} Model */

const VIEWS = { "": "Forecasts and errors", drift: "Drift" };
const N_STRIPS = 6; // inputs with a strip of their own
const N_ROWS = 10; // inputs of the comparison

/** @param {{model: Model, window: any}} props */
export function History({ model, window }) {
  const { view } = address.value.values;
  return html`
    <div class="between">
      <h1>History of ${model.title}</h1>
      <${Segments} values=${VIEWS} value=${view ?? ""} label="What is shown" choose=${(value) => go({ view: value })} />
    </div>
    ${view === "drift" ? html`<${Drift} model=${model} />` : html`<${Past} model=${model} window=${window} />`}
  `;
}

/** @param {{model: Model, window: any}} props */
function Past({ model, window }) {
  const loaded = useMoments(model);
  const file = fileInView();
  const { series: wanted, a, b, zoom } = address.value.values;
  const moments = loaded.value;
  const names = useMemo(() => [...new Set(moments?.all.map(({ series }) => series))], [moments]);
  const present = moments?.all.find((one) => one.window === window.name);
  const series = wanted ?? present?.series ?? names[0];
  const bare = useMemo(() => moments?.all.filter((one) => one.series === series) ?? [], [moments, series]);
  const explained = useContributions(model, bare);
  const closer = useContributions(model, useMemo(() => (file && zoom ? chooseSpan(bare, zoom) : []), [file, bare, zoom]));
  const shown = useMemo(
    () => bare.map((moment) => ({ ...moment, ...(explained.value?.get(moment.window) ?? closer.value?.get(moment.window)) })),
    [bare, explained.value, closer.value],
  );
  const all = useMemo(() => summarise(shown), [shown]);
  const strips = useMemo(() => strongest(all.shares), [all]).slice(0, model.inputs.length === N_STRIPS + 1 ? undefined : N_STRIPS);
  const first = useMemo(() => chooseSpan(shown, a), [shown, a]);
  const second = useMemo(() => chooseSpan(shown, b), [shown, b]);
  if (loaded.error) {
    const reason = reasonOf(loaded.error);
    const told = isHidden(loaded.error) ? `${capitalise(reason)}. Drop a file with rows of your own here, and it is shown.` : reason;
    return html`<p class="card problem" role="alert">${told}${file && html` <${ToReference} />`}</p>`;
  }
  if (!moments || !shown.length) return html`<p class="waiting">Forecasting all windows …</p>`;
  const take = (value) => go({ series: value, a: "", b: "" });
  const addSpan = (from, to) => go(a && !b ? { b: `${from}-${to}` } : { a: `${from}-${to}`, b: "" });
  const nExplained = explained.value?.size ?? shown.length;
  const thinned = file && shown.length > nExplained ? ` Contributions are of ${counted(nExplained)} of them, spread over the time.` : "";
  const reference = `The model’s ${counted(moments.all.length)} reference windows. Drop a file to see its rows here.`;
  const source = file ? moments.told : reference;
  const options = names.map((value) => ({ value, label: value }));
  const table = file ? findTable(file) : undefined;
  return html`
    <section class="card told" aria-label="All forecasts">
      <p class="lead">${tellAll(shown, all, model)}</p>
      <p class="muted">${source}${thinned}${file && html` <${ToReference} />`}</p>
      ${explained.error && html`<p class="problem" role="alert">Contributions: ${reasonOf(explained.error)}</p>`}
    </section>
    <section class="card" aria-label="Forecasts, errors and contributions">
      <div class="between">
        ${names.length > 1 && html`<${Select} label="Series" value=${series} options=${options} choose=${take} />`}
        <${Legend} model=${model} all=${all} />
        <${Chosen} moments=${shown} a=${a} b=${b} zoom=${zoom} hasErrors=${all.compared > 0} />
      </div>
      <${Strips}
        ...${{ model, moments: shown, isTimed: moments.isTimed, names: strips, present: window.name, first, second, choose: addSpan }}
        zoomed=${chooseSpan(shown, zoom)}
        onZoom=${(text) => go({ zoom: text }, { replace: true })}
      />
    </section>
    <div class="halves">
      <${Driven} model=${model} shown=${shown} first=${first} second=${second} all=${all} />
      ${all.compared > 0 && html`<${WorstErrors} model=${model} moments=${first.length ? first : shown} isSpan=${first.length > 0} />`}
    </div>
    ${all.compared > 0 && html`<${Periods} model=${model} moments=${shown} isTimed=${moments.isTimed} table=${table} />`}
  `;
}

const REFERENCE = { file: "", window: "", a: "", b: "", series: "" };
const ToReference = () => html`<button type="button" onClick=${() => go(REFERENCE)}>Show the reference windows</button>`;

/** @param {{model: Model, all: import("./spans.js").Summary}} props */
function Legend({ model, all }) {
  return html`<p class="legend muted">
    ${all.compared > 0 && html`<span><i class="actual"></i>what came</span>`}
    <span><i class="forecast"></i>forecast</span>
    ${model.info.intervals && html`<span><i class="band"></i>${listOf(model.info.intervals.levels.map(levelName))} interval</span>`}
  </p>`;
}

/** @param {{moments: Moment[], a?: string, b?: string, zoom?: string, hasErrors: boolean}} props spans as chips, and how they are chosen */
function Chosen({ moments, a, b, zoom, hasErrors }) {
  const name = (text) => {
    const span = chooseSpan(moments, text);
    return text === "worst" ? "the worst tenth" : span.length ? `${span[0].label} to ${span[span.length - 1].label}` : "no forecast";
  };
  const chip = (key, text, rest) => html`<span class="span-chip">
    ${key}: ${name(text)} <button type="button" aria-label=${`Leave out ${name(text)}`} onClick=${() => go(rest)}>×</button>
  </span>`;
  const hint = a ? "Drag another span to compare with it instead of the rest." : "Drag over the strips to choose a span.";
  return html`<div class="chips">
    ${a && chip("A", a, { a: b ?? "", b: "" })} ${b && chip("B", b, { b: "" })}
    ${a && a !== "worst" && a !== zoom && html`<button type="button" onClick=${() => go({ zoom: a })}>Zoom in to A</button>`}
    ${zoom && html`<button type="button" onClick=${() => go({ zoom: "" })}>Show all</button>`}
    ${!a && hasErrors && html`<button type="button" onClick=${() => go({ a: "worst" })}>Choose the worst tenth</button>`}
    <span class="muted">${!b && hint}</span>
  </div>`;
}

/**
 * What a span was driven by, beside another or the rest.
 *
 * @param {{model: Model, shown: Moment[], first: Moment[], second: Moment[], all: import("./spans.js").Summary}} props
 */
function Driven({ model, shown, first, second, all }) {
  const chosen = new Set(first.map(({ place }) => place));
  const rest = second.length ? second : shown.filter(({ place }) => !chosen.has(place));
  const isCompared = first.length > 0 && rest.length > 0;
  const [one, other] = isCompared ? [summarise(first), summarise(rest)] : [all, all];
  const name = second.length ? "B" : "the rest";
  const values = isCompared ? differences(one, other) : one.means;
  const names = (isCompared ? strongest(values) : strongest(one.shares)).slice(0, N_ROWS);
  const largest = d3.max(names, (input) => Math.abs(values.get(input) ?? 0)) || 1;
  const heads = isCompared ? ["Input", `A less ${name}`, "A", capitalise(name)] : ["Input", "Contribution, mean", "Share"];
  const row = (input) => {
    const value = values.get(input) ?? 0;
    const others = isCompared ? [one, other].map(({ means }) => model.change(means.get(input) ?? 0)) : [share(one.shares.get(input))];
    const bar = html`<${Bar} share=${value / largest} /><span>${model.change(value)}</span>`;
    return { of: { "data-input": input }, cells: [html`<span data-tip=${input}>${labelOf(model, input)}</span>`, bar, ...others] };
  };
  return html`
    <section class="card" aria-label="What it was driven by">
      <h2>${isCompared ? "What A was driven by, and why it went wrong" : "What they were driven by"}</h2>
      ${isCompared ? tellDifference(one, other, name, model).map((text) => html`<p>${text}</p>`) : ""}
      ${!hasSkill(model) && html`<p class="muted">${UNSKILLED}</p>`}
      ${names.length > 0 && html`<${Table} label="Mean contributions" heads=${heads} rows=${names.map(row)} />`}
      ${!names.length && html`<p class="muted">Contributions are being computed …</p>`}
    </section>
  `;
}

/** @param {{share: number}} props a bar to the right or left of the middle, of a contribution that raises or lowers */
const Bar = ({ share: of }) => html`<svg class="bar-of" height="12" viewBox="-32 0 64 12" preserveAspectRatio="none" aria-hidden="true">
  <line y2="12" /><rect class=${of < 0 ? "down" : "up"} x=${Math.min(0, 31 * of)} width=${Math.abs(31 * of)} y="2" height="8" />
</svg>`;
