/** Another version, or another model, beside this one: what differs in a sentence, shares, edges, and the window in view. */

import { ApiError, modelPath, reasonOf } from "../api.js";
import { byInput } from "../explain.js";
import { amount, fixed, percent, points } from "../figures.js";
import { APART, groupEdges } from "../flow/compare.js";
import { tellTime } from "../history/moments.js";
import { Table } from "../history/table.js";
import { html } from "../lib.js";
import { part as lights } from "../lit.js";
import { askNoted, useAsk, useLoad } from "../load.js";
import { useModels } from "../model.js";
import { address, go } from "../state.js";
import { Select } from "../ui/select.js";
import { nameNode } from "./parts.js";
import { Again } from "./section.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Schemas} Schemas */
/** @typedef {Schemas["EdgeChangeInfo"]} Edge */
/** @typedef {{one: string, other: string}} Names of both sides */

const FIDELITY = 0.99; // of the pruned networks whose edges are compared
const NAMED = 3; // inputs in the sentence
const REFUSED = [400, 404, 409, 422]; // the two can't be compared

/** @param {{model: Model}} props the choice of the model to compare with */
export function Choice({ model }) {
  const ready = (useModels().value?.details ?? []).filter((one) => one.ready);
  const loaded = useLoad(ready.length ? `fitting ${model.info.checkpoint} ${JSON.stringify(ready)}` : undefined, (signal) =>
    Promise.all(ready.map(({ name }) => askNoted({ path: modelPath(name) }, signal))),
  );
  const { versus = "" } = address.value.values;
  const fits = new Set((loaded.value ?? []).filter((info) => readsOf(info) === readsOf(model.info)).map(({ name }) => name));
  const options = ready.flatMap(({ name, versions }) => {
    const rank = name === model.name ? 0 : fits.has(name) ? 1 : 2;
    const others = versions.filter((one) => one.ready && !(name === model.name && one.version === model.info.version));
    return others.map(({ version }) => {
      const label = versions.length > 1 ? `${name}, version ${version}` : name;
      return { value: `${name}/${version}`, label: rank === 2 ? `${label} (other inputs)` : label, rank };
    });
  });
  if (!options.length) return null;
  const isKnown = !versus || options.some(({ value }) => value === versus);
  const known = isKnown ? [] : [{ value: versus, label: versus.replace("/", ", version "), rank: 1 }];
  const shown = [{ value: "", label: "no other" }, ...d3.sort([...options, ...known], ({ rank }) => rank)];
  return html`<${Select} label="Compare with" value=${versus} options=${shown} choose=${(value) => go({ versus: value })} />`;
}

/** What models must have in common: steps, inputs and units. */
const readsOf = ({ features, targets, lookback }) =>
  JSON.stringify([lookback, [...features, ...targets].map(({ name, unit }) => [name, unit])]);

/** @param {{model: Model, versus: string, window: any}} props `versus` is `name` or `name/version` */
export function Comparison({ model, versus, window }) {
  const [name, version] = versus.split("/");
  const query = { ...model.query, against_model: name, against_version: version, fidelity: FIDELITY };
  const found = useAsk({ path: `${model.path}/comparison`, query });
  const answer = /** @type {Schemas["ModelComparisonResponse"] | undefined} */ (found.value);
  const titles = name === model.name ? [`version ${model.info.version}`, `version ${answer?.against.version ?? version}`] : [model.name, name];
  const names = { one: titles[0], other: titles[1] };
  if (found.error instanceof ApiError && REFUSED.includes(found.error.status)) {
    const reason = reasonOf(found.error).replace(/^against /, `${names.other} `);
    return html`<h2>${names.one} and ${names.other}</h2><p role="alert">These two can’t be compared: ${reason}.</p>`;
  }
  return html`
    <div class="between">
      <h2>${names.one} and ${names.other}</h2><button type="button" onClick=${() => go({ versus: "" })}>End the comparison</button>
    </div>
    <${Again} loaded=${found} />
    ${answer && html`
      <p class="lead">${tellDifference(model, answer, names)}</p>
      <p class="muted">
        Both on the ${answer.reference_windows} reference windows of ${names.one}.
        ${answer.mae === null || answer.against_mae === null ? " Their actual values are not known." : ""}
      </p>
      <${Shares} model=${model} answer=${answer} names=${names} />
      <${Edges} model=${model} edges=${answer.edges} names=${names} />
      <${Here} model=${model} against=${{ model: name, version: answer.against.version }} names=${names} window=${window} />
    `}
  `;
}

function tellDifference(model, /** @type {Schemas["ModelComparisonResponse"]} */ { difference, mae, against_mae: against, features }, { one, other }) {
  const isKnown = mae !== null && against !== null && mae !== against;
  const better = isKnown ? `; those of ${mae < against ? one : other} miss by ${model.size(mae - against)} less on average` : "";
  const sure = sharesOf(model, features).filter(isSure).slice(0, NAMED);
  const moved = sure.map(({ label, change }, place) => {
    return `${label} ${place ? "" : "counts "}${fixed(Math.abs(100 * change), 1)} points ${change > 0 ? "more" : "less"}`;
  });
  const counts = sure.length ? `In ${one}, ${moved.join(", ")}.` : "No input surely counts more in one than in the other.";
  return `The forecasts of ${one} and ${other} differ by ${model.size(difference)}${better}. ${counts}`;
}

