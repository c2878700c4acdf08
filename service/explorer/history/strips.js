/** Strips on one axis of time: forecasts against what came, errors, and contributions by input; with brush and zoom. */

import { html, useEffect, useMemo, useRef, useState } from "../lib.js";
import { go } from "../state.js";
import { toldIn } from "../inputs.js";
import { useWidth } from "../ui/chart.js";
import { barsOf, makeAxis, nearestTo } from "./axis.js";
import { labelOf } from "./spans.js";

/** @typedef {import("./moments.js").Moment} Moment */
/** @typedef {import("../model.js").Model} Model */

const [TOP, MAIN, TALL, LOW, NAME, BOTTOM] = [10, 210, 40, 20, 16, 24]; // pixels of heights
const N_TALL = 3; // inputs whose strips are tall, as that of the error is
const [LEFT, RIGHT] = [56, 12];
const AVERAGED = 12; // pixels of a bar, where not all windows are explained
const MOVED = 2000; // windows up to which a zoom is drawn in frames
const MOST = 7; // strips of inputs
const PAGE = 24; // moments of a page key
const shapes = /** @type {any} */ (d3); // its types are of pairs of numbers
const ROOM = 7; // pixels from 0 from which on there is room for a figure
const REST = ""; // the input that stands for all others

/**
 * Moments of one series; names of inputs with a strip of their own, where all others are one; the spans; and those in view.
 *
 * @typedef {{model: Model, moments: Moment[], isTimed: boolean, names: string[], present: string, first: Moment[], second: Moment[],
 *   choose: (first: number, last: number) => void, zoomed: Moment[], onZoom: (text: string) => void}} Props
 */

/** @param {Props} props */
export function Strips(props) {
  const { model, moments, isTimed, present } = props;
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const width = useWidth(place);
  const [zoom, setZoom] = useState(d3.zoomIdentity);
  const [at, setAt] = useState(/** @type {number | undefined} */ (undefined));
  const room = /** @type {[number, number]} */ ([LEFT, Math.max(LEFT + 10, width - RIGHT)]);
  const axis = useMemo(() => makeAxis(moments, isTimed, room, zoom), [moments, isTimed, width, zoom]);
  const rows = rowsOf(props);
  const nErrors = Number(rows[0]?.worst ?? false);
  const height = topOf(nErrors + Math.min(model.inputs.length, MOST), nErrors) + BOTTOM; // also before contributions are there
  const drawing = useMemo(() => width > 0 && draw({ ...props, axis, rows, room, height }), [axis, props.names, moments, props.first, props.second]);
  const shown = moments[at ?? moments.findIndex(({ window }) => window === present)];
  const x = shown && middle(axis, shown);
  const take = (px) => {
    const found = nearestTo(axis, px);
    if (found) go({ window: found.window, edit: "" });
  };
  useGestures(place, { ...props, axis, room, height, take, setZoom });
  const key = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -PAGE, PageDown: PAGE, Home: -Infinity, End: Infinity }[event.key];
    const clamp = (to) => Math.max(0, Math.min(moments.length - 1, to));
    const now = at ?? Math.max(0, moments.findIndex(({ window }) => window === present));
    if (by !== undefined) setAt(clamp(now + by));
    else if (event.key === "Enter") go({ window: moments[now].window, edit: "" });
    else if (event.key === "+") props.onZoom([now - PAGE, now + PAGE].map((to) => moments[clamp(to)].place).join("-"));
    else if (event.key === "-") props.onZoom("");
    else return;
    event.preventDefault();
  };
  const point = (event) => {
    const found = nearestTo(axis, event.clientX - /** @type {Element} */ (event.currentTarget).getBoundingClientRect().left);
    setAt(found && moments.indexOf(found));
  };
  return html`
    <p class="readout" aria-hidden="true">${shown ? tell(shown, model).join(" · ") : "Point at a time, or drag a span."}</p>
    <div
      class="strips"
      ref=${place}
      role="slider"
      tabindex="0"
      aria-label="Forecasts over time: arrow keys move, Enter shows the window, plus zooms in, minus out"
      aria-valuemin="0"
      aria-valuemax=${moments.length - 1}
      aria-valuenow=${Math.max(0, moments.indexOf(shown))}
      aria-valuetext=${shown ? tell(shown, model).join(", ") : "none"}
      onKeyDown=${key}
      onPointerMove=${point}
      onPointerLeave=${() => setAt(undefined)}
    >
      <svg width=${width} height=${height} aria-hidden="true">
        <clipPath id="strips-room"><rect x=${room[0]} y="0" width=${room[1] - room[0]} height=${height} /></clipPath>
        ${drawing}
        <g class="gestures"></g>
      </svg>
      ${x !== undefined && x >= room[0] && x <= room[1] && html`<i class="cursor"
        style=${{ transform: `translateX(${x.toFixed(1)}px)`, top: `${TOP}px`, height: `${height - BOTTOM - TOP}px` }}></i>`}
    </div>
  `;
}

