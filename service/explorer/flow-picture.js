/** The picture of a network with the contributions (conductance) of all edges and nodes to one forecast. */

import { h, table } from "./dom.js";
import { amount, signed } from "./figures.js";
import { edgeKey, labelsOf, nameEdge } from "./graph.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./flow.js").Flow} Flow */

const THICK = 6; // width of the strongest edge
const THIN = 0.6;
const DOT = 9; // radius of the feature that adds most
const MIN_DOT = 2;

/**
 * Sets colour and width of each part of the picture by its contribution, replacing those of another forecast.
 *
 * @param {SVGSVGElement} root
 * @param {Flow} flow
 * @param {Record<string, number>} contributions of the features
 */
export function colorFlow(root, flow, contributions) {
  root.classList.add("flowing");
  const strongest = largest(flow.edges.values());
  for (const edge of edgesOf(root)) {
    const value = flow.edges.get(edgeKey(/** @type {any} */ (edge.dataset))) ?? 0;
    paint(edge, value);
    const width = THIN + (THICK - THIN) * (Math.abs(value) / strongest);
    for (const link of edge.querySelectorAll(".link")) link.setAttribute("stroke-width", width.toFixed(2));
  }
  const passing = new Map(flow.nodes.map(({ id, incoming }) => [id, incoming]));
  const farthest = largest(Object.values(contributions));
  for (const node of /** @type {NodeListOf<SVGGElement>} */ (root.querySelectorAll("g.node"))) {
    const id = node.dataset.node ?? "";
    const value = contributions[id.replace(/^feature:/, "")] ?? passing.get(id);
    if (value !== undefined) paint(node, value);
    const dot = id.startsWith("feature:") && value !== undefined && node.querySelector("circle:not(.hit)");
    if (dot) dot.setAttribute("r", (MIN_DOT + (DOT - MIN_DOT) * Math.sqrt(Math.abs(value) / farthest)).toFixed(2));
  }
}

/**
 * @param {Element} part
 * @param {number} value
 */
function paint(part, value) {
  part.classList.toggle("down", value < 0);
  part.classList.toggle("up", value >= 0);
}

/** @param {SVGSVGElement} root */
function edgesOf(root) {
  return /** @type {NodeListOf<SVGGElement>} */ (root.querySelectorAll("g.edge[data-kind=edge]"));
}

/** @param {Iterable<number>} values */
function largest(values) {
  return Math.max(...[...values].map(Math.abs), Number.MIN_VALUE);
}

/**
 * A sentence on the share of contributions that the picture shows, and on completeness at the nodes.
 *
 * @param {SVGSVGElement} root
 * @param {Flow} flow
 * @param {Schemas["TopologyResponse"]} topology
 * @param {string | null} unit
 */
export function tellCarried(root, flow, topology, unit) {
  const into = `output:${topology.graph.output}`;
  const drawn = [...edgesOf(root)]
    .filter(({ dataset }) => dataset.target === into)
    .reduce((sum, { dataset }) => sum + (flow.edges.get(edgeKey(/** @type {any} */ (dataset))) ?? 0), 0);
  const total = flow.nodes.find(({ id }) => id === into)?.outgoing;
  const apart = Math.max(0, ...flow.nodes.map(({ incoming, outgoing }) => Math.abs(incoming - outgoing)));
  return (
    `Colour and width show an edge's contribution to this forecast. At every node listed, incoming and outgoing ` +
    `contributions are equal within ${amount(apart, unit)}. ` +
    (total === undefined
      ? "Operations between the layers (dashed) lead into the output."
      : `The edges drawn carry ${signed(drawn, unit)} of ${signed(total, unit)} into the output.`)
  );
}

/**
 * @param {Flow} flow
 * @param {Schemas["TopologyResponse"]} topology
 * @param {Record<string, number>} contributions of the features
 * @param {string | null} unit
 * @returns {(part: SVGGElement) => string[]}
 */
export function flowTeller(flow, topology, contributions, unit) {
  const labels = labelsOf(topology);
  const nodes = new Map(flow.nodes.map((node) => [node.id, node]));
  return ({ dataset }) => {
    const { node: id, kind, source = "", target = "" } = dataset;
    const node = id === undefined ? undefined : nodes.get(id);
    if (node) return [node.label, `in ${signed(node.incoming, unit)}`, `out ${signed(node.outgoing, unit)}`];
    const feature = id?.replace(/^feature:/, "") ?? "";
    if (Object.hasOwn(contributions, feature)) return [feature, `adds ${signed(contributions[feature], unit)}, over all steps`];
    if (kind !== "edge") return [];
    const value = flow.edges.get(edgeKey(/** @type {any} */ (dataset))) ?? 0;
    return [nameEdge({ source, target }, labels), `adds ${signed(value, unit)}`];
  };
}

/**
 * @param {Flow} flow
 * @param {string | null} unit
 */
export function tellFlow({ nodes }, unit) {
  const rows = nodes.map(({ id, label, incoming, outgoing }) =>
    h(
      "tr",
      { "data-node": id },
      h("th", { scope: "row" }, label),
      h("td", { class: "number" }, signed(incoming, unit)),
      h("td", { class: "number" }, signed(outgoing, unit)),
      h("td", { class: "number muted" }, amount(Math.abs(incoming - outgoing))),
    ),
  );
  return table(["Node", "In", "Out", "Apart"], rows);
}
