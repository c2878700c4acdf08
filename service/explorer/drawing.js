/** The pictures of the service, brought into the page and made to answer. */

import { askText } from "./api.js";
import { byId, h } from "./dom.js";
import { edgeKey } from "./graph.js";

/** @typedef {import("./api.js").Ask} Ask */

/**
 * A picture in the page.
 *
 * @typedef {object} Drawing
 * @property {SVGSVGElement} root
 * @property {string} text as the service sent it
 */

/**
 * Fetches a picture; its parts say what they are to screen readers alone, since `explain` says it to all others.
 *
 * @param {Ask} ask
 * @param {AbortSignal} signal
 * @returns {Promise<Drawing>}
 */
export async function fetchDrawing(ask, signal) {
  const text = await askText({ ...ask, accept: "image/svg+xml" }, signal);
  const parsed = new DOMParser().parseFromString(text, "image/svg+xml");
  const root = /** @type {SVGSVGElement} */ (
    /** @type {unknown} */ (document.importNode(parsed.documentElement, true))
  );
  for (const title of root.querySelectorAll("g > title")) title.remove();
  return { root, text };
}

/**
 * Has the parts of a network answer: told of on hover and focus, with what they are joined to; opened on click.
 *
 * @param {SVGSVGElement} root
 * @param {(part: SVGGElement) => string[]} tell lines about a part, its name first; none where there is nothing to say
 * @param {(key: string) => void} open an edge
 * @returns {HTMLElement} what holds the picture and listens: an SVG element that does is itself a stop of the tab key
 */
export function enliven(root, tell, open) {
  const edges = /** @type {SVGGElement[]} */ ([...root.querySelectorAll("g.edge")]);
  for (const edge of edges) if (edge.dataset.kind === "edge") edge.setAttribute("role", "link");
  /** @param {Event} event */
  const partOf = (event) =>
    /** @type {SVGGElement | null} */ (
      event.target instanceof Element ? event.target.closest("g.node,g.edge,g.folded") : null
    );
  /** @param {SVGGElement | null} part */
  const light = (part) => {
    const lit = part ? edges.filter((edge) => edge === part || isJoined(edge, part.dataset.node)) : [];
    root.classList.toggle("choosing", lit.length > 0);
    for (const edge of edges) edge.classList.toggle("lit", lit.includes(edge));
  };
  /** @param {Event} event */
  const point = (event) => {
    const part = partOf(event);
    light(part);
    if (part) showHint(part, tell(part), event instanceof PointerEvent ? event : null);
    else hideHint();
  };
  /** @param {Event} event */
  const follow = (event) => {
    const part = partOf(event);
    if (part?.dataset.kind === "edge") open(edgeKey(/** @type {any} */ (part.dataset)));
  };
  const leave = () => {
    light(null);
    hideHint();
  };
  /** @param {KeyboardEvent} event */
  const press = (event) => {
    if (event.key === "Enter") follow(event);
    if (event.key === "Escape") leave();
  };
  return h(
    "div",
    {
      onpointerover: point,
      onfocusin: point,
      onpointerleave: leave,
      onfocusout: leave,
      onclick: follow,
      onkeydown: press,
    },
    root,
  );
}

/**
 * @param {SVGGElement} edge
 * @param {string | undefined} node
 */
function isJoined(edge, node) {
  return node !== undefined && (edge.dataset.source === node || edge.dataset.target === node);
}

/**
 * Shows a hint beside the pointer, or beside the part that has the focus.
 *
 * @param {Element} part
 * @param {string[]} lines the first is the name
 * @param {PointerEvent | null} pointer
 */
export function showHint(part, lines, pointer) {
  const hint = byId("hint");
  hint.replaceChildren(...lines.map((line, index) => h(index ? "div" : "strong", {}, line)));
  hint.hidden = lines.length === 0;
  const box = part.getBoundingClientRect();
  const [x, y] = pointer ? [pointer.clientX, pointer.clientY] : [box.left + box.width / 2, box.bottom];
  const { offsetWidth: width, offsetHeight: height } = hint;
  hint.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
  hint.style.top = `${y + 14 + height > innerHeight ? Math.max(8, y - height - 14) : y + 14}px`;
}

/** Takes the hint away. */
export function hideHint() {
  byId("hint").hidden = true;
}
