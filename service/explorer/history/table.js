/** A table of figures, of which the first in each row is its name; one that is too wide scrolls at its place. */

import { html } from "../lib.js";

/**
 * @typedef {object} Props
 * @property {string} label
 * @property {unknown[]} heads
 * @property {{of?: Record<string, string | undefined>, cells: unknown[]}[]} rows with attributes of theirs
 * @property {string} [class] of the table; `cards` where rows are cards on a phone
 * @property {string} [place] class of the place
 */

export const Table = ({ label, heads, rows, class: name = "", place = "" }) => html`
  <div class=${`scroll ${place}`} tabindex="0" role="region" aria-label=${label}><table class=${name}>
    <thead><tr>${heads.map((head, column) => html`<th scope="col" class=${column ? "number" : ""}>${head}</th>`)}</tr></thead>
    <tbody>${rows.map(({ of = {}, cells: [first, ...cells] }) => html`<tr ...${of}>
      <th scope="row">${first}</th>
      ${cells.map((cell, column) => html`<td class="number" data-label=${heads[column + 1]}>${cell}</td>`)}
    </tr>`)}</tbody>
  </table></div>
`;
