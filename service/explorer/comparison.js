/** The comparison of two models: a sentence, figures, and tables of both values and their difference. */

import { drawBar } from "./charts.js";
import { figure, h, table } from "./dom.js";
import { amount, fixed, percent } from "./figures.js";
import { formatsOf } from "./forecast-summary.js";
import { edgeKey, nameNode } from "./graph.js";
import { withHelp } from "./help.js";
import { titlesOf } from "./names.js";

/** @typedef {import("./api.js").Schemas} Schemas */
/** @typedef {Schemas["EdgeChangeInfo"]} Edge */

export const APART = 0.1; // model units: curves that differ by more count as different
const POINTS = 100; // percentage points of a share
const NAMED = 3; // features in the sentence

/**
 * What differs, in a sentence, and its figures.
 *
 * @param {Schemas["ModelComparisonResponse"]} answer
 * @param {string[]} names of both sides
 * @param {string} reference the model whose windows they are
 * @param {import("./app.js").Page} page
 */
export function tellSummary(answer, names, reference, page) {
  const { difference, mae, against_mae: against, reference_windows: count, features } = answer;
  const [one, other] = names;
  const sure = features.filter(({ interval }) => isSure(interval)).slice(0, NAMED);
  const short = titlesOf(features);
  const moved = sure.map(({ name, change }, index) => {
    const much = `${fixed(Math.abs(change) * POINTS, 1)} points ${change > 0 ? "more" : "less"}`;
    return `${short.get(name)} ${index ? "" : "counts "}${much}`;
  });
  const { difference: apart } = formatsOf(page, difference);
  const isKnown = mae !== null && against !== null;
  const better = isKnown && mae !== against && (mae < against ? one : other);
  return [
    h(
      "p",
      { class: "lead" },
      `The forecasts of ${one} and ${other} differ by ${apart(difference)}`,
      better ? `; those of ${better} miss by ${apart(Math.abs(mae - against))} less on average. ` : ". ",
      sure.length ? `In ${one}, ${moved.join(", ")}.` : "No feature surely counts more in one than in the other.",
    ),
    h(
      "div",
      { class: "row wide" },
      figure("forecasts differ by", apart(difference), "root mean square"),
      ...(isKnown ? [figure(`MAE of ${one}`, apart(mae)), figure(`MAE of ${other}`, apart(against))] : []),
    ),
    h("p", { class: "muted" }, `Both on the ${count} reference windows of ${reference}.`, isKnown ? "" : " Their actual values are not known."),
  ];
}

/**
 * @param {Schemas["ModelComparisonResponse"]} answer
 * @param {string[]} names of both sides
 */
export function tellFeatures({ features, confidence }, names) {
  const share = Math.max(...features.flatMap(({ share, against_share: against }) => [share, against]));
  const change = Math.max(...features.flatMap(({ interval }) => interval.map(Math.abs)), Number.MIN_VALUE);
  const rows = features.map((feature) =>
    h(
      "tr",
      { "data-feature": feature.name, class: isSure(feature.interval) ? "sure" : null },
      h("td", {}, feature.name),
      h("td", { class: "number" }, percent(feature.share), drawBar(feature.share, null, [0, share])),
      h("td", { class: "number" }, percent(feature.against_share), drawBar(feature.against_share, null, [0, share])),
      h(
        "td",
        { class: "number change" },
        drawBar(feature.change, feature.interval, [-change, change]),
        h("span", { class: "value" }, points(feature.change)),
        h("span", { class: "muted interval" }, feature.interval.map(points).join(" to ")),
      ),
    ),
  );
  const of = withHelp(`Difference in points, ${(confidence * 100).toFixed(0)} % interval`, "share");
  return table(["Feature", ...names, of], rows);
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
 * @param {string[]} names of both sides
 * @param {import("./app.js").Page} page
 * @param {(edge: Edge, here: boolean) => string} link to the edge of either side
 */
export function tellEdges({ edges }, names, page, link) {
  const { came, went, bent, same } = changedEdges(edges);
  const formats = formatsOf(page, Math.max(...edges.map((edge) => edge.contribution ?? 0)));
  const groups = { came, went, "bends differently": bent.sort(byApart), stays: same.sort(byApart) };
  const side = (/** @type {Edge} */ edge, /** @type {boolean} */ here) => {
    const [kept, value] = here ? [edge.kept, edge.contribution] : [edge.against_kept, edge.against_contribution];
    if (kept === null) return "none";
    const shown = value === null ? "unknown" : formats.difference(value);
    return h("a", { href: link(edge, here) }, kept ? shown : `${shown}, pruned`);
  };
  const rows = Object.entries(groups).flatMap(([state, members]) =>
    members.map((edge) =>
      h(
        "tr",
        { "data-state": state, "data-edge": edgeKey(edge) },
        h(
          "td",
          {},
          `${nameNode(edge.source)} → ${nameNode(edge.target)} `,
          h("span", { class: `verdict ${state.split(" ")[0]}` }, state),
        ),
        h("td", { class: "number" }, side(edge, true)),
        h("td", { class: "number" }, side(edge, false)),
        h(
          "td",
          { class: "number" },
          edge.change === null ? "" : formats.change(edge.change),
          h("span", { class: "muted interval" }, edge.interval?.map(formats.difference).join(" to ")),
        ),
        h("td", { class: "number" }, edge.curve_difference === null ? "not comparable" : amount(edge.curve_difference)),
      ),
    ),
  );
  const change = withHelp("Change", "contribution");
  return table(["Edge", ...names, change, "Curves apart"], rows);
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
export function tellWindow(comparison, page, [one, other]) {
  const { prediction, against_prediction: against, difference, model, error, residual } = comparison;
  const parts = [
    ...Object.entries(model.contributions).sort(([, a], [, b]) => Math.abs(b) - Math.abs(a)),
    /** @type {const} */ (["the shared baseline", model.baseline_shift]),
  ];
  const { value, change } = formatsOf(page, Math.abs(difference));
  const largest = Math.max(...parts.map(([, value]) => Math.abs(value)), Number.MIN_VALUE);
  const rows = parts.map(([name, part]) =>
    h(
      "tr",
      { "data-feature": Object.hasOwn(model.contributions, name) ? name : null },
      h("td", {}, name),
      h(
        "td",
        { class: "number change" },
        drawBar(part, null, [-largest, largest], part < 0 ? "down" : "up"),
        h("span", { class: "value" }, change(part)),
      ),
    ),
  );
  return [
    h(
      "div",
      { class: "summary" },
      figure(one, value(prediction)),
      h("span", { class: "sign", "aria-hidden": "true" }, "−"),
      figure(other, value(against)),
      h("span", { class: "sign", "aria-hidden": "true" }, "="),
      figure("difference", change(difference)),
      h(
        "p",
        { class: "muted" },
        "Divided among the features on which they disagree. ",
        withHelp(`Error ${amount(error, page.unit)}`, "error"),
        ", ",
        withHelp(`residual ${amount(Math.abs(residual), page.unit)}`, "residual"),
        ".",
      ),
    ),
    h(
      "div",
      { class: "scroll parts", tabindex: "0", role: "region", "aria-label": "What the difference is made of" },
      table(["Feature", `Forecast of ${one} higher or lower by`], rows),
    ),
  ];
}

/** @param {number[]} interval */
function isSure([low, high]) {
  return low > 0 || high < 0;
}

/** @param {number} change of a share */
function points(change) {
  const text = fixed(change * POINTS, 1);
  return change > 0 && text !== "0.0" ? `+${text}` : text;
}