/** Shares by input: those of its features add up, and so do the ends of their intervals, which are then rather too wide. */
function sharesOf(model, /** @type {Schemas["FeatureChangeInfo"][]} */ features) {
  const rows = [...d3.group(features, ({ name }) => model.inputOf.get(name) ?? name)].map(([key, of]) => {
    const input = typeof key === "string" ? undefined : key;
    const sum = (take) => d3.sum(of, take);
    return {
      ...{ name: input?.name ?? of[0].name, label: input?.short ?? of[0].name, color: input?.color ?? "var(--muted)", input },
      ...{ share: sum((one) => one.share), against: sum((one) => one.against_share), change: sum((one) => one.change) },
      interval: [sum((one) => one.interval[0]), sum((one) => one.interval[1])],
    };
  });
  return d3.sort(rows, ({ change }) => -Math.abs(change));
}

const isSure = ({ interval: [low, high] }) => low > 0 || high < 0;

/** @param {{model: Model, answer: Schemas["ModelComparisonResponse"], names: Names}} props */
function Shares({ model, answer: { features, confidence }, names: { one, other } }) {
  const rows = sharesOf(model, features);
  const largest = Math.max(...rows.flatMap(({ share, against }) => [share, against]));
  const widest = Math.max(...rows.flatMap(({ interval }) => interval.map(Math.abs)), Number.MIN_VALUE);
  const isMerged = rows.length < features.length;
  const bar = (share, color) => html`<svg class="share-bar" aria-hidden="true" width="72" height="12">
    <rect y="2" height="8" width=${`${(100 * share) / largest}%`} fill=${color} />
  </svg>${percent(share)}`;
  const at = (change) => `${50 + (50 * change) / widest}%`;
  const difference = ({ change, interval: [low, high], color }) => html`<svg class="share-bar" aria-hidden="true" width="96" height="12">
    <rect y="2" height="8" x=${change < 0 ? at(change) : "50%"} width=${`${(50 * Math.abs(change)) / widest}%`} fill=${color} />
    <line x1=${at(low)} x2=${at(high)} y1="6" y2="6" stroke="currentColor" /><line x1="50%" x2="50%" y2="12" stroke="var(--muted)" />
  </svg>${points(change)}<small>${points(low)} to ${points(high)}</small>`;
  const cells = (row) => {
    const lit = row.input ? lights(`input:${row.name}`, { pick: false }) : {};
    const name = html`<span class="input-name" ...${lit}><i style=${{ background: row.color }}></i><span>${row.label}</span></span>`;
    return [name, bar(row.share, row.color), bar(row.against, row.color), difference(row)];
  };
  return html`
    <h3>Shares</h3>
    ${isMerged && html`<p class="muted">Of inputs in several features these are sums over them, whose intervals are rather too wide.</p>`}
    <${Table} label="Shares in both" class="cards"
      heads=${["Input", one, other, `Difference in points, ${Math.round(100 * confidence)} % interval`]}
      rows=${rows.map((row) => ({ of: { "data-input": row.name }, cells: cells(row) }))} />
  `;
}

/** @param {{model: Model, edges: Edge[], names: Names}} props */
function Edges({ model, edges, names: { one, other } }) {
  const groups = groupEdges(edges);
  const neither = edges.length - d3.sum(Object.values(groups), (members) => members.length);
  const size = (of, kept) => (kept === null ? "none" : `${of === null ? "unknown" : model.size(of)}${kept ? "" : ", pruned"}`);
  const cells = (edge, state) => [
    html`${nameNode(model, edge.source)} → ${nameNode(model, edge.target)} <span class="verdict">${state}</span>`,
    size(edge.contribution, edge.kept),
    size(edge.against_contribution, edge.against_kept),
    edge.change !== null && model.change(edge.change),
    edge.curve_difference === null ? "not comparable" : amount(edge.curve_difference),
  ];
  const rows = Object.entries(groups).flatMap(([state, members]) =>
    members.map((edge) => ({ of: { "data-state": state }, cells: cells(edge, state) })),
  );
  return html`
    <h3>Edges</h3>
    <p class="muted">
      Pruned to an R² of ${FIDELITY}: ${groups.came.length} are in ${one} alone (came), ${groups.went.length} in ${other} alone (went), and
      of those that both keep ${groups["bends differently"].length} bend differently: their curves differ by more than ${APART} model units
      somewhere. ${neither} are kept by neither.
    </p>
    <details><summary>The edges that either keeps</summary><${Table} label="Edges of both" class="cards"
      heads=${["Edge", one, other, "Change", "Curves apart"]}
      rows=${rows} />
    </details>
  `;
}

/** @param {{model: Model, against: Schemas["Against"], names: Names, window: any}} props the window in view, forecast by both */
function Here({ model, against, names: { one, other }, window }) {
  const { instance, value } = window;
  const found = useAsk(instance && { path: `${model.path}:compare`, query: model.version, body: { instances: [instance], output: model.output, against } });
  const compared = /** @type {Schemas["ForecastComparison"] | undefined} */ (found.value?.comparisons[0]);
  if (!compared) return html`<${Again} loaded=${found} />`;
  const parts = d3.sort(byInput(model, compared.model.contributions), ([, part]) => -Math.abs(part));
  const shift = model.change(compared.model.baseline_shift);
  return html`
    <h3>In the window in view, ${tellTime(value?.label ?? "")}</h3>
    <p data-difference=${compared.difference}>
      ${one} says ${model.value(compared.prediction)}, ${other} ${model.value(compared.against_prediction)}: ${model.change(compared.difference)},
      of which the shared baseline is ${shift}. The rest is divided among the inputs on which they disagree:
    </p>
    <ul class="disagreements">${parts.map(([name, part]) => {
      const input = model.inputs.find((one) => one.name === name);
      return html`<li key=${name} data-input=${name}><i style=${{ background: input?.color }}></i>${input?.short} ${model.change(part)}</li>`;
    })}</ul>
  `;
}
