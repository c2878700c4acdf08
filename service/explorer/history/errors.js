/** Errors: the largest, which lead to their forecasts, and by month, week and hour with coverage. */

import { reasonOf } from "../api.js";
import { DAY } from "../figures.js";
import { html, useMemo, useState } from "../lib.js";
import { useAsk } from "../load.js";
import { Chart } from "../ui/chart.js";
import { go, link } from "../state.js";
import { seriesOf } from "./cut.js";
import { Table } from "./table.js";
import { isCovered, levelName, share, worstOf } from "./spans.js";

/** @typedef {import("./moments.js").Moment} Moment */
/** @typedef {import("../model.js").Model} Model */

const N_WORST = 20;
const ORDERS = { either: (error) => -Math.abs(error), high: (error) => -error, low: (error) => error };
const NAMES = { either: "either way", high: "too high", low: "too low" };
const PERIODS = { month: "Month", week: "Week", hour: "Hour" };
const LABEL = 84; // pixels of the name of a period

/** @param {{values: Record<string, string>, value: string, label: string, choose: (value: any) => void}} props */
export const Segments = ({ values, value, label, choose }) => html`<div class="segments" role="group" aria-label=${label}>
  ${Object.entries(values).map(([name, text]) => html`<button type="button" aria-pressed=${name === value} onClick=${() => choose(name)}>${text}</button>`)}
</div>`;

/** @param {{model: Model, moments: Moment[], isSpan: boolean}} props */
export function WorstErrors({ model, moments, isSpan }) {
  const [order, setOrder] = useState(/** @type {keyof typeof ORDERS} */ ("either"));
  const worst = useMemo(() => worstOf(moments, N_WORST, ORDERS[order]), [moments, order]);
  const open = (event, window) => {
    event.preventDefault();
    go({ window, edit: "" }, { place: "forecast" });
  };
  const row = ({ window, label, error = 0, forecast, actual }) => ({
    of: { "data-worst": window },
    cells: [
      html`<a href=${link("forecast", { window, edit: "" })} onClick=${(event) => open(event, window)}>${label}</a>`,
      ...[model.change(error), model.value(forecast), model.value(actual)],
    ],
  });
  return html`
    <section class="card" aria-label="Largest errors">
      <div class="between">
        <h2>Largest errors${isSpan ? " in A" : ""}</h2><${Segments} values=${NAMES} value=${order} label="Which errors" choose=${setOrder} />
      </div>
      <${Table} label="List of the largest errors" place="tall" heads=${["Window", "Error", "Forecast", "Came"]} rows=${worst.map(row)} />
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
  const asks = useMemo(() => {
    if (!table || table.windows) return undefined;
    return { path: `${model.path}:backtest`, query: model.version, body: { ...seriesOf(table, model), target } };
  }, [table, model]);
  const tested = useAsk(asks);
  const local = useMemo(() => (isTimed ? groupErrors(moments, by, shiftOf(model)) : []), [moments, by, isTimed, model]);
  const found = asks ? tested.value?.by[by].map((one) => ({ name: nameOf(one[by], by), coverage: [], ...one })) : local;
  if (!asks && !isTimed) return null;
  const levels = found?.[0]?.coverage?.map(({ level }) => level) ?? [];
  const all = model.info.outputs.length > 1 && asks ? ", all steps together" : "";
  return html`
    <section class="card periods" aria-label="Errors by period">
      <div class="between">
        <h2>Errors by ${by} of the time that is forecast${all}</h2><${Segments} values=${PERIODS} value=${by} label="Period" choose=${setBy} />
      </div>
      ${asks && tested.error ? html`<p class="muted">${reasonOf(tested.error)}</p>` : ""}
      ${found && !found.length ? html`<p class="muted">The rows are a day or more apart, so there is none.</p>` : ""}
      ${found?.length > 0 && html`
        <p class="muted">Bars: mean error, either way. Lines: mean error, above 0 where forecasts were too high.</p>
        <${Chart} label=${`Errors by ${by}`} of=${[found]} draw=${(width) => drawPeriods(found, model, width)} />
        <details><summary>The same as a table</summary><${Table} label="Table of errors by period"
          heads=${[PERIODS[by], ...COLUMNS, ...levels.map((level) => `In the ${levelName(level)} interval`)]}
          rows=${found.map((one) => ({ of: { "data-period": one.name }, cells: [one.name, ...cellsOf(one, model)] }))} /></details>`}
    </section>
  `;
}

const COLUMNS = ["Forecasts", "Mean error, either way", "Mean error"];
const cellsOf = ({ count, mae, bias, coverage }, model) =>
  [count.toLocaleString("en"), model.size(mae), model.change(bias), ...coverage.map(({ covered }) => share(covered ?? undefined))];

function drawPeriods(found, model, width) {
  const every = Math.ceil((LABEL * found.length) / width);
  const names = found.map(({ name }) => name);
  const bare = (name) => name.replace("from ", "");
  const drawn = Plot.plot({
    ...{ width, height: 190, marginLeft: 56, marginRight: 36, className: "plot" },
    x: { label: null, domain: names, ticks: names.filter((_, place) => !(place % every)), tickFormat: bare, tickSize: 0 },
    y: { label: model.isShare ? "points" : model.unit, percent: model.isShare, labelArrow: "none", grid: true, ticks: 5, tickSize: 0 },
    marks: [
      Plot.barY(found, { x: "name", y: "mae", fill: "var(--forecast)", inset: 0.5 }),
      Plot.ruleY([0], { stroke: "var(--muted)" }),
      Plot.tickY(found, { x: "name", y: "bias", stroke: "var(--ink)", strokeWidth: 2 }),
    ],
  });
  drawn.querySelectorAll("rect").forEach((bar, place) => {
    const levels = found[place].coverage.map(({ level }) => `in the ${levelName(level)} interval`);
    const told = cellsOf(found[place], model).map((text, column) => `${[...COLUMNS, ...levels][column]}: ${text}`);
    bar.setAttribute("data-tip", [found[place].name, ...told].join("\n"));
  });
  return drawn;
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

/** @returns {Period[]} */
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
