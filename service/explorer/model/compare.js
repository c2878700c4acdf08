/** Another version, or another model, beside this one: what differs in a sentence, shares, edges, and the window in view. */

import { ApiError, modelPath, reasonOf } from "../api.js";
import { Select } from "../ui/select.js";
import { amount, fixed, percent } from "../figures.js";
import { html } from "../lib.js";
import { part as lights } from "../lit.js";
import { askNoted, useAsk, useLoad } from "../load.js";
import { useModels } from "../model.js";
import { address, go } from "../state.js";
import { nameFeature, nameNode } from "./parts.js";
import { Again } from "./section.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Schemas} Schemas */
/** @typedef {Schemas["EdgeChangeInfo"]} Edge */
/** @typedef {{one: string, other: string}} Names of both sides */

const FIDELITY = 0.99; // of the pruned networks whose edges are compared
const APART = 0.1; // model units: curves that differ by more count as different
const NAMED = 3; // inputs in the sentence
const REFUSED = [400, 404, 409, 422]; // the two can't be compared

/** @param {{model: Model}} props the choice of the model to compare with */
export function Choice({ model }) {
  const models = useModels().value;
  const ready = (models?.details ?? []).filter((/** @type {Schemas["ModelSummary"]} */ one) => one.ready);
  const loaded = useLoad(models && `fitting ${model.info.checkpoint} ${JSON.stringify(ready)}`, (signal) =>
    Promise.all(ready.map((/** @type {Schemas["ModelSummary"]} */ { name }) => askNoted({ path: modelPath(name) }, signal))),
  );
  const { versus = "" } = address.value.values;
  const fits = new Set((loaded.value ?? []).filter((/** @type {Schemas["ModelInfo"]} */ info) => readsOf(info) === readsOf(model.info)).map((/** @type {Schemas["ModelInfo"]} */ { name }) => name));
  const options = ready.flatMap((/** @type {Schemas["ModelSummary"]} */ { name, versions }) =>
    versions
      .filter((one) => one.ready && !(name === model.name && one.version === model.info.version))
      .map(({ version }) => ({ value: `${name}/${version}`, label: versions.length > 1 ? `${name}, version ${version}` : name, rank: name === model.name ? 0 : fits.has(name) ? 1 : 2 })),
  );
  if (!options.length) return null;
  const known = options.some(({ value }) => value === versus) || !versus ? [] : [{ value: versus, label: versus.replace("/", ", version "), rank: 1 }];
  const sorted = d3.sort([...options, ...known], ({ rank }) => rank);
  const shown = sorted.map(({ value, label, rank }) => ({ value, label: rank === 2 ? `${label} (other inputs)` : label }));
  return html`<${Select} label="Compare with" value=${versus} options=${[{ value: "", label: "no other" }, ...shown]} choose=${(/** @type {string} */ value) => go({ versus: value })} />`;
}

/**
 * What models must have in common: steps, inputs and units.
 *
 * @param {Schemas["ModelInfo"]} info
 */
const readsOf = ({ features, targets, lookback }) => JSON.stringify([lookback, [...features, ...targets].map(({ name, unit }) => [name, unit])]);

/** @param {{model: Model, versus: string, window: any}} props `versus` is `name` or `name/version` */
export function Comparison({ model, versus, window }) {
  const [name, version] = versus.split("/");
  const query = { ...model.query, against_model: name, against_version: version, fidelity: FIDELITY };
  const found = useAsk({ path: `${model.path}/comparison`, query });
  const answer = /** @type {Schemas["ModelComparisonResponse"] | undefined} */ (found.value);
  const titles = name === model.name ? [`version ${model.info.version}`, `version ${answer?.against.version ?? version}`] : [model.name, name];
  const names = { one: titles[0], other: titles[1] };
  if (found.error instanceof ApiError && REFUSED.includes(found.error.status)) {
    return html`<h2>${names.one} and ${names.other}</h2><p role="alert">These two can’t be compared: ${reasonOf(found.error).replace(/^against /, `${names.other} `)}.</p>`;
  }
  return html`
    <div class="between"><h2>${names.one} and ${names.other}</h2><button type="button" onClick=${() => go({ versus: "" })}>End the comparison</button></div>
    <${Again} loaded=${found} />
    ${answer && html`
      <p class="lead">${tellDifference(model, answer, names)}</p>
      <p class="muted">Both on the ${answer.reference_windows} reference windows of ${names.one}.${answer.mae === null || answer.against_mae === null ? " Their actual values are not known." : ""}</p>
      <${Shares} model=${model} answer=${answer} names=${names} />
      <${Edges} model=${model} edges=${answer.edges} names=${names} />
      <${Here} model=${model} against=${{ model: name, version: answer.against.version }} names=${names} window=${window} />
    `}
  `;
}

