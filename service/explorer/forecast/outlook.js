/** The forecast on its time axis: what was, now, the forecast with its band, and what came; a click chooses an output. */

import { runsOf } from "../history/axis.js";
import { useMoments } from "../history/moments.js";
import { levelName } from "../history/spans.js";
import { formatValue, percent, stepLabel, timeLabel } from "../figures.js";
import { html } from "../lib.js";
import { part } from "../lit.js";
import { go } from "../state.js";
import { Chart, onPick } from "../ui/chart.js";
import { bandOf, stepOf, targetTime, tellNow, tellWhen, timeAt } from "./facts.js";
import { nameForecast } from "./sentence.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../figures.js").Times} Times */
/** @typedef {import("./facts.js").Interval} Interval */

/**
 * A value that is forecast.
 *
 * @typedef {object} Ahead
 * @property {string} output
 * @property {number} x
 * @property {number} forecast
 * @property {number | undefined} came
 * @property {Interval | undefined} band
 */

const HEIGHT = 240;
const BEFORE = 40; // reference windows drawn before the one in view
const AFTER = 8; // and after it
const NONE = { all: /** @type {import("../history/moments.js").Moment[]} */ ([]), isTimed: false };
const TICK = 76; // pixels
const LEVEL = 0.8; // of errors, where the model has no interval

/** @param {import("./sentence.js").Told} props */
export function Outlook(props) {
  const { model, predicted, times, known } = props;
  const { info } = model;
  if (!predicted) return html`<section class="outlook"><h2>What follows</h2><p class="muted">…</p></section>`;
  const target = stepOf(model.forecast).target;
  const others = info.outputs.filter((output) => stepOf(output).target !== target);
  return html`
    <section class="outlook" aria-labelledby="outlook-title">
      <h2 id="outlook-title">What follows</h2>
      ${model.isShare ? html`<${Classes} ...${props} />` : html`<${Curve} ...${props} />`}
      ${!model.isShare && others.length > 0 && html`<${Others} model=${model} values=${predicted.values} outputs=${others} times=${times} />`}
      ${model.output !== model.forecast && html`<p class="muted">In view is a bound or a width; <button type="button" class="small" onClick=${() => go({ output: model.forecast })}>show the forecast</button></p>`}
      ${info.ahead > 0 || !known.time ? "" : html`<p class="muted">The model does not say how far ahead this is: it is the value that follows ${tellNow(known.time)}.</p>`}
    </section>
  `;
}

/** @param {import("./sentence.js").Told} props the target over time */
function Curve(props) {
  const { model, instance, shown, times, known } = props;
  const column = model.info.features.findIndex(({ name }) => name === stepOf(model.forecast).target);
  const isHistory = column >= 0 && model.info.lookback > 1;
  const ahead = aheadOf(props);
  const moments = useMoments(isHistory ? undefined : model).value ?? NONE;
  if (!isHistory && ahead.length < 2) return html`<${Around} ...${props} point=${ahead[0]} moments=${moments} />`;
  const past = isHistory ? instance.map((row, index) => ({ x: index - instance.length + 1, value: row[column] })) : [];
  const label = `${isHistory ? "What was up to now, and the forecast" : "The forecast"} of ${model.title}`;
  return html`
    <${Chart} draw=${(/** @type {number} */ width) => drawAhead(past, ahead, model, times, width)} label=${label} of=${[shown, props.predicted, known, instance, model]} />
    <${Key} isPast=${isHistory} came=${ahead.some(({ came }) => came !== undefined)} band=${ahead.find(({ band }) => band)?.band} />
  `;
}

/**
 * The steps of the target in view; that which is explained moves while something is dragged.
 *
 * @param {import("./sentence.js").Told} props
 * @returns {Ahead[]}
 */
function aheadOf({ model, predicted, shown, known, isChanged }) {
  const { target } = stepOf(model.forecast);
  return model.info.outputs.flatMap((output, place) => {
    const { target: of, step = 1 } = stepOf(output);
    if (of !== target) return [];
    const isShown = output === model.output && shown;
    const band = (isShown ? shown.intervals?.find(({ level }) => level >= LEVEL) : undefined) ?? bandOf(predicted, output);
    const forecast = isShown ? shown.prediction : /** @type {any} */ (predicted).values[place];
    return [{ output, x: step, forecast, came: isChanged ? undefined : known.target?.[place], band }];
  });
}