const middle = (axis, { at }) => axis.x(at + axis.usual / 2);

/** The top of a row of strips, of which the first are tall. */
const topOf = (row, nErrors) => TOP + MAIN + row * (NAME + LOW) + Math.min(row, nErrors + N_TALL) * (TALL - LOW);

/** Brush and zoom of d3 over the strips: a drag is a span, a click a window; a wheel with Ctrl, or two fingers, zoom. */
function useGestures(place, now) {
  const last = useRef(now);
  last.current = now;
  const behaviour = useRef(/** @type {any} */ (undefined));
  useEffect(() => {
    const { room, height } = last.current;
    const layer = shapes.select(place.current).select(".gestures");
    const brush = shapes.brushX().extent([[room[0], TOP], [room[1], height - BOTTOM]]);
    brush.on("end", ({ selection, sourceEvent }) => {
      if (!sourceEvent) return;
      const { axis, choose, take } = last.current;
      if (!selection) return take(d3.pointer(sourceEvent.changedTouches?.[0] ?? sourceEvent, place.current)[0]);
      const [from, to] = selection.map((px) => nearestTo(axis, px)?.place);
      layer.call(brush.move, null);
      choose(Math.min(from, to), Math.max(from, to));
    });
    layer.call(brush);
    const zoom = shapes.zoom().scaleExtent([1, 400]).extent([[room[0], 0], [room[1], height]]).translateExtent([[room[0], 0], [room[1], height]]);
    zoom.filter((event) => (event.type === "wheel" ? event.ctrlKey || event.metaKey : event.touches?.length > 1));
    zoom.on("zoom", ({ transform }) => last.current.setZoom(transform));
    zoom.on("end", ({ transform, sourceEvent }) => {
      if (!sourceEvent && transform.k > 1) return; // it came from the address
      const { moments, isTimed, room: now, onZoom } = last.current;
      const axis = makeAxis(moments, isTimed, now, transform);
      onZoom(transform.k === 1 ? "" : now.map((px) => nearestTo(axis, px)?.place).join("-"));
    });
    const element = shapes.select(place.current).call(zoom).on("dblclick.zoom", null);
    behaviour.current = { element, zoom };
  }, [now.room[1], now.height]);
  const before = useRef("");
  const span = now.zoomed.length > 1 ? `${now.zoomed[0].place}-${now.zoomed[now.zoomed.length - 1].place}` : "";
  useEffect(() => {
    const { moments, isTimed, room, zoomed } = last.current;
    if (!behaviour.current || room[1] <= room[0] + 10) return;
    const { x, usual } = makeAxis(moments, isTimed, room);
    const [from, to] = span ? [x(zoomed[0].at), x(zoomed[zoomed.length - 1].at + usual)] : room;
    const scale = (room[1] - room[0]) / Math.max(1, to - from);
    const { element, zoom } = behaviour.current;
    const isStill = before.current === span || moments.length > MOVED || matchMedia("(prefers-reduced-motion: reduce)").matches;
    before.current = span;
    (isStill ? element : element.transition().duration(250)).call(zoom.transform, d3.zoomIdentity.translate(room[0] - scale * from, 0).scale(scale));
  }, [span, now.room[1]]);
}

