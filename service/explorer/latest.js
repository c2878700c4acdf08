/** Work that is asked for faster than it is done. */

/**
 * Runs one piece of work at a time, and after it the one that was asked for last; those between are left out. Nothing is
 * cut short, so that something is shown however fast the asking is.
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
 * Runs work after a rest, from the last asking on.
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
