/** One edge, opened in the picture: its function with axes, knots and data, the nearest line, and formulas that fit. */

import { reasonOf } from "../api.js";
import { amount, fixed, percent } from "../figures.js";
import { html, useEffect, useRef } from "../lib.js";
import { useAsk } from "../load.js";
import { address, go } from "../state.js";
import { Chart } from "../ui/chart.js";
import { Help } from "../ui/float.js";
import { placeBead } from "./curves.js";
import { removedOf } from "./prune.js";

const HEIGHT = 260; // pixels of the chart
const SHADED = 0.3; // of it that the data take
const SHAPES = /** @type {Record<string, string>} */ ({
  linear: "It looks like a line because it is one where the data lie: of a spline only that part is used that its inputs reach.",
  base_only: "Most of what passes lies outside its grid, where the spline is 0 and only the base acts: that is why it looks so smooth.",
  flat: "It hardly moves: it adds less than a hundredth of what the node it enters varies by.",
  curved: "It bends where the data lie: no line replaces it.",
});

/** The request for a function with formulas. @param {import("../model.js").Model} model @param {string} key of the edge */
export function askEdge({ path, query }, key) {
  const [stage, layer, i, j] = key.split("/");
  return { path: `${path}/edges/${layer}/${i}/${j}`, query: { ...query, stage, formulas: true, range: "reference" } };
}

/**
 * The edge that the address names; nothing where it names none.
 *
 * @param {{model: import("../model.js").Model, network: import("./network.js").Network, amounts: import("./amounts.js").Amounts, kept?: Set<number>, mark?: (edge: any) => any}} props
 */
