/** The contributions of all reference windows as a swarm of dots, a row for each input; each dot leads to its window. */

import { ApiError } from "../api.js";
import { amount } from "../figures.js";
import { tell, valueOf } from "../inputs.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../lib.js";
import { useAsk } from "../load.js";
import { distinctNames } from "../names.js";
import { address, go } from "../state.js";
import { useWidth } from "../ui/chart.js";
import { Again } from "./section.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Schemas["ReferenceRow"]} Window */
/** @typedef {import("./parts.js").Part} Part */
/** @typedef {{part: Part, row: number, window: Window, contribution: number, rank: number, x: number, y: number}} Dot */

const MOST = 1000; // windows of an answer
const N_ROWS = 14;
const ROW = 28; // pixels
const DOT = 1.7; // radius
const FILLED = 0.86; // share of a row's height that dots fill
const [TOP, RIGHT, BOTTOM] = [4, 12, 36];
const NEAR = 14; // pixels from a dot to the pointer
const [LEAST_NAME, MOST_NAME, CHARACTER] = [60, 190, 7.3]; // pixels
const FORBIDDEN = 403; // reference windows are not shown
const CLEAR = 0.3; // correlation from which on there is a direction
const COUNTED = ["number", "integer", "flag"]; // kinds of which more and less mean something

/** The reference windows with the contributions of each feature. */
export function useWindows(model) {
  const loaded = useAsk({ path: `${model.path}/reference`, query: { ...model.query, contributions: true, limit: MOST } });
  return { ...loaded, value: loaded.value?.windows, all: loaded.value?.reference_windows };
}

/** Whether more of an input raises the forecast, over windows with contributions, in words. */
export function directionOf(part, /** @type {Window[]} */ windows) {
  if (!COUNTED.includes(part.kind)) return { correlation: 0, said: "" };
  const ranks = (of) => d3.rank(windows, of);
  const [values, sums] = [ranks((window) => window.newest?.[part.places[0]] ?? 0), ranks((window) => sumOf(part, window))];
  const [x, y] = [d3.mean(values) ?? 0, d3.mean(sums) ?? 0];
  const product = d3.sum(windows, (_, index) => (values[index] - x) * (sums[index] - y));
  const scale = Math.sqrt(d3.sum(values, (value) => (value - x) ** 2) * d3.sum(sums, (value) => (value - y) ** 2));
  const correlation = scale ? product / scale : 0;
  const said = correlation > CLEAR ? "↗ more raises" : correlation < -CLEAR ? "↘ more lowers" : "depends";
  return { correlation, said };
}

const sumOf = ({ places }, { contributions = [] }) => d3.sum(places, (place) => contributions[place]);

/** @param {{model: Model, parts: Part[], windows: ReturnType<typeof useWindows>}} props the parts from the most important on */
export function Swarm({ model, parts, windows }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const width = useWidth(place);
  const shown = parts.slice(0, N_ROWS);
  const drawn = useMemo(
    () => (windows.value && width ? draw(model, shown, windows.value, width) : undefined),
    [model, parts, windows.value, width],
  );
  if (windows.error instanceof ApiError && windows.error.status === FORBIDDEN) return null;
  const count = windows.value?.length ?? 0;
  const which = count < (windows.all ?? 0) ? `the first ${count} of ${windows.all} reference windows` : `${count} reference windows`;
  return html`
    <h3>In each window</h3>
    <${Again} loaded=${windows} />
    ${windows.value && html`<p class="muted">
      ${parts.length > N_ROWS ? `The ${N_ROWS} strongest of ${parts.length}; each` : "Each"} dot is one of ${which}, of numbers grey where low and
      coloured where high. A dot leads to its forecast; rings are the window in view.
    </p>`}
    <div class="swarm" ref=${place}>${drawn && html`<${Dots} model=${model} drawn=${drawn} />`}</div>
  `;
}

function draw(model, parts, windows, width) {
  const longest = Math.max(...parts.map(({ short }) => short.length)) * CHARACTER + 12;
  const left = Math.min(Math.max(LEAST_NAME, longest), MOST_NAME, 0.36 * width);
  const names = distinctNames(parts.map(({ short }) => short), Math.floor((left - 12) / CHARACTER));
  const sums = parts.map((part) => windows.map((window) => sumOf(part, window)));
  const domain = /** @type {[number, number]} */ (d3.extent(sums.flat()));
  const x = d3.scaleLinear(domain, [left, width - RIGHT]);
  const dots = parts.flatMap((part, row) => {
    const ranks = d3.rank(windows, (window) => window.newest?.[part.places[0]] ?? 0);
    return stack(windows.map((window, index) => {
      const contribution = sums[row][index];
      return { part, row, window, contribution, rank: ranks[index] / (windows.length - 1 || 1), x: x(contribution), y: 0 };
    }));
  });
  const [scale, unit] = model.isShare ? [100, "percentage points"] : [1, model.unit];
  const tree = d3.quadtree(dots, (dot) => dot.x, (dot) => dot.y);
  return { width, height: TOP + ROW * parts.length + BOTTOM, left, x, parts, names, dots, scale, unit, tree };
}

/** Dots of a row that would overlap above one another, within the height of the row. */
function stack(dots) {
  for (const bin of d3.group(dots, (dot) => Math.round(dot.x / (2 * DOT))).values()) {
    const apart = Math.min(2 * DOT, (FILLED * ROW) / bin.length);
    bin.forEach((dot, place) => (dot.y = TOP + ROW * (dot.row + 0.5) + (place - (bin.length - 1) / 2) * apart));
  }
  return dots;
}

