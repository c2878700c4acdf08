/** The features: what each contributes over the reference windows, how sure that is, and which can replace it. */

import { titleBar } from "../actions.js";
import { askJson, askText } from "../api.js";
import { drawBar, drawSteps } from "../charts.js";
import { breakable, h, widthOf } from "../dom.js";
import { amount, formatChange, formatValue, percent, signed } from "../figures.js";
import { formatsOf } from "../forecast-summary.js";
import { groupOf, readGroups, withMember, withoutGroup, writeGroups } from "../groups.js";
import { help, withHelp } from "../help.js";
import { titlesOf } from "../names.js";
import { swarm } from "../swarm.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["FeatureAttribution"]} Feature */
/** @typedef {import("../groups.js").Groups} Groups */

/**
 * A column of the table.
 *
 * @typedef {object} Column
 * @property {string} label
 * @property {(feature: Feature) => number | string} order what rows are sorted by
 * @property {(feature: Feature) => import("../dom.js").Child} cell
 * @property {import("../help.js").Term} [term] what it is of
 * @property {boolean} [number] whether it is set to the right
 * @property {boolean} [largestFirst] whether it is sorted so at first; as numbers are
 */

const VERDICTS = ["important", "weak", "negligible", "unseen", "disconnected"];
const OF_GROUPS = ["verdict", "share", "contribution", "mean", "permutation"]; // columns that groups have as well
/** @type {import("../help.js").Term[]} explained beside the sorting, where there is no head of the table */
const TERMS = ["verdict", "share", "contribution"];
const N_UNLIKE = 3; // features that a note names
const NEW = "\n"; // in place of a group's name, for one that is still to be named

/**
 * @param {import("../app.js").Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  const answer = h("p", { class: "lead" });
  const note = h("p", { class: "muted" });
  const sorting = h("select", { id: "sort", onchange: () => page.set({ sort: sorting.value }) });
  const table = h("div", { class: "card scroll", tabindex: "0", role: "region", "aria-label": "Features" });
  const steps = h("figure", { class: "chart" });
  const others = swarm(page);
  const groupTable = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Groups" });
  const change = (/** @type {Groups} */ groups) => page.set({ groups: writeGroups(groups, page.model) });
  const element = h(
    "div",
    { class: "view features" },
    titleBar("Features", () => shown, true),
    h("div", { class: "card stack" }, answer, note),
    h("p", { class: "sorting" }, h("label", { for: "sort" }, "Sorted by"), sorting, ...TERMS.map((term) => withHelp(term, term))),
    table,
    h(
      "section",
      { class: "card groups" },
      h("div", { class: "between" }, h("h2", {}, "Groups"), groupActions(page, change)),
      h("p", { class: "muted" }, "Features that mean one thing count as one. Above, each feature has the choice of its group."),
      groupTable,
    ),
    page.model.lookback > 1 && h("section", { class: "card stack" }, h("h2", {}, "Which steps matter"), steps),
    others.element,
  );

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    const ask = { path: `${page.path}/attributions`, query: { ...page.query, groups: values.groups } };
    const found = /** @type {Schemas["AttributionsResponse"]} */ (await askJson(ask, signal));
    const groups = readGroups(values, page.model);
    const columns = columnsOf(found, page, groups, change);
    const [sort, direction] = (values.sort ?? "rank").split(":");
    const focused = table.contains(document.activeElement) ? nameOf(document.activeElement) : null;
    groupTable.replaceChildren(drawGroups(found.groups, groups, columns, change));
    const by = Object.hasOwn(columns, sort) ? sort : "rank";
    table.replaceChildren(drawTable(found.features, columns, by, direction, (sorted) => page.set({ sort: sorted })));
    sorting.replaceChildren(...Object.entries(columns).map(([key, { label }]) => h("option", { value: key }, label.replace("#", "Rank"))));
    sorting.value = by;
    if (focused) {
      const controls = /** @type {NodeListOf<HTMLElement>} */ (table.querySelectorAll("button, select"));
      [...controls].find((control) => nameOf(control) === focused)?.focus();
    }
    answer.textContent = tellAnswer(found, formatsOf(page, undefined));
    note.textContent = tellNote(found, page);
    steps.replaceChildren(drawSteps(found.steps, page.unit, widthOf(steps)));
    const picture = () => askText({ ...ask, accept: "image/svg+xml" });
    void others.set(values, signal);
    shown = { ask, name: `${page.model.name}-features`, data: found, rows: found.features.map(rowOf), picture };
  };
  return { element, update };
}

