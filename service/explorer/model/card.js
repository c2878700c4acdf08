/** The model's card: data, origin and whether it is verified, training metrics, size, intervals, and the inputs. */

import { amount, fixed, formatValue, percent } from "../figures.js";
import { levelName } from "../history/spans.js";
import { Table } from "../history/table.js";
import { isCycle } from "../inputs.js";
import { html } from "../lib.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Schemas} Schemas */
/** @typedef {Schemas["ModelInfo"]} Info */

const MANY = 4; // outputs or targets, of which only the first and the last are named

/** @param {{model: Model}} props */
export function Card({ model }) {
  const { info } = model;
  const metrics = metricsOf(info, false).map(({ name, value }) => [nameMetric(name), writeMetric(name, value, info)]);
  const { verified, not_told_apart: others } = info.provenance;
  const fits = `Its predictions were verified, but the check also fits other functions: ${others.join(", ")}.`;
  const known = !verified
    ? "Its predictions were not compared with those of the model it was made from."
    : others.length ? fits : "Its predictions were verified to equal those of the model it was made from.";
  return html`
    <h2>Card</h2>
    <p>
      <span class=${`verdict ${verified && !others.length ? "important" : ""}`} data-verified=${verified}>${verified ? "verified" : "not verified"}</span>
      ${" "}${known}
    </p>
    <div class="halves">
      <${Facts} of=${kindOf(model)} />
      <${Facts} of=${originOf(info)} />
      <${Facts} class="metrics" of=${metrics} none="No metrics are recorded." />
    </div>
    <${Outputs} info=${info} />
    <details class="inputs"><summary>The inputs, over the training rows</summary><${Inputs} model=${model} /></details>
  `;
}

/** @param {Info} info of which this tells what is forecast from what */
export function tellKind({ targets, horizon, inputs, features, lookback, architecture: { output_function: last } }) {
  const names = targets.map(({ name, title }) => title ?? name);
  const what = names.length > MANY ? `${names.length} targets` : names.join(", ");
  const kind = last === "softmax" || last === "sigmoid" ? `The probability of ${what}` : `Forecasts of ${what}`;
  const reads = `${inputs.length} inputs${inputs.length < features.length ? ` in ${features.length} features` : ""}`;
  return `${kind}${horizon > 1 ? `, ${horizon} steps ahead,` : ""} from ${reads} ${lookback > 1 ? `over ${lookback} steps` : "of one step"}.`;
}