/**
 * @param {Model} model
 * @param {Schemas["ModelComparisonResponse"]} answer
 * @param {Names} names
 */
function tellDifference(model, { difference, mae, against_mae: against, features }, { one, other }) {
  const size = (/** @type {number} */ of) => model.change(Math.abs(of)).replace(/^\+/, "");
  const better = mae !== null && against !== null && mae !== against && `; those of ${mae < against ? one : other} miss by ${size(mae - against)} less on average`;
  const sure = features.filter(({ interval }) => isSure(interval)).slice(0, NAMED);
  const moved = sure.map(({ name, change }, place) => `${nameFeature(model, name)} ${place ? "" : "counts "}${fixed(Math.abs(100 * change), 1)} points ${change > 0 ? "more" : "less"}`);
  return `The forecasts of ${one} and ${other} differ by ${size(difference)}${better || ""}. ${sure.length ? `In ${one}, ${moved.join(", ")}.` : "No input surely counts more in one than in the other."}`;
}

/** @param {number[]} interval */
const isSure = ([low, high]) => low > 0 || high < 0;

/** @param {number} change of a share */
const points = (change) => (change > 0 && fixed(100 * change, 1) !== "0.0" ? "+" : "") + fixed(100 * change, 1);

/** @param {{model: Model, answer: Schemas["ModelComparisonResponse"], names: Names}} props */
function Shares({ model, answer: { features, confidence }, names: { one, other } }) {
  const largest = Math.max(...features.flatMap(({ share, against_share: against }) => [share, against]));
  const widest = Math.max(...features.flatMap(({ interval }) => interval.map(Math.abs)), Number.MIN_VALUE);
  const bar = (/** @type {number} */ share, /** @type {string} */ color) => html`<svg class="share-bar" aria-hidden="true" width="72" height="12"><rect y="2" height="8" width=${`${(100 * share) / largest}%`} fill=${color} /></svg>`;
  const at = (/** @type {number} */ change) => `${50 + (50 * change) / widest}%`;
  return html`
    <h3>Shares</h3>
    <div class="scroll" tabindex="0" role="region" aria-label="Shares in both"><table class="cards compared">
      <thead><tr><th scope="col">Input</th><th scope="col" class="number">${one}</th><th scope="col" class="number">${other}</th><th scope="col" class="number">Difference in points, ${Math.round(100 * confidence)} % interval</th></tr></thead>
      <tbody>${features.map(({ name, share, against_share: against, change, interval: [low, high] }) => {
        const input = model.inputOf.get(name);
        const color = input?.color ?? "var(--muted)";
        return html`<tr key=${name} data-feature=${name} class=${isSure([low, high]) ? "sure" : ""}>
          <th scope="row"><span class="input-name" ...${input ? lights(`input:${input.name}`, { pick: false }) : {}}><i style=${{ background: color }}></i><span data-tip=${name}>${nameFeature(model, name)}</span></span></th>
          <td class="number" data-label=${one}>${bar(share, color)}${percent(share)}</td>
          <td class="number" data-label=${other}>${bar(against, color)}${percent(against)}</td>
          <td class="number" data-label="Difference">
            <svg class="share-bar" aria-hidden="true" width="96" height="12"><rect y="2" height="8" x=${change < 0 ? at(change) : "50%"} width=${`${(50 * Math.abs(change)) / widest}%`} fill=${color} /><line x1=${at(low)} x2=${at(high)} y1="6" y2="6" stroke="currentColor" /><line x1="50%" x2="50%" y2="12" stroke="var(--muted)" /></svg>
            ${points(change)}<small>${points(low)} to ${points(high)}</small>
          </td>
        </tr>`;
      })}</tbody>
    </table></div>
  `;
}

