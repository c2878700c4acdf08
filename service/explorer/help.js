/** Explanations of terms, opened by the question mark beside each term. */

import { h } from "./dom.js";

const GAP = 6; // pixels between a button and its explanation, and to the edge of the window
const TERMS = {
  "R²": "How well the pruned network or the formula reproduces the full model's forecasts: 1 is exactly, 0 is no better than their mean.",
  MAE: "The mean absolute error: the average distance of forecasts from the actual values, in the target's unit.",
  contribution:
    "How much a part moves the forecast away from the baseline, in the target's unit; |contribution| is its magnitude, averaged over the reference windows.",
  score:
    "pykan's measure of how strongly a part acts on the output, in model units; unlike a contribution, it depends on the scaling of the data.",
  opacity: "How dark an edge is drawn: tanh(3 × score), as in pykan's pictures; a faint edge has a low score.",
  verdict:
    "Whether a feature matters: important, weak or negligible by its share of all contributions and the interval of that share; unseen if it has one value in all reference windows; disconnected if no path leads to the output.",
  share: "A feature's mean |contribution| divided by the sum over all features.",
  price: "How complicated a function is, as in pykan: 1 for a straight line, 2 for a sine, more for rarer functions.",
  complexity: "The sum of the prices of all functions in a formula, plus one: a small number is a short formula.",
  residual: "The difference between the sum of the contributions and the change that they explain; 0 if the contributions are exact.",
  error: "The largest estimated error of any single contribution here, in the target's unit.",
  ablation:
    "The forecast that the network still makes without the edges that are pruned and removed, each replaced by its mean over the reference windows.",
  profile:
    "The composition of a node: the share of each feature in the node's own value, over the reference windows. 80 % of a share is at the lags that stand beside it; lag 0 is the newest step of the window.",
};

/** @typedef {keyof typeof TERMS} Term */

/** @type {HTMLElement | undefined} the open explanation */
let note;

/**
 * A question mark that opens the explanation of a term on click, touch or Enter; Escape or a click elsewhere closes it.
 *
 * @param {Term} term
 */
export function help(term) {
  const button = h(
    "button",
    { type: "button", class: "help", "aria-label": `What does “${term}” mean?`, "aria-expanded": "false" },
    "?",
  );
  button.addEventListener("click", () => toggle(button, term));
  return button;
}

/**
 * A term with its question mark.
 *
 * @param {string} label
 * @param {Term} term
 */
export function withHelp(label, term) {
  return h("span", { class: "helped" }, label, " ", help(term));
}

/**
 * @param {HTMLElement} button
 * @param {Term} term
 */
function toggle(button, term) {
  const wasOpen = button.getAttribute("aria-expanded") === "true";
  note?.hidePopover();
  if (wasOpen) return;
  const opened = h(
    "div",
    { popover: "manual", class: "card note", id: "note", role: "note" },
    h("strong", {}, term),
    h("p", {}, TERMS[term]),
  );
  const leave = new AbortController();
  const close = () => opened.hidePopover();
  opened.addEventListener("toggle", (event) => {
    if (/** @type {ToggleEvent} */ (event).newState === "open") return;
    opened.remove();
    leave.abort();
  });
  opened.addEventListener("beforetoggle", (event) => {
    const isOpen = /** @type {ToggleEvent} */ (event).newState === "open";
    button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen) button.setAttribute("aria-describedby", "note");
    else button.removeAttribute("aria-describedby");
    note = isOpen ? opened : undefined;
  });
  document.body.append(opened);
  opened.showPopover();
  place(opened, button);
  const { signal } = leave;
  document.addEventListener("keydown", ({ key }) => key === "Escape" && close(), { signal });
  const follow = () => (button.isConnected ? place(opened, button) : close());
  document.addEventListener("scroll", follow, { signal, capture: true, passive: true });
  document.addEventListener(
    "pointerdown",
    ({ target }) => target instanceof Node && !opened.contains(target) && target !== button && close(),
    { signal },
  );
}

/**
 * Places the explanation below the button, or above it if there is no space.
 *
 * @param {HTMLElement} opened
 * @param {HTMLElement} button
 */
function place(opened, button) {
  const { left, top, bottom } = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = opened;
  const below = bottom + GAP + height < innerHeight;
  opened.style.left = `${Math.max(GAP, Math.min(left, innerWidth - width - GAP))}px`;
  opened.style.top = `${below ? bottom + GAP : Math.max(GAP, top - GAP - height)}px`;
}
