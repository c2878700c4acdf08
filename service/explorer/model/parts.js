/** What counts as one in the answers about a model: an input of the table, however many features hold it, or a group. */

import { isCycle } from "../inputs.js";

/** @typedef {import("../model.js").Model} Model */

/**
 * An input of the table, or a group; `key` is of the answer's rows.
 *
 * @typedef {Omit<import("../model.js").Input, "kind"> & {key: string, kind: string, input?: string}} Part
 */

/** The inputs. */
export function inputsOf(model) {
  const keyOf = ({ features }, number) => (features.length > 1 ? `#${number}` : features[0]);
  const parts = model.inputs.map((input, number) => ({ ...input, key: keyOf(input, number), input: input.name }));
  const merged = parts.filter(({ features }) => features.length > 1).map(({ key, features }) => [key, features]);
  return { parts, groups: merged.length ? JSON.stringify(Object.fromEntries(merged)) : "null", of: mapOf(parts) };
}

/** The groups of the checkpoint, and the inputs that are in none. */
export function groupsOf(model) {
  const held = new Set(Object.values(model.info.groups).flat());
  const { groups, features: all } = model.info;
  /** @type {(name: string) => string[]} */
  const featuresOf = (name) => (Object.hasOwn(groups, name) ? groups[name].flatMap(featuresOf) : [name]);
  const names = [...Object.keys(groups), ...all.map(({ name }) => name)].filter((name) => !held.has(name));
  const parts = names.map((name) => {
    const features = featuresOf(name);
    const first = /** @type {import("../model.js").Input} */ (model.inputOf.get(features[0]));
    const isGroup = Object.hasOwn(model.info.groups, name);
    const told = isGroup ? { label: name, short: name, unit: null, kind: "group" } : {};
    const places = features.map((feature) => all.findIndex((one) => one.name === feature));
    return { ...first, ...told, key: name, input: isGroup ? undefined : first.name, features, places };
  });
  return { parts, groups: undefined, of: mapOf(parts) };
}

/** Whether the groups of the checkpoint say more than its inputs. */
export function hasGroups({ info, inputs }) {
  const known = new Set(inputs.map(({ features }) => [...features].sort().join("\n")));
  return Object.values(info.groups).some((members) => !known.has([...members].sort().join("\n")));
}

/** By the name of a row, or of any of its features. */
function mapOf(parts) {
  return new Map(parts.flatMap((part) => [part.key, ...part.features].map((name) => /** @type {const} */ ([name, part]))));
}

/** An input by its name, or which of its features where it has several. */
function nameFeature(model, feature) {
  const input = model.inputOf.get(feature);
  if (input?.kind === "level" && feature.includes("=")) return `${input.label} is ${feature.slice(feature.lastIndexOf("=") + 1)}`;
  if (input && isCycle(input)) return `${input.label}, ${["sine", "cosine"][input.features.indexOf(feature)]}`;
  return input?.features.length === 1 ? input.label : feature;
}

/**
 * @param {Model} model
 * @param {string} node such as `lstm:7`, `feature:temp_c`, `cell:-3:temp_c` or `mean(temp_c)`
 */
export function nameNode(model, node) {
  const [kind, ...rest] = node.split(":");
  if (kind === "feature") return nameFeature(model, rest.join(":"));
  const when = rest[0] === "0" ? "at the newest step" : `${-Number(rest[0])} steps before`;
  if (kind === "cell") return `${nameFeature(model, rest.slice(1).join(":"))}, ${when}`;
  return ["lstm", "gru"].includes(kind) ? `${kind.toUpperCase()} unit ${rest.at(-1)}` : node;
}
