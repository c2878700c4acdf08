/** The window as small multiples: each input by name with its recent past and value, to be dragged along values that exist. */

import { begin, draft, end, released } from "../draft.js";
import { byInput } from "../explain.js";
import { editOf, isCycle, isFixed, rangeOf, told, valueOf } from "../inputs.js";
import { html, useEffect, useRef, useState } from "../lib.js";
import { lit, part } from "../lit.js";
import { go } from "../state.js";
import { useWidth } from "../ui/chart.js";
import { writeEdit } from "../windows.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Input} Input */
/** @typedef {import("../model.js").Schemas["Explanation"]} Explanation */

const N_FIRST = 12; // inputs shown before all are asked for
const FINE = 200; // positions over a range without steps
const COARSE = 40; // arrow keys over it
const PAGES = 10; // steps of Page Up and Page Down
const [WIDTH, HEIGHT] = [48, 26]; // of a sparkline
const LETTER = 8; // pixels
const SPACES = 28; // pixels between the columns of a dial and at its sides

/**
 * @typedef {object} Dialled
 * @property {Model} model
 * @property {number[][]} recorded the window without edits
 * @property {number[][]} instance the window with them
 * @property {import("../inputs.js").Edit} edit
 * @property {Explanation | undefined} shown
 * @property {Explanation | undefined} before the explanation without edits, whose order the inputs keep
 */

/** @param {Dialled & {now: string | undefined}} props */
export function Dials({ now, ...props }) {
  const { model, edit, shown, before } = props;
  const [isAll, setAll] = useState(false);
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  const width = useWidth(list);
  const sums = shown && byInput(model, shown.contributions);
  const order = before ? byInput(model, before.contributions) : undefined;
  const inputs = d3.sort(model.inputs, ({ name }) => -Math.abs(order?.get(name) ?? 0));
  const seen = inputs.filter(({ name }, place) => isAll || place < N_FIRST || Object.hasOwn(edit, name) || lit.value?.startsWith(`input:${name}`));
  const largest = d3.max([...(sums?.values() ?? [])], Math.abs) || 1;
  const count = Object.keys(edit).length;
  return html`
    <section class="dials" aria-labelledby="dials-title">
      <div class="between">
        <h2 id="dials-title">What it reads</h2>
        ${now && html`<span class="muted">now ${now}</span>`}
        ${count > 0 && html`<button type="button" class="small" onClick=${() => go({ edit: "" })}>Reset ${count > 1 ? `all ${count}` : "it"}</button>`}
      </div>
      <ul ref=${list}>${seen.map((input) => html`<${Dial} key=${input.name} ...${props} width=${width} input=${input} contribution=${sums?.get(input.name)} largest=${largest} />`)}</ul>
      ${inputs.length > N_FIRST && html`<button type="button" class="small" aria-expanded=${isAll} onClick=${() => setAll(!isAll)}>${isAll ? "Only the strongest" : `All ${inputs.length} inputs`}</button>`}
    </section>
  `;
}

