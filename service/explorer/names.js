/** Names and titles of features, and long names cut so that what differs is left, as in the service's pictures. */

import "./vendor/d3.min.js";

const LONG = 22; // characters from which on names lose words
const WORDS = /[^\W_]+|[\W_]+/g; // and what joins them

/** A text as the beginning of a sentence; `pH` stays. @param {string} text */
export function capitalise(text) {
  return /^.\p{Lu}/u.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * The names without the words that most have, such as the site and the unit of a sensor, as long as they still differ.
 * With a room in characters, an ellipsis also replaces words of what is too long for it, in the middle, without which a
 * name is still the only one with all its others; or, if that is not enough, letters.
 *
 * @param {string[]} names
 * @param {number} [room]
 * @returns {Map<string, string>}
 */
export function distinctNames(names, room) {
  const words = names.map((name) => name.match(WORDS) ?? [name]);
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const word of words.flatMap((parts) => [...new Set(parts)])) counts.set(word, (counts.get(word) ?? 0) + 1);
  const common = [...counts]
    .filter(([word, count]) => isWord(word) && count > Math.max(1, names.length / 2))
    .sort(([word, count], [other, more]) => more - count || other.length - word.length);
  let short = names;
  /** @type {Set<string>} */
  let dropped = new Set();
  for (const [word] of common) {
    if (Math.max(...short.map(({ length }) => length)) <= (room ?? LONG)) break;
    const more = new Set([...dropped, word]);
    const found = words.map((parts) => leaveOut(parts, more));
    if (new Set(found).size < names.length || found.includes("")) continue;
    [short, dropped] = [found, more];
  }
  if (room !== undefined) short = cutNames(short, Math.max(3, room));
  return new Map(names.map((name, number) => [name, short[number]]));
}

/**
 * Cuts a name to a room in characters so that it still differs from the others.
 *
 * @param {string[]} names
 * @returns {(name: string, room: number) => string}
 */
export function fitAmong(names) {
  /** @type {Map<number, Map<string, string>>} */
  const byRoom = new Map();
  return (name, room) => {
    if (name.length <= room) return name;
    if (!byRoom.has(room)) byRoom.set(room, distinctNames(names, room));
    return byRoom.get(room)?.get(name) ?? name;
  };
}

/** @param {string} part */
function isWord(part) {
  return /^[^\W_]/.test(part);
}

/**
 * Words and what joins them, without some words and what stands before each.
 *
 * @param {string[]} parts
 * @param {Set<string>} dropped
 */
function leaveOut(parts, dropped) {
  let text = "";
  parts.forEach((part, place) => {
    if (!isWord(part) || dropped.has(part)) return;
    text += text ? (parts[place - 1] ?? "") + part : part;
  });
  return text;
}

/** @param {string[]} names @param {number} room */
function cutNames(names, room) {
  const words = names.map((name) => name.match(WORDS) ?? [name]);
  /** @type {Map<string, Set<number>>} the names that have a word */
  const having = new Map();
  words.forEach((parts, number) => {
    for (const part of parts.filter(isWord)) having.set(part, (having.get(part) ?? new Set()).add(number));
  });
  const whole = words.map((parts) => elide(parts, having, room));
  const cutAt = (/** @type {string} */ text, /** @type {number} */ end) =>
    text.length <= room ? text : `${text.slice(0, room - 1 - end)}…${text.slice(-end)}`;
  const ends = Array.from({ length: room - 2 }, (_, index) => index + 1).sort((a, b) => Math.abs(2 * a - room + 1) - Math.abs(2 * b - room + 1));
  const cuts = ends.map((end) => whole.map((text) => cutAt(text, end)));
  return cuts.find((cut) => new Set(cut).size === names.length) ?? cuts[0];
}

/**
 * A name whose words give way to ellipses until it fits, but not those that tell it from all others.
 *
 * @param {string[]} parts
 * @param {Map<string, Set<number>>} having
 * @param {number} room
 */
function elide(parts, having, room) {
  const places = [...parts.keys()].filter((place) => isWord(parts[place]));
  const namesWith = (/** @type {number} */ place) => having.get(parts[place]) ?? new Set();
  const rank = (/** @type {number} */ place) => [Number(place === places[0]), -namesWith(place).size, Math.abs(place - parts.length / 2)];
  let kept = new Set(places);
  let text = parts.join("");
  for (const place of d3.sort(places, ...[0, 1, 2].map((index) => (/** @type {number} */ one) => rank(one)[index]))) {
    if (text.length <= room) break;
    const others = new Set([...kept].filter((other) => other !== place));
    const [first, ...more] = [...others].map(namesWith);
    if (!first || [...first].filter((number) => more.every((set) => set.has(number))).length > 1) continue;
    const found = parts
      .map((part, number) => (others.has(number) || (others.has(number - 1) && others.has(number + 1)) ? part : isWord(part) ? "…" : ""))
      .join("")
      .replace(/…+/g, "…")
      .replace(/^…|…$/g, "");
    if (3 * found.length < room) continue; // letters say more
    [kept, text] = [others, found];
  }
  return text;
}
