/** SVG pictures of the service, made interactive: hints, keyboard navigation and links. */

import { askText } from "./api.js";
import { h } from "./dom.js";
import { edgeKey } from "./graph.js";
import { hideHint, showHint } from "./hint.js";

/** @typedef {import("./api.js").Ask} Ask */

const TURNS = ["ArrowUp", "ArrowDown"];

/**
 * A picture in the page.
 *
 * @typedef {object} Drawing
 * @property {SVGSVGElement} root
 * @property {string} text as the service sent it
 */

/**
 * Fetches a picture; the titles of its parts are kept only for screen readers, because `enliven` shows hints instead.
 *
 * @param {Ask} ask
 * @param {AbortSignal} signal
 * @returns {Promise<Drawing>}
 */
export async function fetchDrawing(ask, signal) {
  const text = await askText({ ...ask, accept: "image/svg+xml" }, signal);
  const root = parseDrawing(text);
  for (const title of root.querySelectorAll("g > title")) title.remove();
  return { root, text };
}

/**
 * A picture of the service as an element.
 *
 * @param {string} text SVG
 */
export function parseDrawing(text) {
  const parsed = new DOMParser().parseFromString(text, "image/svg+xml");
  return /** @type {SVGSVGElement} */ (/** @type {unknown} */ (document.importNode(parsed.documentElement, true)));
}

/**
 * Makes the parts of a network interactive: a hint on hover, tap and focus; a link on click.
 *
 * @param {SVGSVGElement} root
 * @param {(part: SVGGElement) => string[]} tell lines about a part, its name first; empty for no hint
 * @param {(key: string) => void} open an edge
 * @param {(part: Element) => void} [reveal] scrolls to the part with the focus
 * @param {(node: string) => void} [choose] a node, by its id
 * @returns {HTMLElement} the container of the picture, which has the listeners: an SVG element with listeners would be
 *   a tab stop
 */
export function enliven(root, tell, open, reveal = () => {}, choose) {
  for (const edge of root.querySelectorAll("g.edge[data-kind=edge]")) edge.setAttribute("role", "link");
  if (choose) for (const node of root.querySelectorAll("g.node")) node.setAttribute("role", "button");
  for (const text of root.querySelectorAll("g[aria-label] > text")) {
    const part = /** @type {Element} */ (text.parentElement);
    if (text.textContent?.includes("…")) part.setAttribute("aria-label", `${part.getAttribute("aria-label")}; shown as ${text.textContent}`);
  }
  const move = roveIn(root);
  /** @param {Event} event */
  const partOf = (event) =>
    /** @type {SVGGElement | null} */ (
      event.target instanceof Element ? event.target.closest("g.node,g.edge,g.folded") : null
    );
  /** @param {Event} event */
  const point = (event) => {
    const part = partOf(event);
    if (part) showHint(part, tell(part), [...root.querySelectorAll(".edge.linked")]);
    else hideHint();
    if (part && event.type === "focusin") reveal(part);
  };
  /** @param {Event} event */
  const follow = (event) => {
    const part = partOf(event);
    if (part?.dataset.kind === "edge") open(edgeKey(/** @type {any} */ (part.dataset)));
    else if (part?.dataset.node !== undefined) choose?.(part.dataset.node);
  };
  /** @param {KeyboardEvent} event */
  const press = (event) => {
    if (event.key === "Enter") follow(event);
    if (event.key === "Escape") hideHint();
    if (move(event.key)) event.preventDefault();
  };
  return h(
    "div",
    {
      onpointerover: point,
      onfocusin: point,
      onpointerleave: hideHint,
      onfocusout: hideHint,
      onclick: follow,
      onkeydown: press,
    },
    root,
  );
}

/**
 * Makes a picture a single tab stop with arrow-key navigation (roving tabindex): left and right through all parts in
 * reading order, up and down to the nearest part, Home and End to the first and the last.
 *
 * @param {SVGSVGElement} root
 * @returns {(key: string) => boolean} moves the focus, and returns whether the key was handled
 */
function roveIn(root) {
  const parts = /** @type {SVGGElement[]} */ ([...root.querySelectorAll("g[tabindex='0']")]);
  for (const part of parts.slice(1)) part.setAttribute("tabindex", "-1");
  return (key) => {
    const from = parts.findIndex((part) => part === document.activeElement);
    if (from < 0) return false;
    const to = TURNS.includes(key) ? nearestTo(parts, from, key === "ArrowUp") : stepFrom(parts, from, key);
    if (to === undefined) return false;
    for (const part of parts) part.setAttribute("tabindex", "-1");
    to.setAttribute("tabindex", "0");
    to.focus({ preventScroll: false });
    return true;
  };
}

/**
 * @param {SVGGElement[]} parts
 * @param {number} from
 * @param {string} key
 */
function stepFrom(parts, from, key) {
  /** @type {Record<string, number>} */
  const places = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
  if (!(key in places)) return undefined;
  const ordered = parts.map((part) => ({ part, ...middleOf(part) })).sort((a, b) => a.y - b.y || a.x - b.x);
  const at = ordered.findIndex(({ part }) => part === parts[from]) + places[key];
  return ordered[Math.max(0, Math.min(ordered.length - 1, at))].part;
}

/**
 * @param {SVGGElement[]} parts
 * @param {number} from
 * @param {boolean} up
 */
function nearestTo(parts, from, up) {
  const start = middleOf(parts[from]);
  const away = parts
    .map((part) => ({ part, ...middleOf(part) }))
    .map(({ part, x, y }) => ({ part, on: (y - start.y) * (up ? -1 : 1), aside: Math.abs(x - start.x) }))
    .filter(({ on }) => on > 2);
  away.sort((a, b) => a.on + 2 * a.aside - (b.on + 2 * b.aside));
  return (away[0] ?? { part: parts[from] }).part;
}

/**
 * The position of a part; of an edge, that of its box.
 *
 * @param {SVGGElement} part
 */
function middleOf(part) {
  const { left, top, width, height } = (part.querySelector("rect,circle,text") ?? part).getBoundingClientRect();
  return { x: Math.round(left + width / 2), y: Math.round(top + height / 2) };
}