/** @param {{model: Model, drawn: ReturnType<typeof draw>}} props */
function Dots({ model, drawn }) {
  const { width, height, left, x, parts, names, dots, tree, unit } = drawn;
  const [at, setAt] = useState(/** @type {Dot | undefined} */ (undefined));
  const canvas = useRef(/** @type {SVGGElement | null} */ (null));
  const marked = useRef(/** @type {SVGElement | null} */ (null));
  const isKey = useRef(false);
  useEffect(() => paint(/** @type {SVGGElement} */ (canvas.current), dots), [dots]);
  useEffect(() => setAt(undefined), [drawn]);
  useLayoutEffect(() => {
    if (isKey.current) marked.current?.focus();
    isKey.current = false;
  }, [at]);
  const find = (event) => {
    const box = /** @type {Element} */ (event.currentTarget).getBoundingClientRect();
    setAt(tree.find(event.clientX - box.left, event.clientY - box.top, NEAR));
  };
  const open = () => at && go({ window: `ref:${at.window.index}`, edit: "" }, { place: "forecast" });
  const press = (event) => {
    if (event.key === "Enter") return open();
    const [along, down] = TURNS[event.key] ?? [0, 0];
    if (!along && !down) return undefined;
    event.preventDefault();
    isKey.current = true;
    return setAt(beside(dots, at, along, down));
  };
  const rings = dots.filter(({ window }) => address.value.values.window === `ref:${window.index}`);
  return html`
    <svg
      ...${{ width, height, viewBox: `0 0 ${width} ${height}`, role: "group", tabindex: "0" }}
      aria-label="Contributions in all windows: up and down choose an input, left and right a window, Enter shows it"
      ...${{ onPointerMove: find, onPointerDown: find, onPointerLeave: () => setAt(undefined), onClick: open, onKeyDown: press }}
    >
      <${Axis} drawn=${drawn} />
      ${parts.map(({ short, label }, row) => html`
        <text key=${row} class="row-name" x=${left - 10} y=${TOP + ROW * (row + 0.5) + 4} text-anchor="end" data-tip=${label}>${names.get(short)}</text>`)}
      <line x1=${x(0)} x2=${x(0)} y1=${TOP} y2=${height - BOTTOM} stroke="var(--muted)" />
      <text class="axis-name" x=${width - RIGHT} y=${height - 4} text-anchor="end">${unit ? `adds, ${unit}` : "adds"}</text>
      <g ref=${canvas}></g>
      ${rings.map((dot) => html`<circle key=${dot.part.key} class="ring" data-ring=${dot.part.key} cx=${dot.x} cy=${dot.y} r="6" />`)}
      ${at && html`<circle
        ...${{ key: `${at.row} ${at.window.index}`, ref: marked, class: "meant", cx: at.x, cy: at.y, r: "5", tabindex: "-1", role: "link" }}
        aria-label=${tellDot(model, at).join(", ")} data-tip=${tellDot(model, at).join("\n")}
      />`}
    </svg>
  `;
}

/** @type {Record<string, [number, number]>} */
const TURNS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** The next of the same input by contribution, or that of the next input in the same window. */
function beside(dots, at, along, down) {
  if (!at) return dots[0];
  if (down) return dots.find(({ row, window }) => row === at.row + down && window === at.window) ?? at;
  const ordered = d3.sort(dots.filter(({ row }) => row === at.row), ({ contribution }) => contribution);
  return ordered[Math.max(0, Math.min(ordered.length - 1, ordered.indexOf(at) + along))];
}

/** @param {{drawn: ReturnType<typeof draw>}} props */
const Axis = ({ drawn: { x, height, width, left, scale } }) => {
  const shown = x.copy().domain(x.domain().map((value) => scale * value));
  const count = Math.max(3, (width - left) / 90);
  const format = shown.tickFormat(count);
  return shown.ticks(count).map((value) => html`<g key=${value} class="tick" transform=${`translate(${shown(value)},0)`}>
    <line y1=${TOP} y2=${height - BOTTOM} /><text y=${height - BOTTOM + 14} text-anchor="middle">${format(value)}</text>
  </g>`);
};

/** Thousands of dots, which nothing but this function changes. */
function paint(place, dots) {
  d3.select(place).selectAll("circle").data(dots).join("circle")
    .attr("cx", ({ x }) => x.toFixed(1))
    .attr("cy", ({ y }) => y.toFixed(1))
    .attr("r", DOT)
    .style("fill", ({ part: { kind, color }, rank }) =>
      COUNTED.includes(kind) ? `color-mix(in oklab, ${color} ${Math.round(100 * rank)}%, var(--forecast))` : color,
    );
}

function tellDot(model, { part, window, contribution }) {
  const when = window.time?.replace("T", " ").replace("Z", "") ?? `window ${window.index}`;
  const where = [part.label, when, ...(window.series ? [window.series] : [])].join(", ");
  return [where, `adds ${model.change(contribution)}`, ...tellValue(model, part, window)];
}

function tellValue(model, part, { newest }) {
  const input = part.input && model.inputs.find(({ name, features }) => name === part.input && features[0] === part.features[0]);
  if (!newest) return [];
  if (!input) return [part.features.map((name, index) => `${name} ${amount(newest[part.places[index]])}`).join(", ")];
  return [`was ${tell(input, valueOf(input, newest), model.info.features[input.places[0]])} at the newest step`];
}
