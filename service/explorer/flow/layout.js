/**
 * Where each part of the picture stands, which follows from the model alone and never from a window: pruning, comparing
 * and dragging change what is drawn, and move nothing.
 *
 * The rule, which the library's picture has too: a column for each longest way from the inputs; before a column a stack of
 * cards, one for each of its strongest edges by mean |contribution|, the rest of them in one; nodes at the ends of these
 * cards and the strongest others, the rest in one. Nodes stand strongest first, cards by the mean place of their ends.
 * Room across is given by mean |contribution|.
 */

/** @typedef {import("./network.js").Network} Network */
/** @typedef {{id: string, node?: number, nodes: number[], column: number, along: number, across: number, top: number, size: number, label: number, room: number, before: number, after: number}} Place of a node, or of the rest of a column */
/** @typedef {{id: string, edge?: number, edges: number[], column: number, along: number, across: number}} Card at its middle */
/** @typedef {typeof WIDE} Form */
/** @typedef {{from: Place | Card, to: Place | Card, edges: number[]}} Strand ribbons between two of them */
/** @typedef {{width: number, height: number, isDown: boolean, start: number, card: {width: number, height: number}, room: number, places: Place[], cards: Card[], strands: Strand[], scale: number, placeOf: Place[], cardOf: Map<number, Card>}} Layout */

const NARROW = 560; // pixels of width below which it flows down
export const BAR = 8; // pixels of a node along the flow
const WIDE = { cards: 9, nodes: 12, label: 15, ribbons: 260, start: 164, end: 128, run: 34, gap: 7 };
const DOWN = { cards: 3, nodes: 6, label: 4, ribbons: 120, start: 40, end: 44, run: 40, gap: 6 };
const CARD = { width: 140, least: 90, height: 50, tall: 60 };
const ROOMY = 1400; // pixels of width from which on cards are tall
const LEAST = { start: 108, end: 100, run: 30 };
const EACH = { card: 90, node: 58 }; // pixels across that each has, flowing down
const LINKS = 3; // times the run of ribbons between nodes without cards
const LINES = 27; // pixels of a label in two lines
const PAD = 8; // between nodes
const WEAK = 0.004; // share of the heaviest column below which an edge or a node has no place of its own

const clamp = (/** @type {number} */ low, /** @type {number} */ value, /** @type {number} */ high) => Math.max(low, Math.min(high, value));

/** @param {Network} network @param {number} width in pixels @returns {Layout} */
export function layOut(network, width) {
  const isDown = width < Math.max(NARROW, leastWidth(network));
  const fit = { cards: Math.max(2, Math.floor(width / EACH.card) - 1), nodes: Math.max(4, Math.floor(width / EACH.node)) };
  const ends = { start: clamp(LEAST.start, 0.17 * width, WIDE.start), end: clamp(LEAST.end, 0.14 * width, WIDE.end) };
  const form = isDown ? { ...DOWN, ...fit } : { ...WIDE, ...ends };
  const { cards, places, placeOf, cardOf } = choose(network, form);
  const stacks = d3.range(network.columns).map((column) => cards.filter((card) => card.column === column));
  const columns = d3.range(network.columns).map((column) => places.filter((place) => place.column === column));
  const strongest = d3.max(columns, (column) => d3.sum(column, (place) => weightOf(network, place))) || 1;
  const card = { width: isDown ? (width - 12) / (form.cards + 1) - form.gap : CARD.width, height: width < ROOMY ? CARD.height : CARD.tall };
  const heaviest = d3.max(cards, ({ edges }) => d3.sum(edges, (edge) => network.edges[edge].weight)) || 1;
  const scale = Math.min(form.ribbons / strongest, (isDown ? card.width : card.height) / heaviest);
  for (const place of places) {
    place.label = isDown || !place.column || !stacks[place.column].length ? form.label : LINES;
    place.size = place.label + PAD + Math.max(isDown || place.column ? 6 : 24, scale * weightOf(network, place));
  }
  const step = (isDown ? card.width : card.height) + form.gap;
  const needed = d3.max([...columns.map((column) => d3.sum(column, ({ size }) => size)), ...stacks.map((stack) => stack.length * step)]) ?? 0;
  const room = isDown ? width : Math.max(380, needed) + 16;
  order(network, columns, stacks, placeOf, room, step);
  const length = placeAlong(columns, stacks, card, isDown, width, form);
  for (const place of places) place.room = isDown ? place.size : roomOf(place, cards, card);
  const size = isDown ? { width, height: length } : { width, height: room };
  return { ...size, isDown, start: form.start, card, room, places, cards, strands: strandsOf(network, placeOf, cardOf, cards), scale, placeOf, cardOf };
}

