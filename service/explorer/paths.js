/** The paths through one node: found by its name, chosen in the picture, and left again. */

import { askJson } from "./api.js";
import { h } from "./dom.js";
import { percent } from "./figures.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {Schemas["TopologyResponse"]} Topology */
/** @typedef {Schemas["GraphNode"]} Node */

/**
 * The node of an address, if the output that is shown has it.
 *
 * @param {Record<string, string>} values
 * @param {string} output
 */
export function chosenNode({ through }, output) {
  return through?.startsWith("output:") && through !== `output:${output}` ? undefined : through;
}

/**
 * Search for a node, and what says which one is chosen.
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
  const leave = h("button", { type: "button", onclick: () => page.set({ through: "" }) }, "Show all");
  const element = h(
    "div",
    { class: "paths" },
    h("label", { for: "find" }, "Only the paths through"),
    input,
    names,
    leave,
    said,
  );

  /** @type {Promise<Node[]> | undefined} */
  let all;
  const list = async () => {
    all ??= askNodes(page);
    const nodes = await all;
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
   * @param {Topology} topology what is on its paths, and not even the node where the rule prunes it
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
 * @param {import("./app.js").Page} page
 * @returns {Promise<Node[]>}
 */
async function askNodes(page) {
  const ask = { path: `${page.path}/topology`, query: { ...page.query, pruned: false } };
  const { nodes } = /** @type {Topology} */ (await askJson(ask));
  return nodes.filter(({ kind }) => kind !== "subnode");
}

/**
 * The node of a name: that has it, or that begins with it, or else has it somewhere.
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
  if (!kept) return `The rule prunes ${name}: no path that it keeps leads through it.`;
  const taking = edges.filter(({ kind }) => kind === "edge").length;
  return `${name} takes part in ${taking} of ${graph.edges.total} edges. Escape shows all again.`;
}

/**
 * How much of an edge's input comes from a feature: its share in the node that the edge leaves.
 *
 * @param {Topology} topology
 * @param {string | undefined} through id of the chosen node
 * @returns {{name: string, share: (edge: {source: string}) => number} | undefined} nothing where it is no feature
 */
export function sharesOf({ nodes }, through) {
  const feature = nodes.find(({ id, kind }) => id === through && kind === "feature");
  if (!feature) return undefined;
  const profiles = new Map(nodes.map(({ id, profile }) => [id, profile?.[feature.label] ?? 0]));
  return { name: feature.label, share: ({ source }) => (source === through ? 1 : (profiles.get(source) ?? 0)) };
}

/**
 * What the input of an edge is made of, each feature with the way to all its edges.
 *
 * @param {Node | undefined} source of the edge
 * @param {(node: string) => string} link to the paths through a node
 */
export function tellMakers(source, link) {
  const makers = Object.entries(source?.kind === "feature" ? { [source.label]: 1 } : (source?.profile ?? {}));
  return makers.map(([name, share]) =>
    h(
      "tr",
      {},
      h("td", {}, h("a", { href: link(`feature:${name}`) }, name)),
      h("td", { class: "number" }, percent(share)),
    ),
  );
}
