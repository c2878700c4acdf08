/** The header of a view: its title, its request as a curl command, and downloads of its data and picture. */

import { curlOf, reasonOf } from "./api.js";
import { h } from "./dom.js";
import { rasterise, writeDrawing } from "./pictures.js";

/** @typedef {import("./api.js").Ask} Ask */
/** @typedef {Record<string, unknown>[]} Rows */

/**
 * The data of a view.
 *
 * @typedef {object} Shown
 * @property {Ask} ask the request behind it
 * @property {string} name of the files
 * @property {unknown} data the answer
 * @property {Rows} rows the same as a table
 * @property {() => string | Promise<string>} [picture] as SVG
 */

/**
 * The header of a view: its title and its downloads.
 *
 * @param {string} name
 * @param {() => Shown | undefined} shown the current data of the view; undefined before it is loaded
 * @param {boolean} [pictured] whether it has a picture
 */
export function titleBar(name, shown, pictured = false) {
  return h("div", { class: "title" }, h("h1", {}, name), actions(shown, pictured));
}

/**
 * Buttons that copy the request of a view and save its data.
 *
 * @param {() => Shown | undefined} shown
 * @param {boolean} pictured
 */
export function actions(shown, pictured) {
  const said = h("span", { role: "status", class: "said" });
  const offer = (/** @type {string} */ label, /** @type {(shown: Shown) => unknown} */ act) =>
    h("button", { type: "button", onclick: () => withShown(act) }, label);
  const withShown = async (/** @type {(shown: Shown) => unknown} */ act) => {
    const now = shown();
    try {
      if (!now) throw new Error("nothing is shown");
      said.textContent = "";
      await act(now);
    } catch (error) {
      said.textContent = reasonOf(error);
    }
  };
  const copy = async (/** @type {Shown} */ { ask }) => {
    said.textContent = (await copyText(curlOf(ask))) ? "copied" : "the browser does not allow copying";
    setTimeout(() => (said.textContent = ""), 2000);
  };
  return h(
    "div",
    { class: "actions", role: "group", "aria-label": "This view as data" },
    said,
    offer("Copy as curl", copy),
    offer("JSON", ({ name, data }) => save(`${name}.json`, "application/json", JSON.stringify(data, null, 1))),
    offer("CSV", ({ name, rows }) => save(`${name}.csv`, "text/csv", writeCsv(rows))),
    ...(pictured
      ? [
          offer("SVG", async ({ name, picture }) => save(`${name}.svg`, "image/svg+xml", (await picture?.()) ?? "")),
          offer("PNG", async ({ name, picture }) =>
            save(`${name}.png`, "image/png", await rasterise((await picture?.()) ?? "")),
          ),
        ]
      : []),
  );
}

/**
 * Buttons that save a drawing of the page.
 *
 * @param {HTMLElement} place that holds it
 * @param {() => string} name of the file
 * @param {string} what it shows
 */
export function pictureActions(place, name, what) {
  const text = () => {
    const drawing = place.querySelector("svg");
    if (!drawing) throw new Error("nothing is shown yet");
    return writeDrawing(drawing);
  };
  const button = (/** @type {string} */ label, /** @type {() => unknown} */ act) =>
    h("button", { type: "button", class: "small", "aria-label": `${what} as ${label}`, onclick: act }, label);
  return h(
    "span",
    { class: "actions" },
    button("SVG", () => save(`${name()}.svg`, "image/svg+xml", text())),
    button("PNG", async () => save(`${name()}.png`, "image/png", await rasterise(text()))),
  );
}

/**
 * Downloads a file.
 *
 * @param {string} name
 * @param {string} type
 * @param {BlobPart} content
 */
export function save(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  h("a", { href: url, download: name.replace(/[^\w.+-]+/g, "-") }).click();
  URL.revokeObjectURL(url);
}

/**
 * Rows as CSV (RFC 4180), with the union of their columns.
 *
 * @param {Rows} rows
 */
export function writeCsv(rows) {
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const lines = [columns, ...rows.map((row) => columns.map((column) => row[column]))];
  return lines.map((line) => line.map(writeCell).join(",") + "\r\n").join("");
}

/** @param {unknown} value */
function writeCell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * @param {string} text
 * @returns {Promise<boolean>} whether it is in the clipboard
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

/**
 * The fallback for pages without TLS, which have no access to the clipboard.
 *
 * @param {string} text
 */
function copyBySelection(text) {
  const area = h("textarea", { class: "away", "aria-hidden": "true" }, text);
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return copied;
}
