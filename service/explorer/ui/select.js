/** A choice with its label. */

import { html } from "../lib.js";

/** @param {{label: string, value?: string, options: {value: string, label: string}[], choose: (value: string) => void}} props */
export function Select({ label, value, options, choose }) {
  const change = (/** @type {any} */ event) => choose(event.currentTarget.value);
  return html`
    <label class="select">
      <span>${label}</span>
      <select value=${value} onChange=${change}>
        ${options.map((one) => html`<option value=${one.value} selected=${one.value === value}>${one.label}</option>`)}
      </select>
    </label>
  `;
}
