/** What is shown, as the address says it: `#/edge?model=…&edge=head/0/7/3`. There is no other state. */

/** @typedef {{view: string, values: Record<string, string>}} State */

/**
 * The state of an address.
 *
 * @param {string} hash
 * @returns {State}
 */
export function readState(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { view: path || "network", values: Object.fromEntries(new URLSearchParams(query)) };
}

/**
 * The address of a state.
 *
 * @param {State} state
 * @returns {string}
 */
export function writeState({ view, values }) {
  const known = Object.entries(values).filter(([, value]) => value !== "");
  const query = new URLSearchParams(known).toString().replaceAll("%2F", "/").replaceAll("%3A", ":");
  return `#/${view}${query && `?${query}`}`;
}
