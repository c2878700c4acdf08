/** What the picture is drawn from: the topology with its network, and the curves of all edges. */

import { useMemo } from "../lib.js";
import { useAsk } from "../load.js";
import { readNetwork } from "./network.js";

/** @typedef {import("../model.js").Model} Model */

const POINTS = 41; // of a curve
const MANY = 600; // edges from which on curves are asked for only of those that are kept

/** The rule that prunes, of the address. @param {import("../state.js").Values} values */
export const ruleOf = ({ fidelity, threshold, without }) => ({
  ...(threshold ? { edge_threshold: threshold } : fidelity ? { fidelity } : {}),
  ...(without ? { without: without.split(",") } : {}),
});

/**
 * The network of a model, and which of its edges a rule keeps.
 *
 * @param {Model | undefined} model
 * @param {Record<string, any>} [rule]
 */
export function useNetwork(model, rule = {}) {
  const loaded = useAsk(model && { path: `${model.path}/topology`, query: { ...model.query, ...rule, pruned: false } });
  const topology = loaded.value;
  const network = useMemo(() => (model && topology ? readNetwork(model, topology) : undefined), [model, topology]);
  return { ...loaded, topology, network };
}

/**
 * The curves of a model's edges, by key.
 *
 * @param {Model | undefined} model
 * @param {import("./network.js").Network | undefined} network
 * @returns {Map<string, import("./curves.js").Curve>}
 */
export function useCurves(model, network) {
  const isLarge = (network?.edges.filter(({ isCurve }) => isCurve).length ?? 0) > MANY;
  const query = { ...model?.query, points: POINTS, range: "reference", ...(isLarge ? {} : { fidelity: 1 }) };
  const { value } = useAsk(model && network && { path: `${model.path}/edges`, query });
  return useMemo(() => new Map((value?.edges ?? []).map((/** @type {any} */ edge) => [`${edge.stage}/${edge.layer}/${edge.i}/${edge.j}`, edge])), [value]);
}
