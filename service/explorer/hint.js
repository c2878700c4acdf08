/** The tooltip of the part of a picture under the pointer or the focus, placed so that it covers no highlighted part. */

import { byId, h } from "./dom.js";

const GAP = 10; // pixels between a hint and its part, and to the edge of the window

/** @typedef {{left: number, top: number, right: number, bottom: number}} Box */

/**
 * Shows a hint beside a part.
 *
 * @param {Element} part
 * @param {string[]} lines the first is the name
 * @param {Element[]} [lit] other parts that must stay visible
 */
export function showHint(part, lines, lit = []) {
  const hint = byId("hint");
  hint.replaceChildren(...lines.map((line, index) => h(index ? "div" : "strong", {}, line)));
  hint.hidden = lines.length === 0;
  const own = part.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = hint;
  const boxes = [own, ...lit.map((element) => element.getBoundingClientRect())];
  const cost = (/** @type {{left: number, top: number}} */ { left, top }, /** @type {number} */ index) => {
    const box = { left, top, right: left + width, bottom: top + height };
    return boxes.reduce((sum, other, number) => sum + shared(box, other) * (number ? 1 : 1e3), 0) + index;
  };
  const places = placesAround(own, boxes, width, height);
  const costs = places.map(cost);
  const { left, top } = places[costs.indexOf(Math.min(...costs))];
  hint.style.left = `${left}px`;
  hint.style.top = `${top}px`;
}

/**
 * The position of a hint inside the window, outside its part and all highlighted parts.
 *
 * @param {Box} own
 * @param {Box[]} boxes
 * @param {number} width
 * @param {number} height
 */
function placesAround(own, boxes, width, height) {
  const all = {
    left: Math.min(...boxes.map(({ left }) => left)),
    top: Math.min(...boxes.map(({ top }) => top)),
    right: Math.max(...boxes.map(({ right }) => right)),
    bottom: Math.max(...boxes.map(({ bottom }) => bottom)),
  };
  const inside = (/** @type {number} */ at, /** @type {number} */ size, /** @type {number} */ room) =>
    Math.max(GAP, Math.min(at, room - size - GAP));
  return [own, all].flatMap(({ left, top, right, bottom }) => {
    const x = (left + right - width) / 2;
    const y = (top + bottom - height) / 2;
    return [
      [right + GAP, y],
      [left - width - GAP, y],
      [x, bottom + GAP],
      [x, top - height - GAP],
      [right + GAP, bottom + GAP],
      [left - width - GAP, bottom + GAP],
    ].map(([x, y]) => ({ left: inside(x, width, innerWidth), top: inside(y, height, innerHeight) }));
  });
}

/**
 * The area that two boxes share.
 *
 * @param {Box} a
 * @param {Box} b
 */
function shared(a, b) {
  const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  return width > 0 && height > 0 ? width * height : 0;
}

/** Hides the hint. */
export function hideHint() {
  byId("hint").hidden = true;
}