/** @param {Element | null} control */
function nameOf(control) {
  return control?.getAttribute("aria-label") ?? control?.textContent;
}

/**
 * What moves the forecast most, in a sentence.
 *
 * @param {Schemas["AttributionsResponse"]} answer
 * @param {import("../forecast-summary.js").Formats} formats
 */
function tellAnswer({ features, groups }, formats) {
  const [first, ...others] = groups.length ? groups : features;
  const short = titlesOf(features);
  const named = others.slice(0, 2).map(({ name, share }) => `${short.get(name) ?? name} (${percent(share)})`);
  const count = features.filter(({ verdict }) => verdict === "important").length;
  return (
    `${short.get(first.name) ?? first.name} moves the forecast most, by ${formats.difference(first.mean_abs_contribution)} on average, ` +
    `${percent(first.share)} of all contributions${named.length ? `; then ${named.join(" and ")}` : ""}. ` +
    `${count} of ${features.length} features ${count === 1 ? "is" : "are"} important.`
  );
}

/**
 * @param {Schemas["AttributionsResponse"]} answer
 * @param {import("../app.js").Page} page
 */
function tellNote({ reference, warnings }, page) {
  const confidence = `${(reference.confidence * 100).toFixed(0)} %`;
  const unit = formatsOf(page, undefined).isShare ? "percentage points" : page.unit;
  const amounts = unit ? `; amounts in ${unit}` : "";
  const short = titlesOf(page.model.features);
  const told = warnings.map(({ message, features }) => {
    const some = features.slice(0, N_UNLIKE).map((name) => short.get(name)).join(", ");
    const all = `${features.length} of ${short.size} features, ${features.length > N_UNLIKE ? "among them " : ""}${some}`;
    return ` Note: ${features.length ? `the reference windows are unlike the training rows in ${all}` : message}.`;
  });
  return `Over ${reference.windows} reference windows; thin lines and small numbers are ${confidence} intervals${amounts}.${told.join("")}`;
}

/**
 * @param {Schemas["AttributionsResponse"]} answer
 * @param {import("../app.js").Page} page
 * @param {Groups} groups
 * @param {(groups: Groups) => void} change
 * @returns {Record<string, Column>}
 */
function columnsOf({ features, groups: rows }, page, groups, change) {
  const largest = Math.max(...[...features, ...rows].map(({ share_interval }) => share_interval[1]), Number.MIN_VALUE);
  const units = new Map(page.model.features.map(({ name, unit }) => [name, unit]));
  const short = titlesOf(page.model.features);
  const scale = formatsOf(page, undefined).isShare ? 100 : 1; // percentage points
  const spread = (scale * Math.max(...features.map(({ mean_abs_contribution: value }) => value))) / 2; // of all amounts
  const value = (/** @type {number} */ of) => formatValue(scale * of, null, spread);
  const changeOf = (/** @type {number} */ of) => formatChange(scale * of, null, spread);
  const range = (/** @type {number[] | null | undefined} */ ends) => ends?.map(value).join(" to ") ?? "";
  /** @type {Record<string, Column>} */
  const columns = {
    rank: { label: "#", order: ({ rank }) => rank, cell: ({ rank }) => String(rank) },
    name: { label: "Feature", order: ({ name }) => name, cell: ({ name }) => nameCell(name, short.get(name) ?? name, units.get(name), page) },
    group: {
      label: "Group",
      order: ({ name }) => groupOf(groups, name),
      cell: ({ name }) => groupChoice(name, groups, page, change),
    },
    verdict: {
      label: "Verdict",
      term: "verdict",
      order: ({ verdict }) => VERDICTS.indexOf(verdict),
      cell: ({ verdict }) => h("span", { class: `verdict ${verdict}` }, verdict),
    },
    share: {
      label: "Share",
      term: "share",
      number: true,
      order: ({ share }) => share,
      cell: (feature) => shareCell(feature, largest),
    },
    contribution: {
      label: "Mean |contribution|",
      term: "contribution",
      number: true,
      order: ({ mean_abs_contribution: size }) => size,
      cell: ({ mean_abs_contribution: size, interval }) => pair(value(size), range(interval)),
    },
    mean: {
      label: "Mean, signed",
      number: true,
      order: ({ mean_contribution: mean }) => mean,
      cell: ({ mean_contribution: mean }) => changeOf(mean),
    },
    permutation: {
      label: "Error when shuffled",
      number: true,
      order: ({ permutation_mae_increase: increase }) => increase ?? -Infinity,
      cell: ({ permutation_mae_increase: increase, permutation_interval: interval }) =>
        increase === null ? "unknown" : pair(changeOf(increase), range(interval)),
    },
    score: {
      label: "pykan's score",
      term: "score",
      number: true,
      order: ({ pykan_feature_score: score }) => score ?? -Infinity,
      cell: ({ pykan_feature_score: score }) => amount(score),
    },
    redundant: {
      label: "Moves with",
      largestFirst: true,
      order: ({ redundant_with: partners }) => Math.max(0, ...partners.map(({ correlation }) => Math.abs(correlation))),
      cell: ({ redundant_with: partners }) =>
        partners.length ? partners.map(({ name, correlation }) => `${short.get(name) ?? name} (${signed(correlation)})`).join(", ") : null,
    },
  };
  if (features.every(({ pykan_feature_score: score }) => score === null)) delete columns.score;
  if (features.every(({ permutation_mae_increase: increase }) => increase === null)) delete columns.permutation;
  return columns;
}

