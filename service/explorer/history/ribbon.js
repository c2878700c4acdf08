/** The ribbon of time along the bottom: windows coloured by error, the present one marked, chosen by pointer and keys; it plays. */

import { html, useEffect, useMemo, useRef, useState } from "../lib.js";
import { go } from "../state.js";
import { useWidth } from "../ui/chart.js";
import { barsOf, makeAxis, nearestTo } from "./axis.js";
import { useMoments } from "./moments.js";

/** @typedef {import("../model.js").Model} Model */

const TICK = 300; // ms of a window that plays
const PAGE = 24; // windows of a page key
const FAINT = 0.1; // opacity of the least

/** @param {{model: Model, window: any}} props */
export function Ribbon({ model, window }) {
  const loaded = useMoments(window.value || window.error ? model : undefined);
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const width = useWidth(place);
  const moments = loaded.value;
  const present = moments?.all.find((one) => one.window === window.name);
  const series = present?.series ?? moments?.all[0]?.series;
  const shown = useMemo(() => moments?.all.filter((one) => one.series === series) ?? [], [moments, series]);
  const axis = useMemo(() => makeAxis(shown, moments?.isTimed ?? false, [0, Math.max(1, width)]), [shown, width]);
  const bars = useMemo(() => (width ? drawBars(shown, axis) : ""), [axis]);
  const at = present ? shown.indexOf(present) : -1;
  const name = present ? [present.label, present.series].filter(Boolean).join(", ") : "a window of your own";
  const show = (moment, replace = false) => moment && moment.window !== window.name && go({ window: moment.window, edit: "" }, { replace });
  const [isPlaying, setPlaying] = usePlay(shown, at, window, show);
  const newest = shown[shown.length - 1];
  const drag = (event) => {
    if (!event.buttons) return;
    setPlaying(false);
    show(nearestTo(axis, event.clientX - /** @type {Element} */ (place.current).getBoundingClientRect().left), event.type === "pointermove");
  };
  const key = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageUp: -PAGE, PageDown: PAGE, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    show(shown[Math.max(0, Math.min(shown.length - 1, (at < 0 ? shown.length : at) + by))]);
  };
  const hasErrors = shown.some(({ error }) => error !== undefined);
  const x = axis.x((present?.at ?? 0) + axis.usual / 2);
  const mark = present && `M${x - 5},0H${x + 5}L${x},6ZM${x},0V26`;
  return html`
    <footer class="ribbon" aria-label="Time" hidden=${!shown.length}>
      <button type="button" class="play" aria-label=${isPlaying ? "Stop" : "Play the windows"} onClick=${() => setPlaying(!isPlaying)}>
        ${isPlaying ? "❚❚" : "▶"}
      </button>
      <div
        class="times"
        ref=${place}
        role="slider"
        tabindex="0"
        aria-label=${`Window by time, coloured by ${hasErrors ? "error" : "forecast"}`}
        aria-valuemin="0"
        aria-valuemax=${Math.max(0, shown.length - 1)}
        aria-valuenow=${Math.max(0, at)}
        aria-valuetext=${present ? `${name}, ${tellBrief(present, model)}` : name}
        onPointerDown=${(event) => (/** @type {Element} */ (event.currentTarget).setPointerCapture(event.pointerId), drag(event))}
        onPointerMove=${drag}
        onKeyDown=${key}
      >
        <svg width=${width} height="26" aria-hidden="true">${bars}${mark && html`<path class="mark" d=${mark} />`}</svg>
      </div>
      <span class="where">${name}</span>
      <button type="button" class="now" disabled=${present === newest} onClick=${() => show(newest)}>Now</button>
    </footer>
  `;
}

const tellBrief = ({ forecast, error }, model) =>
  `forecast ${model.value(forecast)}${error === undefined ? "" : `, error ${model.change(error)}`}`;

/** Bars as dark as the error is large, or the forecast where no error is known. */
function drawBars(moments, axis) {
  const hasErrors = moments.some(({ error }) => error !== undefined);
  const value = ({ error, forecast }) => (hasErrors ? error && Math.abs(error) : forecast);
  const bars = barsOf(axis).map((bar) => ({ ...bar, mean: d3.mean(bar.of, value) }));
  const means = d3.sort(bars.flatMap(({ mean }) => mean ?? []));
  const scale = d3.scaleLinear([d3.quantile(means, 0.02) ?? 0, d3.quantile(means, 0.98) || 1], [FAINT, 1]).clamp(true);
  const gap = (width) => Math.max(0.7, width - (width > 4 ? 0.5 : 0));
  return bars.map(({ left, right, mean }) => {
    const opacity = mean === undefined ? FAINT / 2 : scale(mean).toFixed(2);
    return html`<rect class=${hasErrors ? "error" : "level"} x=${left} width=${gap(right - left)} y="7" height="19" fill-opacity=${opacity} />`;
  });
}

/**
 * Plays the windows from the present one on, until the last, a key or a click; one that is still loading is waited for.
 *
 * @returns {[boolean, (isPlaying: boolean) => void]}
 */
function usePlay(shown, at, window, show) {
  const [isPlaying, setPlaying] = useState(false);
  const now = useRef({ shown, at, window, show });
  now.current = { shown, at, window, show };
  useEffect(() => {
    if (!isPlaying) return undefined;
    const leave = new AbortController();
    addEventListener("keydown", () => setPlaying(false), { signal: leave.signal, capture: true });
    const timer = setInterval(() => {
      const { shown: all, at: place, window: loading, show: next } = now.current;
      if (loading.pending) return;
      if (place === all.length - 1) setPlaying(false);
      else next(all[place + 1], true);
    }, TICK);
    return () => (clearInterval(timer), leave.abort());
  }, [isPlaying]);
  return [isPlaying, setPlaying];
}
