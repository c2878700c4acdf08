/** The status of slow requests, and retries with backoff while the service is not ready. */

import { ApiError, reasonOf, UNANSWERED } from "./api.js";
import { byId, h } from "./dom.js";

const SLOW = 1000; // ms before a status is shown
const LONG = 5; // s from which on an estimate is told
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

let expected = 0; // s that what is computed now takes, as far as is known

/**
 * Says how long the work will take that is begun, for as long as it lasts.
 *
 * @template T
 * @param {number} seconds
 * @param {Promise<T>} work
 */
export async function expect(seconds, work) {
  expected = Math.max(expected, seconds);
  try {
    return await work;
  } finally {
    expected = 0;
  }
}

/**
 * Shows the elapsed seconds of slow work, about how many it takes in all, and how to stop it.
 *
 * @param {AbortSignal} signal of the work; aborting it hides the status
 * @param {() => void} stop
 * @returns {() => void} ends it
 */
export function tellProgress(signal, stop) {
  const begun = performance.now();
  const button = h("button", { type: "button", onclick: stop }, "Stop");
  const tell = () => {
    const seconds = Math.round((performance.now() - begun) / 1000);
    const all = expected > Math.max(seconds, LONG) ? ` of about ${expected < 60 ? 5 * Math.ceil(expected / 5) : 10 * Math.ceil(expected / 10)} s` : "";
    say(`The service is computing; ${seconds} s${all} so far …`, button);
  };
  const timer = setInterval(tell, SLOW);
  let isEnded = false;
  const end = () => {
    if (isEnded) return;
    isEnded = true;
    clearInterval(timer);
    say("");
  };
  signal.addEventListener("abort", end);
  return end;
}

/**
 * Says that work was stopped, and how to begin it again.
 *
 * @param {() => void} again
 */
export function tellStopped(again) {
  say("Stopped. The service may have lost what it had computed.", h("button", { type: "button", onclick: again }, "Compute it"));
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
