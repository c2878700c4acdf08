/**
 * One selection in all of the page: what is under the pointer, has the focus or is chosen, with all that belongs to it.
 *
 * Whatever shows a feature, a step, a node or an edge says so, and need do no more: `data-feature` has its name, or those
 * of several in a line each, such as of a group,
 * `data-step` how far it is from the newest (0, −1, …), `data-node` the node's id, `data-edge` the edge's key
 * (`head/0/7/3`). Elements that belong to the selection get the class `linked`, with the CSS variable `--share` for how
 * much they do, others of the same kinds `apart`. A click, or Enter, chooses; the choice is `pick` in the address.
 */

import "./vendor/d3.min.js";
import { h } from "./dom.js";
import { edgeKey, labelsOf, nameEdge, nameNode } from "./graph.js";
import { readState, writeState } from "./state.js";

/** @typedef {import("./api.js").Schemas["TopologyResponse"]} Topology */
/** @typedef {{feature?: string, step?: number, node?: string, edge?: string}} Part what an element shows */
/** @typedef {Part & {source?: string, target?: string}} Shown the same with the ends of an edge, if it says them */

/**
 * What belongs to a selection: shares from 0 to 1 of features, nodes and edges; without a map that kind is left as it is.
 *
 * @typedef {object} Linked
 * @property {(name: string) => number} [feature]
 * @property {(step: number) => number} [step]
 * @property {(id: string) => number} [node]
 * @property {(key: string, source: string, target: string) => number} [edge]
 */

const SHOWN = "[data-feature],[data-step],[data-node],[data-edge],g.edge[data-stage]";
const OWN_CLICK = "a,button,input,select,textarea,label,summary,[role=link],[role=button]";
const DRAGGED = 4; // pixels that the pointer moves in a click at most
const IN_CROSS = 0.5; // share of a cell in the row or the column of the chosen one

/** @type {Topology | undefined} which says what nodes read and edges join */
let network;
/** @type {Map<string, Topology["edges"][number]>} its edges by their keys */
let edges = new Map();
/** @type {Part | undefined} under the pointer, or with the focus */
let pointed;
/** @type {Part | undefined} of the address */
let picked;
/** @type {HTMLElement | undefined} */
let place;
/** @type {{element: HTMLElement | SVGElement, data: Shown}[] | undefined} all that show a part, unless they have changed */
let elements;
let isWaiting = false; // whether marks are to be set in the next frame
let isMarked = false;

/**
 * Makes all elements of a place, now and later, parts of the selection.
 *
 * @param {HTMLElement} within
 * @param {HTMLElement} status says what is chosen
 */
export function linkParts(within, status) {
  place = within;
  const point = (/** @type {Event} */ event) => {
    const part = readPart(event.target);
    if (writePick(part) === writePick(pointed)) return;
    pointed = part;
    mark();
  };
  const leave = () => {
    pointed = undefined;
    mark();
  };
  let down = [0, 0];
  const choose = (/** @type {Event} */ event) => {
    const { target } = event;
    const part = readPart(target);
    if (!part || event.defaultPrevented || !(target instanceof Element) || target.closest(OWN_CLICK)) return;
    pick(event.type === "click" && writePick(part) === writePick(picked) ? undefined : part);
  };
  const listen = (/** @type {string} */ name, /** @type {(event: any) => void} */ act) =>
    within.addEventListener(name, act, { capture: name !== "click" && name !== "keydown" });
  listen("pointerover", point);
  listen("focusin", point);
  within.addEventListener("pointerleave", leave);
  listen("focusout", leave);
  listen("pointerdown", ({ clientX, clientY }) => (down = [clientX, clientY]));
  listen("click", (event) => {
    if (Math.hypot(event.clientX - down[0], event.clientY - down[1]) <= DRAGGED || !event.detail) choose(event);
  });
  listen("keydown", (event) => event.key === "Enter" && choose(event));
  document.addEventListener("keydown", ({ key }) => key === "Escape" && picked && pick(undefined));
  const pick = (/** @type {Part | undefined} */ part) => {
    const { view, values } = readState(location.hash);
    history.replaceState(history.state, "", writeState({ view, values: { ...values, pick: writePick(part) } }));
    readPicked();
  };
  const readPicked = () => {
    picked = readPick(readState(location.hash).values.pick ?? "");
    carryPick(writePick(picked));
    status.replaceChildren(...(picked ? tellPicked(picked, () => pick(undefined)) : []));
    status.hidden = !picked;
    mark();
  };
  new MutationObserver(() => {
    elements = undefined;
    if (pointed || picked || isMarked) markSoon();
  }).observe(within, { childList: true, subtree: true });
  addEventListener("hashchange", readPicked);
  readPicked();
  return readPicked;
}

