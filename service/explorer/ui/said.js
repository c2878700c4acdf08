/** The line that says what was done, such as "copied", or why something could not be done, which stays until it is closed. */

import { reasonOf } from "../api.js";
import { html, signal, useEffect } from "../lib.js";

const SHOWN = 4000; // ms that what was done is shown

const said = signal(/** @type {{text: string, isError: boolean} | undefined} */ (undefined));

/** @param {string} text */
export const say = (text) => (said.value = { text, isError: false });

/** @param {unknown} error whose sentence is shown */
export const complain = (error) => (said.value = { text: reasonOf(error), isError: true });

/**
 * Does something, and says it where it fails.
 *
 * @param {() => unknown} act
 * @param {string} [done] what is said where it succeeds
 */
export async function attempt(act, done) {
  try {
    await act();
    if (done) say(done);
  } catch (error) {
    complain(error);
  }
}

export function Said() {
  const now = said.value;
  const close = () => (said.value = undefined);
  useEffect(() => {
    if (!now || now.isError) return undefined;
    const timer = setTimeout(close, SHOWN);
    return () => clearTimeout(timer);
  }, [now]);
  return html`
    <div class="said" role="status">${now && !now.isError && html`<p>${now.text}</p>`}</div>
    <div class="said wrong" role="alert">
      ${now?.isError && html`<p>${now.text}</p><button type="button" onClick=${close}>Close</button>`}
    </div>
  `;
}
