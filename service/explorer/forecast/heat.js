/** When it mattered: the contributions by input and step. Of many inputs the others are one row, of many steps a cell is a stretch. */

import { stepLabel } from "../figures.js";
import { toldIn } from "../inputs.js";
import { html, useRef, useState } from "../lib.js";
import { hovered } from "../lit.js";
import { useWidth } from "../ui/chart.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Input} Input */
/** @typedef {{name: string, input: Input | undefined, values: number[]}} Row contributions by step, oldest first */

const MOST_ROWS = 20; // inputs that all have a row
const FIRST = 15; // of more, those with one
const CELL = 8; // least width, pixels
const ROW = 20; // pixels
const TICK = 76; // pixels of a label
const HELD = 0.8; // share of an input's contributions that its steps hold
const N_TOLD = 3;

/** @param {import("./questions.js").Asked} props */
export function Heat({ model, answer, instance, times }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const width = useWidth(place);
  const [at, setAt] = useState(/** @type {{row: number, step: number} | undefined} */ (undefined));
  const [span, setSpan] = useState(/** @type {[number, number] | undefined} */ (undefined));
  const steps = answer?.explanations[0].steps ?? [];
  const rows = rowsOf(model, steps);
  const [first, last] = span && span[1] < steps.length ? span : [0, steps.length - 1];
  const names = Math.min(160, Math.max(70, width / 5));
  const size = Math.max(1, Math.ceil((last - first + 1) / Math.max(1, Math.floor((width - names) / CELL))));
  const ends = d3.range(last, first - 1, -size).reverse();
  const sum = (/** @type {Row} */ row, /** @type {number} */ end) => d3.sum(d3.range(Math.max(first, end - size + 1), end + 1), (step) => row.values[step]);
  const largest = d3.max(rows, (row) => d3.max(ends, (end) => Math.abs(sum(row, end)))) || 1;
  const x = d3.scaleBand(ends.map(String), [names, Math.max(names + 1, width)]).padding(0.06);
  const every = Math.max(1, Math.ceil((ends.length * TICK) / Math.max(1, width - names)));
  const press = (/** @type {KeyboardEvent} */ event) => {
    const turn = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!turn || event.shiftKey) return;
    event.preventDefault();
    const column = at ? ends.findIndex((end) => end >= at.step) : ends.length;
    const next = [bounded((at?.row ?? -turn[0]) + turn[0], rows.length), bounded(column + turn[1], ends.length)];
    choose(next[0], ends[next[1]]);
  };
  const choose = (/** @type {number} */ row, /** @type {number} */ step) => {
    setAt({ row, step });
    const { input } = rows[row];
    hovered.value = input && `input:${input.name}@${step - steps.length + 1}`;
  };
  const zoom = () => at && setSpan([bounded(at.step - 12, steps.length), bounded(at.step + 12, steps.length)]);
  const color = (/** @type {number} */ value) => `color-mix(in oklab, var(${value < 0 ? "--down" : "--up"}) ${Math.round(100 * Math.sqrt(Math.abs(value) / largest))}%, var(--nought))`;
  const label = (/** @type {number} */ step, count = 0) => stepLabel(step - steps.length + 1, times, count);
  if (!answer) return html`<p class="muted" ref=${place}>…</p>`;
  if (steps.length < 2) return html`<p ref=${place}>The window is a single step.</p>`;
  const leave = () => (hovered.value = undefined);
  const cellOf = (/** @type {Event} */ event) => /** @type {any} */ (event.target).dataset?.cell?.split(" ").map(Number);
  const point = (/** @type {Event} */ event) => {
    const cell = cellOf(event);
    if (cell) choose(cell[0], cell[1]);
  };
  return html`
    <p>${tellRuns(model, rows, times, steps.length)}</p>
    <div ref=${place} class=${`heat ${model.info.skill.verdict}`}>
      <svg width=${width} height=${rows.length * ROW + 22} role="application" tabindex="0"
        aria-label="Contributions by input and step; arrow keys lead through them"
        onKeyDown=${press} onPointerOver=${point} onPointerDown=${point} onPointerLeave=${leave} onBlur=${leave}>
        ${rows.map(
          (row, number) => html`
            <text x=${names - 8} y=${number * ROW + 14} text-anchor="end">${cut(row.name, names)}</text>
            ${ends.map((end) => html`<rect data-cell=${`${number} ${end}`} class=${at?.row === number && at.step === end ? "chosen" : ""}
              x=${x(String(end))} y=${number * ROW + 1} width=${x.bandwidth()} height=${ROW - 2} style=${{ fill: color(sum(row, end)) }} />`)}
          `,
        )}
        ${ends.filter((_, column) => (ends.length - 1 - column) % every === 0).map((end) => {
          const [anchor, at] = end === last ? ["end", width] : ["middle", (x(String(end)) ?? 0) + x.bandwidth() / 2];
          const name = end === steps.length - 1 ? "now" : label(end, last - first + 1);
          return html`<text class="tick" text-anchor=${anchor} x=${at} y=${rows.length * ROW + 16}>${name}</text>`;
        })}
      </svg>
    </div>
    <p class="between">
      <span role="status">${at && rows[at.row] ? tellCell(at) : "Point at a cell, or lead through them by arrow keys, to read it."}</span>
      <span>
        ${size > 1 && at && html`<button type="button" class="small" onClick=${zoom}>Each step around it</button>`}
        ${span && html`<button type="button" class="small" onClick=${() => setSpan(undefined)}>All steps</button>`}
        <span class="key muted"><span><i class="up"></i>raises</span><span><i class="down"></i>lowers</span></span>
      </span>
    </p>
  `;

  /** @param {{row: number, step: number}} at */
  function tellCell({ row, step }) {
    const { name, input } = rows[row];
    const from = Math.max(first, step - size + 1);
    const when = from < step ? `${label(from)} to ${label(step)}` : label(step);
    const was = input && from === step && instance[step] ? ` (${toldIn(model, input, instance[step])})` : "";
    return `${name}${was}, ${when}: ${model.change(sum(rows[row], step))}`;
  }
}

