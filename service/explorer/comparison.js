/** The comparison of two models: figures, and tables of both values and their difference. */

import { figure, h, table } from "./dom.js";
import { amount, percent, range, signed } from "./figures.js";
import { nameNode } from "./graph.js";
import { withHelp } from "./help.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {Schemas["EdgeChangeInfo"]} Edge */

export const APART = 0.1; // model units: curves that differ by more count as different
const POINTS = 100; // percentage points of a share

/**
 * @param {Schemas["ModelComparisonResponse"]} answer
 * @param {string[]} names of both sides
 */
export function tellSummary({ difference, mae, against_mae: against, unit, reference_windows: count }, names) {
  const error = mae === null || against === null ? "no targets known" : `${signed(mae - against, unit)} from there`;
  return [
    figure("forecasts differ by", amount(difference, unit), "root mean square"),
    figure("MAE here", amount(mae, unit), error),
    figure("MAE there", amount(against, unit), names[1]),
    h("p", { class: "muted" }, `Here is ${names[0]}, there is ${names[1]}; both on the ${count} reference windows of here.`),
  ];
}

/** @param {Schemas["ModelComparisonResponse"]} answer */
export function tellFeatures({ features, confidence }) {
  const rows = features.map(({ name, share, against_share: against, change, interval }) =>
    h(
      "tr",
      { "data-feature": name, class: isSure(interval) ? "sure" : null },
      h("td", {}, name),
      h("td", { class: "number" }, percent(share)),
      h("td", { class: "number" }, percent(against)),
      h("td", { class: "number change" }, points(change)),
      h("td", { class: "number muted" }, interval.map(points).join(" to ")),
    ),
  );
  const interval = `${(confidence * 100).toFixed(0)} % interval`;
  return table(["Feature", "Here", "There", withHelp("Change of share, points", "share"), interval], rows);
}

/**
 * The edges, grouped by how they changed.
 *
 * @param {Edge[]} edges
 */
export function changedEdges(edges) {
  const came = edges.filter(({ kept, against_kept: against }) => kept && !against);
  const went = edges.filter(({ kept, against_kept: against }) => !kept && against);
  const both = edges.filter(({ kept, against_kept: against }) => kept && against);
  const bent = both.filter(({ curve_difference: apart }) => (apart ?? 0) > APART);
  const same = both.filter((edge) => !bent.includes(edge));
  const neither = edges.filter(({ kept, against_kept: against }) => !kept && !against);
  return { came, went, bent, same, neither };
}

/**
 * @param {Schemas["ModelComparisonResponse"]} answer
 * @param {(edge: Edge, here: boolean) => string} link to the edge of either side
 */
export function tellEdges({ edges, unit }, link) {
  const { came, went, bent, same } = changedEdges(edges);
  const groups = { came, went, "bends differently": bent.sort(byApart), stays: same.sort(byApart) };
  const side = (/** @type {Edge} */ edge, /** @type {boolean} */ here) => {
    const [kept, value] = here ? [edge.kept, edge.contribution] : [edge.against_kept, edge.against_contribution];
    if (kept === null) return "none";
    return h("a", { href: link(edge, here) }, kept ? amount(value, unit) : `${amount(value, unit)}, pruned`);
  };
  const rows = Object.entries(groups).flatMap(([state, members]) =>
    members.map((edge) =>
      h(
        "tr",
        { "data-state": state },
        h("td", {}, `${nameNode(edge.source)} → ${nameNode(edge.target)}`),
        h("td", {}, h("span", { class: `verdict ${state.split(" ")[0]}` }, state)),
        h("td", { class: "number" }, side(edge, true)),
        h("td", { class: "number" }, side(edge, false)),
        h("td", { class: "number" }, edge.change === null ? "" : signed(edge.change, unit)),
        h("td", { class: "number muted" }, range(edge.interval)),
        h("td", { class: "number" }, edge.curve_difference === null ? "not comparable" : amount(edge.curve_difference)),
      ),
    ),
  );
  const change = withHelp("Change", "contribution");
  return table(["Edge", "", "Here", "There", change, "Interval", "Curves apart"], rows);
}

/**
 * @param {Edge} a
 * @param {Edge} b
 */
function byApart(a, b) {
  return (b.curve_difference ?? 0) - (a.curve_difference ?? 0);
}

/**
 * @param {Schemas["ForecastComparison"]} comparison
 * @param {import("./app.js").Page} page
 * @param {string[]} names
 */
export function tellWindow(comparison, { unit }, names) {
  const { prediction, against_prediction: against, difference, model, error, residual } = comparison;
  const parts = Object.entries(model.contributions).sort(([, a], [, b]) => Math.abs(b) - Math.abs(a));
  const rows = [...parts, ["at the baseline that both share", model.baseline_shift]].map(([name, value]) =>
    h("tr", {}, h("td", {}, String(name)), h("td", { class: "number change" }, signed(Number(value), unit))),
  );
  return [
    h(
      "div",
      { class: "summary" },
      figure("here", amount(prediction, unit)),
      h("span", { class: "sign", "aria-hidden": "true" }, "−"),
      figure("there", amount(against, unit)),
      h("span", { class: "sign", "aria-hidden": "true" }, "="),
      figure("difference", signed(difference, unit)),
      h(
        "p",
        { class: "muted" },
        `${names[0]} less ${names[1]} on the same window, divided among the features. `,
        withHelp(`Error ${amount(error, unit)}`, "error"),
        ", ",
        withHelp(`residual ${amount(Math.abs(residual), unit)}`, "residual"),
        ".",
      ),
    ),
    h(
      "div",
      { class: "scroll parts", tabindex: "0", role: "region", "aria-label": "What the difference is made of" },
      table(["Feature", "What the models disagree on"], rows),
    ),
  ];
}

/** @param {number[]} interval */
function isSure([low, high]) {
  return low > 0 || high < 0;
}

/** @param {number} change of a share */
function points(change) {
  return signed(change * POINTS);
}
