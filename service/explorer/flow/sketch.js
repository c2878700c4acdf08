/** The picture before the topology is there: inputs, units and nodes as the architecture has them, without edges. */

import { byInput } from "../explain.js";

/**
 * @param {import("../model.js").Model} model
 * @param {import("../model.js").Schemas["Explanation"] | undefined} explanation by which its inputs are ordered
 * @returns {import("./network.js").Network}
 */
export function sketchOf(model, explanation) {
  const { inputs, info, title, forecast } = model;
  const { lstm, gru, head } = info.architecture;
  const kind = lstm ? "lstm" : gru ? "gru" : undefined;
  const widths = head.width.slice(kind ? 0 : 1, -1).map((width) => d3.sum([width].flat()));
  const node = { weight: 1, from: [], to: [] };
  const sums = byInput(model, explanation?.contributions ?? {});
  const whole = d3.sum(sums.values(), Math.abs) / inputs.length || 1;
  const nodes = [
    ...inputs.map(({ name, short, label, color }) => ({
      ...{ ...node, id: `input:${name}`, label: short, tip: label, kind: "input", column: 0, color },
      weight: Math.abs(sums.get(name) ?? 0) / whole,
    })),
    ...widths.flatMap((width, place) => d3.range(width).map((index) => nameOf(kind && !place ? kind : "head", place + 1, index))),
    { ...node, id: `output:${forecast}`, label: title, tip: title, kind: "output", column: widths.length + 1 },
  ];
  /** @param {string} stage @param {number} column @param {number} index */
  function nameOf(stage, column, index) {
    const layer = kind ? column - 1 : column;
    const label = stage === "head" ? `node ${index}` : `unit ${index}`;
    const [id, place] = stage === "head" ? [`head:${layer}:${index}`, `head/${layer}/${index}`] : [`${stage}:${index}`, `${stage}/0/${index}`];
    return { ...node, id, place, label, tip: label, kind: stage, column };
  }
  const named = nodes.map((one) => ({ ...one, part: one.kind === "input" || one.kind === "output" ? one.id : `unit:${one.id}` }));
  return { nodes: named, edges: [], numbers: new Map(), columns: widths.length + 2, output: nodes.length - 1 };
}
