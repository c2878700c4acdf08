/** The network as formulas, from one number to the whole of it, each with what it keeps and its error. */

import { ApiError, reasonOf } from "../api.js";
import { byInput } from "../explain.js";
import { fixed, formatValue, percent } from "../figures.js";
import { html, useMemo, useRef, useState } from "../lib.js";
import { address, go } from "../state.js";
import { Chart } from "../ui/chart.js";
import { Help } from "../ui/float.js";
import { copyText } from "../ui/save.js";
import { useLines } from "./lines.js";
import { Mathematics } from "./mathml.js";
import { nameNode } from "./parts.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Schemas["FormulaInfo"]} Formula */

const WAIT = 120; // ms without another move of the slider
const UNPROCESSABLE = 422; // it has no formula
/** @type {Record<string, (formula: Formula) => string>} what can be copied */
const TEXTS = { Python: ({ python }) => python, LaTeX: ({ latex }) => latex, text: ({ expression }) => expression };

/** @param {{model: Model}} props */
export function Formulas({ model }) {
  const found = useLines({ path: `${model.path}/formula`, query: model.query }, "formula", "formulas");
  const front = useMemo(() => (found.isWhole ? found.parts : frontOf(found.parts)), [found.parts, found.isWhole]);
  const isNone = found.error instanceof ApiError && found.error.status === UNPROCESSABLE;
  return html`
    <h2>As a formula</h2>
    ${isNone && html`<p>There is no formula for it: ${reasonOf(found.error).replace("model has no formula: ", "")}.</p>`}
    ${!isNone && !found.isWhole && html`<p class="between muted" role="status">
      <span>${front.length} ${found.error ? `were found before the search ended: ${reasonOf(found.error)}` : "found so far; the search goes on …"}</span>
      <button type="button" onClick=${found.pending ? found.stop : found.again}>${found.pending ? "Stop the search" : "Search on"}</button>
    </p>`}
    ${front.length > 0 && html`<${Front} model=${model} front=${front} first=${found.whole?.knee ?? front.length - 1} />`}
  `;
}

/** The formulas that are nearer to the network than each simpler one, of those that are found so far. */
function frontOf(formulas) {
  let best = -Infinity;
  const sorted = d3.sort(formulas, (a, b) => a.complexity - b.complexity || (b.r2 ?? -Infinity) - (a.r2 ?? -Infinity));
  return sorted.filter(({ r2 }) => (r2 ?? -Infinity) > best && ((best = r2 ?? -Infinity), true));
}

