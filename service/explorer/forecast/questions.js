/** Questions about a forecast, one open at a time below the instrument. The address says which. */

import { html } from "../lib.js";
import { address, go } from "../state.js";
import { Change } from "./change.js";
import { Curves } from "./curves.js";
import { Heat } from "./heat.js";
import { Parts } from "./parts.js";
import { Trust } from "./trust.js";

const QUESTIONS = {
  when: { label: "When did it matter?", View: Heat },
  whatif: { label: "What does each input do?", View: Curves },
  change: { label: "What would change it?", View: Change },
  parts: { label: "What do groups do?", View: Parts },
  trust: { label: "Can it be trusted here?", View: Trust },
};

/**
 * @typedef {import("./sentence.js").Told & {
 *   recorded: number[][],
 *   edit: import("../inputs.js").Edit,
 *   answer: import("../model.js").Schemas["ExplainResponse"] | undefined,
 * }} Asked what each question knows; `answer` explains the window with its edits
 */

/** @param {Asked} props */
export function Questions(props) {
  const names = /** @type {(keyof typeof QUESTIONS)[]} */ (Object.keys(QUESTIONS));
  const asked = address.value.values.ask;
  const { verdict, reason } = props.model.info.skill;
  const first = verdict === "red" ? "trust" : "when"; // of a model that knows nothing its reasons are not the first question
  const chosen = names.find((name) => name === asked) ?? first;
  const choose = (/** @type {string} */ name) => go({ ask: name === first ? "" : name });
  const press = (/** @type {KeyboardEvent} */ event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by || event.shiftKey) return;
    event.preventDefault();
    const next = names[(names.indexOf(chosen) + by + names.length) % names.length];
    choose(next);
    document.getElementById(`ask-${next}`)?.focus();
  };
  const { View } = QUESTIONS[chosen];
  return html`
    <section class="questions card" aria-label="Questions about this forecast">
      <div role="tablist" aria-label="Questions" onKeyDown=${press}>
        ${names.map((name) => html`<button type="button" role="tab" id=${`ask-${name}`} aria-selected=${name === chosen}
          aria-controls="asked" tabindex=${name === chosen ? 0 : -1} onClick=${() => choose(name)}>${QUESTIONS[name].label}</button>`)}
      </div>
      <div role="tabpanel" id="asked" aria-labelledby=${`ask-${chosen}`}>
        ${verdict === "red" && chosen !== "trust" && html`<p class="refused">${reason}</p>`}
        <${View} ...${props} />
      </div>
    </section>
  `;
}
