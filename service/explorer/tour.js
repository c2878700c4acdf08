/** The tour of a first visit, in five steps. */

import { h } from "./dom.js";

const KEY = "kanscope-tour";
const STEPS = [
  {
    at: "#tabs",
    title: "One model, seen from several sides",
    text: "Each tab is a view of the same model. The address contains all your choices, so you can share it.",
  },
  {
    at: ".headline",
    title: "One forecast",
    text: "What it is, mainly why, and how far off such forecasts usually are. The arrows and the date lead to others.",
  },
  {
    at: ".why",
    title: "Its reasons",
    text: "What raises the forecast is blue, what lowers it orange; together they lead from the forecast for average inputs to this one.",
  },
  {
    at: ".change",
    title: "What would change it",
    text: "The forecast with other inputs, and a search for the smallest changes that lead to a forecast of your choice.",
  },
  {
    at: ".onward",
    title: "Further",
    text: "Behind it is the network, with a curve on every edge; a question mark explains the term beside it. You can start this tour again under Model.",
  },
];

/**
 * Whether to show the tour: if it is requested, or on a first visit that is not by a test.
 *
 * @param {Record<string, string>} values of the address
 */
export function isWanted({ tour }) {
  return tour === "show" || (!navigator.webdriver && readSeen() === null);
}

/** Shows the tour on the story; closing it ends it for good. */
export function showRound() {
  if (document.querySelector(".tour")) return;
  let number = 0;
  const title = h("h2", { id: "tour-title" });
  const text = h("p", {});
  const count = h("span", { class: "muted" });
  const next = h("button", { type: "button", class: "main", onclick: () => (number += 1) < STEPS.length ? step() : end() });
  const dialog = h(
    "div",
    { class: "card tour", role: "dialog", "aria-labelledby": "tour-title" },
    title,
    text,
    h("div", { class: "between" }, count, h("span", { class: "row" }, h("button", { type: "button", onclick: () => end() }, "Leave"), next)),
  );
  const mark = (/** @type {Element | null} */ target) => {
    document.querySelector(".shown-round")?.classList.remove("shown-round");
    target?.classList.add("shown-round");
    target?.scrollIntoView({ block: "nearest" });
  };
  const step = () => {
    const { at, title: name, text: words } = STEPS[number];
    title.textContent = name;
    text.textContent = words;
    count.textContent = `${number + 1} of ${STEPS.length}`;
    next.textContent = number + 1 < STEPS.length ? "Next" : "Done";
    mark(document.querySelector(at));
  };
  const end = () => {
    mark(null);
    dialog.remove();
    removeEventListener("hashchange", end);
    writeSeen();
  };
  dialog.addEventListener("keydown", ({ key }) => key === "Escape" && end());
  addEventListener("hashchange", end);
  document.body.append(dialog);
  step();
  next.focus({ preventScroll: true });
}

/** @returns {string | null} null before the first visit */
function readSeen() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return "unknown"; // without storage the tour would be shown on every visit
  }
}

function writeSeen() {
  try {
    localStorage.setItem(KEY, "seen");
  } catch {
    // without storage the tour is not shown either
  }
}
