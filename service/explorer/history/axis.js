/** The axis of time that strips and ribbon share: real time, in which long gaps are cut short and stay visible. */

import { DAY, timeLabel } from "../figures.js";

/** @typedef {import("./moments.js").Moment} Moment */

const APART = 3; // usual steps from which on a gap is one
const GAP = 10; // pixels of a gap
const TICK = 76; // pixels of a label

/**
 * Places of times and times of places, stretches without a gap, and the usual time from one moment to the next in ms.
 *
 * @typedef {{x: (at: number) => number, invert: (x: number) => number, runs: Moment[][], usual: number,
 *   ticks: {x: number, label: string}[]}} Axis
 */

/** The stretches of moments of one series, in order, without a gap; and the usual time from one to the next. */
export function runsOf(moments) {
  const steps = d3.pairs(moments, (one, next) => next.at - one.at).filter((step) => step > 0);
  const usual = d3.median(steps) ?? 1;
  const runs = /** @type {Moment[][]} */ ([]);
  for (const moment of moments) {
    const run = runs.at(-1);
    if (run && moment.at - run[run.length - 1].at <= APART * usual) run.push(moment);
    else runs.push([moment]);
  }
  return { runs, usual };
}

/** @returns {Axis} of the moments of one series, in order, from one pixel to another */
export function makeAxis(moments, isTimed, [left, right], zoom = d3.zoomIdentity) {
  const { runs, usual } = runsOf(moments);
  const spans = runs.map((run) => run[run.length - 1].at - run[0].at + usual);
  const gap = Math.min(GAP, (0.3 * (right - left)) / Math.max(1, runs.length - 1));
  const scale = (right - left - gap * (runs.length - 1)) / (d3.sum(spans) || 1);
  const [domain, range] = [/** @type {number[]} */ ([]), /** @type {number[]} */ ([])];
  let x = left;
  runs.forEach((run, number) => {
    domain.push(run[0].at, run[0].at + spans[number]);
    range.push(x, (x += spans[number] * scale));
    x += gap;
  });
  const base = d3.scaleLinear(domain.length ? domain : [0, 1], range.length ? range : [left, right]);
  const axis = { x: (at) => zoom.applyX(base(at)), invert: (px) => base.invert(zoom.invertX(px)), runs, usual };
  return { ...axis, ticks: ticksOf(axis, isTimed, [left, right]) };
}

/** The start of each run as far as there is room, and times within runs that are wide. */
function ticksOf({ x, runs, usual }, isTimed, [left, right]) {
  const found = runs.flatMap((run) => {
    const [from, to] = [run[0].at, run[run.length - 1].at + usual];
    const count = Math.floor((x(to) - x(from)) / (2 * TICK));
    if (!isTimed) return d3.ticks(from, to, count).filter(Number.isInteger).map((at) => ({ at, label: `${at}` }));
    const inner = count > 0 ? d3.utcTicks(new Date(from), new Date(to), count).map(Number) : [];
    const step = inner.length > 1 ? inner[1] - inner[0] : DAY;
    const name = (at, isFirst = false) => (step >= DAY || isFirst || at % DAY === 0 ? timeLabel(at, DAY, 1) : timeLabel(at, step, 1));
    return [{ at: from, label: name(from, true) }, ...inner.map((at) => ({ at, label: name(at) }))];
  });
  const ticks = /** @type {{x: number, label: string}[]} */ ([]);
  for (const { at, label } of found) {
    const place = x(at);
    if (place < left - 1 || place > right - TICK / 2 || (ticks.length && place - ticks[ticks.length - 1].x < TICK)) continue;
    ticks.push({ x: place, label });
  }
  return ticks;
}

/** Bars of moments: each as wide as the time until the next, or of several together where that is below some pixels. */
export function barsOf({ runs, x, usual }, has = () => true, least = 1.5) {
  return runs.flatMap((all) => {
    const run = all.filter(has);
    const end = x(all[all.length - 1].at + usual);
    const bars = /** @type {{left: number, right: number, of: Moment[]}[]} */ ([]);
    run.forEach((moment, number) => {
      const last = bars.at(-1);
      const right = number + 1 < run.length ? x(run[number + 1].at) : end;
      if (last && last.right - last.left < least) Object.assign(last, { right, of: [...last.of, moment] });
      else bars.push({ left: x(moment.at), right, of: [moment] });
    });
    return bars;
  });
}

/** The moment nearest to a pixel. */
export function nearestTo({ runs, invert, usual }, px) {
  const at = invert(px) - usual / 2;
  return d3.least(runs.flat(), (moment) => Math.abs(moment.at - at));
}
