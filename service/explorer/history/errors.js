/** Errors: the largest, which lead to their forecasts, and by month, week and hour with coverage. */

import { reasonOf } from "../api.js";
import { html, useMemo, useState } from "../lib.js";
import { useAsk } from "../load.js";
import { go, link } from "../state.js";
import { seriesOf } from "./cut.js";
import { isCovered, levelName, share, sizeOf, worstOf } from "./spans.js";

/** @typedef {import("./moments.js").Moment} Moment */
/** @typedef {import("../model.js").Model} Model */

const N_WORST = 20;
const ORDERS = { either: (error) => -Math.abs(error), high: (error) => -error, low: (error) => error };
const NAMES = { either: "either way", high: "too high", low: "too low" };
const PERIODS = { month: "Month", week: "Week", hour: "Hour" };
const DAY = 86_400_000; // ms

/** @param {{values: Record<string, string>, value: string, label: string, choose: (value: any) => void}} props */
const Segments = ({ values, value, label, choose }) => html`<div class="segments" role="group" aria-label=${label}>${Object.entries(values).map(([name, text]) => html`<button type="button" aria-pressed=${name === value} onClick=${() => choose(name)}>${text}</button>`)}</div>`;

/** @param {{model: Model, moments: Moment[], isSpan: boolean}} props */
export function WorstErrors({ model, moments, isSpan }) {
  const [order, setOrder] = useState(/** @type {keyof typeof ORDERS} */ ("either"));
  const worst = useMemo(() => worstOf(moments, N_WORST, ORDERS[order]), [moments, order]);
  const open = (event, window) => {
    event.preventDefault();
    go({ window, edit: "" }, { place: "forecast" });
  };
  return html`
    <section class="card" aria-label="Largest errors">
      <div class="between"><h2>Largest errors${isSpan ? " in A" : ""}</h2><${Segments} values=${NAMES} value=${order} label="Which errors" choose=${setOrder} /></div>
      <div class="scroll tall" tabindex="0" role="region" aria-label="List of the largest errors">
        <table>
          <thead><tr><th scope="col">Window</th><th scope="col" class="number">Error</th><th scope="col" class="number">Forecast</th><th scope="col" class="number">Came</th></tr></thead>
          <tbody>
            ${worst.map(({ window, label, error = 0, forecast, actual }) => html`<tr data-worst=${window}>
              <th scope="row"><a href=${link("forecast", { window, edit: "" })} onClick=${(event) => open(event, window)}>${label}</a></th>
              <td class="number">${model.change(error)}</td><td class="number">${model.value(forecast)}</td><td class="number">${model.value(actual)}</td>
            </tr>`)}
          </tbody>
        </table>
      </div>
    </section>
  `;
}

/**
 * One row of the table of periods.
 *
 * @typedef {{name: string, count: number, mae: number, bias: number, coverage: {level: number, covered: number | null | undefined}[]}} Period
 */

/**
 * Errors by month, week or hour of the time that is forecast: of a file as :backtest measures them.
 *
 * @param {{model: Model, moments: Moment[], isTimed: boolean, table?: import("../files.js").Table}} props
 */
export function Periods({ model, moments, isTimed, table }) {
  const [by, setBy] = useState(/** @type {keyof typeof PERIODS} */ ("week"));
  const target = model.info.targets.find(({ name }) => model.forecast.startsWith(name))?.name;
  const asks = useMemo(() => table && !table.windows && { path: `${model.path}:backtest`, query: model.version, body: { ...seriesOf(table, model), target } }, [table, model]);
  const tested = useAsk(asks || undefined);
  const local = useMemo(() => (isTimed ? groupErrors(moments, by, shiftOf(model)) : []), [moments, by, isTimed, model]);
  const found = asks ? tested.value?.by[by].map((one) => ({ name: nameOf(one[by], by), coverage: [], ...one })) : local;
  if (!asks && !isTimed) return null;
  const levels = found?.[0]?.coverage?.map(({ level }) => level) ?? [];
  const largest = Number(d3.max(found ?? [], ({ mae }) => mae) || 1);
  const all = model.info.outputs.length > 1 && asks ? ", all steps together" : "";
  return html`
    <section class="card periods" aria-label="Errors by period">
      <div class="between"><h2>Errors by ${PERIODS[by].toLowerCase()} of the time that is forecast${all}</h2><${Segments} values=${PERIODS} value=${by} label="Period" choose=${setBy} /></div>
      ${asks && tested.error ? html`<p class="muted">${reasonOf(tested.error)}</p>` : ""}
      ${found && !found.length ? html`<p class="muted">The rows are a day or more apart, so there is none.</p>` : ""}
      ${found?.length > 0 && html`<div class="scroll tall" tabindex="0" role="region" aria-label="Table of errors by period"><table>
        <thead><tr><th scope="col">${PERIODS[by]}</th><th scope="col" class="number">Forecasts</th><th scope="col" class="number">Mean error, either way</th><th scope="col" class="number">Mean error</th>${levels.map((level) => html`<th scope="col" class="number">In the ${levelName(level)} interval</th>`)}</tr></thead>
        <tbody>${found.map((one) => html`<tr data-period=${one.name}>
          <th scope="row">${one.name}</th><td class="number">${one.count.toLocaleString("en")}</td>
          <td class="number"><svg class="size" width="56" height="10" aria-hidden="true"><rect x=${56 * (1 - one.mae / largest)} width=${(56 * one.mae) / largest} height="10" /></svg>${sizeOf(model, one.mae)}</td>
          <td class="number">${model.change(one.bias)}</td>${one.coverage.map(({ covered }) => html`<td class="number">${share(covered ?? undefined)}</td>`)}
        </tr>`)}</tbody>
      </table></div>`}
    </section>
  `;
}

/** The ms from a window's time to the time that its output is of; 0 where steps have no fixed length, or it is unknown. */
function shiftOf(model) {
  const { time, ahead, table } = model.info;
  const [, step] = /\+(\d+)/.exec(model.forecast) ?? [];
  return ahead && time?.dated && step && !/month|business|open/.test(table?.step ?? "") ? Number(step) * time.step * 1000 : 0;
}

const week = d3.utcFormat("%-d %b %Y");
const month = d3.utcFormat("%B %Y");
const nameOf = (value, by) =>
  by === "hour" ? `${String(value).padStart(2, "0")}:00` : by === "month" ? month(new Date(`${value}-01`)) : `from ${week(new Date(String(value)))}`;

/**
 * @param {Moment[]} moments
 * @param {keyof typeof PERIODS} by
 * @param {number} shift ms
 * @returns {Period[]}
 */
function groupErrors(moments, by, shift) {
  const known = moments.filter(({ error }) => error !== undefined);
  const isDaily = (d3.median(d3.pairs(known, (one, next) => next.at - one.at)) ?? 0) >= DAY;
  if (isDaily && by !== "month") return [];
  const keys = { month: "%Y-%m", week: "%Y-%m-%d", hour: "%H" };
  const key = ({ at }) => d3.utcFormat(keys[by])(by === "week" ? d3.utcMonday.floor(new Date(at + shift)) : new Date(at + shift));
  return d3.sort(d3.group(known, key), ([name]) => name).map(([name, of]) => ({
    name: nameOf(name, by),
    count: of.length,
    mae: d3.mean(of, ({ error = 0 }) => Math.abs(error)) ?? 0,
    bias: d3.mean(of, ({ error }) => error) ?? 0,
    coverage: of[0].intervals.map(({ level }) => ({ level, covered: d3.mean(of, (moment) => isCovered(moment, level)) })),
  }));
}