export function EdgePanel({ model, network, amounts, kept, mark }) {
  const key = address.value.values.edge;
  const number = network.edges.findIndex((edge) => edge.isCurve && edge.key === key);
  const [, , i, j] = (key ?? "").split("/");
  const { value: curve, error } = useAsk(number < 0 ? undefined : askEdge(model, key));
  const title = useRef(/** @type {HTMLElement | null} */ (null));
  const before = useRef(number); // what the address opens at first takes no focus
  useEffect(() => {
    if (number >= 0 && number !== before.current) title.current?.focus();
    before.current = number;
  }, [number]);
  if (number < 0) return null;
  const edge = network.edges[number];
  const [from, to] = [network.nodes[edge.source], network.nodes[edge.target]];
  const close = () => {
    go({ edge: "" });
    /** @type {HTMLElement | null} */ (document.querySelector(`[data-edge="${CSS.escape(edge.key)}"]`))?.focus();
  };
  const keys = (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && (event.stopPropagation(), close());
  return html`
    <section class="card edge-panel" aria-label=${`The edge from ${from.label} to ${to.label}`} onKeyDown=${keys}>
      <header>
        <h2 tabindex="-1" ref=${title}>${from.label} → ${to.label}</h2>
        <${RemoveButton} edge=${edge} />
        <button type="button" aria-label="Close the edge" onClick=${close}>×</button>
      </header>
      ${error && html`<p role="alert">${reasonOf(error)}</p>`}
      ${curve?.x && curve.i === Number(i) && curve.j === Number(j) && html`<${Function} model=${model} edge=${edge} curve=${curve} from=${from}
        amounts=${amounts} number=${number} isKept=${kept ? kept.has(number) : edge.kept} other=${mark?.(edge)?.curve} />`}
    </section>
  `;
}

/** @param {any} props */
function Function({ model, edge, isKept, curve, from, amounts, number, other }) {
  const adds = amounts.edges[number];
  const bead = amounts.beads.get(number);
  return html`
    <${Chart} label=${`The function from ${from.label}`} of=${[curve, amounts, other]} draw=${(/** @type {number} */ width) => drawFunction(curve, bead, other, width)} />
    <p class="muted">x: ${curve.function_of === "input" ? from.label : `the normalised ${from.label}`}, in model units.
      Ticks: knots of its grid. Shaded: the reference data. Dashed: the nearest line.${other && " Dotted: the same edge of the other model."}</p>
    <p>${SHAPES[curve.shape]} The nearest line reproduces it with R² ${fixed(curve.line.r2, 3)}${curve.support.outside_grid ? `; ${percent(curve.support.outside_grid)} of its inputs lie outside the grid` : ""}.</p>
    <dl class="facts">
      ${amounts.isSigned && !Number.isNaN(adds) && html`<dt>Adds to this forecast</dt><dd>${model.change(adds)}</dd>`}
      <dt>On average <${Help} term="contribution" /></dt><dd>${model.size(curve.contribution)}</dd>
      ${curve.scores && html`<dt>Score, opacity <${Help} term="score" /></dt><dd>${amount(curve.scores.backward)}, ${fixed(edge.opacity, 2)}</dd>`}
      <dt>By the pruning rule</dt><dd>${isKept ? "kept" : "pruned"}</dd>
      ${curve.reads && html`<dt>Its input reads</dt><dd>${curve.reads}</dd>`}
    </dl>
    <${Formulas} formulas=${curve.formulas} />
  `;
}

/** @param {{formulas?: any[]}} props */
function Formulas({ formulas }) {
  if (!formulas) return html`<p class="muted">It is not a function of a single number, so there is no formula for it.</p>`;
  return html`<table>
    <caption class="muted">Formulas that come near, best first</caption>
    <thead><tr><th scope="col">f(x)</th><th scope="col" class="number">R²</th></tr></thead>
    <tbody>${formulas.map(({ expression, r2 }) => html`<tr><td><code>${tidy(expression)}</code></td><td class="number">${fixed(r2, 4)}</td></tr>`)}</tbody>
  </table>`;
}

/** @param {{edge: import("./network.js").Edge}} props removes an edge by hand, or puts it back */
function RemoveButton({ edge }) {
  const id = edge.key.replaceAll("/", ":");
  const removed = removedOf(address.value.values);
  const isRemoved = removed.includes(id);
  const turn = () => go({ without: (isRemoved ? removed.filter((one) => one !== id) : [...removed, id]).join(",") });
  return address.value.place === "model" ? html`<button type="button" onClick=${turn}>${isRemoved ? "Put back" : "Remove this edge"}</button>` : null;
}

/** A known function with five digits, and the larger of x and 0 by its name. @param {string} expression */
export function tidy(expression) {
  const rounded = expression.replace(/\d+\.\d{6,}/g, (digits) => String(Number(Number(digits).toPrecision(5))));
  return rounded.replace("((x) + abs(x))/2", "max(x, 0)").replace(/\*\*(\d)\b/g, (_, power) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[power]).replaceAll(/(?<!\*)\*(?!\*)/g, "·");
}

/**
 * @param {any} curve
 * @param {{x?: number, y?: number} | undefined} bead
 * @param {any} other
 * @param {number} width
 */
function drawFunction(curve, bead, other, width) {
  const { x, y, line, grid, support, base } = curve;
  const [low, high] = [x[0], x[x.length - 1]];
  const [least, most] = /** @type {[number, number]} */ (d3.extent([...y, ...(other?.y ?? [])]));
  const floor = least - (SHADED + 0.05) * (most - least || 1);
  const { edges, counts } = support.histogram;
  const bars = counts.map((/** @type {number} */ count, /** @type {number} */ bin) => ({ x1: edges[bin], x2: edges[bin + 1], y: floor + SHADED * (most - least || 1) * (count / Math.max(...counts)) }));
  const points = x.map((/** @type {number} */ at, /** @type {number} */ index) => ({ x: at, y: y[index], base: base[index], line: line.slope * at + line.intercept }));
  const identity = { x: (/** @type {number} */ value) => value, y: (/** @type {number} */ value) => value };
  const at = placeBead(/** @type {any} */ ({ ...identity, curve, low, high }), bead);
  const inside = (/** @type {{line: number}} */ point) => point.line >= least && point.line <= most;
  const theirs = other ? other.x.map((/** @type {number} */ value, /** @type {number} */ index) => ({ x: value, y: other.y[index] })).filter((/** @type {any} */ point) => point.x >= low && point.x <= high) : [];
  return Plot.plot({
    ...{ className: "plot", width, height: HEIGHT, marginLeft: 48, x: { label: null, domain: [low, high] }, y: { label: null, domain: [floor, most], nice: true, grid: true } },
    marks: [
      Plot.rectY(bars, { x1: (bar) => Math.max(low, bar.x1), x2: (bar) => Math.min(high, bar.x2), y1: floor, y2: "y", fill: "var(--wash)" }),
      Plot.ruleX(grid.filter((/** @type {number} */ knot) => knot > low && knot < high), { y1: floor, y2: floor + 0.06 * (most - least || 1), stroke: "var(--muted)" }),
      Plot.line(points.filter(inside), { x: "x", y: "line", stroke: "var(--muted)", strokeDasharray: "5 4" }),
      Plot.line(theirs, { x: "x", y: "y", stroke: "var(--muted)", strokeWidth: 2, strokeDasharray: "2 3" }),
      Plot.line(points, { x: "x", y: "y", stroke: "var(--ink)", strokeWidth: 2 }),
      at && Plot.dot([at], { x: "0", y: "1", r: 6, fill: "var(--ink)", stroke: "var(--card)" }),
    ],
  });
}
