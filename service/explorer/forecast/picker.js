/** Which window is in view: a reference window by date, the one before and after, the newest, those with the largest errors. */

import { html, useEffect, useState } from "../lib.js";
import { go } from "../state.js";
import { paste } from "../ui/drop.js";
import { Menu } from "../ui/float.js";
import { tellNow, useMoments, wallClock } from "./facts.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("./facts.js").Moment} Moment */

const N_WORST = 10; // windows with the largest errors
const DAY = 86_400_000; // ms

/** @param {number} index of a reference window */
const show = (index) => go({ window: `ref:${index}`, edit: "" });

/** @param {{model: Model, window: any}} props */
export function Picker({ model, window }) {
  const { index, label } = window.value ?? {};
  const count = model.info.reference_windows;
  const [problem, setProblem] = useState(/** @type {{day: string, near: Moment[]} | undefined} */ (undefined));
  const moments = useMoments(window.value ? model : undefined).value ?? [];
  useEffect(() => setProblem(undefined), [window.name]);
  useEffect(() => {
    if (index === undefined) return undefined;
    const press = (/** @type {KeyboardEvent} */ event) => {
      const by = event.shiftKey && !event.ctrlKey && !event.metaKey && !event.altKey && { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by || /** @type {Element} */ (event.target).closest("input, textarea, select, [role=slider], dialog")) return;
      event.preventDefault();
      if (index + by >= 0 && index + by < count) show(index + by);
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [index, count]);
  if (!count) return html`<div class="picker"><span class="muted">${label ?? ""}</span> <button type="button" onClick=${paste}>Your own …</button></div>`;
  const times = moments.filter(({ time }) => time);
  const own = index === undefined;
  return html`
    <div class="picker" role="group" aria-label="Window">
      ${!own && html`<button type="button" aria-label="The window before" data-tip="The window before (Shift and ←)" disabled=${index === 0} onClick=${() => show(index - 1)}>‹</button>`}
      ${
        times.length || !moments.length
          ? html`<${Day} window=${window.value} moments=${times} refuse=${setProblem} />`
          : html`<label>Window <input type="number" min="0" max=${count - 1} value=${index ?? ""} onChange=${(/** @type {any} */ event) => event.currentTarget.checkValidity() && event.currentTarget.value && show(Number(event.currentTarget.value))} /> <span class="muted">of 0 to ${count - 1}</span></label>`
      }
      ${!own && html`<button type="button" aria-label="The window after" data-tip="The window after (Shift and →)" disabled=${index === count - 1} onClick=${() => show(index + 1)}>›</button>`}
      ${own && html`<span class="muted">${label}</span>`}
      <button type="button" disabled=${index === count - 1} onClick=${() => show(count - 1)}>Newest</button>
      <button type="button" onClick=${paste}>Your own …</button>
      ${moments.some(({ error }) => error !== undefined) && html`<${Menu} label="Largest errors"><${Worst} model=${model} moments=${moments} /><//>`}
    </div>
    ${problem && html`<p class="refused" role="alert">No window ends on ${problem.day}. The nearest are ${problem.near.map((moment, place) => html`${place ? " and " : ""}<button type="button" class="small" onClick=${() => show(moment.index)}>${tellNow(moment.time)}</button>`)}.</p>`}
  `;
}

/**
 * The day of the window, and the windows of that day. A day without windows stays where it is, and is refused.
 *
 * @param {{window: import("../windows.js").Window | undefined, moments: Moment[], refuse: (problem: {day: string, near: Moment[]} | undefined) => void}} props
 */
function Day({ window, moments, refuse }) {
  const time = window?.time;
  const day = time ? new Date(wallClock(time)).toISOString().slice(0, 10) : "";
  const choose = (/** @type {any} */ event) => {
    const wanted = event.currentTarget.value;
    if (!wanted) return;
    const start = Date.parse(wanted);
    const at = (/** @type {Moment} */ moment) => wallClock(moment.time ?? "");
    const first = moments.find((moment) => at(moment) >= start);
    if (first && at(first) < start + DAY) return void (refuse(undefined), show(first.index));
    const before = moments.filter((moment) => at(moment) < start).pop();
    const near = [before, first].filter((one) => one !== undefined);
    refuse({ day: tellNow(wanted) ?? wanted, near });
  };
  const same = moments.filter((moment) => moment.time && new Date(wallClock(moment.time)).toISOString().startsWith(day));
  const clock = (/** @type {Moment} */ moment) => moment.time?.slice(11, 16);
  const [first, last] = [moments[0], moments[moments.length - 1]].map((moment) => moment?.time?.slice(0, 10));
  return html`
    <label><span class="away">Date of the window</span><input type="date" value=${day} min=${first} max=${last} onChange=${choose} /></label>
    ${
      window?.index !== undefined && same.length > 1
        ? html`<select aria-label="Time of the window" value=${window.index} onChange=${(/** @type {any} */ event) => show(Number(event.currentTarget.value))}>${same.map((moment) => html`<option value=${moment.index} selected=${moment.index === window.index}>${clock(moment)}</option>`)}</select>`
        : time && time.length > 10 && html`<span class="muted">${time.slice(11, 16)}</span>`
    }
  `;
}

/** @param {{model: Model, moments: Moment[]}} props */
function Worst({ model, moments }) {
  const worst = d3.sort(moments.filter(({ error }) => error !== undefined), ({ error }) => -Math.abs(error ?? 0)).slice(0, N_WORST);
  return html`
    <strong>The forecasts that were farthest off</strong>
    <ol class="worst">
      ${worst.map((moment) => html`<li><button type="button" class="small" onClick=${() => show(moment.index)}>${tellNow(moment.time) ?? `window ${moment.index}`}</button> ${Math.abs(moment.error ?? 0) > 0 && model.change(moment.error ?? 0)}</li>`)}
    </ol>
  `;
}
