/** Another model over this one: on the same places, changed curves in two tones, what went as ghosts, what came marked. */

import { amount } from "../figures.js";
import { useMemo } from "../lib.js";
import { useAsk } from "../load.js";
import { useCurves, useNetwork } from "./data.js";

/** @typedef {import("../model.js").Model} Model */

export const APART = 0.1; // model units: curves that differ by more count as different

/**
 * What differs between two models, and how each edge is marked for it.
 *
 * @param {Model} model
 * @param {Model | undefined} versus
 */
export function useComparison(model, versus) {
  const query = versus && { ...model.query, against_model: versus.name, against_version: versus.version.version };
  const { value, error } = useAsk(query && { path: `${model.path}/comparison`, query });
  const { network } = useNetwork(versus);
  const theirs = useCurves(versus, network);
  const mark = useMemo(() => {
    if (!versus || !value) return undefined;
    const changes = new Map(value.edges.map((/** @type {any} */ edge) => [`${edge.stage}/${edge.layer}/${edge.i}/${edge.j}`, edge]));
    return (/** @type {import("./network.js").Edge} */ edge) => markOf(changes.get(edge.key), theirs.get(edge.key), model, versus);
  }, [value, theirs, versus]);
  return { comparison: value, error: versus && error, mark, said: value && tellDifference(value, model, /** @type {Model} */ (versus)) };
}

/** The edges that either keeps, by how they changed. @param {import("../model.js").Schemas["EdgeChangeInfo"][]} edges */
export function groupEdges(edges) {
  const both = d3.sort(edges.filter(({ kept, against_kept: against }) => kept && against), ({ curve_difference: apart }) => -(apart ?? 0));
  const isBent = (/** @type {{curve_difference?: number | null}} */ { curve_difference: apart }) => (apart ?? 0) > APART;
  return {
    came: edges.filter(({ kept, against_kept: against }) => kept && !against),
    went: edges.filter(({ kept, against_kept: against }) => !kept && against),
    "bends differently": both.filter(isBent),
    stays: both.filter((edge) => !isBent(edge)),
  };
}

/**
 * @param {any} change of an edge
 * @param {any} curve of the other model
 * @param {Model} model
 * @param {Model} versus
 */
function markOf(change, curve, model, versus) {
  if (!change) return {};
  const { contribution, against_contribution: other, curve_difference: apart } = change;
  const groups = groupEdges([change]);
  const [state, mark] = groups.came.length ? ["came", "new"] : groups.went.length ? ["ghost", "gone"] : groups["bends differently"].length ? ["bent", "bent"] : ["same", ""];
  const size = (/** @type {number | null} */ value) => (value == null ? "not there" : model.size(value));
  const tip = [`on average ${size(contribution)}; in ${versus.chosen} ${size(other)}`, apart != null && `curves apart by ${amount(apart)}`].filter(Boolean).join("\n");
  return { class: state, mark, tip, curve: state === "bent" || state === "ghost" ? curve : undefined };
}

/** @param {any} answer @param {Model} model @param {Model} versus */
function tellDifference({ edges, difference, mae, against_mae: against }, model, versus) {
  const { came, went, "bends differently": bent } = groupEdges(edges);
  const error = mae == null || against == null ? "" : `; their errors are ${model.size(mae)} and ${model.size(against)}`;
  return `Beside ${versus.chosen} (dashed): ${came.length} edges are new, ${went.length} gone, ${bent.length} bend differently. Forecasts differ by ${model.size(difference)}${error}.`;
}
