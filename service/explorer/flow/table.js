/** The picture as a table, for those who can't see it, and to read numbers from: what enters and leaves each node. */

import { html } from "../lib.js";
import { part } from "../lit.js";

const LONGEST = 200; // rows

/** @param {{model: import("../model.js").Model, network: import("./network.js").Network, amounts: import("./amounts.js").Amounts}} props */
export function FlowTable({ model, network, amounts }) {
  const write = (/** @type {number | undefined} */ value) => (value === undefined || Number.isNaN(value) ? "unknown" : amounts.isSigned ? model.change(value) : model.size(value));
  const sum = (/** @type {number[]} */ edges) => (edges.length ? d3.sum(edges, (edge) => (Number.isNaN(amounts.edges[edge]) ? NaN : amounts.edges[edge])) : undefined);
  const isKnown = (/** @type {number[]} */ edges) => edges.length > 0 && edges.every((edge) => !Number.isNaN(amounts.edges[edge]));
  const shown = d3.sort(d3.range(network.nodes.length), (node) => network.nodes[node].column, (node) => -network.nodes[node].weight).slice(0, LONGEST);
  return html`<details class="flow-table">
    <summary>The same as a table</summary>
    <div class="scroll" tabindex="0" role="region" aria-label="What flows through each node">
      <table>
        <thead><tr><th scope="col">Node</th><th scope="col" class="number">In</th><th scope="col" class="number">Out</th></tr></thead>
        <tbody>${shown.map((number) => {
          const { id, label, from, to, part: name } = network.nodes[number];
          return html`<tr key=${id} ...${part(name, { pick: false })}><th scope="row">${label}</th>
            <td class="number">${from.length ? write(isKnown(from) ? sum(from) : NaN) : write(amounts.nodes[number])}</td>
            <td class="number">${to.length ? write(isKnown(to) ? sum(to) : NaN) : write(amounts.nodes[number])}</td></tr>`;
        })}</tbody>
      </table>
    </div>
  </details>`;
}
