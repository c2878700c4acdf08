/** Zooming by meaning: far a name and a colour, nearer the curve, nearest its axes, knots and formula. */

import { html, useEffect, useMemo, useRef, useState } from "../lib.js";

const STEP = 1.5;
const [SMALLEST, LARGEST] = [0.5, 8];
const FAR = 75; // pixels of a card below which it has no curve
const NEAR = 210; // from which on it has axes

/** @param {{current: SVGSVGElement | null}} svg @param {import("./layout.js").Layout | undefined} layout */
export function useZoom(svg, layout) {
  const behavior = useRef(/** @type {any} */ (undefined));
  const [view, setView] = useState(/** @type {number[] | undefined} */ (undefined)); // left, top, right and bottom, near by
  useEffect(() => {
    const element = svg.current;
    if (!element || !layout) return undefined;
    const inner = /** @type {SVGGElement} */ (element.querySelector("g.zoomed"));
    const zoomed = (/** @type {any} */ { transform }) => {
      inner.setAttribute("transform", String(transform));
      const size = layout.card.width * transform.k;
      element.dataset.zoom = size < FAR ? "far" : size < NEAR ? "curve" : "near";
      element.classList.toggle("is-zoomed", transform.k > 1);
      element.style.setProperty("--zoom", String(transform.k));
    };
    const settled = (/** @type {any} */ { transform }) =>
      setView(layout.card.width * transform.k < NEAR ? undefined : [...transform.invert([0, 0]), ...transform.invert([layout.width, layout.height])]);
    // A plain wheel scrolls the page, and so does one finger as long as all of the picture is in view.
    const filter = (/** @type {any} */ event) => {
      if (event.type === "wheel") return event.ctrlKey || event.metaKey;
      return event.touches ? event.touches.length > 1 || d3.zoomTransform(element).k > 1 : !event.button && d3.zoomTransform(element).k > 1;
    };
    const box = /** @type {[[number, number], [number, number]]} */ ([[0, 0], [layout.width, layout.height]]);
    const zoom = /** @type {any} */ (d3.zoom()).filter(filter).scaleExtent([SMALLEST, LARGEST]).extent(box).translateExtent(box).on("zoom", zoomed).on("end", settled);
    behavior.current = zoom;
    const target = d3.select(element).call(zoom).on("dblclick.zoom", null);
    zoom.transform(target, d3.zoomIdentity);
    return () => void target.on(".zoom", null);
  }, [layout]);
  const acts = useMemo(() => {
    const by = (/** @type {number} */ factor) => svg.current && behavior.current?.scaleBy(animated(svg.current), factor);
    const fit = () => svg.current && behavior.current?.transform(animated(svg.current), d3.zoomIdentity);
    const reveal = ({ target }) => {
      const element = svg.current;
      if (!element || d3.zoomTransform(element).k === 1) return;
      const [box, all] = [target.getBoundingClientRect(), element.getBoundingClientRect()];
      const isOut = box.right < all.left || box.left > all.right || box.bottom < all.top || box.top > all.bottom;
      const [x, y] = d3.zoomTransform(element).invert([box.left + box.width / 2 - all.left, box.top + box.height / 2 - all.top]);
      if (isOut) behavior.current?.translateTo(d3.select(element), x, y);
    };
    const key = (/** @type {KeyboardEvent} */ { key: pressed }) => (pressed === "+" ? by(STEP) : pressed === "-" ? by(1 / STEP) : pressed === "0" && fit());
    return { by, fit, key, reveal };
  }, []);
  return { ...acts, view };
}

/** @param {SVGSVGElement} element the same over a moment, unless less motion is wanted */
function animated(element) {
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  return isStill ? d3.select(element) : d3.select(element).transition().duration(250);
}

/** @param {{zoom: ReturnType<typeof useZoom>}} props */
export function ZoomButtons({ zoom }) {
  const button = (/** @type {string} */ label, /** @type {string} */ sign, /** @type {() => void} */ act) => html`<button type="button" aria-label=${label} data-tip=${label} onClick=${act}>${sign}</button>`;
  return html`<div class="zoom" role="group" aria-label="Zoom" onKeyDown=${zoom.key}>
    ${button("Zoom in", "+", () => zoom.by(STEP))}${button("Zoom out", "−", () => zoom.by(1 / STEP))}${button("Fit into the view", "⤢", zoom.fit)}
  </div>`;
}
