/** The destination Forecast: one sentence; below it on one axis what was read, the network, and what follows; then questions. */

import { reasonOf } from "../api.js";
import { draft, preview } from "../draft.js";
import { explainAsk, useExplanation } from "../explain.js";
import { change, editOf, valueOf } from "../inputs.js";
import { later } from "../later.js";
import { html, useRef } from "../lib.js";
import { useAsk } from "../load.js";
import { isHidden } from "../history/moments.js";
import { go } from "../state.js";
import { tellNow, usePredicted, useTimes } from "./facts.js";
import { Picker } from "./picker.js";
import { Sentence } from "./sentence.js";
import { Warnings } from "./trust.js";

const Dials = later("Dials", () => import("./dials.js"));
const Flow = later("Flow", () => import("../flow/flow.js"));
const Outlook = later("Outlook", () => import("./outlook.js"));
const Questions = later("Questions", () => import("./questions.js"));

/** @param {{model: import("../model.js").Model, versus?: import("../model.js").Model, window: any}} props */
export function Forecast({ model, versus, window }) {
  const { value: known, instance, edit, error } = window;
  const isFit = instance?.length === model.info.lookback && instance[0].length === model.info.features.length;
  const wanted = isFit && !error ? instance : undefined;
  const predicted = usePredicted(model, wanted);
  const explained = useExplanation(model, wanted);
  const before = useAsk(wanted && explainAsk(model, [known.instance]));
  const shown = preview.value ?? explained.value?.explanation;
  const times = useTimes(model, known?.time);
  const failed = error ?? predicted.error ?? explained.error;
  const isChanged = Object.keys(edit).length > 0 || draft.value !== undefined;
  const told = { model, name: window.name, known, instance: wanted && slide(model, wanted), isChanged, shown, times, predicted: predicted.value, before: before.value?.explanations[0] };
  const last = useRef(/** @type {any} */ (undefined)); // what belongs together, until all of the next is there
  if (!last.current?.shown || preview.value || (!explained.pending && !predicted.pending)) last.current = told;
  const isTold = wanted && (last.current.shown || last.current.predicted || failed); // the sentence comes before the picture
  return html`
    <${Picker} model=${model} window=${window} />
    ${failed && html`<${Refused} error=${failed} again=${error ? window.again : explained.again} />`}
    ${wanted && html`<${Sentence} ...${last.current} /><${Warnings} model=${model} answer=${explained.value?.answer} />`}
    ${
      isTold &&
      html`
        <div class=${`instrument card ${model.info.skill.verdict}`}>
          <${Dials} ...${told} instance=${instance} recorded=${known.instance} edit=${edit} now=${tellNow(known.time)} />
          <section class="network" aria-label="The network"><${Flow} model=${model} versus=${versus} window=${window} /></section>
          <${Outlook} ...${last.current} />
        </div>
        <${Questions} ...${told} instance=${instance} recorded=${known.instance} edit=${edit} answer=${explained.value?.answer} />
      `
    }
  `;
}

/**
 * The window with what is being dragged.
 *
 * @param {import("../model.js").Model} model
 * @param {number[][]} instance
 */
function slide(model, instance) {
  const at = draft.value;
  const input = model.inputs.find(({ name }) => name === at?.input);
  if (!at || !input) return instance;
  return change(instance, model.inputs, { [input.name]: editOf(input, valueOf(input, instance[instance.length - 1]), at.value) });
}

/** @param {{error: any, again: () => void}} props why no window can be shown */
function Refused({ error, again }) {
  if (isHidden(error)) return html`<p class="card" role="status">This service shows no windows of its own: paste or drop one of yours.</p>`;
  return html`
    <div class="card problem" role="alert">
      <p>${reasonOf(error)}</p>
      <p><button type="button" onClick=${again}>Try again</button> <button type="button" onClick=${() => go({ window: "", edit: "" })}>The newest window</button></p>
    </div>
  `;
}
