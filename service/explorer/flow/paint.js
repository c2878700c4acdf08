/** What changes with each frame: ribbons, bars, beads and amounts, set on elements that stand, without rendering anew. */

import { BAR } from "./layout.js";

/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./layout.js").Strand} Strand */
/** @typedef {import("./amounts.js").Amounts} Amounts */
/** @typedef {{strands: SVGPathElement[][], cards: Element[], bars: {group: SVGGElement, all: Element, net: Element}[], beads: (SVGCircleElement | null)[], amounts: (Element | null)[], said: (Element | null)[]}} Elements */

const THINNEST = 0.02; // pixels of a ribbon that is drawn
const LINE = 0.7; // pixels of a link whose contribution is not known
const MOST = 0.62; // of the room across that ribbons take at most

/** The elements that are painted, in the order of the layout. @param {SVGSVGElement} svg @returns {Elements} */
export function findElements(svg) {
  const all = (/** @type {string} */ selector) => [...svg.querySelectorAll(selector)];
  const strands = all("g.strand").map((group) => [...group.children]);
  const bars = all("g.place");
  const cards = all("g.edge");
  return /** @type {any} */ ({
    ...{ strands, cards, bars: bars.map((group) => ({ group, all: group.querySelector(".all"), net: group.querySelector(".net") })) },
    said: bars.map((bar) => bar.querySelector(".amount")),
    beads: cards.map((card) => card.querySelector(".bead")),
    amounts: cards.map((card) => card.querySelector(".amount")),
  });
}

/**
 * How the ribbons of a layout are stacked: for each place and card its strands, in the order of their other ends.
 *
 * @param {Layout} layout
 */
export function stackStrands({ strands }) {
  const leaving = d3.group(d3.range(strands.length), (strand) => strands[strand].from);
  const entering = d3.group(d3.range(strands.length), (strand) => strands[strand].to);
  const sort = (/** @type {Map<any, number[]>} */ groups, /** @type {"from" | "to"} */ end) =>
    [...groups].map(([one, found]) => /** @type {const} */ ([one, d3.sort(found, (strand) => strands[strand][end].across)]));
  return { leaving: sort(leaving, "to"), entering: sort(entering, "from") };
}

/** @typedef {ReturnType<typeof stackStrands>} Stacks */

/**
 * Pixels per unit of contribution: as the layout has room for the reference windows, or less where a window needs more.
 *
 * @param {Layout} layout
 * @param {Amounts} amounts
 */
export function scaleFor({ strands, places, cards, card, isDown, scale, room }, { edges, nodes }) {
  const passing = new Map(places.map((place) => [/** @type {any} */ (place), [Math.abs(d3.sum(place.nodes, (node) => nodes[node])), 0, 0]]));
  for (const { from, to, edges: carried } of strands) {
    const size = d3.sum(carried, (edge) => Math.abs(edges[edge]) || 0);
    for (const [side, one] of [to, from].entries()) if (passing.has(one)) /** @type {number[]} */ (passing.get(one))[side + 1] += size;
  }
  const heaviest = d3.max(cards, (one) => d3.sum(one.edges, (edge) => Math.abs(edges[edge]) || 0)) || 1;
  const sums = d3.rollup(places, (column) => d3.sum(column, (place) => d3.max(passing.get(place) ?? [])), ({ column }) => column);
  return Math.min(scale, (MOST * room) / (d3.max(sums.values()) || 1), (isDown ? card.width : card.height) / heaviest);
}

/**
 * Sets all that amounts say.
 *
 * @param {Layout} layout
 * @param {Stacks} stacks
 * @param {Elements} elements
 * @param {Amounts} amounts
 * @param {number} scale
 * @param {{change: (value: number, hasUnit?: boolean) => string, bead: (edge: number, at: {x?: number, y?: number} | undefined) => number[] | undefined}} tell
 */