/** The least width at which the network flows from left to right. @param {Network} network */
function leastWidth({ nodes, edges, columns }) {
  const withCards = new Set(edges.flatMap(({ isCurve, target }) => (isCurve ? [nodes[target].column] : []))).size;
  return LEAST.start + LEAST.end + withCards * (CARD.least + 2 * LEAST.run) + (columns - 1 - withCards) * LINKS * LEAST.run;
}

/** @param {Network} network @param {{nodes: number[]}} place */
const weightOf = (network, { nodes }) => d3.sum(nodes, (node) => network.nodes[node].weight);

/**
 * The edges with a card and the nodes with a place of their own, and what the others fold into.
 *
 * @param {Network} network
 * @param {Form} form
 */
function choose({ nodes, edges, columns, output }, form) {
  /** @type {Card[]} */
  const cards = [];
  /** @type {Place[]} */
  const places = [];
  /** @type {Map<number, Card>} */
  const cardOf = new Map();
  /** @type {Place[]} */
  const placeOf = [];
  const curves = d3.sort(d3.range(edges.length).filter((edge) => edges[edge].isCurve), (edge) => -edges[edge].weight);
  const ends = new Set();
  const byColumn = d3.group(curves, (edge) => nodes[edges[edge].target].column);
  const least = WEAK * (d3.max(d3.rollup(nodes, (column) => d3.sum(column, ({ weight }) => weight), ({ column }) => column).values()) ?? 0);
  for (const [column, found] of byColumn) {
    const strong = withoutWeak(found, (edge) => edges[edge].weight > least);
    const single = strong.length > form.cards || found.length > strong.length ? strong.slice(0, form.cards - Number(form.cards === WIDE.cards)) : found;
    const rest = found.slice(single.length);
    for (const edge of single) cards.push({ id: edges[edge].key, edge, edges: [edge], column, along: 0, across: 0 });
    if (rest.length) cards.push({ id: `more-edges:${column}`, edges: rest, column, along: 0, across: 0 });
    for (const edge of single) [edges[edge].source, edges[edge].target].forEach((end) => ends.add(end));
  }
  for (const card of cards) for (const edge of card.edges) cardOf.set(edge, card);
  for (const column of d3.range(columns)) {
    const found = d3.sort(d3.range(nodes.length).filter((node) => nodes[node].column === column), (node) => -nodes[node].weight);
    const strong = withoutWeak(found, (node) => nodes[node].weight > least);
    const count = strong.length < found.length || found.length > form.nodes ? form.nodes - 1 : form.nodes;
    const single = found.filter((node, rank) => (rank < count && rank < strong.length) || ends.has(node) || node === output);
    const rest = found.filter((node) => !single.includes(node));
    for (const node of single) places.push((placeOf[node] = place(nodes[node].id, column, [node], node)));
    if (rest.length === 1) places.push((placeOf[rest[0]] = place(nodes[rest[0]].id, column, rest, rest[0])));
    else if (rest.length) {
      const more = place(`more:${column}`, column, rest);
      places.push(more);
      for (const node of rest) placeOf[node] = more;
    }
  }
  return { cards, places, placeOf, cardOf };
}

/**
 * Those that count; one alone that does not is no rest.
 *
 * @param {number[]} found
 * @param {(one: number) => boolean} counts
 */
function withoutWeak(found, counts) {
  const strong = found.filter(counts);
  return strong.length > found.length - 2 ? found : strong;
}

/** @returns {Place} */
const place = (/** @type {string} */ id, /** @type {number} */ column, /** @type {number[]} */ nodes, /** @type {number | undefined} */ node = undefined) => ({
  ...{ id, node, nodes, column, along: 0, across: 0, top: 0, size: 0, label: 0, room: 0, before: 0, after: 0 },
});

/**
 * Sets the places across.
 *
 * @param {Network} network
 * @param {Place[][]} columns
 * @param {Card[][]} stacks
 * @param {Place[]} placeOf
 * @param {number} room
 * @param {number} step
 */
