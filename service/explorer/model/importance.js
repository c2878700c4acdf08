/** How much each input matters over the reference windows, how sure that is, and what could replace it. */

import { amount, fixed, formatChange, formatValue, percent, signed } from "../figures.js";
import { html, useMemo } from "../lib.js";
import { part as lights } from "../lit.js";
import { useAsk } from "../load.js";
import { address, go } from "../state.js";
import { Help } from "../ui/float.js";
import { Select } from "../ui/select.js";
import { capitalise } from "../names.js";
import { groupsOf, hasGroups, inputsOf } from "./parts.js";
import { Again } from "./section.js";
import { directionOf, Swarm, useWindows } from "./swarm.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Schemas} Schemas */
/** @typedef {import("./parts.js").Part} Part */
/** @typedef {Omit<Schemas["FeatureAttribution"], "name"> & {part: Part, partners: {part: Part, correlation: number}[]}} Row */

const VERDICTS = {
  important: "Its share is surely more than half of the even share, and shuffling it surely makes the forecasts worse.",
  weak: "Neither surely important nor surely negligible.",
  negligible: "Its share is surely below a fifth of the even share, and shuffling it does no sure harm.",
  disconnected: "No path leads from it to the forecast: its contribution is exactly 0.",
};
const ORDER = Object.keys(VERDICTS);
const FEW = 14; // rows at first
const N_UNLIKE = 3; // inputs named in the warning

/** @param {{model: Model}} props */
export function Importance({ model }) {
  const isGrouped = address.value.values.by === "group" && hasGroups(model);
  const parts = useMemo(() => (isGrouped ? groupsOf(model) : inputsOf(model)), [model, isGrouped]);
  const found = useAsk({ path: `${model.path}/attributions`, query: { ...model.query, groups: parts.groups } });
  const windows = useWindows(model);
  const answer = /** @type {Schemas["AttributionsResponse"] | undefined} */ (found.value);
  const rows = useMemo(() => (answer ? rowsOf(answer, parts.of) : []), [answer, parts]);
  const by = (value) => () => go({ by: value });
  return html`
    <div class="between">
      <h2>What it reads, by importance</h2>
      ${hasGroups(model) && html`<span class="row" role="group" aria-label="What counts as one">
        <button type="button" aria-pressed=${!isGrouped} onClick=${by("")}>inputs</button>
        <button type="button" aria-pressed=${isGrouped} onClick=${by("group")}>groups</button>
      </span>`}
    </div>
    <${Again} loaded=${found} />
    ${answer && rows.length > 0 && html`
      <p class="lead">${tellRows(model, rows)}</p>
      <p class="muted">${tellNote(model, answer)}</p>
      <${Table} model=${model} rows=${rows} windows=${windows.value} />
      <${Swarm} model=${model} parts=${rows.map((row) => row.part)} windows=${windows} />
    `}
  `;
}

function rowsOf(/** @type {Schemas["AttributionsResponse"]} */ { features, groups }, /** @type {Map<string, Part>} */ of) {
  const known = new Map(features.map((feature) => [feature.name, feature]));
  return (groups.length ? groups : features).flatMap(({ name, ...row }) => {
    const part = of.get(name);
    if (!part) return [];
    const own = part.features.flatMap((feature) => known.get(feature) ?? []);
    const score = d3.max(own, (feature) => feature.pykan_feature_score ?? undefined) ?? null;
    const partners = new Map(own.flatMap((feature) => feature.redundant_with.map((one) => [of.get(one.name), one.correlation])));
    const others = [...partners].flatMap(([other, correlation]) => (other && other !== part ? { part: other, correlation } : []));
    return { ...row, part, pykan_feature_score: score, partners: others };
  });
}

/** What moves the forecast most. */
function tellRows(model, rows) {
  const [first, ...others] = rows;
  const named = others.slice(0, 2).map(({ part, share }) => `${part.short} (${percent(share)})`);
  const count = rows.filter(({ verdict }) => verdict === "important").length;
  const { mean_abs_contribution: mean, share } = first;
  const size = model.isShare ? `${fixed(100 * mean, 1)} points` : formatValue(mean, model.unit, mean / 2);
  const name = /^[a-z]{2,}( |$)/.test(first.part.short) ? capitalise(first.part.short) : first.part.short;
  const then = named.length ? `; then ${named.join(" and ")}` : "";
  const important = `${count} of ${rows.length} ${count === 1 ? "is" : "are"} important.`;
  return `${name} moves the forecast most, by ${size} on average, ${percent(share)} of all contributions${then}. ${important}`;
}

