/** A chart of Observable Plot, which leaves itself as a global, as wide as its place. */

import "../vendor/plot.umd.min.js";
import { html, useEffect, useRef, useState } from "../lib.js";

/**
 * @param {{draw: (width: number) => Element, label: string, of: unknown[], class?: string}} props what draws it for a width,
 *   its name for screen readers, and on what it depends
 */
export function Chart({ draw, label, of, class: name = "" }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const width = useWidth(place);
  useEffect(() => {
    if (!width) return;
    const drawn = draw(width);
    for (const mark of drawn.querySelectorAll("g[aria-label]:not([role])")) mark.removeAttribute("aria-label"); // names of no role
    place.current?.replaceChildren(drawn);
  }, [width, ...of]);
  return html`<figure class=${`chart ${name}`} ref=${place} role="img" aria-label=${label}></figure>`;
}

/** What a click does: `act` gets its pixel and the chart's x-scale. @param {any} chart @param {(at: number, x: any) => void} act */
export function onPick(chart, act) {
  chart.addEventListener("click", (event) => act(event.clientX - chart.getBoundingClientRect().left, chart.scale("x")));
  chart.style.cursor = "pointer";
}

/** The width of an element in pixels, 0 before it is laid out. @param {{current: Element | null}} place */
export function useWidth(place) {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    if (place.current) observer.observe(place.current);
    return () => observer.disconnect();
  }, []);
  return width;
}
