/** What floats beside an element: the tip of the part under the pointer or with the focus, and menus. */

import { autoUpdate, computePosition, flip, offset, shift } from "@floating-ui/dom";
import { html, signal, useEffect, useId, useLayoutEffect, useRef, useState } from "../lib.js";

const GAP = 6; // pixels

/** The element whose tip is shown, which has it in `data-tip`, a line each. */
const tipped = signal(/** @type {Element | undefined} */ (undefined));

/**
 * Keeps a floating element beside another.
 *
 * @param {{current: HTMLElement | null}} floating
 * @param {Element | null | undefined} beside
 * @param {import("@floating-ui/dom").Placement} placement
 */
function useFloating(floating, beside, placement) {
  useLayoutEffect(() => {
    const element = floating.current;
    if (!beside || !element) return undefined;
    return autoUpdate(beside, element, async () => {
      const middleware = [offset(GAP), flip(), shift({ padding: GAP })];
      const { x, y } = await computePosition(beside, element, { placement, strategy: "fixed", middleware });
      element.style.left = `${x}px`;
      element.style.top = `${y}px`;
    });
  }, [beside]);
}

/** The tip of whatever has `data-tip`, once for the page. */
export function Tip() {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const element = tipped.value;
  useEffect(() => {
    const find = (/** @type {Event} */ event) => (tipped.value = /** @type {Element} */ (event.target).closest?.("[data-tip]") ?? undefined);
    const hide = (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && (tipped.value = undefined);
    const leave = new AbortController();
    for (const name of ["pointerover", "focusin"]) addEventListener(name, find, { signal: leave.signal });
    addEventListener("keydown", hide, { signal: leave.signal });
    return () => leave.abort();
  }, []);
  const isShown = Boolean(element?.isConnected && element.getAttribute("data-tip"));
  useFloating(place, isShown ? element : undefined, "top");
  const lines = isShown ? (element?.getAttribute("data-tip") ?? "").split("\n") : [];
  return html`<div class="tip" role="tooltip" ref=${place} hidden=${!isShown}>${lines.map((line) => html`<p>${line}</p>`)}</div>`;
}

/**
 * A button that opens a panel beside it; Escape, a click elsewhere, or one on what has `data-close`, closes it.
 *
 * @param {{label: unknown, name?: string, class?: string, children: unknown}} props `name` where the label is no text
 */
export function Menu({ label, name, class: classes = "", children }) {
  const [isOpen, setOpen] = useState(false);
  const button = useRef(/** @type {HTMLButtonElement | null} */ (null));
  const panel = useRef(/** @type {HTMLElement | null} */ (null));
  const id = useId();
  useFloating(panel, isOpen ? button.current : undefined, "bottom-end");
  useEffect(() => {
    if (!isOpen) return undefined;
    const leave = new AbortController();
    const close = (/** @type {Event} */ event) => {
      const isInside = panel.current?.contains(/** @type {Node} */ (event.target)) || button.current?.contains(/** @type {Node} */ (event.target));
      if (!isInside) setOpen(false);
    };
    const escape = (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Escape") return;
      setOpen(false);
      button.current?.focus();
    };
    addEventListener("pointerdown", close, { signal: leave.signal });
    addEventListener("keydown", escape, { signal: leave.signal });
    return () => leave.abort();
  }, [isOpen]);
  const leaveAt = (/** @type {any} */ event) => event.target.closest("[data-close]") && setOpen(false);
  return html`
    <button type="button" ref=${button} class=${classes} aria-label=${name} aria-expanded=${isOpen} aria-controls=${id} onClick=${() => setOpen(!isOpen)}>
      ${label}
    </button>
    ${isOpen && html`<div class="panel card" id=${id} ref=${panel} onClick=${leaveAt}>${children}</div>`}
  `;
}

const TERMS = {
  contribution: "How much a part moves the forecast away from the baseline, in the target's unit. Contributions sum to the difference.",
  baseline: "The forecast that contributions start from: that of average conditions.",
  score: "pykan's measure of how strongly an edge acts on the output, in model units. A lighter edge has a lower score.",
  skill: "Whether the model is better, on windows that it has not seen, than repeating a value of the past and than a ridge regression.",
  residual: "The difference between the sum of the contributions and the change that they explain; 0 if they are exact.",
  error: "The largest estimated error of any single contribution here.",
  "R²": "How well a formula or a pruned network reproduces the full model's forecasts: 1 is exactly, 0 is no better than their mean.",
  verdict: "Whether a feature matters: by its share of all contributions, and the interval of that share.",
};

/** @param {{term: keyof typeof TERMS}} props a question mark that explains a term */
export const Help = ({ term }) => html`<${Menu} label="?" name=${`What does “${term}” mean?`} class="help"><strong>${term}</strong><p>${TERMS[term]}</p><//>`;
