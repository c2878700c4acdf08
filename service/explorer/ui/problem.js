/** What can't be shown and why, with the way on; and that the model was replaced while it was looked at. */

import { reasonOf } from "../api.js";
import { html } from "../lib.js";
import { replaced } from "../load.js";

/** @param {{error: unknown, again: () => void, models?: any, isPart?: boolean}} props `isPart` where the rest of the page is there */
export function Problem({ error, again, models, isPart = false }) {
  const ready = (models?.details ?? []).filter((one) => one.ready);
  return html`
    <div class="card problem" role="alert">
      ${!isPart && html`<h1>This can't be shown</h1>`}
      <p>${reasonOf(error)}</p>
      <button type="button" class="main" onClick=${again}>Try again</button>
      ${
        ready.length > 0 &&
        html`
          <p>Models that are ready:</p>
          <ul>${ready.map(({ name }) => html`<li><a href=${`#/forecast?model=${encodeURIComponent(name)}`}>${name}</a></li>`)}</ul>
        `
      }
    </div>
  `;
}

export function Replaced() {
  if (!replaced.value) return null;
  return html`
    <p class="banner" role="status">
      The model ${replaced.value} was replaced while you looked at it: all numbers are now those of the new one.
      <button type="button" onClick=${() => (replaced.value = undefined)}>Understood</button>
    </p>
  `;
}