/** @param {{isPast: boolean, came: boolean, band?: Interval, usual?: boolean}} props */
const Key = ({ isPast, came, band, usual = false }) => html`
  <p class="key muted">
    ${(isPast || came) && html`<span><i class="actual"></i>${came ? "what came" : "what was"}</span>`}
    <span><i class="forecast"></i>forecast</span>
    ${band && html`<span><i class="band"></i>${usual ? `8 of 10 errors` : `${levelName(band.level)} interval`}</span>`}
  </p>
`;

/** @param {Model} model */
const frame = ({ unit }, /** @type {number} */ width) => ({
  ...{ width, height: HEIGHT, marginLeft: 44, marginRight: 14, marginTop: 20, className: "plot" },
  y: { label: unit ? `↑ ${unit}` : null, grid: true, ticks: 5 },
});

/**
 * @param {{x: number, value: number}[]} past
 * @param {Ahead[]} ahead
 * @param {Model} model
 * @param {Times | undefined} times
 * @param {number} width
 */
function drawAhead(past, ahead, model, times, width) {
  const newest = past.slice(-1).map(({ x, value }) => ({ x, forecast: value }));
  const [first, last] = [past[0]?.x ?? ahead[0].x, ahead[ahead.length - 1].x];
  const count = last - first + 1;
  const every = Math.max(1, Math.ceil((count * TICK) / width));
  const chosen = ahead.filter(({ output }) => output === model.forecast);
  const banded = ahead.filter(({ band }) => band).map(({ x, band }) => ({ x, low: band?.lower, high: band?.upper }));
  const name = (/** @type {number} */ step) => {
    if (step === 0) return "now";
    if (times && (model.info.ahead || step < 0)) return timeLabel(timeAt(times, step), times.step, count * times.step);
    return step > 0 ? `+${step}` : stepLabel(step, undefined, count);
  };
  const chart = Plot.plot({
    ...frame(model, width),
    x: { label: null, domain: [first - 0.5, last + 0.5], ticks: d3.range(first, last + 1).filter((step) => step % every === 0), tickFormat: name, tickSize: 0 },
    marks: [
      ...(past.length ? [Plot.ruleX([0], { stroke: "var(--muted)", strokeDasharray: "3 3" })] : []),
      banded.length > 1 ? Plot.areaY(banded, { x: "x", y1: "low", y2: "high", fill: "var(--band)" }) : Plot.ruleX(banded, { x: "x", y1: "low", y2: "high", stroke: "var(--band)", strokeWidth: 14 }),
      Plot.lineY([...newest, ...ahead], { x: "x", y: "forecast", stroke: "var(--forecast)", strokeWidth: 1.5, strokeDasharray: ahead[0].x > 1 && ahead.length < 2 ? "2 4" : undefined }),
      Plot.lineY(past, { x: "x", y: "value", stroke: "var(--actual)", strokeWidth: 2 }),
      Plot.lineY(ahead.filter(({ came }) => came !== undefined), { x: "x", y: "came", stroke: "var(--actual)", strokeWidth: 2 }),
      Plot.dot(ahead.length > 1 ? ahead : [], { x: "x", y: "forecast", r: 3, fill: "var(--forecast)", stroke: "var(--card)" }),
      ...drawPoint(chosen),
    ],
  });
  const near = (/** @type {number} */ step) => d3.least(ahead, ({ x }) => Math.abs(x - step))?.output;
  if (ahead.length > 1) onPick(chart, (at, x) => x.invert(at) > 0 && go({ output: near(x.invert(at)) }));
  return chart;
}

/** @param {{x: any, forecast: number, came: number | undefined}[]} rows */
const drawPoint = (rows) => [
  Plot.dot(rows, { x: "x", y: "forecast", r: 6, fill: "var(--forecast)", stroke: "var(--card)", strokeWidth: 1.5 }),
  Plot.dot(rows.filter(({ came }) => came !== undefined), { x: "x", y: "came", r: 5, fill: "var(--actual)", stroke: "var(--card)", strokeWidth: 1.5 }),
];

/**
 * A single forecast among those of the windows around it, where the window does not hold the target.
 *
 * @param {import("./sentence.js").Told & {point: Ahead, moments: {all: import("../history/moments.js").Moment[], isTimed: boolean}}} props
 */
