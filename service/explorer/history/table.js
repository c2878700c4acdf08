/** A table of figures, of which the first in each row is its name; one that is too wide scrolls at its place. */

import { html } from "../lib.js";

/**
 * Rows with attributes of theirs, the class of the table (`cards` where rows are cards on a phone) and that of its place.
 *
 * @typedef {{label: string, heads: unknown[], class?: string, place?: string,
 *   rows: {of?: Record<string, string | undefined>, cells: unknown[]}[]}} Props
 */

/** @param {Props} props */
export const Table = ({ label, heads, rows, class: name = "", place = "" }) => html`
  <div class=${`scroll ${place}`} tabindex="0" role="region" aria-label=${label}><table class=${name}>
    <thead><tr>${heads.map((head, column) => html`<th scope="col" class=${column ? "number" : ""}>${head}</th>`)}</tr></thead>
    <tbody>${rows.map(({ of = {}, cells: [first, ...cells] }) => html`<tr ...${of}>
      <th scope="row">${first}</th>
      ${cells.map((cell, column) => html`<td class="number" data-label=${heads[column + 1]}>${cell}</td>`)}
    </tr>`)}</tbody>
  </table></div>
`;