/** @param {{model: Model, front: Formula[], first: number}} props `first` is the place of the formula that it opens at */
function Front({ model, front, first }) {
  const { complexity: written } = address.value.values;
  const [moved, setMoved] = useState(/** @type {number | undefined} */ (undefined)); // and not yet in the address
  const timer = useRef(/** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined));
  const wanted = moved ?? (written === undefined ? undefined : Number(written));
  const last = wanted === undefined ? first : front.filter(({ complexity }) => complexity <= wanted).length - 1;
  const place = Math.max(0, Math.min(last, front.length - 1));
  const shown = front[place];
  const draw = (width) => drawFront(front, shown, width, take);
  const take = (complexity) => (setMoved(undefined), go({ complexity: String(complexity) }));
  const slide = (event) => {
    const { complexity } = front[Number(event.currentTarget.value)];
    setMoved(complexity);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => take(complexity), WAIT);
  };
  return html`
    <div class="formula-front">
      <div class="choice">
        <label for="terms">From one number to the network</label>
        <input type="range" id="terms" max=${front.length - 1} value=${place} aria-valuetext=${`complexity ${shown.complexity}`} onInput=${slide} />
        <${Chart} label="R² of the formulas by their complexity" of=${[front, shown]} draw=${draw} />
        <${Figures} model=${model} formula=${shown} front=${front} />
      </div>
      <${Text} model=${model} formula=${shown} />
    </div>
  `;
}

/** R² over complexity. */
function drawFront(front, shown, width, choose) {
  const known = front.filter(({ r2 }) => r2 !== null).map((one) => ({ ...one, height: Math.max(0, one.r2 ?? 0) }));
  const isShown = (one) => one.complexity === shown.complexity;
  const drawn = Plot.plot({
    ...{ width, height: 150, marginLeft: 34, marginRight: 14, marginTop: 20, className: "plot" },
    x: { type: "log", label: "complexity →", ticks: 4, tickFormat: "~s", tickSize: 0 },
    y: { label: "↑ R²", domain: [0, 1], ticks: 4, grid: true },
    marks: [
      Plot.lineY(known, { x: "complexity", y: "height", stroke: "var(--muted)", curve: "step-after" }),
      Plot.dot(known, {
        ...{ x: "complexity", y: "height", stroke: "var(--muted)", strokeWidth: 1.5 },
        r: (one) => (isShown(one) ? 7 : 5),
        fill: (one) => (isShown(one) ? "var(--ink)" : "var(--card)"),
      }),
    ],
  });
  drawn.querySelectorAll("circle").forEach((circle, index) => {
    const { complexity, r2 } = known[index];
    circle.setAttribute("data-tip", `complexity ${complexity}: R² ${fixed(r2 ?? 0, 4)}`);
    circle.addEventListener("click", () => choose(complexity)); // the slider does the same by keyboard
  });
  return drawn;
}

/** @param {{model: Model, formula: Formula, front: Formula[]}} props */
function Figures({ model, formula: { r2, mae, complexity }, front }) {
  const nearest = front[front.length - 1];
  const value = (of) => (model.isShare ? formatValue(of === null ? of : 100 * of, "points", 1) : formatValue(of, model.unit, nearest.mae));
  const kept = r2 === null ? "It has no finite value on one of the windows." : `R² ${fixed(r2, 4)} to the network’s forecasts.`;
  const isNearest = nearest.mae === null || complexity === nearest.complexity;
  const best = isNearest ? "" : ` The formula nearest to the network misses by ${value(nearest.mae)}.`;
  return html`
    <dl class="figures" aria-live="polite">
      <div data-figure="R²"><dt>keeps <${Help} term="R²" /></dt><dd>${r2 === null ? "–" : percent(Math.max(0, r2))}</dd></div>
      <div data-figure="MAE"><dt>misses by</dt><dd>${mae === null ? "unknown" : value(mae)}</dd></div>
      <div data-figure="complexity"><dt>complexity</dt><dd>${complexity}</dd></div>
    </dl>
    <p class="muted">${kept}${best} Measured on windows that neither the search nor the choice has seen.</p>
  `;
}

/** @param {{model: Model, formula: Formula}} props */
function Text({ model, formula }) {
  const [said, setSaid] = useState({ of: formula, text: "" });
  const copy = (name) => async () => {
    const text = await copyText(TEXTS[name](formula)).then(() => `copied as ${name}`, reasonOf);
    setSaid({ of: formula, text });
  };
  return html`
    <div class="written">
      <div class="formula" tabindex="0" role="region" aria-label="The formula">${model.output} ≈ <${Mathematics} of=${formula.mathml} /></div>
      <p class="row">
        ${Object.keys(TEXTS).map((name) => html`<button type="button" onClick=${copy(name)}>Copy ${name}</button>`)}
        <span role="status" class="muted">${said.of === formula && said.text}</span>
      </p>
      <${Symbols} model=${model} formula=${formula} />
    </div>
  `;
}

/** @param {{model: Model, formula: Formula}} props what the symbols stand for */
function Symbols({ model, formula: { variables } }) {
  const rows = Object.entries(variables);
  if (!rows.length) return html`<p class="muted">It is a constant.</p>`;
  return html`
    <table class="symbols">
      <caption class="muted">What the symbols stand for</caption>
      <tbody>${rows.map(([symbol, { node, profile }]) => html`<tr key=${symbol} data-node=${node}>
        <td class="symbol"><${Mathematics} of=${symbolOf(symbol)} /></td>
        <td>${nameNode(model, node)}${madeOf(model, profile).map(([{ color, short }, share]) => html`
          <span class="made"><i style=${{ background: color }}></i>${short} ${percent(share)}</span>`)}</td>
      </tr>`)}</tbody>
    </table>
  `;
}

/** @param {string} symbol as the service writes it in the formula */
function symbolOf(symbol) {
  const [, stem, index] = /^([A-Za-z]+?)_*((?:\d+_)*\d+)$/.exec(symbol) ?? [];
  return stem ? `<msub><mi>${stem}</mi><mn>${index.replaceAll("_", ",")}</mn></msub>` : `<mi>${symbol}</mi>`;
}

/** The inputs of a node by their shares, the largest first. */
function madeOf(model, profile) {
  const shares = byInput(model, profile);
  const made = model.inputs.filter(({ name }) => shares.get(name)).map((input) => [input, shares.get(input.name)]);
  return d3.sort(made, ([, share]) => -share);
}
