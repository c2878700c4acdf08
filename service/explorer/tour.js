/** A first visit is shown round in five steps, and no other. */

import { h } from "./dom.js";

const KEY = "kanscope-tour";
const STEPS = [
  {
    at: "#tabs",
    title: "One model, seen from several sides",
    text: "Each tab is a view of the same model. The address holds all that you choose, so that you can send it on.",
  },
  {
    at: ".stage",
    title: "The network",
    text: "Features at the bottom, the forecast on top, a curve on every edge. Point at a part to see what it is worth; click a node to see its paths alone, or an edge for its function.",
  },
  {
    at: ".prune",
    title: "How much of it is needed",
    text: "The slider leaves out weak edges. The figures below say at once what that costs.",
  },
  {
    at: '#tabs a[href^="#/forecast"]',
    title: "Why this forecast?",
    text: "The forecast view takes one window, from the reference data or your own, and says what each feature added.",
  },
  {
    at: ".help",
    title: "What a word means",
    text: "A question mark says in a sentence what the term beside it means. This tour is under Model if you want it again.",
  },
];

/**
 * Whether to show a visitor round: one who asks, or who is here for the first time and is no test.
 *
 * @param {Record<string, string>} values of the address
 */
export function isWanted({ tour }) {
  return tour === "show" || (!navigator.webdriver && readSeen() === null);
}

/** Shows round, on the network view; whoever leaves it is not asked again. */
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

/** @returns {string | null} null before the first visit, and where the browser keeps nothing */
function readSeen() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return "unknown"; // whoever would be asked on every visit is asked on none
  }
}

function writeSeen() {
  try {
    localStorage.setItem(KEY, "seen");
  } catch {
    // a browser that keeps nothing is one that is not asked either
  }
}
