/** Says that an answer takes long, and waits before the service is asked again. */

import { ApiError } from "./api.js";
import { byId, h } from "./dom.js";

const SLOW = 1000; // ms after which waiting is worth a word
const LONGEST = 15; // s between two tries
const PASSING = [408, 429, 502, 503, 504]; // statuses of what another try may mend

/**
 * Whether the same request may be answered later.
 *
 * @param {unknown} error
 */
export function isPassing(error) {
  return error instanceof ApiError ? PASSING.includes(error.status) : error instanceof TypeError; // as fetch has it
}

/**
 * Counts the seconds of work that takes long.
 *
 * @param {AbortSignal} signal of the work, after which nothing more is said
 * @returns {() => void} ends it
 */
export function tellProgress(signal) {
  const begun = performance.now();
  const tell = () => say(`The service is computing, ${Math.round((performance.now() - begun) / 1000)} s so far …`);
  const timer = setInterval(tell, SLOW);
  const end = () => {
    clearInterval(timer);
    say("");
  };
  signal.addEventListener("abort", end);
  return end;
}

/**
 * Waits for the next try, longer each time, and as long as the service wants at least.
 *
 * @param {unknown} error
 * @param {number} tries how often it was tried
 * @param {AbortSignal} signal
 */
export async function waitForNext(error, tries, signal) {
  const wanted = error instanceof ApiError ? error.retryAfter : 0;
  const reason = error instanceof ApiError ? error.message : "the service does not answer";
  const until = performance.now() + 1000 * Math.max(wanted, Math.min(LONGEST, 2 ** (tries - 1)));
  await new Promise((resolve) => {
    const now = h("button", { type: "button", onclick: () => end() }, "Try now");
    const tell = () => {
      const left = Math.ceil((until - performance.now()) / 1000);
      if (left > 0) say(`Not ready yet: ${reason}. Trying again in ${left} s.`, now);
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
