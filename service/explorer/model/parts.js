/** What counts as one in the answers about a model: an input of the table, however many features hold it, or a group. */

import { isCycle } from "../inputs.js";

/** @typedef {import("../model.js").Model} Model */

/**
 * @typedef {object} Part
 * @property {string} key of the answer's rows
 * @property {string} label
 * @property {string} short
 * @property {string | null | undefined} unit
 * @property {string} color
 * @property {string} kind of an input, or `group`
 * @property {string | undefined} input its name, where it is one
 * @property {string[]} features
 * @property {number[]} places of the features among those of the model
 */

/** The inputs. */
export function inputsOf(model) {
  const parts = model.inputs.map((input, number) => ({
    ...{ key: input.features.length > 1 ? `#${number}` : input.features[0], input: input.name },
    ...{ label: input.label, short: input.short, unit: input.unit, color: input.color, kind: input.kind },
    ...{ features: input.features, places: input.places },
  }));
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
    return {
      ...{ key: name, input: isGroup ? undefined : first.name, label: isGroup ? name : first.label, short: isGroup ? name : first.short },
      ...{ unit: isGroup ? null : first.unit, color: first.color, kind: isGroup ? "group" : first.kind, features },
      places: features.map((feature) => model.info.features.findIndex((one) => one.name === feature)),
    };
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
export function nameFeature(model, feature) {
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
