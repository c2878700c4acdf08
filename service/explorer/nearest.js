/** The reference window nearest to a window of one's own, and its distance. */

import { askJson } from "./api.js";
import { h } from "./dom.js";
import { amount } from "./figures.js";
import { afterRest } from "./latest.js";
import { windowLink } from "./references.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./windows.js").Window} Window */

const REST = 400; // ms
const ANYTHING = 1e30; // above every forecast, so that the search has nothing to do

/** @param {Page} page */
export function nearestReference(page) {
  const { path, version, output, model } = page;
  const rest = afterRest();
  const element = h("p", { class: "muted nearest", role: "status", hidden: true });
  let running = new AbortController();
  const ask = async (/** @type {Window} */ window, /** @type {AbortSignal} */ signal) => {
    const free = model.features.find(({ fixed }) => !fixed);
    if (!free) return;
    const body = { instances: [window], output, target: { at_most: ANYTHING }, features: [free.name], max_features: 1 };
    const answer = /** @type {Schemas["CounterfactualResponse"]} */ (
      await askJson({ path: `${path}:counterfactual`, query: version, body }, signal)
    );
    const { index, distance, typical } = answer.counterfactuals[0].nearest_reference;
    element.replaceChildren(
      "The nearest reference window is ",
      windowLink(page, index, `number ${index}`),
      `, ${amount(distance)} standard deviations away${typical === null ? "" : `; ${amount(typical)} is usual`}.`,
    );
    element.hidden = false;
  };

  /** @param {Window | undefined} window undefined for a reference window */
  const set = (window) => {
    running.abort();
    running = new AbortController();
    const { signal } = running;
    rest.stop();
    if (!window) element.hidden = true;
    else rest.after(REST, () => void ask(window, signal).catch(() => (element.hidden = true)));
  };
  return { element, set };
}
