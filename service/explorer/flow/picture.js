/**
 * The picture of a network: what flows from the inputs through the functions on its edges into the forecast, in ribbons as
 * wide as contributions. What stands is rendered once for a model and a width; what moves is painted on it.
 */

import { preview } from "../draft.js";
import { effect, html, signal, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../lib.js";
import { lit } from "../lit.js";
import { address, go } from "../state.js";
import { useWidth } from "../ui/chart.js";
import { amountsOf } from "./amounts.js";
import { Card } from "./card.js";
import { drawCurves, placeBead } from "./curves.js";
import { EdgePanel } from "./edge.js";
import { showPicture } from "./export.js";
import { layOut } from "./layout.js";
import { Node } from "./node.js";
import { findElements, paint, scaleFor, stackStrands } from "./paint.js";
import { pathsOf, stepFrom } from "./walk.js";
import { useZoom, ZoomButtons } from "./zoom.js";

const SMALLEST = 200; // pixels of width; below them it is scaled

/** How many ms the last frame took to paint, which tests read. */
export const painted = signal(0);

/**
 * @param {object} props
 * @param {import("../model.js").Model} props.model
 * @param {import("./network.js").Network} props.network
 * @param {Map<string, any>} props.curves by key
 * @param {import("./amounts.js").Amounts} props.amounts at rest
 * @param {boolean} [props.isLive] whether it follows what is dragged
 * @param {Set<number>} [props.kept] edges that pruning keeps; the others fade
 * @param {(edge: import("./network.js").Edge) => {class?: string, mark?: string, tip?: string, curve?: any}} [props.mark] what else is drawn of an edge
 * @param {string} props.label
 * @param {unknown} [props.said] text beside the output, such as its forecast
 * @param {string | null} [props.window] which window it is of
 * @param {unknown} [props.children]
 */
export function Picture({ model, network, curves, amounts, isLive = false, kept, mark, label, said, window, children }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const svg = useRef(/** @type {SVGSVGElement | null} */ (null));
  const width = useWidth(place);
  const isOwn = address.value.values.scale === "own";
  const layout = useMemo(() => (width ? layOut(network, Math.max(SMALLEST, width)) : undefined), [network, width]);
  const drawn = useMemo(() => (layout ? drawCurves(layout, network, curves, isOwn) : new Map()), [layout, curves, isOwn]);
  const [current, setCurrent] = useState(0); // the part that Tab leads to
  const zoom = useZoom(svg, layout);
  useLayoutEffect(() => {
    if (!layout || !svg.current) return undefined;
    const [stacks, elements, scale] = [stackStrands(layout), findElements(svg.current), scaleFor(layout, amounts)];
    svg.current.dataset.scale = String(scale);
    const change = (/** @type {number} */ value, hasUnit = false) => (amounts.isSigned ? model.change(value, hasUnit) : model.size(value, hasUnit));
    const tell = { change, bead: (/** @type {number} */ edge, /** @type {any} */ at) => placeBead(drawn.get(edge), at) };
    return effect(() => {
      const begun = performance.now();
      const dragged = isLive ? preview.value : undefined;
      paint(layout, stacks, elements, dragged ? amountsOf(network, model, dragged) : amounts, scale, tell);
      painted.value = performance.now() - begun;
    });
  }, [layout, drawn, amounts, isLive]);
  useEffect(() => {
    const element = svg.current; // which may be gone before this is
    return layout && element ? effect(() => light(element, layout, network, lit.value)) : undefined;
  }, [layout, network]);
  useEffect(() => {
    if (layout && svg.current) fade(svg.current, layout, kept);
  }, [layout, kept]);
  useEffect(() => {
    showPicture(svg.current ? { svg: svg.current, model, label, window } : undefined);
  }, [layout, model, label, window]);
  const parts = layout ? [...layout.cards, ...layout.places] : [];
  const walk = (/** @type {KeyboardEvent} */ event) => {
    const elements = [.../** @type {SVGSVGElement} */ (svg.current).querySelectorAll("g.place, g.edge")];
    const at = parts[elements.indexOf(/** @type {Element} */ (event.target))];
    const next = layout && at && event.key.startsWith("Arrow") && stepFrom(layout, at, event.key);
    if (!next) return zoom.key(event);
    event.preventDefault();
    setCurrent(parts.indexOf(next));
    /** @type {any} */ (elements[parts.indexOf(next)]).focus();
  };
  const tab = (/** @type {number} */ index) => (index === current ? 0 : -1);
  return html`
    <div class=${`flow ${layout?.isDown ? "down-flow" : ""} ${amounts.isSigned ? "" : "resting"}`} ref=${place}>
      <div class="flow-tools">
        <${Legend} isSigned=${amounts.isSigned} isOwn=${isOwn} />
        <${ZoomButtons} zoom=${zoom} />
      </div>
      ${layout && html`<svg ref=${svg} class="picture" viewBox=${`0 0 ${layout.width} ${layout.height}`} width=${layout.width} height=${layout.height}
        role="group" aria-label=${label} onKeyDown=${walk} onFocusIn=${zoom.reveal}>
        <g class="zoomed">
          ${layout.strands.map(({ from, to }) => html`<g class="strand" key=${`${from.id}>${to.id}`} data-from=${from.id} data-to=${to.id}><path class="up" /><path class="down" /></g>`)}
          ${layout.cards.map((card, index) => html`<${Card} key=${card.id} model=${model} view=${zoom.view} card=${card} layout=${layout} network=${network} drawn=${drawn.get(card.edge ?? -1)} mark=${mark} tab=${tab(index)} />`)}
          ${layout.places.map((one, index) => html`<${Node} key=${one.id} model=${model} place=${one} layout=${layout} network=${network} said=${said} tab=${tab(layout.cards.length + index)} />`)}
        </g>
      </svg>`}
      ${children}
      <${EdgePanel} model=${model} network=${network} amounts=${amounts} kept=${kept} mark=${mark} />
    </div>
  `;
}

/** @param {{isSigned: boolean, isOwn: boolean}} props */
function Legend({ isSigned, isOwn }) {
  const turn = () => go({ scale: isOwn ? "" : "own" });
  return html`
    <p class="flow-legend muted">
      ${isSigned
        ? html`<span class="key"><span><i class="up"></i>raises,</span><span><i class="down"></i>lowers the forecast</span></span>`
        : html`<span class="key"><span><i></i>mean size</span></span>`}, as wide as the contribution ·
      curve opacity is tanh(3 × score) · shaded: the reference data · ${isOwn ? "each curve has a y-scale of its own, so heights can't be compared" : "one y-scale per layer"}
      <button type="button" class="small" aria-pressed=${isOwn} onClick=${turn}>Each its own</button>
    </p>
  `;
}

/**
 * Fades what pruning leaves out; nothing moves.
 *
 * @param {SVGSVGElement} svg
 * @param {import("./layout.js").Layout} layout
 * @param {Set<number> | undefined} kept
 */
function fade(svg, { cards, strands }, kept) {
  const isFaded = (/** @type {number[]} */ edges, /** @type {boolean} */ isCard) => Boolean(kept && isCard && !edges.some((edge) => kept.has(edge)));
  svg.querySelectorAll("g.edge").forEach((element, index) => element.classList.toggle("faded", isFaded(cards[index].edges, true)));
  svg.querySelectorAll("g.strand").forEach((element, index) => {
    const { from, to, edges } = strands[index];
    element.classList.toggle("faded", isFaded(edges, !("nodes" in from && "nodes" in to)));
  });
}

/**
 * Lights the whole paths of a part, or all where none is lit.
 *
 * @param {SVGSVGElement} svg
 * @param {import("./layout.js").Layout} layout
 * @param {import("./network.js").Network} network
 * @param {string | undefined} name
 */
function light(svg, layout, network, name) {
  const found = name === undefined ? undefined : pathsOf(network, name);
  svg.classList.toggle("has-lit", Boolean(found));
  const set = (/** @type {string} */ selector, /** @type {(index: number) => boolean} */ isLit) =>
    svg.querySelectorAll(selector).forEach((element, index) => element.classList.toggle("lit", isLit(index)));
  set("g.strand", (index) => Boolean(found && layout.strands[index].edges.some((edge) => found.edges.has(edge))));
  set("g.place", (index) => Boolean(found && layout.places[index].nodes.some((node) => found.nodes.has(node))));
  set("g.edge", (index) => Boolean(found && layout.cards[index].edges.some((edge) => found.edges.has(edge))));
}