export function paint(layout, stacks, elements, amounts, scale, { change, bead }) {
  const { strands, places, cards, isDown, room } = layout;
  const { edges, nodes, isSigned } = amounts;
  const up = new Float64Array(strands.length);
  const down = new Float64Array(strands.length);
  const isUnknown = new Uint8Array(strands.length);
  strands.forEach(({ edges: carried }, strand) => {
    for (const edge of carried) {
      const value = edges[edge];
      if (Number.isNaN(value)) isUnknown[strand] = 1;
      if (value > 0) up[strand] += value;
      else if (value < 0) down[strand] -= value;
    }
  });
  const starts = [new Float64Array(strands.length), new Float64Array(strands.length)]; // of ups and downs, where they leave
  const ends = [new Float64Array(strands.length), new Float64Array(strands.length)];
  const widest = new Map();
  const stack = (/** @type {Stacks["leaving"]} */ groups, /** @type {Float64Array[]} */ at) => {
    for (const [one, found] of groups) {
      let total = 0;
      for (const strand of found) total += up[strand] + down[strand];
      widest.set(one, Math.max(widest.get(one) ?? 0, total * scale));
      let place = Math.max(1, Math.min(room - total * scale - 1, one.across - (total * scale) / 2));
      for (const strand of found) [at[0][strand], place] = [place, place + up[strand] * scale];
      for (const strand of found) [at[1][strand], place] = [place, place + down[strand] * scale];
    }
  };
  stack(stacks.leaving, starts);
  stack(stacks.entering, ends);
  strands.forEach(({ from, to }, strand) => {
    if (isUnknown[strand]) [starts[0][strand], ends[0][strand]] = [from.across, to.across];
    elements.strands[strand][0].classList.toggle("unknown", Boolean(isUnknown[strand]));
    const [first, last] = [from.along + halfOf(from, layout), to.along - halfOf(to, layout)];
    [up, down].forEach((values, sign) => {
      const width = isUnknown[strand] ? Number(!sign) * LINE : values[strand] * scale;
      const path = elements.strands[strand][sign];
      path.setAttribute("d", width < THINNEST ? "" : ribbon(first, starts[sign][strand], last, ends[sign][strand], width, isDown));
    });
  });
  places.forEach((place, index) => {
    const value = total(place.nodes, nodes);
    const size = Math.abs(value || 0) * scale;
    const { group, all, net } = elements.bars[index];
    setBar(all, place, Math.max(1, widest.get(place) ?? 0, size), isDown, room);
    setBar(net, place, size, isDown, room);
    group.classList.toggle("down", isSigned && value < 0);
    group.dataset.value = String(value);
    setText(group, elements.said[index], Number.isNaN(value) ? "" : change(value));
  });
  cards.forEach((card, index) => {
    const value = total(card.edges, edges);
    const said = Number.isNaN(value) ? "" : change(value, card.edge !== undefined);
    setText(elements.cards[index], elements.amounts[index], card.edge === undefined ? `${card.edges.length} more: ${said}` : said);
    elements.amounts[index]?.classList.toggle("down", isSigned && value < 0);
    const point = elements.beads[index];
    const at = card.edge === undefined ? undefined : bead(card.edge, amounts.beads.get(card.edge));
    if (!point) return;
    point.toggleAttribute("hidden", !at);
    if (!at) return;
    point.setAttribute("cx", at[0].toFixed(2));
    point.setAttribute("cy", at[1].toFixed(2));
    point.classList.toggle("down", value < 0);
    point.classList.toggle("beyond", Boolean(at[2]));
  });
}

/** The sum of what is known; NaN where nothing is. @param {number[]} of @param {Float64Array} values */
function total(of, values) {
  const known = of.filter((one) => !Number.isNaN(values[one]));
  return known.length ? d3.sum(known, (one) => values[one]) : NaN;
}

/** Half the length of a place or a card along the flow. */
const halfOf = (/** @type {any} */ one, /** @type {Layout} */ { card, isDown }) => ("nodes" in one ? BAR : isDown ? card.height : card.width) / 2;

/** @param {Element} rect @param {import("./layout.js").Place} place @param {number} size @param {boolean} isDown @param {number} room */
function setBar(rect, place, size, isDown, room) {
  const [along, across] = isDown ? ["y", "x"] : ["x", "y"];
  rect.setAttribute(along, (place.along - BAR / 2).toFixed(1));
  rect.setAttribute(across, Math.max(1, Math.min(room - size - 1, place.across - size / 2)).toFixed(2));
  rect.setAttribute(isDown ? "height" : "width", String(BAR));
  rect.setAttribute(isDown ? "width" : "height", size.toFixed(2));
}

/** Sets an amount, which is part of the accessible name of what it is of. @param {Element} group @param {Element | null} element @param {string} text */
function setText(group, element, text) {
  if (!element || element.textContent === text) return;
  element.textContent = text;
  group.setAttribute("aria-label", `${group.getAttribute("data-name")}, ${text}`);
}

/**
 * A band of one width from one place to another.
 *
 * @param {number} first along, where it leaves
 * @param {number} start across, its edge there
 * @param {number} last
 * @param {number} end
 * @param {number} width
 * @param {boolean} isDown
 */
function ribbon(first, start, last, end, width, isDown) {
  const middle = (first + last) / 2;
  const at = (/** @type {number} */ along, /** @type {number} */ across) => (isDown ? `${across.toFixed(2)},${along.toFixed(1)}` : `${along.toFixed(1)},${across.toFixed(2)}`);
  const there = `C${at(middle, start)} ${at(middle, end)} ${at(last, end)}`;
  const back = `C${at(middle, end + width)} ${at(middle, start + width)} ${at(first, start + width)}`;
  return `M${at(first, start)}${there}L${at(last, end + width)}${back}Z`;
}