/** The strips below the forecasts: the error, and inputs. */
function rowsOf({ model, moments, names }) {
  const inputs = names.map((name) => ({
    name,
    label: labelOf(model, name),
    color: model.inputs.find((input) => input.name === name)?.color ?? "var(--muted)",
    value: ({ contributions }) => contributions?.get(name),
  }));
  const left = model.inputs.filter(({ name }) => !names.includes(name)).map(({ name }) => name);
  const sumOf = ({ contributions }) => contributions && d3.sum(left, (name) => contributions.get(name) ?? 0);
  const rest = { name: REST, label: `the other ${left.length} inputs`, color: "var(--muted)", value: sumOf };
  const errors = { name: "error", label: "error: forecast less what came", color: "var(--ink)", value: ({ error }) => error, worst: true };
  const hasErrors = moments.some(({ error }) => error !== undefined);
  return [...(hasErrors ? [errors] : []), ...inputs, ...(names.length && left.length ? [rest] : [])];
}

function draw({ model, moments, axis, rows, room, height, first, second }) {
  const bottom = height - BOTTOM;
  const inputs = rows.filter(({ worst }) => !worst);
  const hasContributions = (one) => Boolean(one.contributions);
  const isThinned = !moments.every((one) => hasContributions(one) || axis.x(one.at) < room[0] || axis.x(one.at) > room[1]);
  const all = { error: barsOf(axis), input: barsOf(axis, hasContributions, isThinned ? AVERAGED : undefined) };
  const meanOf = (row, bar) => (row.worst ? d3.greatest(bar.of, (one) => Math.abs(row.value(one) ?? 0)) : undefined);
  const value = (row, bar) => (row.worst ? row.value(meanOf(row, bar)) : d3.mean(bar.of, row.value));
  const strips = rows.map((row, number) => {
    const [from, to] = [number, number + 1].map((one) => topOf(one, rows.length - inputs.length));
    const bars = (row.worst ? all.error : all.input).map((bar) => ({ ...bar, value: value(row, bar) }));
    const [low, high] = /** @type {number[]} */ (d3.extent([0, ...bars.flatMap((bar) => bar.value ?? [])]));
    return { row, bars, low, high, top: from + NAME, tall: to - from - NAME };
  });
  const scaleOf = ({ low, high, tall }) => (high > low ? tall / (high - low) : undefined);
  const scale = d3.min(strips.filter(({ row }) => !row.worst), scaleOf) ?? 1; // one for all inputs
  return html`
    ${[first, second].map((span, number) => runsOf(span).map(([from, to]) => {
      const [x, end] = [axis.x(from.at), axis.x(to.at + axis.usual)];
      const name = number ? "span second" : "span";
      return html`<rect class=${name} clip-path="url(#strips-room)" x=${x} width=${Math.max(2, end - x)} y=${TOP} height=${bottom - TOP} />`;
    }))}
    ${drawForecasts(model, moments, axis, room)}
    ${strips.map((strip) => drawStrip(strip, (strip.row.worst && scaleOf(strip)) || scale, room, model))}
    ${!inputs.length && html`<text x=${room[0]} y=${topOf(rows.length, rows.length) + NAME}>Contributions are being computed …</text>`}
    <text class="unit" x=${room[0] - 6} y=${TOP + 4}>${model.isShare ? "" : model.unit}</text>
    <g class="ticks">
      ${axis.ticks.map(({ x, label }) => html`<line x1=${x} x2=${x} y1=${TOP} y2=${bottom + 4} /><text x=${x} y=${bottom + 18}>${label}</text>`)}
    </g>
  `;
}

