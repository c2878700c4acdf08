/** Coalescing of work that is requested faster than it is done, and debouncing. */

/**
 * Runs one task at a time, then the latest requested one; those in between are skipped. A running task is not
 * cancelled, so that something is shown however fast the requests are.
 *
 * @template T
 * @param {(what: T) => Promise<void>} work
 * @returns {(what: T) => Promise<void>} settles when nothing is left to do
 */
export function latestOnly(work) {
  /** @type {{what: T} | undefined} */
  let next;
  /** @type {Promise<void> | undefined} */
  let running;
  const run = async () => {
    while (next) {
      const { what } = next;
      next = undefined;
      await work(what);
    }
  };
  return (what) => {
    next = { what };
    return (running ??= run().finally(() => (running = undefined)));
  };
}

/**
 * Debounces work: runs it after a rest without further requests.
 *
 * @returns {{after: (rest: number, work: () => void) => void, stop: () => void}} `rest` in ms
 */
export function afterRest() {
  let timer = 0;
  const stop = () => clearTimeout(timer);
  const after = (/** @type {number} */ rest, /** @type {() => void} */ work) => {
    stop();
    timer = setTimeout(work, rest);
  };
  return { after, stop };
}
