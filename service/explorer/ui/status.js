/** The status line: slow requests with the way to stop them, and what waits for a service that is not ready; the key. */

import { keyWanted } from "../api.js";
import { html, useEffect, useRef, useState } from "../lib.js";
import { running } from "../load.js";

const SLOW = 1; // s before a request is shown
const TICK = 500; // ms

/** What is computed, for how long, and what waits for its next try. */
export function Status() {
  const [now, setNow] = useState(performance.now());
  const list = running.value;
  useEffect(() => {
    if (!list.length) return undefined;
    const timer = setInterval(() => setNow(performance.now()), TICK);
    return () => clearInterval(timer);
  }, [list.length > 0]);
  const waiting = list.find(({ waits }) => waits.value)?.waits.value;
  const seconds = Math.max(0, ...list.map(({ begun }) => (now - begun) / 1000));
  let said;
  if (waiting) {
    const left = Math.max(0, Math.ceil((waiting.until - now) / 1000));
    said = html`<span>Not ready yet: ${waiting.reason}. Trying again in ${left} s.</span><button type="button" onClick=${waiting.now}>Try now</button>`;
  } else if (seconds > SLOW) {
    const stop = () => list.forEach((one) => one.stop());
    said = html`<span>The service is computing, ${Math.round(seconds)} s so far …</span><button type="button" onClick=${stop}>Stop</button>`;
  }
  return html`<div class="status" role="status" hidden=${!said}>${said}</div>`;
}

/** The dialog for the API key. */
export function KeyDialog() {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const wanted = keyWanted.value;
  useEffect(() => {
    if (wanted) dialog.current?.showModal();
  }, [wanted]);
  if (!wanted) return null;
  const give = () => wanted.give(input.current?.value ?? "");
  return html`
    <dialog class="card" ref=${dialog} aria-labelledby="key-title" onCancel=${(/** @type {Event} */ event) => event.preventDefault()}>
      <form method="dialog" onSubmit=${give}>
        <h2 id="key-title">API key</h2>
        <p>${wanted.refused ? "The service does not know that key. Try another." : "This service requires an API key."}</p>
        <label for="key">Key</label>
        <input ref=${input} id="key" type="password" name="key" required autocomplete="off" />
        <p class="muted">It is kept in this tab until you close it.</p>
        <button class="main">Use the key</button>
      </form>
    </dialog>
  `;
}