/**
 * Tells what the nodes of the shown network read, and what its edges join.
 *
 * @param {Topology | undefined} topology
 */
export function relate(topology) {
  network = topology;
  edges = new Map(topology?.edges.map((edge) => [edgeKey(edge), edge]));
  if (pointed || picked) markSoon();
}

/**
 * What an element, or the one around it, shows.
 *
 * @param {EventTarget | null} target
 * @returns {Part | undefined}
 */
function readPart(target) {
  const element = target instanceof Element ? target.closest(SHOWN) : null;
  if (!element) return undefined;
  const { feature, step, node, edge } = readData(/** @type {HTMLElement} */ (element));
  return { feature, step, node, edge };
}

/**
 * @param {HTMLElement | SVGElement} element
 * @returns {Shown}
 */
function readData({ dataset: { feature, step, node, edge, stage, layer, i, j, source, target } }) {
  if (node?.startsWith("feature:")) return { feature: node.slice("feature:".length) };
  const key = stage && layer && i && j ? edgeKey({ stage, layer, i, j }) : edge;
  return { feature, step: step === undefined ? undefined : Number(step), node, edge: key, source, target };
}

/**
 * A part as the address has it, such as `step:-3,feature:temp_c`, `node:lstm:7` or `edge:head/0/7/3`.
 *
 * @param {Part | undefined} part
 */
function writePick(part) {
  const kinds = /** @type {const} */ (["step", "feature", "node", "edge"]);
  return kinds.flatMap((kind) => (part?.[kind] === undefined ? [] : [`${kind}:${part[kind]}`])).join(",");
}

/**
 * @param {string} text
 * @returns {Part | undefined}
 */
export function readPick(text) {
  const [, step, kind, name] = /^(?:step:(-?\d+))?,?(?:(feature|node|edge):(.+))?$/s.exec(text) ?? [];
  if (step === undefined && kind === undefined) return undefined;
  return { step: step === undefined ? undefined : Number(step), ...(kind ? { [kind]: name } : {}) };
}

/**
 * Lets all links within the page have the choice.
 *
 * @param {string} chosen
 */
function carryPick(chosen) {
  for (const link of document.querySelectorAll('a[href^="#/"][href*="?"]')) {
    const { view, values } = readState(link.getAttribute("href") ?? "");
    if ((values.pick ?? "") !== chosen) link.setAttribute("href", writeState({ view, values: { ...values, pick: chosen } }));
  }
}

/**
 * @param {Part} part
 * @param {() => void} clear
 */
function tellPicked({ feature, step, node, edge }, clear) {
  const labels = labelsOf(network ?? { nodes: [] });
  const found = edge && edges.get(edge);
  const name = feature?.replaceAll("\n", ", ") ?? (node ? (labels.get(node) ?? nameNode(node)) : found ? nameEdge(found, labels) : edge);
  const when = step === undefined ? undefined : step ? `${-step} step${step === -1 ? "" : "s"} before the newest` : "the newest step";
  const { values } = readState(location.hash);
  const to = (/** @type {string} */ label, /** @type {string} */ view, /** @type {Record<string, string>} */ more) =>
    h("a", { href: writeState({ view, values: { ...values, ...more } }) }, label);
  const through = feature === undefined ? node : feature.includes("\n") ? undefined : `feature:${feature}`;
  return [
    h("strong", {}, [name, when].filter(Boolean).join(", ")),
    through ? to("its paths", "network", { through }) : null,
    edge ? to("its function", "edge", { edge }) : null,
    h("button", { type: "button", class: "small", onclick: clear }, "Clear"),
  ].filter((child) => child !== null);
}

function markSoon() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    mark();
  });
}