function tellNote(model, /** @type {Schemas["AttributionsResponse"]} */ { reference: { windows, first, last, confidence }, warnings }) {
  const span = first && last ? `, ${first.slice(0, 10)} to ${last.slice(0, 10)}` : "";
  const told = warnings.map(({ message, features }) => {
    const unlike = [...new Set(features.map((name) => model.inputOf.get(name)?.short))];
    const more = unlike.length > N_UNLIKE ? ` and ${unlike.length - N_UNLIKE} more` : "";
    const where = unlike.length ? ` in ${unlike.slice(0, N_UNLIKE).join(", ")}${more}` : `: ${message}`;
    return ` These windows are unlike the training rows${where}, so what holds here may not hold there.`;
  });
  const unit = model.isShare ? "percentage points" : model.unit;
  const amounts = `thin lines and small figures are ${Math.round(100 * confidence)} % intervals${unit ? `; amounts in ${unit}` : ""}`;
  return `Over ${windows} reference windows${span}; ${amounts}.${told.join("")}`;
}

/**
 * A column of the table, which begins with its largest where it has numbers.
 *
 * @typedef {{label: string, help?: unknown, number?: boolean, largestFirst?: boolean,
 *   order: (row: Row) => number | string, cell: (row: Row) => unknown}} Column
 */

function columnsOf(model, /** @type {Row[]} */ rows, windows) {
  const scale = model.isShare ? 100 : 1; // percentage points
  const spread = (scale * Math.max(...rows.map((row) => row.mean_abs_contribution))) / 2;
  const write = (value) => formatValue(scale * value, null, spread);
  const change = (value) => formatChange(scale * value, null, spread);
  const largest = Math.max(...rows.map((row) => row.share_interval[1]), Number.MIN_VALUE);
  const directions = new Map(windows ? rows.map(({ part }) => [part, directionOf(part, windows)]) : []);
  /** @type {Record<string, Column>} */
  const columns = {
    name: { label: "Input", order: ({ part }) => part.short, cell: ({ part }) => html`<${Name} part=${part} />` },
    verdict: {
      label: "Verdict",
      help: html`<${Help} term="verdict" />`,
      order: ({ verdict }) => ORDER.indexOf(verdict),
      cell: ({ verdict }) => html`<span class=${`verdict ${verdict}`} data-tip=${VERDICTS[verdict]}>${verdict}</span>`,
    },
    share: {
      label: "Share",
      number: true,
      order: ({ share }) => share,
      cell: ({ part, share, share_interval: ends }) => html`<span class="with-bar">
        <${Bar} color=${part.color} value=${share} ends=${ends} largest=${largest} />
        <span>${percent(share)}${small(ends.map((end) => fixed(100 * end, 1)))}</span>
      </span>`,
    },
    contribution: {
      label: "Moves it by",
      help: html`<${Help} term="contribution" />`,
      number: true,
      order: (row) => row.mean_abs_contribution,
      cell: ({ mean_abs_contribution: size, interval }) => html`${write(size)}${small(interval.map(write))}`,
    },
    direction: {
      label: "Direction",
      order: ({ part }) => directions.get(part)?.correlation ?? 0,
      cell: ({ part }) => html`<${Direction} of=${directions.get(part)} />`,
    },
    permutation: {
      label: "Error if shuffled",
      number: true,
      order: (row) => row.permutation_mae_increase ?? -Infinity,
      cell: ({ permutation_mae_increase: more, permutation_interval: ends }) =>
        more === null ? "unknown" : html`${change(more)}${small(ends?.map(write))}`,
    },
    score: {
      label: "pykan’s score",
      help: html`<${Help} term="score" />`,
      number: true,
      order: (row) => row.pykan_feature_score ?? -Infinity,
      cell: (row) => (row.pykan_feature_score === null ? "" : amount(row.pykan_feature_score)),
    },
    redundant: {
      label: "Could be replaced by",
      largestFirst: true,
      order: ({ partners }) => Math.max(0, ...partners.map(({ correlation }) => Math.abs(correlation))),
      cell: ({ partners }) => partners.map(({ part, correlation }) => `${part.short} (${signed(correlation)})`).join(", "),
    },
  };
  if (rows.every((row) => row.pykan_feature_score === null)) delete columns.score;
  if (rows.every((row) => row.permutation_mae_increase === null)) delete columns.permutation;
  if (rows.every(({ partners }) => !partners.length)) delete columns.redundant;
  if (!windows?.length) delete columns.direction;
  return columns;
}