function Around({ model, name, known, shown, instance, point, moments: { all, isTimed } }) {
  const chosen = all.findIndex(({ window }) => window === name);
  const errors = all.flatMap(({ error }) => (error === undefined ? [] : [Math.abs(error)]));
  const reach = point.band ? undefined : d3.quantile(errors, LEVEL);
  const band = point.band ?? (reach === undefined ? undefined : { level: LEVEL, lower: point.forecast - reach, upper: point.forecast + reach });
  const rows = chosen < 0 ? [] : around(all, chosen);
  const here = { ...point, band, x: chosen < 0 ? 0 : all[chosen].at };
  const draw = (/** @type {number} */ width) => {
    const chart = Plot.plot({
      ...frame(model, width),
      x: chosen < 0 ? { axis: null } : isTimed ? { label: null, type: "utc", ticks: width / TICK / 1.4, tickFormat: (/** @type {Date} */ time) => timeLabel(+time, 0, 1) } : { label: "window →", ticks: width / TICK },
      marks: [
        Plot.ruleX([here], { x: "x", stroke: "var(--muted)", strokeDasharray: "3 3" }),
        Plot.text([here], { x: "x", frameAnchor: "top", dy: -14, text: () => "now" }),
        ...(band ? [Plot.ruleX([here], { x: "x", y1: band.lower, y2: band.upper, stroke: "var(--band)", strokeWidth: 14 })] : []),
        Plot.lineY(rows, { x: "at", y: "forecast", stroke: "var(--forecast)", strokeWidth: 1.5 }),
        Plot.lineY(rows, { x: "at", y: "actual", stroke: "var(--actual)", strokeWidth: 2 }),
        ...drawPoint([here]),
      ],
    });
    const near = (/** @type {number} */ when) => d3.least(rows, (one) => Math.abs(one.at - when))?.window;
    if (rows.length) onPick(chart, (at, x) => go({ window: near(Number(x.invert(at))), edit: "" }));
    return chart;
  };
  const label = `The forecast${rows.length ? " among those of the windows around it" : ""}: ${model.value(point.forecast)}`;
  return html`
    <${Chart} draw=${draw} label=${label} of=${[shown, instance, all, model, known]} />
    <${Key} isPast=${false} came=${rows.some(({ actual }) => actual !== undefined)} band=${band} usual=${!point.band} />
  `;
}

/**
 * The windows of the same run, without a long gap between two.
 *
 * @param {import("../history/moments.js").Moment[]} moments
 * @param {number} chosen
 */
function around(moments, chosen) {
  const moment = moments[chosen];
  const run = runsOf(moments.filter(({ series }) => series === moment.series)).runs.find((one) => one.includes(moment)) ?? [];
  const at = run.indexOf(moment);
  return run.slice(Math.max(0, at - BEFORE), at + AFTER + 1);
}

/** @param {import("./sentence.js").Told} props the classes with their probabilities, the likeliest first */
function Classes({ model, predicted, shown }) {
  const values = (predicted?.values ?? []).map((value, place) => (model.info.outputs[place] === model.output ? (shown?.prediction ?? value) : value));
  const rows = d3.sort(d3.range(values.length), (place) => -values[place]);
  return html`
    <ol class="classes">
      ${rows.map((place) => {
        const output = model.info.outputs[place];
        const name = model.info.targets[place]?.title ?? model.info.targets[place]?.name ?? output;
        return html`
          <li ...${part(`output:${output}`, { pick: false })}>
            <button type="button" aria-pressed=${output === model.output} onClick=${() => go({ output })}>${name}</button>
            <span class="rail"><i style=${{ width: `${100 * values[place]}%` }}></i></span>
            <span class="number">${percent(values[place])}</span>
          </li>
        `;
      })}
    </ol>
  `;
}

/** @param {{model: Model, values: number[], outputs: string[], times: Times | undefined}} props the forecasts of other targets */
function Others({ model, values, outputs, times }) {
  const { info } = model;
  const name = (/** @type {string} */ output) => {
    const when = targetTime(model, times, output);
    return when === undefined || !times || info.targets.length < 2 ? nameForecast(model, times, output) : `${stepOf(output).target} ${tellWhen(when, times)}`;
  };
  const format = (/** @type {string} */ output) => {
    const target = info.targets.find(({ name: of }) => of === stepOf(output).target);
    return formatValue(values[info.outputs.indexOf(output)], target?.unit ?? null, target?.std);
  };
  const first = outputs.filter((output, place) => outputs.findIndex((other) => stepOf(other).target === stepOf(output).target) === place);
  return html`
    <ul class="others" aria-label="Other outputs">
      ${first.map((output) => html`<li><button type="button" class="small" onClick=${() => go({ output })}>${name(output)}: ${format(output)}</button></li>`)}
    </ul>
  `;
}
