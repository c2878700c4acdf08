/** What is known of a model: its inputs in the terms of the table, its outputs, colours, and how values are written. */

import { modelPath } from "./api.js";
import { distinctNames, fitAmong } from "./names.js";
import { amount, formatChange, formatValue, percent, points } from "./figures.js";
import { useMemo, useRef } from "./lib.js";
import { useAsk } from "./load.js";

/** @typedef {import("./schema.js").components["schemas"]} Schemas */
/** @typedef {Schemas["InputInfo"] & {short: string, color: string, places: number[]}} Input */

const BOUND = /^(.*):(lower|upper|width)@(0\.\d+)$/;
const QUANTILE = /@0\.\d+$/;
const GOLDEN = 137.508; // degrees between the hues of inputs that follow one another
const CHROMA = 52;
const LIGHTNESS = [49, 57]; // CIE L*: contrast of 3 to white and to the dark ground, in turn

/** A model, one of its outputs, and what each is called. */
export class Model {
  /**
   * @param {Schemas["ModelInfo"]} info
   * @param {string} chosen `name`, or `name/version`
   * @param {string} [output] a forecast, a bound or a width; the first by default, or where the model has no such one
   */
  constructor(info, chosen, output) {
    const [name, version] = chosen.split("/");
    this.info = info;
    this.chosen = chosen;
    this.name = name;
    this.path = modelPath(name);
    this.version = { version };
    this.output = output && hasOutput(info, output) ? output : info.outputs[0];
    this.query = { version, output: this.output };
    this.forecast = forecastOf(info, this.output).output;
    const target = info.targets.find((one) => this.forecast.replace(/\+\d+(?=$|@)/, "") === one.name);
    this.unit = target?.unit ?? null;
    this.std = target?.std;
    this.isShare = ["softmax", "sigmoid"].includes(info.architecture.output_function ?? "");
    this.title = target?.title ?? target?.name ?? this.forecast;
    const numbers = new Map(info.features.map((feature, number) => [feature.name, number]));
    const short = distinctNames(info.inputs.map(({ label }) => label));
    /** @type {Input[]} */
    this.inputs = info.inputs.map((input, number) => ({
      ...input,
      short: short.get(input.label) ?? input.label,
      color: d3.hcl((number * GOLDEN + 250) % 360, CHROMA, LIGHTNESS[number % LIGHTNESS.length]).formatHex(),
      places: input.features.map((feature) => numbers.get(feature) ?? -1),
    }));
    this.fit = fitAmong(this.inputs.map((input) => input.short));
    this.inputOf = new Map(this.inputs.flatMap((input) => input.features.map((feature) => [feature, input])));
  }

  /** A forecast, as precise as forecasts vary: 8,089 MW, or a probability as a percentage. */
  value = (/** @type {number | null | undefined} */ value, hasUnit = true) =>
    this.isShare && value != null ? percent(value) : formatValue(value, hasUnit ? this.unit : null, this.std);

  /** A change of the forecast, with its sign; of a probability in points. */
  change = (/** @type {number} */ value, hasUnit = true) =>
    this.isShare ? points(value, hasUnit ? "points" : null) : formatChange(value, hasUnit ? this.unit : null, this.std);

  /** The size of a change or an error, which has no sign. */
  size = (/** @type {number} */ value, hasUnit = true) => this.change(Math.abs(value), hasUnit).replace("+", "");

  /** An error as the skill is measured: in the target's unit, or of several targets in standard deviations. */
  error = (/** @type {number | null | undefined} */ value) => {
    const { unit } = this.info.skill;
    return unit === "standard deviations" ? amount(value, unit) : this.value(value);
  };
}

/** All models of the service. */
export const useModels = () => useAsk({ path: "models" });

/**
 * A model with an output.
 *
 * @param {string | undefined} chosen `name`, or `name/version`
 * @param {string} [output]
 */
export function useModel(chosen, output) {
  const [name, version] = (chosen ?? "").split("/");
  const loaded = useAsk(chosen ? { path: modelPath(name), query: { version } } : undefined);
  const { value, stale } = loaded;
  const last = useRef(/** @type {Model | undefined} */ (undefined)); // which stays until the chosen one is there
  last.current = useMemo(() => {
    if (stale) return last.current;
    return value && chosen ? new Model(value, chosen, output) : undefined;
  }, [value, stale, chosen, output]);
  return { ...loaded, value: last.current };
}

/**
 * Bounds and widths of one output, such as `load+24:width@0.8`; none if it has no intervals.
 *
 * @param {Schemas["ModelInfo"]} info
 * @param {string} output
 */
export function boundsOf({ intervals }, output) {
  if (!intervals?.outputs.includes(output)) return [];
  const forecast = output.replace(QUANTILE, "");
  return intervals.levels.flatMap((level) => ["lower", "upper", "width"].map((kind) => `${forecast}:${kind}@${level}`));
}

/**
 * The output that a bound or a width is of, its kind and level; an output is of itself.
 *
 * @param {Schemas["ModelInfo"]} info
 * @param {string} output
 */
export function forecastOf({ outputs, intervals }, output) {
  const [, forecast, kind, level] = BOUND.exec(output) ?? [];
  const found = intervals?.outputs.find((one) => one.replace(QUANTILE, "") === forecast);
  return outputs.includes(output) || !found ? { output } : { output: found, kind, level: Number(level) };
}

/** @param {Schemas["ModelInfo"]} info @param {string} output */
function hasOutput(info, output) {
  return info.outputs.includes(output) || boundsOf(info, forecastOf(info, output).output).includes(output);
}