/** Marks what belongs to the part under the pointer, or else to the chosen one. */
function mark() {
  const part = pointed ?? picked;
  const linked = part && linksOf(part);
  if (!linked && !isMarked) return;
  isMarked = Boolean(linked);
  elements ??= [.../** @type {Iterable<HTMLElement>} */ (place?.querySelectorAll(SHOWN) ?? [])].map((element) => ({
    element,
    data: readData(element),
  }));
  for (const { element, data } of elements) {
    const share = linked && shareOf(data, linked);
    element.classList.toggle("linked", Boolean(share));
    element.classList.toggle("apart", share === 0);
    if (share && share < 1) element.style.setProperty("--share", share.toFixed(3));
    else if (element.style.length) element.style.removeProperty("--share");
  }
}

/**
 * How much an element belongs to a selection; undefined if it shows nothing of that kind.
 *
 * @param {Shown} data
 * @param {Linked} linked
 */
function shareOf({ feature, step, node, edge, source, target }, linked) {
  if (edge !== undefined) {
    const ends = edges.get(edge);
    return linked.edge?.(edge, source ?? ends?.source ?? "", target ?? ends?.target ?? "");
  }
  if (node !== undefined) return linked.node?.(node);
  const { feature: share } = linked;
  const ofFeature = feature === undefined || !share ? undefined : Math.max(...feature.split("\n").map(share));
  const ofStep = step === undefined ? undefined : linked.step?.(step);
  if (ofFeature === undefined || ofStep === undefined) return ofFeature ?? ofStep;
  return ofFeature && ofStep ? ofFeature * ofStep : Math.max(ofFeature, ofStep) * IN_CROSS;
}

/**
 * @param {Part} part
 * @returns {Linked}
 */
function linksOf({ feature, step, node, edge }) {
  const ofStep = step === undefined ? {} : { step: (/** @type {number} */ other) => Number(other === step) };
  if (feature !== undefined) return { ...linksOfFeature(feature, step), ...ofStep };
  if (node !== undefined) return linksOfNode(node);
  if (edge !== undefined) return linksOfEdge(edge);
  return ofStep;
}

/**
 * The nodes that read features, by their share in what they are made of, and the edges that lead on from them. At a step
 * these are the nodes that read most of a feature around it.
 *
 * @param {string} feature a name in each line
 * @param {number | undefined} step
 * @returns {Linked}
 */
function linksOfFeature(feature, step) {
  const names = feature.split("\n");
  const own = names.map((name) => `feature:${name}`);
  const shares = new Map(
    network?.nodes.map(({ id, profile, lags }) => {
      const read = names.map((name) => {
        const run = lags?.[name];
        const isRead = step === undefined || !run || (-step >= run.newest && -step <= run.oldest);
        return isRead ? (profile?.[name] ?? 0) : 0;
      });
      return [id, d3.sum(read)];
    }),
  );
  const largest = Math.max(...shares.values()) || 1;
  const share = (/** @type {string} */ id) => (own.includes(id) ? 1 : (shares.get(id) ?? 0) / largest);
  return {
    feature: (other) => Number(names.includes(other)),
    ...(network && { node: share, edge: (_, source) => share(source) }),
  };
}

/**
 * The edges at a node, their other ends, and the features that it is made of.
 *
 * @param {string} id
 * @returns {Linked}
 */
function linksOfNode(id) {
  const joined = (/** @type {string} */ source, /** @type {string} */ target) => source === id || target === id;
  const ends = new Set([id, ...[...edges.values()].filter((edge) => joined(edge.source, edge.target)).flatMap(endsOf)]);
  return {
    ...ofProfile(id),
    node: (other) => Number(ends.has(other)),
    edge: (_, source, target) => Number(joined(source, target)),
  };
}

/**
 * An edge, its ends, and the features that its input is made of.
 *
 * @param {string} key
 * @returns {Linked}
 */
function linksOfEdge(key) {
  const edge = edges.get(key);
  const ends = new Set(edge && endsOf(edge));
  return { ...ofProfile(edge?.source ?? ""), node: (other) => Number(ends.has(other)), edge: (other) => Number(other === key) };
}

/** @param {{source: string, target: string}} edge */
function endsOf({ source, target }) {
  return [source, target];
}

/**
 * The features that a node is made of.
 *
 * @param {string} id
 * @returns {Linked}
 */
function ofProfile(id) {
  if (id.startsWith("feature:")) return { feature: (name) => Number(id === `feature:${name}`) };
  const profile = network?.nodes.find((node) => node.id === id)?.profile;
  if (!profile) return {};
  const largest = Math.max(...Object.values(profile)) || 1;
  return { feature: (name) => (profile[name] ?? 0) / largest };
}
