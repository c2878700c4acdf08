/** Components whose modules are evaluated when they are first shown, so that what is read first is there first. */

import { reasonOf } from "./api.js";
import { html, signal, useEffect } from "./lib.js";

/**
 * A component in place of one whose module is imported once this is shown.
 *
 * @param {string} name of the component in its module
 * @param {() => Promise<any>} load
 */
export function later(name, load) {
  const found = signal(/** @type {{Component?: any, error?: unknown}} */ ({}));
  /** @param {any} props */
  return function Later(props) {
    const { Component, error } = found.value;
    useEffect(() => {
      if (!Component) void load().then((module) => (found.value = { Component: module[name] }), (failed) => (found.value = { error: failed }));
    }, []);
    if (error) return html`<p class="problem" role="alert">${reasonOf(error)}</p>`;
    return Component && html`<${Component} ...${props} />`;
  };
}