/**
 * The choice of a feature's group, with one to be named.
 *
 * @param {string} feature
 * @param {Groups} groups
 * @param {import("../app.js").Page} page
 * @param {(groups: Groups) => void} change
 */
function groupChoice(feature, groups, page, change) {
  const now = groupOf(groups, feature);
  const options = Object.keys(groups).map((name) => h("option", { value: name }, name));
  const choice = h(
    "select",
    { "aria-label": `Group of ${feature}` },
    h("option", { value: "" }, "none"),
    ...options,
    h("option", { value: NEW }, "a new group …"),
  );
  choice.value = now;
  choice.onchange = async () => {
    const name = choice.value === NEW ? await askName(page) : choice.value;
    if (name === undefined) choice.value = now;
    else change(withMember(groups, feature, name));
  };
  return h("span", {}, choice);
}

/**
 * Asks for the name of a new group.
 *
 * @param {import("../app.js").Page} page
 * @returns {Promise<string | undefined>} undefined for none
 */
function askName({ model }) {
  const taken = new Set(model.features.map(({ name }) => name));
  const check = () =>
    input.setCustomValidity(
      taken.has(input.value.trim()) ? "A feature has this name." : input.value.trim() ? "" : "A group needs a name.",
    );
  const input = h("input", { id: "group-name", autocomplete: "off", required: true, oninput: check });
  const dialog = h(
    "dialog",
    { class: "card", "aria-labelledby": "group-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "group-title" }, "A new group"),
      h("label", { for: "group-name" }, "Name"),
      input,
      h(
        "span",
        { class: "row" },
        h("button", { class: "main", value: "make" }, "Make it"),
        h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "make" ? input.value.trim() : undefined);
    });
  });
}

/**
 * Buttons that lead to the checkpoint's groups, and to none.
 *
 * @param {import("../app.js").Page} page
 * @param {(groups: Groups) => void} change
 */
function groupActions({ model }, change) {
  const button = (/** @type {string} */ label, /** @type {Groups} */ groups) =>
    h("button", { type: "button", class: "small", onclick: () => change(groups) }, label);
  const own = Object.keys(model.groups).length ? [button("The model’s groups", model.groups)] : [];
  return h("span", { class: "row" }, ...own, button("No groups", {}));
}

/**
 * The groups as a table: what they are made of, and how much they count together.
 *
 * @param {Schemas["GroupedAttribution"][]} rows groups, and features that are in none
 * @param {Groups} groups
 * @param {Record<string, Column>} columns of the features
 * @param {(groups: Groups) => void} change
 */
