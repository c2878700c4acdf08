/** Features that mean one thing: the groups of the checkpoint, or those that the person makes, which the address has. */

/** @typedef {import("./api.js").Schemas["ModelInfo"]} ModelInfo */
/** @typedef {Record<string, string[]>} Groups name to members, which are features or other groups */

const NONE = "null"; // in the address, and to the service: no groups, whatever the checkpoint has

/**
 * The groups that the address says, or else those of the checkpoint.
 *
 * @param {Record<string, string>} values of the address
 * @param {ModelInfo} model
 * @returns {Groups}
 */
export function readGroups({ groups }, model) {
  return groups ? (parse(groups) ?? {}) : model.groups;
}

/**
 * What the address says of groups; nothing of those that the checkpoint has.
 *
 * @param {Groups} groups
 * @param {ModelInfo} model
 */
export function writeGroups(groups, model) {
  if (JSON.stringify(sorted(groups)) === JSON.stringify(sorted(model.groups))) return "";
  return Object.keys(groups).length ? JSON.stringify(groups) : NONE;
}

/**
 * The groups of the address as a member of a body; nothing where the checkpoint's are meant.
 *
 * @param {Record<string, string>} values of the address
 */
export function groupsOfBody({ groups }) {
  return groups ? { groups: parse(groups) } : {};
}

/**
 * The contribution of each group, and of each feature that is in none; undefined without groups.
 *
 * @param {import("./api.js").Schemas["Explanation"]} explanation that sums no segments
 */
export function byGroupOf({ contributions_by_group: byGroup }) {
  return byGroup && Object.fromEntries(Object.entries(byGroup).map(([name, of]) => [name, of["all steps"] ?? 0]));
}

/**
 * The groups with a feature in another of them, or in none. A group without members is none.
 *
 * @param {Groups} groups
 * @param {string} feature
 * @param {string} name of its group, which may be a new one; empty for none
 */
export function withMember(groups, feature, name) {
  const left = mapMembers(groups, (members) => members.filter((member) => member !== feature));
  const members = Object.hasOwn(left, name) ? left[name] : [];
  return withoutEmpty(name ? { ...left, [name]: [...members, feature] } : left);
}

/**
 * The groups without one, whose members are then in none.
 *
 * @param {Groups} groups
 * @param {string} name
 */
export function withoutGroup(groups, name) {
  return withoutEmpty({ ...groups, [name]: [] });
}

/**
 * The group that a feature or a group is a member of; empty for none.
 *
 * @param {Groups} groups
 * @param {string} member
 */
export function groupOf(groups, member) {
  return Object.keys(groups).find((name) => groups[name].includes(member)) ?? "";
}

/**
 * What no group holds, of the contributions of groups and of features that are in none: these alone sum to the forecast.
 *
 * @param {Record<string, number>} contributions
 * @param {Groups} groups
 */
export function outermost(contributions, groups) {
  const held = new Set(Object.values(groups).flat());
  return Object.fromEntries(Object.entries(contributions).filter(([name]) => !held.has(name)));
}

/**
 * The features of a group at any depth, or a feature itself.
 *
 * @param {string} name
 * @param {Groups} groups
 * @returns {string[]}
 */
export function featuresOf(name, groups) {
  return Object.hasOwn(groups, name) ? groups[name].flatMap((member) => featuresOf(member, groups)) : [name];
}

/**
 * Whether the groups of the address are some of another model too.
 *
 * @param {string} text as the address has them
 * @param {ModelInfo} model
 */
export function groupsFit(text, { features }) {
  const groups = parse(text) ?? {};
  const known = new Set([...Object.keys(groups), ...features.map(({ name }) => name)]);
  return Object.values(groups).flat().every((member) => known.has(member));
}

/**
 * @param {string} text
 * @returns {Groups | null}
 */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error("The groups of this address are not JSON.");
  }
}

/**
 * @param {Groups} groups
 * @returns {Groups}
 */
function withoutEmpty(groups) {
  const empty = Object.keys(groups).find((name) => !groups[name].length);
  if (empty === undefined) return groups;
  const { [empty]: _, ...rest } = groups;
  return withoutEmpty(mapMembers(rest, (members) => members.filter((member) => member !== empty)));
}

/**
 * @param {Groups} groups
 * @param {(members: string[]) => string[]} change
 * @returns {Groups}
 */
function mapMembers(groups, change) {
  return Object.fromEntries(Object.entries(groups).map(([name, members]) => [name, change(members)]));
}

/** @param {Groups} groups */
function sorted(groups) {
  return Object.entries(groups)
    .map(([name, members]) => [name, [...members].sort()])
    .sort(([a], [b]) => (a < b ? -1 : 1));
}
