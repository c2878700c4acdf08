/** How like the reference windows a window of one's own is, and which of them is the nearest. */

import { askJson } from "./api.js";
import { h } from "./dom.js";
import { amount } from "./figures.js";
import { afterRest } from "./latest.js";
import { windowLink } from "./references.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */
/** @typedef {import("./windows.js").Window} Window */

const REST = 400; // ms

/** @param {Page} page */
export function nearestReference(page) {
  const { path, version } = page;
  const rest = afterRest();
  const element = h("p", { class: "muted nearest", role: "status", hidden: true });
  let running = new AbortController();
  const ask = async (/** @type {Window} */ window, /** @type {AbortSignal} */ signal) => {
    const body = { instances: [window], trust: true };
    const answer = /** @type {Schemas["PredictResponse"]} */ (
      await askJson({ path: `${path}:predict`, query: version, body }, signal)
    );
    const [trust] = answer.trust ?? [];
    if (!trust) return;
    const { index, distance } = trust.nearest_reference;
    element.replaceChildren(
      `${trust.sentence} The nearest reference window is `,
      windowLink(page, { index }, `number ${index}`),
      `, ${amount(distance)} standard deviations away.`,
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