/**
 * The rows from top to bottom: the inputs by how much they move, of many the others as one.
 *
 * @param {Model} model
 * @param {number[][]} steps
 * @returns {Row[]}
 */
function rowsOf(model, steps) {
  const all = model.inputs.map((input) => ({ name: input.short, input: /** @type {Input | undefined} */ (input), values: steps.map((row) => d3.sum(input.places, (place) => row[place])) }));
  const sorted = d3.sort(all, ({ values }) => -d3.sum(values, Math.abs));
  if (sorted.length <= MOST_ROWS) return sorted;
  const others = sorted.slice(FIRST);
  return [...sorted.slice(0, FIRST), { name: `${others.length} others`, input: undefined, values: steps.map((_, step) => d3.sum(others, ({ values }) => values[step])) }];
}

/** @param {string} name @param {number} room pixels */
function cut(name, room) {
  const most = Math.floor((room - 8) / 7);
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}

/** @param {number} place @param {number} count */
const bounded = (place, count) => Math.max(0, Math.min(count - 1, place));

/**
 * When the strongest inputs count, in a sentence.
 *
 * @param {Model} model
 * @param {Row[]} rows
 * @param {import("../figures.js").Times | undefined} times
 * @param {number} lookback
 */
function tellRuns(model, rows, times, lookback) {
  const strong = rows.filter(({ input, values }) => input && d3.some(values, (value) => value !== 0)).slice(0, N_TOLD);
  if (!strong.length) return "No input moves this forecast.";
  const words = strong.map(({ input, values }) => `${input?.short} counts ${tellRun(runOf(values.map(Math.abs)), lookback, times)}`);
  return `${words.join("; ")}.`;
}

/**
 * @param {[number, number]} run of steps
 * @param {number} lookback
 * @param {import("../figures.js").Times | undefined} times
 */
function tellRun([first, last], lookback, times) {
  const count = last - first + 1;
  if (count > HELD * lookback) return "over the whole window";
  const [from, to] = [first, last].map((step) => stepLabel(step - lookback + 1, times));
  if (!times && last < lookback - 1) return count === 1 ? `mostly ${lookback - 1 - last} steps ago` : `mostly ${lookback - 1 - first} to ${lookback - 1 - last} steps ago`;
  if (last === lookback - 1) return count === 1 ? "mostly in the newest step" : `mostly in the last ${count} steps`;
  return count === 1 ? `mostly at ${to}` : `mostly from ${from} to ${to}`;
}

/**
 * The shortest run of steps that holds most of an input.
 *
 * @param {number[]} sizes
 * @returns {[number, number]}
 */
function runOf(sizes) {
  const sums = [0, ...d3.cumsum(sizes)];
  const wanted = HELD * sums[sums.length - 1];
  let best = /** @type {[number, number]} */ ([0, sizes.length - 1]);
  for (let first = 0, last = 0; first < sizes.length; first += 1) {
    while (last < sizes.length && sums[last + 1] - sums[first] < wanted) last += 1;
    if (last === sizes.length) break;
    if (last - first < best[1] - best[0]) best = [first, last];
  }
  return best;
}