/** @param {{of: string[][], none?: string, class?: string}} props */
function Facts({ of, none = "", class: name = "" }) {
  if (!of.length) return html`<p class="muted">${none}</p>`;
  return html`<dl class=${`facts ${name}`}>${of.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

function kindOf({ info }) {
  const { targets, outputs, lookback, horizon, inputs, features, architecture, intervals } = info;
  const { front, lstm, gru, head, readout, graph } = architecture;
  const cell = lstm ?? gru;
  const named = targets.map(({ name, title, unit }) => (title ? `${title}: ${name}` : name) + (unit ? ` (${unit})` : ""));
  const count = (name) => (graph ?? []).filter(({ op }) => op === name).length;
  /** @type {(string[] | null | undefined | false)[]} */
  const facts = [
    ["Forecasts", named.length > MANY ? `${named.length}: ${named[0]} to ${named.at(-1)}` : named.join(", ")],
    ["Outputs", outputs.length > MANY ? `${outputs.length}: ${outputs[0]} to ${outputs.at(-1)}` : outputs.join(", ")],
    ["Reads", `${inputs.length} inputs, ${features.length} features, over ${lookback} ${lookback === 1 ? "step" : "steps"}`],
    horizon > 1 && ["Steps ahead", String(horizon)],
    intervals && ["Intervals", tellIntervals(intervals)],
    front && ["At every step", tellLayers(front)],
    cell && [lstm ? "LSTM" : "GRU", `${cell.hidden_size} units${cell.bidirectional ? ", both directions" : ""}`],
    graph && ["Graph", `${count("layer")} layers and ${count("recurrent")} recurrent parts, in ${graph.length} operations`],
    !graph && readout && ["Read out", readout],
    !graph && [head.layers.every(({ basis }) => basis.kind === "line") ? "Head" : "KAN", tellLayers(head)],
  ];
  return facts.flatMap((fact) => (fact ? [fact] : []));
}

function tellIntervals({ levels, calibration: { windows, first, last } }) {
  const span = first && last ? `, ${first.slice(0, 10)} to ${last.slice(0, 10)}` : "";
  return `${levels.map(levelName).join(", ")}, calibrated on ${windows} windows${span}`;
}

function tellLayers({ width, layers }) {
  const sizes = width.map((size) => (typeof size === "number" ? size : d3.sum(size)));
  const edges = d3.sum(d3.pairs(sizes), ([from, to]) => from * to);
  return `${sizes.join(" → ")}, ${edges} edges, ${[...new Set(layers.map(tellFunctions))].join(" and ")}`;
}

function tellFunctions({ basis: { kind, grid_size: grid, order }, before }) {
  /** @type {Record<string, string>} */
  const names = { line: "straight lines", bspline: `splines of order ${order} on ${grid} intervals` };
  return (names[kind] ?? `functions of ${kind}`) + (before.length ? ` after ${before.join(" and ")}` : "");
}

/**
 * @param {Info} info
 * @param {boolean} ofOutputs whether those of single outputs, or all others
 */
function metricsOf({ metrics, outputs }, ofOutputs) {
  return Object.entries(metrics).flatMap(([name, value]) => {
    const output = outputs.find((one) => name.endsWith(` ${one}`));
    if (ofOutputs !== (output !== undefined)) return [];
    return [{ name: output ? name.slice(0, -output.length - 1) : name, output, value }];
  });
}

function writeMetric(name, value, { targets }) {
  const unit = targets.every((target) => target.unit === targets[0].unit) ? targets[0].unit : null;
  if (name.endsWith("_r2")) return fixed(value, 3);
  if (name.includes("coverage")) return percent(value);
  if (name.endsWith("windows")) return fixed(value, 0);
  if (name === "season") return `${fixed(value, 0)} steps`;
  if (name.endsWith("spread")) return `${percent(value)} of that of what came`; // standard deviations
  return formatValue(value, unit, value);
}

/** @param {string} name such as `test_r2`, or `test_coverage 0.8` */
function nameMetric(name) {
  const words = { r2: "R²", mae: "MAE", rmse: "RMSE", mse: "MSE", coverage: "coverage of the", winkler: "Winkler score of the" };
  const write = (word) => words[word] ?? (/^0\.\d+$/.test(word) ? `${levelName(Number(word))} interval` : word);
  return name.split(/[_ ]/).map(write).join(" ");
}

/** @param {{info: Info}} props the metrics of each output, where they are known */
function Outputs({ info }) {
  const known = metricsOf(info, true);
  if (!known.length) return null;
  const kinds = [...new Set(known.map(({ name }) => name))];
  const cell = (output, kind) => {
    const found = known.find((one) => one.name === kind && one.output === output);
    return found && writeMetric(kind, found.value, info);
  };
  const rows = info.outputs.map((output) => ({ cells: [output, ...kinds.map((kind) => cell(output, kind))] }));
  return html`<details class="outputs">
    <summary>How good each output is</summary><${Table} label="Metrics by output" heads=${["Output", ...kinds.map(nameMetric)]} rows=${rows} />
  </details>`;
}

function originOf({ provenance, checkpoint, version, versions, reference_windows: windows }) {
  return [
    ["Made by", `${provenance.source}, with ${provenance.library}`],
    ["Made", provenance.created.replace("T", " ").replace("Z", " UTC")],
    ["Version", versions.length > 1 ? `${version} of ${versions.map((one) => one.version).join(", ")}` : version],
    ["Checkpoint", checkpoint],
    ["Averaged over", `${windows} reference windows`],
    ...(provenance.parent ? [["Made from", provenance.parent]] : []),
    ...(provenance.difference === null ? [] : [["Largest difference from it", amount(provenance.difference)]]),
  ];
}

/** @param {{model: Model}} props */
function Inputs({ model: { inputs, info } }) {
  const rows = inputs.map((input) => {
    const { mean, std, min, max } = info.features[input.places[0]];
    const isCounted = input.features.length === 1;
    const write = (value) => formatValue(value, null, std);
    const names = isCycle(input) ? `a cycle, in ${input.features.join(" and ")}` : input.levels.join(", ");
    const range = min === null || max === null ? "" : `${write(min)} to ${write(max)}`;
    const name = html`<span class="input-name">
      <i style=${{ background: input.color }}></i><span data-tip=${input.label}>${input.short}</span>
      ${input.unit && html`<span class="muted">${input.unit}</span>`}
    </span>`;
    const cells = [name, isCounted && write(mean), isCounted && write(std), isCounted ? range : names];
    return { of: { "data-input": input.name }, cells };
  });
  return html`<${Table} label="Inputs" class="cards" heads=${["Input", "Mean", "Standard deviation", "Values"]} rows=${rows} />`;
}
