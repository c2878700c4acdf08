/** Restriction of the network to the paths through one node, found by name or chosen in the picture. */

import { breakable, h } from "./dom.js";
import { percent } from "./figures.js";
import { askTopology } from "./graph.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {Schemas["TopologyResponse"]} Topology */
/** @typedef {Schemas["GraphNode"]} Node */

/**
 * The node of an address, if the shown output has it.
 *
 * @param {Record<string, string>} values
 * @param {string} output
 */
export function chosenNode({ through }, output) {
  return through?.startsWith("output:") && through !== `output:${output}` ? undefined : through;
}

/**
 * The search field for a node, and the status of the chosen one.
 *
 * @param {import("./app.js").Page} page
 */
export function pathsControl(page) {
  const names = h("datalist", { id: "nodes" });
  const input = h("input", {
    ...{ type: "search", id: "find", list: "nodes", placeholder: "a feature or node", autocomplete: "off" },
    onfocus: () => void list(),
    onchange: () => void find(input.value.trim()),
  });
  const said = h("p", { role: "status", class: "muted paths-said" });
  const leave = h("button", { type: "button", hidden: true, onclick: () => page.set({ through: "" }) }, "Show all");
  const element = h(
    "div",
    { class: "paths" },
    h("label", { for: "find" }, "Only the paths through"),
    input,
    names,
    leave,
    said,
  );

  const list = async () => {
    const nodes = (await askTopology(page)).nodes.filter(({ kind }) => kind !== "subnode");
    names.replaceChildren(...nodes.map(({ label }) => h("option", { value: label })));
    return nodes;
  };
  /** @param {string} text */
  const find = async (text) => {
    const node = text ? match(await list(), text) : undefined;
    if (node || !text) page.set({ through: node?.id ?? "" });
    else said.textContent = `No node or feature has “${text}” in its name.`;
  };
  /**
   * @param {string | undefined} through id of the chosen node
   * @param {Topology} topology the part on its paths, without the node itself if it is pruned
   */
  const set = (through, topology) => {
    const node = topology.nodes.find(({ id }) => id === through);
    const name = node?.label ?? through?.replace(":", " ") ?? "";
    leave.hidden = !through;
    input.value = name;
    said.textContent = through ? tellPaths(name, Boolean(node?.kept), topology) : "";
  };
  return { element, set };
}

/**
 * The node of a name: an exact match, or one that starts with it, or one that contains it.
 *
 * @param {Node[]} nodes
 * @param {string} text
 */
function match(nodes, text) {
  const wanted = text.toLowerCase();
  const tests = [
    (/** @type {string} */ name) => name === wanted,
    (/** @type {string} */ name) => name.startsWith(wanted),
    (/** @type {string} */ name) => name.includes(wanted),
  ];
  for (const test of tests) {
    const found = nodes.find(({ id, label }) => test(label.toLowerCase()) || test(id.toLowerCase()));
    if (found) return found;
  }
  return undefined;
}

/**
 * @param {string} name
 * @param {boolean} kept
 * @param {Topology} topology
 */
function tellPaths(name, kept, { edges, graph }) {
  if (!kept) return `${name} is pruned: no kept path leads through it.`;
  const taking = edges.filter(({ kind }) => kind === "edge").length;
  return `${name} takes part in ${taking} of ${graph.edges.total} edges. Escape shows all again.`;
}

/**
 * The share of a feature in an edge's input: its share in the profile of the edge's source.
 *
 * @param {Topology} topology
 * @param {string | undefined} through id of the chosen node
 * @returns {{name: string, share: (edge: {source: string}) => number} | undefined} undefined if it is not a feature
 */
export function sharesOf({ nodes }, through) {
  const feature = nodes.find(({ id, kind }) => id === through && kind === "feature");
  if (!feature) return undefined;
  const profiles = new Map(nodes.map(({ id, profile }) => [id, profile?.[feature.label] ?? 0]));
  return { name: feature.label, share: ({ source }) => (source === through ? 1 : (profiles.get(source) ?? 0)) };
}

/**
 * The profile of an edge's input, each feature with a link to its paths and the lags at which most of it is read.
 *
 * @param {Node | undefined} source of the edge
 * @param {(node: string) => string} link to the paths through a node
 * @param {Map<string, string>} short names of features
 */
export function tellMakers(source, link, short) {
  const makers = Object.entries(source?.kind === "feature" ? { [source.label]: 1 } : (source?.profile ?? {}));
  return makers.map(([name, share]) =>
    h(
      "tr",
      { "data-feature": name },
      h("td", {}, h("a", { href: link(`feature:${name}`), title: name }, ...breakable(short.get(name) ?? name))),
      h("td", { class: "number" }, percent(share)),
      h("td", {}, tellLags(source?.lags?.[name])),
    ),
  );
}

/**
 * When a feature is read, as in at lags 0 to 5; empty if it is not known.
 *
 * @param {Schemas["LagShares"] | undefined} lags
 */
export function tellLags(lags) {
  if (!lags) return "";
  const { newest, oldest } = lags;
  return newest === oldest ? `at lag ${newest}` : `at lags ${newest} to ${oldest}`;
}
