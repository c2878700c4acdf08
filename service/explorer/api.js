/** The client of the service's public API, relative to the page, with the API key of the session. */

import { signal } from "./lib.js";

/** @typedef {import("./schema.js").components["schemas"]} Schemas */

/**
 * A request as data, which can be sent or displayed.
 *
 * @typedef {object} Ask
 * @property {string} path below `/v1/`
 * @property {Record<string, string | number | boolean | string[] | null | undefined>} [query] what is empty is left out,
 *   and of a list each is a parameter
 * @property {unknown} [body] makes it a POST
 * @property {string} [accept] media type of the answer; JSON by default
 */

const ROOT = new URL("../v1/", document.baseURI);
const KEY = "kanscope-key";
export const UNANSWERED = 0; // in place of a status
const TIMEOUT = "600"; // s that the service may compute; leaving the view cancels a request

/** An error response, with the message of the service. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {number} [retryAfter] seconds to wait before a retry
   */
  constructor(status, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/**
 * Throws an error again; that of a request without an answer in words, as browsers say "Failed to fetch" or the like.
 *
 * @param {unknown} error
 * @returns {never}
 */
function unanswered(error) {
  throw error instanceof TypeError ? new ApiError(UNANSWERED, "the service does not answer") : error;
}

/** The message of an error. @param {unknown} error */
export function reasonOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/** The URL of a request. @param {Ask} ask @returns {URL} */
export function urlOf({ path, query = {} }) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") url.searchParams.append(name, String(one));
    }
  }
  return url;
}

/** The path of a model. @param {string} model its name */
export function modelPath(model) {
  return `models/${encodeURIComponent(model)}`;
}

/**
 * The JSON of a response. The caller states its schema.
 *
 * @template T
 * @param {Ask} ask
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 */
export async function askJson(ask, signal) {
  const response = await send(ask, signal);
  return response.json().catch(unanswered);
}

/**
 * The JSON of each line of a response, as they come. The caller states their schema.
 *
 * @param {Ask} ask
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any>}
 */
export async function* askLines(ask, signal) {
  const { body } = await send({ ...ask, accept: "application/x-ndjson" }, signal);
  const reader = /** @type {ReadableStream<Uint8Array>} */ (body).getReader();
  const decoder = new TextDecoder();
  for (let text = ""; ; ) {
    const { done, value } = await reader.read().catch(unanswered);
    const lines = (text + decoder.decode(value, { stream: !done })).split("\n");
    text = lines.pop() ?? "";
    for (const line of lines.map((one) => JSON.parse(one))) {
      if ("error" in line) throw new ApiError(line.status, line.error);
      yield line;
    }
    if (done) return;
  }
}

/** The text of a response. @param {Ask} ask @param {AbortSignal} [signal] */
export async function askText(ask, signal) {
  const response = await send(ask, signal);
  return response.text().catch(unanswered);
}

/**
 * Sends a request; asks the user for an API key if the service requires one.
 *
 * @param {Ask} ask
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>}
 */
async function send(ask, signal) {
  const key = sessionStorage.getItem(KEY);
  const response = await fetch(urlOf(ask), {
    method: ask.body === undefined ? "GET" : "POST",
    headers: {
      Accept: ask.accept ?? "application/json",
      "X-Request-Timeout": TIMEOUT,
      "X-Request-Purpose": "explore", // what is looked at is no production
      ...(ask.body === undefined ? {} : { "Content-Type": "application/json" }),
      ...(key ? { Authorization: `Bearer ${key}` } : {}),
    },
    body: ask.body === undefined ? undefined : JSON.stringify(ask.body),
    signal,
  }).catch(unanswered);
  if (response.ok) return response;
  if (response.status === 401) {
    if (sessionStorage.getItem(KEY) === key) await (asked ??= askForKey(key !== null));
    return send(ask, signal);
  }
  const problem = await response.json().catch(() => ({}));
  const message = problem.error ?? `the service answered ${response.status}`;
  throw new ApiError(response.status, message, Number(response.headers.get("Retry-After")) || 0);
}

/** What asks the person for a key, once for all requests that wait; `refused` says whether one was given before. */
export const keyWanted = signal(/** @type {{refused: boolean, give: (key: string) => void} | undefined} */ (undefined));
/** @type {Promise<void> | undefined} */
let asked;

/** @param {boolean} refused @returns {Promise<void>} */
function askForKey(refused) {
  return new Promise((resolve) => {
    keyWanted.value = {
      refused,
      give: (key) => {
        sessionStorage.setItem(KEY, key.trim());
        keyWanted.value = undefined;
        asked = undefined;
        resolve();
      },
    };
  });
}

/** Whether the service is asked with a key, which links do not have. */
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/**
 * A request as a curl command. The API key is a variable in it, not its value.
 *
 * @param {Ask} ask
 * @returns {string}
 */
export function curlOf(ask) {
  const words = ["curl -s", quote(urlOf(ask).href)];
  if (ask.accept) words.push("-H", quote(`Accept: ${ask.accept}`));
  if (sessionStorage.getItem(KEY)) words.push("-H", '"Authorization: Bearer $KANSCOPE_KEY"');
  if (ask.body !== undefined) {
    words.push("-H", quote("Content-Type: application/json"), "-d", quote(JSON.stringify(ask.body)));
  }
  return words.join(" ");
}

/** @param {string} word */
function quote(word) {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