function order(network, columns, stacks, placeOf, room, step) {
  for (const [column, places] of columns.entries()) {
    columns[column] = d3.sort(places, ({ node }) => (node === undefined ? Infinity : -network.nodes[node].weight));
    const spare = (room - d3.sum(places, ({ size }) => size)) / places.length;
    let at = 0;
    for (const one of columns[column]) {
      const size = one.size + spare;
      [one.top, one.across] = [at + Math.max(0, spare) / 2, at + (size + one.label) / 2];
      one.size = size;
      at += size;
    }
  }
  for (const stack of stacks) {
    const middle = (/** @type {Card} */ { edge }) => (edge === undefined ? Infinity : placeOf[network.edges[edge].source].across + placeOf[network.edges[edge].target].across);
    const sorted = d3.sort(stack, middle);
    const space = Math.max(step, Math.min(1.35 * step, room / Math.max(1, sorted.length)));
    sorted.forEach((card, index) => (card.across = room / 2 + (index - (sorted.length - 1) / 2) * space));
  }
}

/**
 * Pixels for the label above a node: between the cards beside it, or half over where there is none at its height.
 *
 * @param {Place} place
 * @param {Card[]} cards
 * @param {{width: number, height: number}} card
 */
function roomOf({ column, top, label, before, after }, cards, { width, height }) {
  const isNear = (/** @type {Card} */ { across }) => Math.abs(across - top - label / 2) < (height + label) / 2;
  const spare = [column, column + 1].map((stack) => (cards.some((one) => one.column === stack && isNear(one)) ? 0 : width / 2));
  return BAR + 2 * Math.min(before + spare[0], after + spare[1]) - 4;
}

/**
 * Sets the places along the flow, and returns how long it is.
 *
 * @param {Place[][]} columns
 * @param {Card[][]} stacks
 * @param {{width: number, height: number}} card
 * @param {boolean} isDown
 * @param {number} width
 * @param {Form} form
 */
function placeAlong(columns, stacks, card, isDown, width, { start, end, run }) {
  const gaps = columns.slice(1).map((_, index) => stacks[index + 1].length > 0);
  const [withCards, without] = [gaps.filter(Boolean).length, gaps.filter((has) => !has).length];
  const bars = BAR * columns.length;
  const runs = 2 * withCards + LINKS * without;
  const free = width - start - end - bars;
  if (!isDown) card.width = Math.max(CARD.least, Math.min(CARD.width, (free - runs * run) / Math.max(1, withCards)));
  const each = isDown ? run : Math.max(8, (free - withCards * card.width) / runs);
  const long = isDown ? card.height : card.width;
  let at = start + BAR / 2;
  columns.forEach((places, column) => {
    if (column) {
      if (gaps[column - 1]) for (const one of stacks[column]) one.along = at + BAR / 2 + each + long / 2;
      at += BAR + (gaps[column - 1] ? 2 * each + long : LINKS * each);
    }
    const [before, after] = [gaps[column - 1] ? each : LINKS * each, gaps[column] ? each : LINKS * each];
    for (const one of places) Object.assign(one, { along: at, before, after });
  });
  return at + BAR / 2 + end;
}

/**
 * The ribbons: from node to card and from card to node, or between nodes where there is no function.
 *
 * @param {Network} network
 * @param {Place[]} placeOf
 * @param {Map<number, Card>} cardOf
 * @param {Card[]} cards
 * @returns {Strand[]}
 */
function strandsOf({ edges }, placeOf, cardOf, cards) {
  /** @type {Map<string, Strand>} */
  const strands = new Map();
  const add = (/** @type {Place | Card} */ from, /** @type {Place | Card} */ to, /** @type {number} */ edge) => {
    const key = `${from.id}>${to.id}`;
    const known = strands.get(key) ?? { from, to, edges: [] };
    known.edges.push(edge);
    strands.set(key, known);
  };
  edges.forEach(({ source, target, isCurve }, edge) => {
    const card = isCurve && cardOf.get(edge);
    if (card) {
      add(placeOf[source], card, edge);
      add(card, placeOf[target], edge);
    } else add(placeOf[source], placeOf[target], edge);
  });
  return [...strands.values()];
}