/**
 * The edges that either keeps, by how they changed.
 *
 * @param {Edge[]} edges
 */
function groupEdges(edges) {
  const both = d3.sort(edges.filter(({ kept, against_kept: against }) => kept && against), ({ curve_difference: apart }) => -(apart ?? 0));
  const isBent = (/** @type {Edge} */ { curve_difference: apart }) => (apart ?? 0) > APART;
  return {
    came: edges.filter(({ kept, against_kept: against }) => kept && !against),
    went: edges.filter(({ kept, against_kept: against }) => !kept && against),
    "bends differently": both.filter(isBent),
    stays: both.filter((edge) => !isBent(edge)),
  };
}

/** @param {{model: Model, edges: Edge[], names: Names}} props */
function Edges({ model, edges, names: { one, other } }) {
  const groups = groupEdges(edges);
  const neither = edges.length - d3.sum(Object.values(groups), (members) => members.length);
  const size = (/** @type {number | null} */ of, /** @type {boolean | null} */ kept) => kept === null ? "none" : `${of === null ? "unknown" : model.change(of).replace(/^\+/, "")}${kept ? "" : ", pruned"}`;
  return html`
    <h3>Edges</h3>
    <p class="muted">Pruned to an R² of ${FIDELITY}: ${groups.came.length} are in ${one} alone (came), ${groups.went.length} in ${other} alone (went), and of those that both keep ${groups["bends differently"].length} bend differently: their curves differ by more than ${APART} model units somewhere. ${neither} are kept by neither.</p>
    <details><summary>The edges that either keeps</summary><div class="scroll" tabindex="0" role="region" aria-label="Edges of both"><table class="cards">
      <thead><tr><th scope="col">Edge</th><th scope="col" class="number">${one}</th><th scope="col" class="number">${other}</th><th scope="col" class="number">Change</th><th scope="col" class="number">Curves apart</th></tr></thead>
      <tbody>${Object.entries(groups).flatMap(([state, members]) => members.map((edge) => html`<tr key=${`${edge.stage}/${edge.layer}/${edge.i}/${edge.j}`} data-state=${state}>
        <th scope="row">${nameNode(model, edge.source)} → ${nameNode(model, edge.target)} <span class=${`verdict ${state.split(" ")[0]}`}>${state}</span></th>
        <td class="number" data-label=${one}>${size(edge.contribution, edge.kept)}</td>
        <td class="number" data-label=${other}>${size(edge.against_contribution, edge.against_kept)}</td>
        <td class="number" data-label="Change">${edge.change !== null && model.change(edge.change)}</td>
        <td class="number" data-label="Curves apart">${edge.curve_difference === null ? "not comparable" : amount(edge.curve_difference)}</td>
      </tr>`))}</tbody>
    </table></div></details>
  `;
}

/** @param {{model: Model, against: Schemas["Against"], names: Names, window: any}} props the window in view, forecast by both */
function Here({ model, against, names: { one, other }, window }) {
  const { instance, value } = window;
  const found = useAsk(instance && { path: `${model.path}:compare`, query: model.version, body: { instances: [instance], output: model.output, against } });
  const compared = /** @type {Schemas["ForecastComparison"] | undefined} */ (found.value?.comparisons[0]);
  if (!compared) return html`<${Again} loaded=${found} />`;
  const shares = [...d3.rollup(Object.entries(compared.model.contributions), (of) => d3.sum(of, ([, part]) => part), ([name]) => model.inputOf.get(name))];
  const parts = d3.sort(shares, ([, part]) => -Math.abs(part));
  return html`
    <h3>In the window in view, ${value?.label}</h3>
    <p data-difference=${compared.difference}>${one} says ${model.value(compared.prediction)}, ${other} ${model.value(compared.against_prediction)}: ${model.change(compared.difference)}, of which the shared baseline is ${model.change(compared.model.baseline_shift)}. The rest is divided among the inputs on which they disagree:</p>
    <ul class="disagreements">${parts.map(([input, part]) => html`<li key=${input?.label} data-input=${input?.name}><i style=${{ background: input?.color }}></i>${input?.short} ${model.change(part)}</li>`)}</ul>
  `;
}
