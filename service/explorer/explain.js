/** The explanation of a window, shared by all that is in view, and its contributions by input. */

import { released, settle } from "./draft.js";
import { useEffect } from "./lib.js";
import { useAsk } from "./load.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Schemas["Explanation"]} Explanation */

const MANY = 2000; // features times units from which on what each unit gets from each feature takes too long

/**
 * The request that explains windows, with what each unit gets from each feature where that is soon there.
 *
 * @param {Model} model
 * @param {number[][][]} instances
 */
export const explainAsk = ({ path, version, output, info }, instances) => ({
  path: `${path}:explain`,
  query: version,
  body: { instances, output: [output], detail: countLinks(info) > MANY ? "flow" : "links" },
});

/** @param {import("./model.js").Schemas["ModelInfo"]} info */
const countLinks = ({ features, architecture: { lstm, gru } }) => features.length * Math.max(0, ...[(lstm ?? gru)?.hidden_size ?? 0].flat());

/**
 * @param {Model} model
 * @param {number[][] | undefined} instance
 * @returns {import("./load.js").Loaded<{explanation: Explanation, answer: import("./model.js").Schemas["ExplainResponse"]}>}
 */
export function useExplanation(model, instance) {
  const loaded = useAsk(instance && explainAsk(model, [instance]));
  const answer = loaded.value;
  const isLetGo = released.value;
  useEffect(() => {
    if (isLetGo && !loaded.pending) settle();
  }, [isLetGo, loaded.pending]);
  return { ...loaded, value: answer && { explanation: answer.explanations[0], answer } };
}

/**
 * Values by feature summed by input, such as contributions: the sine and the cosine of an hour are one.
 *
 * @param {Model} model
 * @param {Record<string, number>} byFeature
 * @returns {Map<string, number>} by the name of the input
 */
export const byInput = (model, byFeature) => new Map(model.inputs.map(({ name, features }) => [name, d3.sum(features, (feature) => byFeature[feature] ?? 0)]));