function drawGroups(rows, groups, columns, change) {
  const shown = rows.filter(({ name }) => Object.hasOwn(groups, name));
  if (!shown.length) return h("p", { class: "muted" }, "There are none.");
  const keys = OF_GROUPS.filter((key) => Object.hasOwn(columns, key));
  const chosen = keys.map((key) => columns[key]);
  const head = chosen.map(({ label, number, term }) =>
    h("th", { scope: "col", class: number ? "number" : null }, label, term && help(term)),
  );
  const body = shown.map((row) =>
    h(
      "tr",
      { "data-group": row.name, "data-feature": row.members.join("\n") },
      h("th", { scope: "row" }, row.name),
      h("td", { class: "members" }, row.members.join(", ")),
      ...keys.map((key) => cellOf(key, columns[key], row)),
      h(
        "td",
        {},
        h(
          "button",
          {
            ...{ type: "button", class: "small", "aria-label": `Dissolve ${row.name}` },
            onclick: () => change(withoutGroup(groups, row.name)),
          },
          "✕",
        ),
      ),
    ),
  );
  const names = ["Group", "Features"].map((name) => h("th", { scope: "col" }, name));
  return h("table", {}, h("thead", {}, h("tr", {}, ...names, ...head, h("td", {}))), h("tbody", {}, ...body));
}

/**
 * The name, or the title, which leads to the paths of the feature through the network.
 *
 * @param {string} name
 * @param {string} short
 * @param {string | null | undefined} unit
 * @param {import("../app.js").Page} page
 */
function nameCell(name, short, unit, page) {
  const link = h("a", { href: page.link("network", { through: `feature:${name}` }), title: name }, ...breakable(short));
  return h("span", {}, link, unit ? h("span", { class: "muted" }, ` ${unit}`) : null);
}

/**
 * @param {string} value
 * @param {string} interval
 */
function pair(value, interval) {
  return h("span", {}, value, h("span", { class: "muted interval" }, interval));
}

/**
 * @param {Feature} feature
 * @param {number} largest
 */
function shareCell({ share, share_interval: interval }, largest) {
  return h("span", { class: "share" }, drawBar(share, interval, [0, largest]), h("span", {}, percent(share)));
}

/**
 * @param {Feature[]} features
 * @param {Record<string, Column>} columns
 * @param {string} sort key of the column
 * @param {string | undefined} direction `up` or `down`; the column's own where it is neither
 * @param {(sort: string) => void} choose
 */
function drawTable(features, columns, sort, direction, choose) {
  const { number, largestFirst = Boolean(number), order } = columns[sort];
  const descending = direction ? direction === "down" : largestFirst;
  const sorted = [...features].sort((a, b) => compare(order(a), order(b)) * (descending ? -1 : 1));
  const head = Object.entries(columns).map(([key, { label, number, term }]) => {
    const state = key === sort ? (descending ? "descending" : "ascending") : null;
    const next = key === sort ? `${key}:${descending ? "up" : "down"}` : key;
    const button = h("button", { type: "button", class: "sort", onclick: () => choose(next) }, label);
    return h("th", { scope: "col", class: number ? "number" : null, "aria-sort": state }, button, term && help(term));
  });
  const rows = sorted.map((feature) =>
    h(
      "tr",
      { "data-feature": feature.name },
      ...Object.entries(columns).map(([key, column]) => cellOf(key, column, feature)),
    ),
  );
  return h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
}

/**
 * @param {string} key of the column
 * @param {Column} column
 * @param {Feature} feature
 */
function cellOf(key, { cell, label, number }, feature) {
  const attributes = { class: number ? "number" : null, "data-column": key, "data-label": label };
  return h("td", attributes, cell(feature));
}

/**
 * @param {number | string} a
 * @param {number | string} b
 */
function compare(a, b) {
  return typeof a === "string" ? a.localeCompare(String(b)) : a < Number(b) ? -1 : a > Number(b) ? 1 : 0;
}

/** @param {Feature} feature */
function rowOf({ interval, share_interval, permutation_interval, redundant_with, ...feature }) {
  return {
    ...feature,
    ...{ interval_low: interval[0], interval_high: interval[1] },
    ...{ share_low: share_interval[0], share_high: share_interval[1] },
    ...{ permutation_low: permutation_interval?.[0], permutation_high: permutation_interval?.[1] },
    redundant_with: redundant_with.map(({ name }) => name).join(" "),
  };
}
