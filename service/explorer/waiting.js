/** The status of slow requests, and retries with backoff while the service is not ready. */

import { ApiError, reasonOf, UNANSWERED } from "./api.js";
import { byId, h } from "./dom.js";

const SLOW = 1000; // ms before a status is shown
const LONGEST = 15; // most s between two tries
const PASSING = [UNANSWERED, 408, 429, 502, 503, 504]; // statuses that are retried

/**
 * Whether a request may succeed if it is retried.
 *
 * @param {unknown} error
 */
export function isPassing(error) {
  return error instanceof ApiError && PASSING.includes(error.status);
}

/**
 * Shows the elapsed seconds of slow work.
 *
 * @param {AbortSignal} signal of the work; aborting it hides the status
 * @returns {() => void} ends it
 */
export function tellProgress(signal) {
  const begun = performance.now();
  const tell = () => say(`The service is computing; ${Math.round((performance.now() - begun) / 1000)} s so far …`);
  const timer = setInterval(tell, SLOW);
  const end = () => {
    clearInterval(timer);
    say("");
  };
  signal.addEventListener("abort", end);
  return end;
}

/**
 * Waits before a retry: longer each time, and at least as long as the service's Retry-After.
 *
 * @param {unknown} error
 * @param {number} tries how often it was tried
 * @param {AbortSignal} signal
 */
export async function waitForNext(error, tries, signal) {
  const wanted = error instanceof ApiError ? error.retryAfter : 0;
  const until = performance.now() + 1000 * Math.max(wanted, Math.min(LONGEST, 2 ** (tries - 1)));
  await new Promise((resolve) => {
    const now = h("button", { type: "button", onclick: () => end() }, "Try now");
    const tell = () => {
      const left = Math.ceil((until - performance.now()) / 1000);
      if (left > 0) say(`Not ready yet: ${reasonOf(error)}. Trying again in ${left} s.`, now);
      else end();
    };
    const timer = setInterval(tell, 250);
    const end = () => {
      clearInterval(timer);
      say("");
      resolve(undefined);
    };
    signal.addEventListener("abort", end);
    tell();
  });
}

/**
 * @param {string} text
 * @param {HTMLElement} [action]
 */
function say(text, action) {
  const place = byId("status");
  const said = place.querySelector("span");
  if (said?.textContent !== text) place.replaceChildren(...(text ? [h("span", {}, text)] : []));
  if (action && action.parentElement !== place) place.append(action);
  place.hidden = !text;
}
