/** The picture as a table, for those who can't see it, and to read numbers from: what enters and leaves each node. */

import { Table } from "../history/table.js";
import { html } from "../lib.js";
import { part } from "../lit.js";

const LONGEST = 200; // rows

/** @param {{model: import("../model.js").Model, network: import("./network.js").Network, amounts: import("./amounts.js").Amounts}} props */
export function FlowTable({ model, network, amounts }) {
  const write = (/** @type {number | undefined} */ value) => (value === undefined || Number.isNaN(value) ? "unknown" : amounts.isSigned ? model.change(value) : model.size(value));
  const shown = d3.sort(d3.range(network.nodes.length), (node) => network.nodes[node].column, (node) => -network.nodes[node].weight).slice(0, LONGEST);
  const sum = (/** @type {number[]} */ edges) => edges.reduce((total, edge) => total + amounts.edges[edge], 0); // NaN if one is
  const through = (/** @type {number[]} */ edges, /** @type {number} */ node) => write(edges.length ? sum(edges) : amounts.nodes[node]);
  const rows = shown.map((number) => {
    const { id, label, from, to, part: name } = network.nodes[number];
    return { of: { key: id, ...part(name, { pick: false }) }, cells: [label, through(from, number), through(to, number)] };
  });
  return html`<details class="flow-table">
    <summary>The same as a table</summary>
    <${Table} label="What flows through each node" heads=${["Node", "In", "Out"]} rows=${rows} />
  </details>`;
}
