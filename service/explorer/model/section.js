/** What every part of the page is made of: a card that loads once it comes near, and an error at its place. */

import { reasonOf } from "../api.js";
import { html, useEffect, useRef, useState } from "../lib.js";
import { address } from "../state.js";

const FIRST = "skill"; // is there at once
const NEAR = "1200px"; // below the screen

/** @param {string} name of a section */
export const show = (name) => document.querySelector(`[data-part-of-page="${name}"]`)?.scrollIntoView({ block: "start" });

/**
 * A section that the address can name (`at=formula`), whose content is made once it comes near the screen, or is printed.
 *
 * @param {{name: string, label: string, children: () => unknown, class?: string}} props
 */
export function Section({ name, label, children, class: more = "" }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const isMeant = address.value.values.at === name;
  const isNear = useNear(place, name === FIRST) || isMeant;
  useEffect(() => {
    if (isMeant) show(name);
  }, [isMeant]);
  return html`<section ref=${place} class=${`card part ${more}`} data-part-of-page=${name} aria-label=${label}>${isNear && children()}</section>`;
}

/**
 * @param {{current: Element | null}} place
 * @param {boolean} isFirst
 */
function useNear(place, isFirst) {
  const [isNear, setNear] = useState(isFirst);
  useEffect(() => {
    if (!place.current) return undefined;
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && setNear(true), { rootMargin: `0px 0px ${NEAR}` });
    observer.observe(place.current);
    const print = () => setNear(true);
    addEventListener("beforeprint", print);
    return () => (observer.disconnect(), removeEventListener("beforeprint", print));
  }, []);
  return isNear;
}

/** @param {{loaded: import("../load.js").Loaded<any>}} props that it is computed, or why it is not there and another try */
export function Again({ loaded: { value, pending, error, again } }) {
  if (error) return html`<p class="refused" role="alert">${reasonOf(error)} <button type="button" onClick=${again}>Try again</button></p>`;
  return pending && value === undefined ? html`<p class="waiting">Computing …</p>` : null;
}
