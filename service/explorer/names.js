/** Long names without the words that most of them have, so that what differs is left; as the service's pictures do. */

const LONG = 22; // characters from which on names lose words
const WORDS = /[^\W_]+|[\W_]+/g; // and what joins them

/**
 * The names without common words, such as the site and the unit of a sensor, as long as they still differ.
 *
 * @param {string[]} names
 * @returns {Map<string, string>}
 */
export function distinctNames(names) {
  const words = names.map((name) => name.match(WORDS) ?? [name]);
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const word of words.flatMap((parts) => [...new Set(parts)])) counts.set(word, (counts.get(word) ?? 0) + 1);
  const common = [...counts]
    .filter(([word, count]) => isWord(word) && count > Math.max(1, names.length / 2))
    .sort(([, one], [, other]) => other - one);
  let short = names;
  /** @type {Set<string>} */
  let dropped = new Set();
  for (const [word] of common) {
    if (Math.max(...short.map(({ length }) => length)) <= LONG) break;
    const more = new Set([...dropped, word]);
    const found = words.map((parts) => leaveOut(parts, more));
    if (new Set(found).size < names.length || found.includes("")) continue;
    [short, dropped] = [found, more];
  }
  return new Map(names.map((name, number) => [name, short[number]]));
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
