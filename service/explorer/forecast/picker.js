/** Which window is in view, of the reference or a file: by date, the one before and after, the newest, the largest errors. */

import { useMoments } from "../history/moments.js";
import { worstOf } from "../history/spans.js";
import { DAY, timeLabel } from "../figures.js";
import { html, useEffect, useState } from "../lib.js";
import { go } from "../state.js";
import { paste } from "../ui/drop.js";
import { Menu } from "../ui/float.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../history/moments.js").Moment} Moment */
/** @typedef {{day: string, near: Moment[]}} Refusal a day without windows, and the nearest ones */

const N_WORST = 10; // windows with the largest errors

/** @param {Moment | undefined} moment */
const show = (moment) => moment && go({ window: moment.window, edit: "" });

/** @param {{model: Model, window: any}} props */
export function Picker({ model, window }) {
  const [refused, refuse] = useState(/** @type {Refusal | undefined} */ (undefined));
  const { all = [], isTimed = false } = useMoments(window.value || window.error ? model : undefined).value ?? {};
  const place = all.findIndex((moment) => moment.window === window.name);
  const [before, after] = place < 0 ? [] : [all[place - 1], all[place + 1]];
  useEffect(() => refuse(undefined), [window.name]);
  useEffect(() => {
    const press = (/** @type {KeyboardEvent} */ event) => {
      const to = { ArrowLeft: before, ArrowRight: after }[event.key];
      if (!to || !event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
      if (/** @type {Element} */ (event.target).closest("input, textarea, select, [role=slider], dialog")) return;
      event.preventDefault();
      show(to);
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [before, after]);
  const step = (/** @type {Moment | undefined} */ to, /** @type {string} */ sign, /** @type {string} */ name, /** @type {string} */ key) =>
    html`<button type="button" aria-label=${`The window ${name}`} data-tip=${`The window ${name} (Shift and ${key})`} disabled=${!to} onClick=${() => show(to)}>${sign}</button>`;
  const nearOne = (/** @type {Moment} */ moment, /** @type {number} */ number) =>
    html`${number ? " and " : ""}<button type="button" class="small" onClick=${() => show(moment)}>${moment.label}</button>`;
  const newest = all[all.length - 1];
  return html`
    <div class="picker" role="group" aria-label="Window">
      ${all.length > 0 && step(before, "‹", "before", "←")}
      ${isTimed ? html`<${Day} all=${all} place=${place} refuse=${refuse} />` : all.length > 0 && html`<${Numbered} all=${all} place=${place} />`}
      ${all.length > 0 && step(after, "›", "after", "→")}
      ${place < 0 && html`<span class="muted">${window.value?.label ?? ""}</span>`}
      ${newest && html`<button type="button" disabled=${place === newest.place} onClick=${() => show(newest)}>Newest</button>`}
      <button type="button" onClick=${paste}>Your own …</button>
      ${all.some(({ error }) => error !== undefined) && html`<${Menu} label="Largest errors"><${Worst} model=${model} all=${all} /><//>`}
    </div>
    ${refused && html`<p class="refused" role="alert">No window ends on ${refused.day}. The nearest are ${refused.near.map(nearOne)}.</p>`}
  `;
}

/** @param {number} at ms */
const dayOf = (at) => new Date(at).toISOString().slice(0, 10);

/**
 * The day of the window, and the windows of that day. A day without windows leads nowhere, and is refused.
 *
 * @param {{all: Moment[], place: number, refuse: (refusal: Refusal | undefined) => void}} props
 */
function Day({ all, place, refuse }) {
  const own = all[place];
  const choose = (/** @type {any} */ event) => {
    const start = Date.parse(event.currentTarget.value);
    if (!Number.isFinite(start)) return;
    const series = all.filter((moment) => moment.series === own?.series || !own);
    const first = series.find(({ at }) => at >= start);
    if (first && first.at < start + DAY) return void (refuse(undefined), show(first));
    const before = series.filter(({ at }) => at < start).pop();
    refuse({ day: timeLabel(start, DAY, 0), near: /** @type {Moment[]} */ ([before, first].filter(Boolean)) });
  };
  const same = own ? all.filter((moment) => dayOf(moment.at) === dayOf(own.at)) : [];
  const [first, last] = /** @type {[number, number]} */ (d3.extent(all, ({ at }) => at));
  return html`
    <label><span class="away">Date of the window</span><input type="date" value=${own ? dayOf(own.at) : ""} min=${dayOf(first)} max=${dayOf(last)} onChange=${choose} /></label>
    ${same.length > 1 && html`
      <select aria-label="Time of the window" value=${place} onChange=${(/** @type {any} */ event) => show(all[event.currentTarget.value])}>
        ${same.map((moment) => html`<option value=${moment.place} selected=${moment.place === place}>${moment.label.slice(11)}</option>`)}
      </select>`}
    ${same.length === 1 && html`<span class="muted">${own.label.slice(11)}</span>`}
  `;
}

/** @param {{all: Moment[], place: number}} props windows without times */
const Numbered = ({ all, place }) => html`
  <label>Window <input type="number" min="0" max=${all.length - 1} value=${place < 0 ? "" : place} onChange=${(/** @type {any} */ event) => event.currentTarget.value && show(all[event.currentTarget.value])} /></label>
  <span class="muted">of 0 to ${all.length - 1}</span>
`;

/** @param {{model: Model, all: Moment[]}} props */
const Worst = ({ model, all }) => html`
  <strong>The forecasts that were farthest off</strong>
  <ol class="worst">
    ${worstOf(all, N_WORST).map((moment) => html`<li><button type="button" class="small" onClick=${() => show(moment)}>${moment.label}</button> ${model.change(moment.error ?? 0)}</li>`)}
  </ol>
`;