/** @param {Dialled & {width: number, input: Input, contribution: number | undefined, largest: number}} props */
function Dial({ model, width, input, recorded, instance, edit, contribution, largest }) {
  const [isTyped, setTyped] = useState(false);
  const was = valueOf(input, recorded[recorded.length - 1]);
  const now = valueOf(input, instance[instance.length - 1]);
  const value = draft.value?.input === input.name ? draft.value.value : now;
  const isChanged = Object.hasOwn(edit, input.name);
  const name = `input:${input.name}`;
  const { onClick, onKeyDown, ...lights } = /** @type {any} */ (part(name));
  const set = (/** @type {number} */ to) => {
    const others = Object.fromEntries(Object.entries(edit).filter(([one]) => one !== input.name));
    go({ edit: writeEdit(to === was ? others : { ...edit, [input.name]: editOf(input, was, to) }) });
  };
  const type = (/** @type {number | undefined} */ to) => {
    setTyped(false);
    if (to !== undefined && Number.isFinite(to)) set(to);
  };
  const fixed = isFixed(model, input) ? "Nobody can change this: moving it only shows what the model does with it." : undefined;
  const text = told(model, input, value);
  const room = Math.max(6, Math.floor((width - WIDTH - SPACES) / LETTER) - text.length);
  const isLit = lit.value === name || lit.value?.startsWith(`${name}@`);
  return html`
    <li class=${`dial ${isLit ? "lit" : ""} ${isChanged ? "changed" : ""}`} style=${{ "--color": input.color }} ...${lights}>
      <${Spark} input=${input} recorded=${recorded} instance=${instance} />
      <button type="button" class="name" aria-pressed=${lit.value === name} data-tip=${fixed ? `${input.label}\n${fixed}` : input.label} onClick=${onClick} onKeyDown=${onKeyDown}>${model.fit(input.short, room)}</button>
      ${
        isTyped
          ? html`<${Typed} model=${model} input=${input} value=${value} give=${type} />`
          : html`<button type="button" class="value number" aria-label=${`${input.label}: ${text}, enter another value`} onClick=${() => setTyped(true)}>${text}</button>`
      }
      <${Track} model=${model} input=${input} instance=${instance} value=${value} was=${was} set=${set} />
      <span class="adds number">${contribution === undefined ? "…" : model.change(contribution, false)}<${Bar} share=${(contribution ?? 0) / largest} /></span>
      ${isChanged && html`<span class="muted note">
        ${value === was ? "as recorded" : `recorded: ${told(model, input, was)}`}${fixed ? "; nobody can change this" : ""}${" "}
        <button type="button" class="small" aria-label=${`Reset ${input.label}`} onClick=${() => set(was)}>reset</button>
      </span>`}
    </li>
  `;
}

/** @param {{share: number}} props from -1 to 1, of the largest contribution */
function Bar({ share }) {
  const width = `${50 * Math.min(1, Math.abs(share))}%`;
  return html`<i class=${`lift ${share < 0 ? "down" : "up"}`} style=${share < 0 ? { width, right: "50%" } : { width, left: "50%" }} aria-hidden="true"></i>`;
}

/** @param {{input: Input, recorded: number[][], instance: number[][]}} props an input over the steps of the window */
function Spark({ input, recorded, instance }) {
  const [old, values] = [recorded, instance].map((rows) => rows.map((row) => valueOf(input, row)));
  const [low, high] = /** @type {[number, number]} */ (d3.extent([...old, ...values]));
  const x = d3.scaleLinear([0, Math.max(1, values.length - 1)], [2, WIDTH - 3]);
  const y = d3.scaleLinear(low < high ? [low, high] : [low - 1, high + 1], [HEIGHT - 3, 3]);
  const isStepped = input.kind !== "number";
  const line = d3.line((_, step) => x(step), (/** @type {any} */ value) => y(value)).curve(isStepped ? d3.curveStepAfter : d3.curveLinear);
  if (isCycle(input)) line.defined((value, step) => step === 0 || Number(value) >= Number(values[step - 1])); // a new period begins
  return html`
    <svg class="spark" width=${WIDTH} height=${HEIGHT} aria-hidden="true">
      ${recorded !== instance && html`<path class="was" d=${line(/** @type {any} */ (old))} />`}
      <path d=${line(/** @type {any} */ (values))} />
      <circle cx=${x(values.length - 1)} cy=${y(values[values.length - 1])} r="2.5" />
    </svg>
  `;
}

/**
 * The nearest value that exists to a wanted one.
 *
 * @param {{low: number, high: number, step: number}} range
 * @param {number} wanted
 * @param {number} from a value that exists
 */
export function snap({ low, high, step }, wanted, from) {
  const by = step || d3.tickStep(low, high, FINE);
  const first = step ? from - Math.floor((from - low) / step) * step : 0;
  const near = Number((first + Math.round((wanted - first) / by) * by).toPrecision(12));
  return Math.min(Math.max(near, low), high);
}

/** @param {number} value for assistive technology, which reads no exponents */
const plain = (value) => Number(value.toFixed(6)) || 0;

