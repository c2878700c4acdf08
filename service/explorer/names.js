/** Names that fit: without the words that most of them begin or end with, so that what differs is left. */

const LONG = 22; // characters from which on names lose their common words
const MOST = 0.5; // share of the names from which on a word is common
const WORDS = /(?<=[_.\-/ :])/; // a word ends with its separator

/**
 * The names without common words at both ends; as they are where they are short, or would no longer differ.
 *
 * @param {string[]} names
 * @returns {Map<string, string>}
 */
export function distinctNames(names) {
  const plain = new Map(names.map((name) => [name, name]));
  if (names.length < 3 || Math.max(...names.map(({ length }) => length)) <= LONG) return plain;
  const words = names.map((name) => name.split(WORDS));
  const fronts = count(words);
  const backs = count(words.map((parts) => [...parts].reverse()));
  const cut = names.map((name, number) => {
    const parts = words[number];
    const first = common(parts, fronts, names.length);
    const last = common([...parts].reverse(), backs, names.length);
    const left = parts.slice(first, parts.length - last).join("").replace(/[_.\-/ :]$/, "");
    return left || name;
  });
  if (new Set(cut).size < names.length) return plain;
  return new Map(names.map((name, number) => [name, cut[number]]));
}

/**
 * How many names begin with each sequence of words.
 *
 * @param {string[][]} words of each name
 */
function count(words) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const parts of words) {
    parts.forEach((_, last) => {
      const start = parts.slice(0, last + 1).join("\0");
      counts.set(start, (counts.get(start) ?? 0) + 1);
    });
  }
  return counts;
}

/**
 * @param {string[]} parts of a name
 * @param {Map<string, number>} counts
 * @param {number} total
 */
function common(parts, counts, total) {
  let length = 0;
  while (length < parts.length - 1 && (counts.get(parts.slice(0, length + 1).join("\0")) ?? 0) > MOST * total) length += 1;
  return length;
}
