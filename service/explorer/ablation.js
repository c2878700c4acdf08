/** Edges that are removed by hand, besides those that the rule prunes, and what becomes of the shown forecast. */

import { askJson, reasonOf } from "./api.js";
import { figure, h, segments } from "./dom.js";
import { amount } from "./figures.js";
import { askTopology, edgeId, labelsOf, nameEdge } from "./graph.js";
import { withHelp } from "./help.js";
import { readRemoved, ruleBody } from "./pruning.js";
import { loadWindow } from "./window-input.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {import("./app.js").Page} Page */

const MODES = { open: "opens its function", remove: "removes it" };

/**
 * What a click on an edge does, which edges are removed, and how to put them back.
 *
 * @param {Page} page
 */
export function ablationControl(page) {
  /** @type {string[]} ids */
  let removed = [];
  let isRemoving = false;
  const mode = segments("A click on an edge", MODES, (value) => {
    isRemoving = value === "remove"; // at once, however long the page takes to follow
    page.set({ click: isRemoving ? value : "" });
  });
  const list = h("ul", { class: "removed", "aria-label": "Edges removed by hand" });
  const forecast = h("div", { class: "cost", "aria-live": "polite" });
  const change = (/** @type {string[]} */ edges) => {
    removed = edges; // at once: another may go before the page has followed
    return page.set({ without: edges.join(",") });
  };
  const element = h("section", { class: "card ablation" }, h("h2", {}, "Remove by hand"), mode.element, list, forecast);

  const drop = (/** @type {string} */ edge) => void change([...removed, edge]);
  const putBack = (/** @type {string} */ edge) => void change(removed.filter((other) => other !== edge));
  const back = (/** @type {string} */ label, /** @type {string} */ name, /** @type {() => void} */ act) =>
    h("button", { type: "button", class: "small", "aria-label": name, onclick: act }, label);

  /** @param {Map<string, string>} names of edges by their ids */
  const tell = (names) => {
    const focused = list.contains(document.activeElement);
    const rows = removed.map((edge) => {
      const name = names.get(edge) ?? edge;
      return h("li", {}, h("span", {}, name), back("Put back", `Put back ${name}`, () => putBack(edge)));
    });
    const all = h("li", {}, back("Put all back", "Put all edges back", () => void change([])));
    list.replaceChildren(...rows, ...(rows.length > 1 ? [all] : []));
    if (focused) (list.querySelector("button") ?? mode.element.querySelector("input:checked"))?.focus();
  };

  /**
   * @param {Record<string, string>} values
   * @param {AbortSignal} signal
   */
  const set = async (values, signal) => {
    removed = readRemoved(values);
    isRemoving = values.click === "remove";
    mode.set(isRemoving ? "remove" : "open");
    if (!removed.length) return tell(new Map());
    const topology = await askTopology(page, undefined, signal);
    const labels = labelsOf(topology);
    tell(new Map(topology.edges.map((edge) => [edgeId(edge), nameEdge(edge, labels)])));
  };

  /**
   * Tells what the chosen window's forecast is with what is left.
   *
   * @param {Record<string, string>} values
   * @param {AbortSignal} signal
   */
  const follow = async (values, signal) => {
    if (values.window === undefined) {
      forecast.setAttribute("aria-busy", "false");
      const link = h("a", { href: page.link("forecast") }, "Choose a window");
      forecast.replaceChildren(h("p", { class: "muted" }, link, ", and its forecast follows here."));
      return;
    }
    forecast.setAttribute("aria-busy", "true");
    try {
      forecast.replaceChildren(...(await tellAblation(page, values, signal)));
    } catch (error) {
      if (signal.aborted) return; // the next state is on its way
      forecast.replaceChildren(h("p", { class: "muted" }, `Its forecast is not known: ${reasonOf(error)}.`));
    }
    forecast.setAttribute("aria-busy", "false");
  };
  return {
    element,
    set,
    follow,
    drop,
    isRemoving: () => isRemoving,
    /** Removes an edge that is kept, or puts back one that was removed by hand. */
    toggle: (/** @type {string} */ edge, /** @type {boolean} */ isKept) => {
      if (removed.includes(edge)) putBack(edge);
      else if (isKept) drop(edge);
    },
  };
}

/**
 * @param {Page} page
 * @param {Record<string, string>} values
 * @param {AbortSignal} signal
 */
async function tellAblation(page, values, signal) {
  const { window, note } = await loadWindow(values.window, page, signal);
  const body = { instances: [window], output: page.output, ...ruleBody(values) };
  const ask = { path: `${page.path}:ablate`, query: page.version, body };
  const { ablations } = /** @type {Schemas["AblateResponse"]} */ (await askJson(ask, signal));
  const [{ prediction, ablated_prediction: left }] = ablations;
  const term = withHelp("this forecast", "ablation");
  const whole = `${amount(prediction, page.unit)} of the full model`;
  return [figure("this forecast", amount(left, page.unit), whole, term), h("p", { class: "muted" }, note)];
}
