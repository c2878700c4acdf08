/** The picture of one window's forecast, whose beads follow what is dragged, and that of the network at rest. */

import { reasonOf } from "../api.js";
import { isPending } from "../draft.js";
import { useExplanation } from "../explain.js";
import { html, useMemo, useState } from "../lib.js";
import { useAsk } from "../load.js";
import { inputsOf } from "../model/parts.js";
import { address } from "../state.js";
import { amountsOf, nothingOf, restOf } from "./amounts.js";
import { useComparison } from "./compare.js";
import { ruleOf, useCurves, useNetwork } from "./data.js";
import { Picture } from "./picture.js";
import { Pruning } from "./prune.js";
import { sketchOf } from "./sketch.js";
import { FlowTable } from "./table.js";

/**
 * @param {{model: import("../model.js").Model, versus?: import("../model.js").Model, window: {instance?: number[][], value?: {label: string}}}} props
 */
export function Flow({ model, versus, window }) {
  const { network: known, error: missing } = useNetwork(model);
  const curves = useCurves(model, known);
  const { value, error } = useExplanation(model, window.instance);
  const { mark, said: differs, error: apart } = useComparison(model, versus);
  const explanation = value?.explanation;
  const network = useMemo(() => known ?? sketchOf(model, explanation), [known, model, known ? undefined : explanation]);
  const said = explanation && model.value(explanation.prediction);
  const amounts = useMemo(() => (explanation ? amountsOf(network, model, explanation) : nothingOf(network)), [network, explanation]);
  const problem = missing ?? error;
  if (problem) return html`<p class="problem" role="alert">${reasonOf(problem)}</p>`;
  const isIncomplete = network.edges.some((edge, number) => !edge.isCurve && Number.isNaN(amounts.edges[number]));
  return html`
    <${Picture} model=${model} network=${network} curves=${curves} amounts=${amounts} isLive=${true} mark=${mark}
      window=${window.value?.label} said=${said} label=${`How the forecast of ${model.title} comes about: ${said ?? "…"}`}>
      ${!(known && explanation) && html`<p class="muted" role="status">Computing what flows through the network …</p>`}
      ${isPending.value && html`<p class="muted" role="status">The forecast follows as soon as values along the range are there.</p>`}
      ${differs && html`<p>${differs}</p>`}
      ${apart && html`<p role="alert">${reasonOf(apart)}</p>`}
      ${isIncomplete && html`<p class="muted">Thin grey links: what flows through each is not known, since the units read all their inputs together.</p>`}
      <${FlowTable} model=${model} network=${network} amounts=${amounts} />
    <//>
  `;
}

/**
 * The network over the reference windows: the same picture, with ribbons by mean |contribution|, and pruning.
 *
 * @param {{model: import("../model.js").Model, versus?: import("../model.js").Model}} props
 */
export function Network({ model, versus }) {
  const rule = ruleOf(address.value.values);
  const { network, topology, error } = useNetwork(model, rule);
  const curves = useCurves(model, network);
  const { mark, said, error: apart } = useComparison(model, versus);
  const [count, setCount] = useState(/** @type {number | undefined} */ (undefined));
  const byInput = useInputs(model);
  const amounts = useMemo(() => network && restOf(network, model, byInput), [network, byInput]);
  const kept = useMemo(() => network && keptOf(network, count), [network, count]);
  if (error && !network) return html`<p class="problem" role="alert">${reasonOf(error)}</p>`;
  if (!network || !amounts) return html`<p class="waiting flow-waiting">Measuring the network over the reference windows …</p>`;
  return html`
    <${Picture} model=${model} network=${network} curves=${curves} amounts=${amounts} kept=${kept} mark=${mark} label=${`The network of ${model.title} over the reference windows`}>
      ${said && html`<p>${said}</p>`}
      ${(apart ?? error) && html`<p role="alert">${reasonOf(apart ?? error)}</p>`}
      <${Pruning} model=${model} topology=${topology} ranked=${setCount} />
      <${FlowTable} model=${model} network=${network} amounts=${amounts} />
    <//>
  `;
}

/**
 * The mean size of each input's contribution, as its importance has it.
 *
 * @param {import("../model.js").Model} model
 * @returns {Map<string, number>}
 */
function useInputs(model) {
  const { groups, of } = useMemo(() => inputsOf(model), [model]);
  const { value } = useAsk({ path: `${model.path}/attributions`, query: { ...model.query, groups } });
  return useMemo(() => {
    const rows = value ? (value.groups.length ? value.groups : value.features) : [];
    return new Map(rows.map((/** @type {any} */ { name, mean_abs_contribution: size }) => [of.get(name)?.input, size]));
  }, [value]);
}

/**
 * The edges that are kept: by the rule, or while pruning is dragged the strongest.
 *
 * @param {import("./network.js").Network} network
 * @param {number | undefined} count
 * @returns {Set<number>}
 */
function keptOf({ edges }, count) {
  const curves = d3.range(edges.length).filter((edge) => edges[edge].isCurve);
  const found = count === undefined ? curves.filter((edge) => edges[edge].kept) : d3.sort(curves, (edge) => -edges[edge].weight).slice(0, count);
  return new Set(found);
}
