/** What each input does: the forecast over its range with all others as they are, in the terms of the table. */

import { reasonOf } from "../api.js";
import { byInput } from "../explain.js";
import { editOf, isFixed, rangeOf, told, valueOf } from "../inputs.js";
import { html, useState } from "../lib.js";
import { part } from "../lit.js";
import { askNoted, keyOf, useLoad } from "../load.js";
import { go } from "../state.js";
import { Chart, onPick } from "../ui/chart.js";
import { writeEdit } from "../windows.js";
import { snap } from "./dials.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Input} Input */
/** @typedef {{x: number, y: number, isOutside: boolean}[]} Curve */

const N_FIRST = 8; // curves drawn before all are asked for
const POINTS = 21;
const HEIGHT = 120;

/** @param {import("./questions.js").Asked} props */
export function Curves({ model, answer, instance, recorded, edit }) {
  const [isAll, setAll] = useState(false);
  const explanation = answer?.explanations[0];
  const sums = explanation && byInput(model, explanation.contributions);
  const order = sums ? d3.sort(model.inputs, ({ name }) => -Math.abs(sums.get(name) ?? 0)) : [];
  const inputs = isAll ? order : order.slice(0, N_FIRST);
  const key = sums && `curves ${keyOf({ path: `${model.chosen} ${model.info.checkpoint} ${model.output} ${inputs.length}`, body: instance })}`;
  const { value: curves, error } = useLoad(key, (signal) => Promise.all(inputs.map(async (input) => ({ input, curve: await askCurve(model, input, instance, signal) }))));
  if (error) return html`<p class="refused" role="alert">${reasonOf(error)}</p>`;
  if (!curves || !explanation || curves.length > inputs.length) return html`<p class="muted">Computing what each input does …</p>`;
  const domain = d3.extent([explanation.prediction, ...curves.flatMap(({ curve }) => curve.map(({ y }) => y))]);
  const take = (/** @type {Input} */ input, /** @type {number} */ to) => {
    const was = valueOf(input, recorded[recorded.length - 1]);
    go({ edit: writeEdit({ ...edit, [input.name]: editOf(input, was, to) }) });
  };
  return html`
    <p class="muted">The forecast if an input were another at every step, and all others as they are; dotted outside the training range. A click sets the input.</p>
    <div class="curves">
      ${curves.map(({ input, curve }) => html`<${OneCurve} key=${input.name} model=${model} input=${input} curve=${curve}
        now=${valueOf(input, instance[instance.length - 1])} value=${explanation.prediction} domain=${domain} take=${take} />`)}
    </div>
    ${order.length > N_FIRST && html`<button type="button" class="small" aria-expanded=${isAll} onClick=${() => setAll(!isAll)}>${isAll ? "Only the strongest" : `All ${order.length} inputs`}</button>`}
  `;
}

/** @param {any} props */
function OneCurve({ model, input, curve, now, value, domain, take }) {
  const isOrdinal = ["level", "flag"].includes(input.kind);
  const name = (/** @type {number} */ x) => told(model, input, x).replace(input.unit ? ` ${input.unit}` : " ", input.unit ? "" : " ");
  const inside = (/** @type {any} */ { y, isOutside }) => (isOutside ? NaN : y);
  const draw = (/** @type {number} */ width) => {
    const chart = Plot.plot({
      ...{ width, height: HEIGHT, marginLeft: 44, marginTop: 10, marginRight: 18, marginBottom: 22, className: "plot" },
      x: { label: null, type: isOrdinal ? "point" : "linear", padding: 0.3, ticks: isOrdinal ? undefined : width / 60, tickFormat: name },
      y: { label: null, domain, nice: true, ticks: 3, grid: true, ...(model.isShare ? { tickFormat: ".0%" } : {}) },
      marks: [
        ...(isOrdinal
          ? [Plot.dot(curve, { x: "x", y: "y", r: 3, stroke: input.color })]
          : [
              Plot.lineY(curve, { x: "x", y: "y", stroke: "var(--muted)", strokeDasharray: "2 3" }),
              Plot.lineY(curve, { x: "x", y: inside, stroke: input.color, strokeWidth: 2 }),
            ]),
        Plot.dot([{ x: now, y: value }], { x: "x", y: "y", r: 4.5, fill: "var(--ink)", stroke: "var(--card)" }),
      ],
    });
    onPick(chart, (at, x) => {
      const wanted = x.invert?.(at) ?? d3.least(curve, (/** @type {any} */ one) => Math.abs(x.apply(one.x) - at))?.x;
      take(input, snap(rangeOf(input, model.info.features), wanted, now));
    });
    return chart;
  };
  const [low, high] = d3.extent(curve, (/** @type {any} */ { y }) => y);
  const label = `The forecast over ${input.label}: ${model.value(low)} to ${model.value(high)}`;
  return html`
    <div class="curve" ...${part(`input:${input.name}`, { pick: false })}>
      <strong style=${{ "--color": input.color }} data-tip=${input.label}>${input.short}</strong> <span class="muted">${told(model, input, now)}${isFixed(model, input) ? ", nobody can change it" : ""}</span>
      <${Chart} draw=${draw} label=${label} of=${[curve, value, model]} />
    </div>
  `;
}

/**
 * The forecast over values of an input: a number is shifted over its range, what has levels takes each of them.
 *
 * @param {Model} model
 * @param {Input} input
 * @param {number[][]} instance
 * @param {AbortSignal} signal
 * @returns {Promise<Curve>}
 */
async function askCurve(model, input, instance, signal) {
  const { low, high, step } = rangeOf(input, model.info.features);
  const now = valueOf(input, instance[instance.length - 1]);
  const [from, to] = [Math.min(low, now) - now, Math.max(high, now) - now];
  const points = step ? Math.max(2, Math.min(POINTS, Math.round((to - from) / step) + 1)) : POINTS;
  const shift = ["number", "integer"].includes(input.kind) ? { from, to: to > from ? to : from + 1, points } : undefined;
  const body = { instances: [instance], output: model.output, features: [input.name], shift };
  const answer = /** @type {import("../model.js").Schemas["WhatIfResponse"]} */ (await askNoted({ path: `${model.path}:whatif`, query: model.version, body }, signal));
  const [{ kind, values, predictions, outside_training_range: outside }] = answer.curves[0];
  return values.map((value, place) => ({ x: kind === "shift" ? now + value : value, y: predictions[place], isOutside: outside[place] }));
}
