/** A card of the picture: the function on an edge, where the reference data lie, and the bead of the window. */

import { html } from "../lib.js";
import { part } from "../lit.js";
import { go } from "../state.js";
import { amount, fixed } from "../figures.js";
import { useAsk } from "../load.js";
import { askEdge, tidy } from "./edge.js";

const BESIDE = 42; // pixels of a card for its amount, beside the formula
const WIDE = 0.5; // of a letter, in its size

/** @param {any} props */
export function Card({ model, card, layout, network, drawn, mark, tab, view }) {
  const { width, height } = layout.card;
  const [x, y] = layout.isDown ? [card.across, card.along] : [card.along, card.across];
  const isInView = view && view[0] <= x && x <= view[2] && view[1] <= y && y <= view[3];
  const corner = `translate(${(x - width / 2).toFixed(1)} ${(y - height / 2).toFixed(1)})`;
  if (card.edge === undefined) {
    return html`<g class="edge rest" transform=${corner} tabindex=${tab} role="img" data-name="Other edges" aria-label="Other edges">
      <rect class="card-ground" width=${width} height=${height} rx="5" />
      <text class="amount" x=${width / 2} y=${height / 2 + 4} text-anchor="middle"></text>
    </g>`;
  }
  const edge = network.edges[card.edge];
  const [from, to] = [network.nodes[edge.source].label, network.nodes[edge.target].label];
  const marked = mark?.(edge) ?? {};
  const open = () => go({ edge: edge.key });
  const key = (/** @type {KeyboardEvent} */ event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), open());
  return html`
    <g class=${`edge ${marked.class ?? ""}`} transform=${corner} ...${part(edge.part, { pick: false })} data-edge=${edge.key} tabindex=${tab} role="img" aria-roledescription="edge, Enter opens it"
      aria-label=${`${from} to ${to}`} data-name=${`${from} to ${to}`} data-tip=${[`${from} → ${to}`, marked.tip].filter(Boolean).join("\n")} onClick=${open} onKeyDown=${key}>
      <rect class="card-ground" width=${width} height=${height} rx="5" />
      ${drawn && html`
        <path class="density" d=${drawn.density} />
        <${Axes} drawn=${drawn} width=${width} height=${height}>${isInView && html`<${Formula} model=${model} edge=${edge} width=${width} />`}<//>
        ${marked.curve && html`<path class="other" d=${overlay(drawn, marked.curve)} />`}
        <path class="curve" d=${drawn.path} stroke-opacity=${edge.opacity.toFixed(3)} />
        <circle class="bead" r="4.5" hidden />
      `}
      <text class="amount" x=${width - 5} y="11" text-anchor="end"></text>
      ${marked.mark && html`<text class="mark" x="5" y="11">${marked.mark}</text>`}
    </g>
  `;
}

/**
 * What is drawn of a card only near by: its axes, the knots of its basis, and its formula.
 *
 * @param {{drawn: import("./curves.js").Drawn, width: number, height: number, children: unknown}} props
 */
function Axes({ drawn, width, height, children }) {
  const { x, curve, low, high } = drawn;
  const knots = curve.grid.filter((/** @type {number} */ knot) => knot > low && knot < high);
  return html`<g class="axes">
    ${knots.map((/** @type {number} */ knot) => html`<line class="knot" x1=${x(knot)} x2=${x(knot)} y1=${height - 5} y2=${height} />`)}
    <text x="3" y=${height - 3}>${amount(low)}</text><text x=${width - 3} y=${height - 3} text-anchor="end">${amount(high)}</text>
    ${children}<text x="3" y="20">${amount(d3.max(/** @type {number[]} */ (curve.y)))}</text><text x="3" y=${height - 10}>${amount(d3.min(/** @type {number[]} */ (curve.y)))}</text>
  </g>`;
}

/** @param {{model: import("../model.js").Model, edge: import("./network.js").Edge, width: number}} props the formula that comes nearest, in letters that fit */
function Formula({ model, edge, width }) {
  const [best] = useAsk(askEdge(model, edge.key)).value?.formulas ?? [];
  if (!best) return null;
  const text = `${tidy(best.expression)}, R² ${fixed(best.r2, 2)}`;
  return html`<text class="near-formula" x="5" y="8" font-size=${Math.min(5, (width - BESIDE) / (WIDE * text.length)).toFixed(2)}>${text}</text>`;
}

/**
 * Another curve on the scales of a card, both about their middles.
 *
 * @param {import("./curves.js").Drawn} drawn
 * @param {any} other
 */
function overlay({ x, y, curve, low, high }, other) {
  const middle = (/** @type {number[]} */ values) => ((d3.max(values) ?? 0) + (d3.min(values) ?? 0)) / 2;
  const shift = middle(curve.y) - middle(other.y);
  const points = other.x.map((/** @type {number} */ at, /** @type {number} */ index) => [at, other.y[index] + shift]).filter(([at]) => at >= low && at <= high);
  return d3.line((point) => x(point[0]), (point) => y(point[1]))(points) ?? "";
}