/** @param {{of?: {correlation: number, said: string}}} props */
function Direction({ of }) {
  const tip = `The correlation of its values with what they add is ${fixed(of?.correlation ?? 0, 2)}`;
  return of?.said && html`<span class="direction" data-tip=${tip}>${of.said}</span>`;
}

/** @param {string[] | undefined} ends of an interval */
const small = (ends) => ends && html`<small>${ends.join(" to ")}</small>`;

/** @param {{part: Part}} props */
function Name({ part: { label, short, unit, color, input, features } }) {
  const tip = features.length > 1 ? `${label}\n${features.join(", ")}` : label;
  return html`<button type="button" class="input-name" data-tip=${tip} ...${input ? lights(`input:${input}`) : {}}>
    <i style=${{ background: color }}></i><span>${short}</span>${unit && html`<span class="muted">${unit}</span>`}
  </button>`;
}

/** @param {{color: string, value: number, ends: number[], largest: number}} props a bar from 0 with its interval */
const Bar = ({ color, value, ends: [low, high], largest }) => {
  const at = (share) => `${fixed((100 * Math.max(0, share)) / largest, 2).replace("−", "-")}%`;
  return html`<svg class="share-bar" aria-hidden="true" width="96" height="12">
    <rect y="2" height="8" width=${at(value)} fill=${color} /><line x1=${at(low)} x2=${at(high)} y1="6" y2="6" stroke="currentColor" />
  </svg>`;
};

/** @param {{model: Model, rows: Row[], windows?: Schemas["ReferenceList"]["windows"]}} props */
function Table({ model, rows, windows }) {
  const columns = useMemo(() => columnsOf(model, rows, windows), [model, rows, windows]);
  const [wanted = "", direction] = (address.value.values.sort ?? "").split(":");
  const sort = Object.hasOwn(columns, wanted) ? wanted : "share";
  const { number, largestFirst = Boolean(number), order } = columns[sort];
  const isDown = direction ? direction === "down" : largestFirst;
  const sorted = d3.sort(rows, (a, b) => (isDown ? -1 : 1) * d3.ascending(order(a), order(b)));
  const isAll = address.value.values.rows === "all" || rows.length <= FEW;
  const choose = (key) => () => go({ sort: key === sort ? `${key}:${isDown ? "up" : "down"}` : key });
  const stateOf = (key) => (key !== sort ? undefined : isDown ? "descending" : "ascending");
  const options = Object.entries(columns).map(([value, { label }]) => ({ value, label }));
  const numeric = (number) => (number ? "number" : "");
  const cells = (row) =>
    Object.entries(columns).map(([key, { label, number, cell }]) => html`
      <td key=${key} data-column=${key} data-label=${label} class=${numeric(number)}>${cell(row)}</td>`);
  return html`
    <div class="sort-by"><${Select} label="Sorted by" value=${sort} options=${options} choose=${(key) => go({ sort: key })} /></div>
    <div class="scroll" role="region" tabindex="0" aria-label="Importance of each input">
      <table class="importance cards">
        <thead><tr>
          ${Object.entries(columns).map(([key, { label, help, number }]) => html`
            <th key=${key} scope="col" class=${numeric(number)} aria-sort=${stateOf(key)}>
              <button type="button" class="sort" onClick=${choose(key)}>${label}</button>${help}
            </th>`)}
        </tr></thead>
        <tbody>${sorted.slice(0, isAll ? rows.length : FEW).map((row) => html`
          <tr key=${row.part.key} data-input=${row.part.input ?? row.part.key}>${cells(row)}</tr>`)}</tbody>
      </table>
    </div>
    ${rows.length > FEW && html`<p>
      <button type="button" onClick=${() => go({ rows: isAll ? "" : "all" })}>${isAll ? `Only the first ${FEW}` : `All ${rows.length}`}</button>
    </p>`}
    ${columns.score && html`<p class="muted">
      pykan’s score and the share differ where effects cancel on their way: the score adds up the strengths of edges without their signs, the
      share what reaches the forecast.
    </p>`}
  `;
}