/** @param {{model: Model, input: Input, instance: number[][], value: number, was: number, set: (to: number) => void}} props */
function Track({ model, input, instance, value, was, set }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const range = rangeOf(input, model.info.features);
  const now = valueOf(input, instance[instance.length - 1]);
  const [low, high] = [Math.min(range.low, was, now), Math.max(range.high, was, now)];
  const share = (/** @type {number} */ one) => `${(100 * (one - low)) / (high - low || 1)}%`;
  const move = (/** @type {number} */ to) => {
    released.value = false; // it was let go before, and its answer must not end this
    draft.value = { input: input.name, value: snap({ low, high, step: range.step }, to, now) };
  };
  const let_ = () => {
    const to = draft.value?.input === input.name ? draft.value.value : now;
    if (to === now) return void (draft.value = undefined);
    set(to);
    end();
  };
  const at = (/** @type {PointerEvent} */ event) => {
    const { left, width } = /** @type {HTMLElement} */ (place.current).getBoundingClientRect();
    move(low + ((event.clientX - left) / width) * (high - low));
  };
  const down = (/** @type {PointerEvent} */ event) => {
    if (event.button) return;
    place.current?.setPointerCapture(event.pointerId);
    place.current?.focus();
    begin(model, instance, input.name);
    at(event);
  };
  const press = (/** @type {KeyboardEvent} */ event) => {
    const by = range.step || d3.tickStep(low, high, COARSE);
    const turns = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: PAGES, PageDown: -PAGES };
    const from = draft.value?.input === input.name ? draft.value.value : value; // of a press that is not rendered yet
    const to = { Home: low, End: high }[event.key] ?? (event.key in turns ? from + by * turns[event.key] : undefined);
    if (event.key === "Escape") draft.value = undefined;
    if (to === undefined || event.shiftKey) return;
    event.preventDefault();
    if (event.repeat) begin(model, instance, input.name); // one press alone needs no values between
    move(to);
  };
  const isHeld = (/** @type {PointerEvent} */ event) => place.current?.hasPointerCapture(event.pointerId);
  return html`
    <span
      class="track"
      ref=${place}
      role="slider"
      tabindex="0"
      aria-label=${input.label}
      aria-valuemin=${plain(low)}
      aria-valuemax=${plain(high)}
      aria-valuenow=${plain(value)}
      aria-valuetext=${told(model, input, value)}
      onPointerDown=${down}
      onPointerMove=${(/** @type {PointerEvent} */ event) => isHeld(event) && at(event)}
      onPointerUp=${let_}
      onPointerCancel=${() => (draft.value = undefined)}
      onKeyDown=${press}
      onKeyUp=${() => draft.value?.input === input.name && let_()}
      onBlur=${() => draft.value?.input === input.name && let_()}
    >
      <i class="rail"></i>
      ${was !== value && html`<i class="was" style=${{ left: share(was) }}></i>`}
      <i class="handle" style=${{ left: share(value) }}></i>
    </span>
  `;
}

/**
 * What takes a typed value: a number, or of what has levels a choice of them.
 *
 * @param {{model: Model, input: Input, value: number, give: (to: number | undefined) => void}} props nothing where it is left as it was
 */
function Typed({ model, input, value, give }) {
  const place = useRef(/** @type {any} */ (null));
  useEffect(() => place.current?.focus(), []);
  const leave = (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && (event.stopPropagation(), give(undefined));
  const isNumber = ["number", "integer"].includes(input.kind) || !input.levels.length;
  if (!isNumber) {
    return html`
      <select class="value" ref=${place} aria-label=${input.label} onKeyDown=${leave} onBlur=${() => give(undefined)} onChange=${(/** @type {any} */ event) => give(Number(event.currentTarget.value))}>
        ${input.levels.map((level, place) => html`<option value=${place} selected=${place === Math.round(value)}>${level}</option>`)}
      </select>
    `;
  }
  const enter = (/** @type {any} */ event) => {
    if (event.key === "Enter") give(event.currentTarget.value.trim() ? Number(event.currentTarget.value) : undefined);
    else leave(event);
  };
  const { integer, std } = model.info.features[input.places[0]] ?? {};
  const fine = std ? 10 ** Math.floor(Math.log10(std / FINE)) : 0; // what is finer is rounding of single precision
  const near = Number((fine ? Math.round(value / fine) * fine : value).toPrecision(6));
  return html`<input class="value" type="number" step=${integer ? 1 : "any"} ref=${place} aria-label=${input.label} value=${near || 0} onKeyDown=${enter} onBlur=${() => give(undefined)} />`;
}
