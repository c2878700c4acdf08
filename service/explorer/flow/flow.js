/** The picture of one window's forecast, whose beads follow what is dragged. */

import { useExplanation } from "../explain.js";
import { html, useMemo } from "../lib.js";
import { reasonOf } from "../api.js";
import { amountsOf } from "./amounts.js";
import { useCurves, useNetwork } from "./data.js";
import { Picture } from "./picture.js";

/**
 * @param {{model: import("../model.js").Model, versus?: import("../model.js").Model, window: {instance?: number[][]}}} props
 */
export function Flow({ model, versus, window }) {
  const { network, error: missing } = useNetwork(model);
  const curves = useCurves(model, network);
  const { value, error } = useExplanation(model, window.instance);
  const explanation = value?.explanation;
  const amounts = useMemo(() => (network && explanation ? amountsOf(network, model, explanation) : undefined), [network, explanation]);
  if (missing ?? error) return html`<p class="problem" role="alert">${reasonOf(missing ?? error)}</p>`;
  if (!network || !amounts) return html`<p class="waiting">Drawing how the forecast comes about …</p>`;
  return html`<${Picture} model=${model} network=${network} curves=${curves} amounts=${amounts} isLive=${true} said=${`= ${model.value(explanation?.prediction)}`}
    label=${`How ${model.title} comes about`} />`;
}