function drawForecasts(model, moments, axis, room) {
  const seen = moments.filter(({ at }) => axis.x(at) >= room[0] && axis.x(at) <= room[1]);
  const ends = seen.flatMap(({ intervals }) => intervals.flatMap(({ lower, upper }) => [lower, upper]));
  const values = [...ends, ...seen.flatMap(({ forecast, actual }) => [forecast, actual ?? forecast])];
  const y = d3.scaleLinear(/** @type {any} */ (d3.extent(values)), [TOP + MAIN - NAME, TOP + NAME]).nice();
  const levels = moments.find(({ intervals }) => intervals.length)?.intervals.map(({ level }) => level) ?? [];
  const x = (moment) => middle(axis, moment);
  const line = (of) =>
    shapes.line().defined((one) => of(one) !== undefined).x(x).y((one) => y(of(one)));
  const bound = (level, side) => ({ intervals }) => intervals.find((one) => one.level === level)?.[side];
  const band = (level) => {
    const [lower, upper] = [bound(level, "lower"), bound(level, "upper")];
    return shapes.area().defined((one) => lower(one) !== undefined).x(x).y0((one) => y(lower(one))).y1((one) => y(upper(one)));
  };
  const path = (make) => axis.runs.map(make).join("");
  return html`
    <g class="levels">${y.ticks(5).map((value) => html`
      <line x1=${room[0]} x2=${room[1]} y1=${y(value)} y2=${y(value)} />
      <text x=${room[0] - 6} y=${y(value) + 4}>${model.value(value, false)}</text>`)}</g>
    <g clip-path="url(#strips-room)">
      ${levels.map((level) => html`<path class="band" d=${path(band(level))} />`)}
      <path class="actual" d=${path(line(({ actual }) => actual))} />
      <path class="forecast" d=${path(line(({ forecast }) => forecast))} />
    </g>
  `;
}

/** A strip of bars from 0, whose ends are told where there is room. */
function drawStrip({ row, bars, low, high, top, tall }, scale, room, model) {
  const zero = top + tall / 2 + (scale * (high + low)) / 2;
  const y = (value) => (zero - scale * value).toFixed(1);
  const path = bars.map(({ left, right, value }) => {
    const gap = right - left > 5 ? 0.5 : 0;
    return value === undefined ? "" : `M${(left + gap).toFixed(1)},${zero}V${y(value)}H${(right - gap).toFixed(1)}V${zero}Z`;
  });
  const ends = tall === TALL ? [low, high].filter((value) => Math.abs(scale * value) > ROOM) : [];
  return html`
    <g class="strip" data-strip=${row.name || "rest"}>
      <line class="zero" x1=${room[0]} x2=${room[1]} y1=${zero} y2=${zero} />
      <path clip-path="url(#strips-room)" fill=${row.color} d=${path.join("")} />
      <text class="name" x=${room[0]} y=${top - 4}>${row.label}</text>
      ${ends.map((value) => html`<text class="scale" x=${room[0] - 6} y=${y(value)} dy="4">${model.value(value, false).replace(" %", "")}</text>`)}
    </g>
  `;
}

/** Stretches of moments that follow one another. */
function runsOf(span) {
  const found = /** @type {[Moment, Moment][]} */ ([]);
  for (const moment of d3.sort(span, ({ place }) => place)) {
    const last = found.at(-1);
    if (last && last[1].place === moment.place - 1) last[1] = moment;
    else found.push([moment, moment]);
  }
  return found;
}

/** A moment in words: when, the forecast, what came, and the strongest contributions. */
export function tell(/** @type {Moment} */ { label, forecast, actual, error, intervals, contributions, newest }, model) {
  const strong = d3.sort(contributions?.keys() ?? [], (name) => -Math.abs(contributions?.get(name) ?? 0)).slice(0, 3);
  const [outer] = intervals.slice(-1);
  return [
    label,
    `forecast ${model.value(forecast)}${outer ? ` (${model.value(outer.lower, false)} to ${model.value(outer.upper, false)})` : ""}`,
    ...(error === undefined ? [] : [`came ${model.value(actual)}`, `error ${model.change(error)}`]),
    ...strong.map((name) => `${labelOf(model, name)}${newest ? ` (${valueIn(model, name, newest)})` : ""} ${model.change(contributions?.get(name) ?? 0)}`),
  ];
}

/** The value of an input in a row of features, in the terms of the table. */
const valueIn = (model, name, row) => toldIn(model, model.inputs.find((one) => one.name === name), row);
