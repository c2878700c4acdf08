/** Pruning: the cost against the edges that are kept, as a curve that is dragged, with its price in words. */

import { percent } from "../figures.js";
import { html, useRef, useState } from "../lib.js";
import { useAsk } from "../load.js";
import { address, go } from "../state.js";
import { useWidth } from "../ui/chart.js";
import { Help } from "../ui/float.js";

const HEIGHT = 110;
const MARGIN = { left: 44, right: 12, top: 10, bottom: 24 };

/** The edges that are removed by hand, by their ids. @param {import("../state.js").Values} values */
export const removedOf = ({ without }) => [...new Set((without ?? "").split(",").filter(Boolean))];

/**
 * The price of a pruned network in words.
 *
 * @param {{edges: number, r2: number, mae: number | null}} point
 * @param {number | null} full the error of all edges
 */
function tellPrice({ edges, r2, mae }, full) {
  const count = `${edges} edge${edges === 1 ? "" : "s"}`;
  if (mae == null || !full) return `${count}: ${percent(r2)} of the full model's forecasts reproduced (R²)`;
  const change = mae / full - 1;
  if (Math.abs(change) < 0.0005) return `${count}, the error as before`;
  return `${count}, error ${change > 0 ? "up" : "down"} by ${percent(Math.abs(change))}`;
}

/**
 * The curve of the cost, and a slider that moves along it.
 *
 * @param {{model: import("../model.js").Model, curve: {edges: number, r2: number, mae: number | null, threshold: number}[], kept: number, drag: (point: any) => void, drop: (point: any) => void}} props
 *   `drag` while it moves, `drop` when it is let go
 */
function CostCurve({ model, curve, kept, drag, drop }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const width = useWidth(place);
  const slider = useRef(/** @type {HTMLInputElement | null} */ (null));
  const points = d3.sort(curve, ({ edges }) => edges);
  const index = d3.minIndex(points, ({ edges }) => Math.abs(edges - kept));
  const hasError = points.every(({ mae }) => mae != null);
  const cost = (/** @type {any} */ point) => (hasError ? point.mae : 1 - point.r2);
  const full = points[points.length - 1];
  const x = d3.scaleSqrt([0, full.edges], [MARGIN.left, width - MARGIN.right]);
  const most = Math.min(d3.max(points, cost) ?? 1, hasError ? 2.5 * cost(full) : 1);
  const y = d3.scaleLinear([hasError ? cost(full) * 0.95 : 0, most], [HEIGHT - MARGIN.bottom, MARGIN.top]).clamp(true);
  const line = d3.line((/** @type {any} */ point) => x(point.edges), (point) => y(cost(point)));
  const at = points[index];
  const move = (/** @type {any} */ event, /** @type {(point: any) => void} */ act) => act(points[Number(event.currentTarget.value)]);
  const dragTo = (/** @type {PointerEvent} */ event, /** @type {(point: any) => void} */ act) => {
    const { left } = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    act(points[d3.minIndex(points, ({ edges }) => Math.abs(x(edges) - (event.clientX - left)))]);
  };
  const down = (/** @type {PointerEvent} */ event) => (/** @type {Element} */ (event.currentTarget).setPointerCapture(event.pointerId), dragTo(event, drag));
  const isHeld = (/** @type {PointerEvent} */ event) => /** @type {Element} */ (event.currentTarget).hasPointerCapture(event.pointerId);
  return html`
    <div class="cost" ref=${place}>
      <label for="prune">Edges kept <strong>${at.edges} of ${full.edges}</strong> <${Help} term="R²" /></label>
      ${width > 0 && html`<svg width=${width} height=${HEIGHT} aria-hidden="true" onPointerDown=${down}
        onPointerMove=${(/** @type {any} */ event) => isHeld(event) && dragTo(event, drag)} onPointerUp=${(/** @type {any} */ event) => dragTo(event, drop)}>
        <path class="cost-line" d=${line(points)} />
        <line class="cost-at" x1=${x(at.edges)} x2=${x(at.edges)} y1=${MARGIN.top} y2=${HEIGHT - MARGIN.bottom} />
        <circle class="cost-point" r="7" cx=${x(at.edges)} cy=${y(cost(at))} />
        ${y.ticks(3).map((value) => html`<text x=${MARGIN.left - 6} y=${y(value) + 4} text-anchor="end">${hasError ? model.size(value, false) : percent(value)}</text>`)}
        ${x.ticks(5).map((value) => html`<text x=${x(value)} y=${HEIGHT - 6} text-anchor="middle">${value}</text>`)}
      </svg>`}
      <input type="range" id="prune" ref=${slider} min="0" max=${points.length - 1} step="1" value=${index} aria-valuetext=${tellPrice(at, full.mae)}
        onInput=${(/** @type {any} */ event) => move(event, drag)} onChange=${(/** @type {any} */ event) => move(event, drop)} />
    </div>
  `;
}

/**
 * What pruning costs, with its curve: the slider follows the hand, the exact answer the address.
 *
 * @param {{model: import("../model.js").Model, topology: any, ranked: (count: number | undefined) => void}} props `ranked` with the
 *   edges to show while the curve is dragged
 */
export function Pruning({ model, topology, ranked }) {
  const { value } = useAsk({ path: `${model.path}/topology/fidelity`, query: { ...model.query, metric: "contribution" } });
  const [dragged, setDragged] = useState(/** @type {any} */ (undefined));
  if (!value) return html`<p class="waiting">Measuring what pruning costs …</p>`;
  const { graph } = topology;
  const exact = { edges: graph.edges.kept, ...graph.fidelity };
  const drag = (/** @type {any} */ point) => (setDragged(point), ranked(point.edges));
  const drop = (/** @type {any} */ point) => {
    setDragged(undefined);
    ranked(undefined);
    go({ fidelity: point.r2 >= 1 ? "1" : String(Math.max(0, Math.floor(1e6 * point.r2) / 1e6)), threshold: "" });
  };
  const removed = removedOf(address.value.values);
  const names = new Map(topology.nodes.map((/** @type {any} */ { id, label }) => [id, label]));
  const nameOf = (/** @type {string} */ id) => {
    const edge = topology.edges.find((/** @type {any} */ { stage, layer, i, j }) => `${stage}:${layer}:${i}:${j}` === id);
    return edge ? `${names.get(edge.source)} → ${names.get(edge.target)}` : id;
  };
  const back = (/** @type {string} */ id) => go({ without: removed.filter((one) => one !== id).join(",") });
  return html`
    <section class="pruning" aria-label="Pruning">
      <p class="price lead" role="status"><strong>${tellPrice(dragged ?? exact, graph.fidelity.mae_full)}</strong>${dragged ? "" : ` · R² ${exact.r2.toFixed(4)} with the full model`}</p>
      <${CostCurve} model=${model} curve=${value.curve} kept=${(dragged ?? exact).edges} drag=${drag} drop=${drop} />
      ${removed.length > 0 && html`<ul class="removed" aria-label="Edges removed by hand">
        ${removed.map((id) => html`<li key=${id}>${nameOf(id)} <button type="button" class="small" aria-label=${`Put back ${nameOf(id)}`} onClick=${() => back(id)}>Put back</button></li>`)}
      </ul>`}
    </section>
  `;
}
