/**
 * The layers of a network, the coarsest of its pictures: what each is and how many nodes it has, which the model's
 * description knows before anything is computed, and then what is kept of it and which of its nodes contribute most.
 */

import { h } from "./dom.js";
import { amount } from "./figures.js";
import { distinctNames } from "./names.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {Schemas["TopologyResponse"]} Topology */
/** @typedef {Schemas["GraphNode"]} Node */
/** @typedef {{name: string, count: number, of: string, through?: string}} Layer how many of what, and edges into it */

const N_STRONGEST = 4; // nodes of a layer that are named
const NAMES = /** @type {Record<string, [string, string]>} */ ({
  feature: ["Features", "features"],
  front: ["Front layer", "nodes"],
  lstm: ["LSTM", "units"],
  gru: ["GRU", "units"],
  cell: ["All steps", "cells"],
  glue: ["Computed", "inputs"],
  head: ["Hidden layer", "nodes"],
  output: ["Output", "outputs"],
});

/**
 * The layers before they are computed, from the model's description.
 *
 * @param {Schemas["ModelInfo"]} model
 * @param {string} output
 */
export function drawStructure(model, output) {
  return h("ol", { class: "layers structure", "aria-label": "Layers of the network" }, ...layersOf(model, output).map(drawLayer));
}

/**
 * @param {Schemas["ModelInfo"]} model
 * @param {string} output
 * @returns {Layer[]}
 */
function layersOf({ features, lookback, architecture }, output) {
  const { front, lstm, gru, head, graph, readout } = /** @type {any} */ (architecture);
  const steps = lookback > 1 ? ` at ${lookback} steps` : "";
  const recurrent = lstm ?? gru;
  const name = lstm ? "LSTM" : "GRU";
  const of = (/** @type {number[]} */ width, /** @type {number} */ index) => `${width[index - 1] * width[index]} edges into them`;
  const [inputs, ...widths] = head.width;
  return [
    { name: "Features", count: features.length, of: `features${steps}` },
    ...(front?.width.slice(1).map((/** @type {number} */ count, /** @type {number} */ index) => ({
      ...{ name: `Front layer ${index + 1}`, count, of: "nodes, at every step", through: of(front.width, index + 1) },
    })) ?? []),
    ...(graph ? [{ name: "Graph", count: graph.length, of: "operations" }] : []),
    ...(recurrent ? [recurrent.hidden_size].flat().map((count) => ({ name, count, of: "units" })) : []),
    ...(!recurrent && inputs && readout === "flatten" ? [{ name: "All steps", count: inputs, of: "cells" }] : []),
    ...widths.slice(0, -1).map((/** @type {number} */ count, /** @type {number} */ index) => ({
      ...{ name: `Hidden layer ${index + 1}`, count, of: "nodes", through: of(head.width, index + 1) },
    })),
    { name: output, count: 1, of: "output", through: widths.length ? `${head.width.at(-2)} edges into it` : undefined },
  ];
}

/** @param {Layer} layer */
function drawLayer({ name, count, of, through }) {
  return h(
    "li",
    {},
    through ? h("p", { class: "muted way" }, through) : null,
    h("h3", {}, name),
    count === 1 && of === "output" ? null : h("p", {}, h("strong", {}, String(count)), ` ${of}`),
  );
}

/**
 * A name that may be broken after its separators.
 *
 * @param {string} name
 */
function breakable(name) {
  return name.split(/(?<=[_.\-/ ])/).flatMap((part) => [part, h("wbr")]);
}

/**
 * The layers with what is kept of them and their strongest nodes, each a link to its paths.
 *
 * @param {Topology} topology all of it
 * @param {string | null} unit
 * @param {(node: string) => string} link
 */
export function drawLayers(topology, unit, link) {
  /** @type {Map<string, Node[]>} */
  const layers = new Map();
  for (const node of topology.nodes) {
    const key = `${node.kind} ${node.layer}`;
    if (node.kind !== "subnode") layers.set(key, [...(layers.get(key) ?? []), node]);
  }
  const layerOf = new Map(topology.nodes.map(({ id, kind, layer }) => [id, `${kind} ${layer}`]));
  const products = new Map(topology.edges.flatMap((edge) => (edge.kind === "product" ? [[edge.source, edge.target]] : [])));
  const names = distinctNames((layers.get("feature 0") ?? []).map(({ label }) => label));
  return h(
    "ol",
    { class: "layers", "aria-label": "Layers of the network" },
    ...[...layers].map(([key, nodes]) => {
      const [{ kind, layer, label }] = nodes;
      const [name, plural] = NAMES[kind] ?? [kind, "nodes"];
      const kept = nodes.filter((node) => node.kept);
      const edges = topology.edges.filter(
        ({ kind, target }) => kind === "edge" && layerOf.get(products.get(target) ?? target) === key,
      );
      const strongest = [...kept].sort((a, b) => (b.contribution ?? 0) - (a.contribution ?? 0)).slice(0, N_STRONGEST);
      const largest = strongest[0]?.contribution ?? 0;
      const bar = (/** @type {Node} */ node) => {
        const share = largest ? (node.contribution ?? 0) / largest : 0;
        const element = h("span", { class: "bar", "aria-hidden": "true" });
        element.style.width = `${(share * 100).toFixed(1)}%`;
        return element;
      };
      return h(
        "li",
        {},
        edges.length
          ? h("p", { class: "muted way" }, `${edges.filter((edge) => edge.kept).length} of ${edges.length} edges kept`)
          : null,
        h("h3", {}, kind === "output" ? label : kind === "head" || kind === "front" ? `${name} ${layer}` : name),
        kind === "output" ? null : h("p", {}, h("strong", {}, String(kept.length)), ` of ${nodes.length} ${plural} kept`),
        kind === "output"
          ? null
          : h(
              "ul",
              { "aria-label": `Strongest ${plural}` },
              ...strongest.map((node) =>
                h(
                  "li",
                  { "data-node": node.id },
                  h("a", { href: link(node.id), title: node.label }, ...breakable(names.get(node.label) ?? node.label)),
                  h("span", { class: "number" }, amount(node.contribution, unit)),
                  bar(node),
                ),
              ),
            ),
      );
    }),
  );
}
