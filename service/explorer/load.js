/** What is loaded: each request once for all who need it, again while the service is not ready, stopped when left. */

import { ApiError, askJson, reasonOf, UNANSWERED, urlOf } from "./api.js";
import { signal, useEffect, useRef } from "./lib.js";

/** @typedef {import("./api.js").Ask} Ask */

/**
 * What a component sees of a request.
 *
 * @template T
 * @typedef {object} Loaded
 * @property {T | undefined} value the answer; while another is pending the last one
 * @property {boolean} pending
 * @property {boolean} stale whether the value is that of another request, before this one's is there
 * @property {unknown} [error]
 * @property {() => void} again
 */

const PASSING = [UNANSWERED, 408, 429, 502, 503, 504]; // statuses that are retried
const LONGEST = 15; // most s between two tries
const KEPT = 60; // answers kept for nobody

/** @type {Map<string, Loading>} by key; the most recent last */
const cache = new Map();

/** Requests without an answer, for the status line: what each waits for. */
export const running = signal(/** @type {Loading[]} */ ([]));

class Loading {
  /** @param {(signal: AbortSignal) => Promise<any>} load @param {Ask} [ask] of which it is the answer */
  constructor(load, ask) {
    this.load = load;
    this.ask = ask;
    this.users = 0;
    this.begun = performance.now();
    this.state = signal(/** @type {{value?: any, error?: unknown, pending: boolean}} */ ({ pending: true }));
    /** Why and until when it waits before it tries again. */
    this.waits = signal(/** @type {{reason: string, until: number, now: () => void} | undefined} */ (undefined));
    this.start();
  }

  start() {
    this.running = new AbortController();
    this.begun = performance.now();
    this.state.value = { ...this.state.peek(), error: undefined, pending: true };
    running.value = [...running.peek(), this];
    void this.run(this.running.signal);
  }

  /** @param {AbortSignal} signal */
  async run(signal) {
    for (let tries = 1; !signal.aborted; tries += 1) {
      try {
        const value = await this.load(signal);
        if (!signal.aborted) this.state.value = { value, pending: false };
        break;
      } catch (error) {
        if (signal.aborted) break;
        if (!(error instanceof ApiError && PASSING.includes(error.status))) {
          this.state.value = { error, pending: false };
          break;
        }
        await this.wait(error, tries, signal);
      }
    }
    running.value = running.peek().filter((one) => one !== this);
  }

  /**
   * Waits longer each time, and at least as long as the service's Retry-After.
   *
   * @param {ApiError} error
   * @param {number} tries
   * @param {AbortSignal} signal
   */
  async wait(error, tries, signal) {
    const seconds = Math.max(error.retryAfter, Math.min(LONGEST, 2 ** (tries - 1)));
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, 1000 * seconds);
      const now = () => (clearTimeout(timer), resolve(undefined));
      signal.addEventListener("abort", now);
      this.waits.value = { reason: reasonOf(error), until: performance.now() + 1000 * seconds, now };
    });
    this.waits.value = undefined;
  }

  /** Stops it; it can be started again, and what was loaded before stays. */
  stop() {
    this.running?.abort();
    this.state.value = { ...this.state.peek(), error: new Error("Stopped."), pending: false };
    running.value = running.peek().filter((one) => one !== this);
  }
}

/** The model that was replaced under its name while it was looked at. */
export const replaced = signal(/** @type {string | undefined} */ (undefined));
/** @type {Map<string, string>} the checkpoint of each model and version, as it was loaded */
const known = new Map();

/**
 * Notes the checkpoint of an answer. Where another was known of the model it is said, and what was loaded is forgotten.
 *
 * @param {{model_name?: string, name?: string, version?: string, checkpoint?: string}} answer
 */
function note({ model_name, name = model_name, version, checkpoint }) {
  if (!name || !checkpoint) return;
  const key = `${name}/${version}`;
  const before = known.get(key);
  known.set(key, checkpoint);
  if (before === undefined || before === checkpoint) return;
  replaced.value = name;
  forget();
}

/**
 * Loads something by a key, once for all who use the same key; without a key nothing.
 *
 * @template T
 * @param {string | undefined} key
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {Ask} [ask] of which it is the answer
 * @returns {Loaded<T>}
 */
export function useLoad(key, load, ask) {
  const last = useRef(/** @type {T | undefined} */ (undefined));
  const loading = key === undefined ? undefined : find(key, load, ask);
  useEffect(() => {
    if (!loading) return undefined;
    loading.users += 1;
    return () => leave(/** @type {string} */ (key), loading);
  }, [loading]);
  if (!loading) return { value: undefined, pending: false, stale: false, again: () => {} };
  const { value, error, pending } = loading.state.value;
  if (!pending) last.current = value;
  const shown = value ?? last.current;
  return { value: shown, error, pending, stale: shown !== undefined && value === undefined, again: () => loading.start() };
}

/** The JSON of a request. @param {Ask | undefined} ask @returns {Loaded<any>} */
export function useAsk(ask) {
  return useLoad(ask && keyOf(ask), (signal) => askNoted(/** @type {Ask} */ (ask), signal), ask);
}

/**
 * The requests of what is in view, the latest first, with their answers.
 *
 * @returns {{ask: Ask, answer: any}[]}
 */
export function inView() {
  const used = [...cache.values()].filter(({ users, ask, state }) => users && ask && state.peek().value !== undefined);
  return used.reverse().map(({ ask, state }) => ({ ask: /** @type {Ask} */ (ask), answer: state.peek().value }));
}

/** The JSON of a request, whose checkpoint is noted. @param {Ask} ask @param {AbortSignal} signal */
export async function askNoted(ask, signal) {
  const answer = await askJson(ask, signal);
  note(answer);
  return answer;
}

/** @param {Ask} ask */
export function keyOf(ask) {
  return urlOf(ask).href + (ask.body === undefined ? "" : ` ${JSON.stringify(ask.body)}`);
}

/** Loads all anew that is in view, and forgets the rest. */
function forget() {
  for (const [key, loading] of cache) {
    loading.running?.abort();
    if (loading.users) loading.start();
    else cache.delete(key);
  }
}

/** @param {string} key @param {(signal: AbortSignal) => Promise<any>} load @param {Ask} [ask] */
function find(key, load, ask) {
  const found = cache.get(key) ?? new Loading(load, ask);
  cache.delete(key);
  cache.set(key, found);
  for (const [old, { users, state }] of cache) {
    if (cache.size <= KEPT) break;
    if (!users && !state.peek().pending) cache.delete(old);
  }
  return found;
}

/** @param {string} key @param {Loading} loading */
function leave(key, loading) {
  loading.users -= 1;
  if (loading.users || !loading.state.peek().pending) return;
  loading.running?.abort(); // nobody waits for it any more
  running.value = running.peek().filter((one) => one !== loading);
  if (cache.get(key) === loading) cache.delete(key);
}
