/** Data and texts that leave the page: as files, as CSV, and into the clipboard. */

/** Downloads a file. @param {string} name @param {string} type @param {BlobPart} content */
export function save(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const anchor = Object.assign(document.createElement("a"), { href: url, download: name.replace(/[^\w.+-]+/g, "-") });
  anchor.click();
  URL.revokeObjectURL(url);
}

/** Rows as CSV (RFC 4180), with the union of their columns. @param {Record<string, unknown>[]} rows */
export function writeCsv(rows) {
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const lines = [columns, ...rows.map((row) => columns.map((column) => row[column]))];
  return lines.map((line) => line.map(writeCell).join(",") + "\r\n").join("");
}

/** @param {unknown} value */
function writeCell(value) {
  const text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** What an answer says of each input of each window, or else its longest list. @param {any} answer @returns {Record<string, unknown>[]} */
export function rowsOf(answer) {
  if (answer.explanations)
    return answer.explanations.flatMap(({ instance, output, prediction, contributions }) =>
      Object.entries(contributions).map(([feature, contribution]) => ({ instance, output, prediction, feature, contribution })),
    );
  const lists = Object.values(answer).filter((value) => Array.isArray(value) && value.length && typeof value[0] === "object" && !Array.isArray(value[0]));
  const longest = lists[d3.maxIndex(lists, ({ length }) => length)];
  return (longest ?? [answer]).map((/** @type {any} */ row) => flatten(row));
}

/** A record whose records are columns of their own, as `scores.backward`. @param {any} record @returns {Record<string, unknown>} */
function flatten(record, prefix = "") {
  return Object.fromEntries(
    Object.entries(record).flatMap(([name, value]) =>
      value && typeof value === "object" && !Array.isArray(value) ? Object.entries(flatten(value, `${prefix}${name}.`)) : [[prefix + name, value]],
    ),
  );
}

/** Copies a text; without TLS, where pages have no access to the clipboard, by way of a selection. @param {string} text */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text, className: "away" });
    const focused = document.activeElement;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    if (focused instanceof HTMLElement) focused.focus();
    if (!isCopied) throw new Error("The browser does not allow copying.");
  }
}
