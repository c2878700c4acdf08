/** Sets of moments: how they are named in the address, how wrong they were, and what they were driven by. */

/** @typedef {import("./moments.js").Moment} Moment */
/** @typedef {import("../model.js").Model} Model */

/**
 * What is known of a set: means over those that have it, by input their contributions, and shares that sum to 1.
 *
 * @typedef {{count: number, compared: number, mae?: number, bias?: number, forecast?: number, actual?: number,
 *   coverage: {level: number, covered?: number}[], means: Map<string, number>, shares: Map<string, number>}} Summary
 */

const WORST = 0.1; // share of the moments that are the worst
const NEAR = 0.8; // of the change of what came that forecasts follow at least
const N_NAMED = 3; // inputs that a sentence names

/** The moments of a span such as `120-180`, or the tenth with the largest errors (`worst`). */
export function chooseSpan(moments, text) {
  if (text === "worst") return worstOf(moments, Math.ceil(WORST * moments.filter(({ error }) => error !== undefined).length));
  const [, first, last] = /^(\d+)-(\d+)$/.exec(text ?? "") ?? [];
  return first ? moments.filter(({ place }) => place >= Number(first) && place <= Number(last)) : [];
}

/** Those farthest off, the worst first. */
export function worstOf(moments, count, order = (error) => -Math.abs(error)) {
  const known = moments.filter(({ error }) => error !== undefined);
  return d3.sort(known, ({ error = 0 }) => order(error)).slice(0, count);
}

export function summarise(moments) {
  const compared = moments.filter(({ error }) => error !== undefined);
  const levels = moments.find(({ intervals }) => intervals.length)?.intervals ?? [];
  const explained = moments.flatMap(({ contributions }) => (contributions ? [contributions] : []));
  const over = (of) =>
    new Map([...(explained[0]?.keys() ?? [])].map((name) => [name, d3.mean(explained, (one) => of(one.get(name) ?? 0)) ?? 0]));
  const sizes = over(Math.abs);
  const total = d3.sum(sizes.values()) || 1;
  return {
    count: moments.length,
    compared: compared.length,
    mae: d3.mean(compared, ({ error = 0 }) => Math.abs(error)),
    bias: d3.mean(compared, ({ error }) => error),
    forecast: d3.mean(moments, ({ forecast }) => forecast),
    actual: d3.mean(compared, ({ actual }) => actual),
    coverage: levels.map(({ level }) => ({ level, covered: d3.mean(compared, (moment) => isCovered(moment, level)) })),
    means: over((value) => value),
    shares: new Map([...sizes].map(([name, size]) => [name, size / total])),
  };
}

/** Whether the interval of a level holds what came; NaN where there is none. */
export function isCovered({ actual = NaN, intervals }, level) {
  const found = intervals.find((one) => one.level === level);
  return found ? Number(found.lower <= actual && actual <= found.upper) : NaN;
}

export const UNSKILLED = "The model has no skill, so do not read what drove it.";
export const hasSkill = ({ info }) => info.skill?.verdict !== "red";

export const counted = (number) => number.toLocaleString("en");
/** The nominal coverage of a level: 80 %. */
export const levelName = (level) => `${Number((100 * level).toPrecision(4))} %`;
export const share = (value) => (value === undefined || Number.isNaN(value) ? "" : `${Math.round(100 * value)} %`);
export const listOf = (parts) => (parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}`);

/** One sentence on all moments. */
export function tellAll(moments, all, model) {
  const [first, last] = [moments[0], moments[moments.length - 1]];
  const errors =
    all.mae === undefined
      ? "; what came is not known"
      : ` were off by ${model.size(all.mae)} on average${all.coverage.map(tellHeld).join("")}`;
  const { verdict, reason } = model.info.skill;
  const skill = ["amber", "red"].includes(verdict) ? `${reason} ` : ""; // before all else
  const of = first.series ? ` of ${first.series}` : "";
  const told = `${skill}${counted(all.count)} forecasts${of} from ${first.label} to ${last.label}${errors}.`;
  const names = strongest(all.shares).slice(0, N_NAMED).map((name) => `${labelOf(model, name)} (${share(all.shares.get(name))})`);
  return hasSkill(model) && names.length ? `${told} Mainly driven by ${listOf(names)}.` : told;
}

const tellHeld = (/** @type {Summary["coverage"][0]} */ { level, covered }) => `; the ${levelName(level)} interval held ${share(covered)}`;

/**
 * Why one set is higher, and more or less wrong, than another. The means of forecasts differ by the sum of the differences
 * of the mean contributions, as all have one baseline.
 */
export function tellDifference(one, other, name, model) {
  const by = (one.forecast ?? NaN) - (other.forecast ?? NaN);
  const changes = differences(one, other);
  const drivers = strongest(changes).slice(0, N_NAMED).map((input) => `${labelOf(model, input)} ${model.change(changes.get(input) ?? 0)}`);
  const driven = drivers.length ? `: ${listOf(drivers)}` : "";
  const say = (value) => model.size(value);
  const first = `These ${counted(one.count)} forecasts were ${say(by)} ${by < 0 ? "lower" : "higher"} than ${name} on average${driven}.`;
  if (one.mae === undefined || other.mae === undefined) return [first];
  const bias = one.bias ?? 0;
  const tendency = Math.abs(bias) > one.mae / 2 ? `, ${bias > 0 ? "too high" : "too low"} by ${say(bias)} on average` : "";
  const held = one.coverage.map((level, place) => `${tellHeld(level)}, of ${name} ${share(other.coverage[place]?.covered)}`);
  const came = (one.actual ?? NaN) - (other.actual ?? NaN);
  const followed = by / came;
  const why =
    Math.abs(came) < other.mae / 2
      ? "hardly another level: the errors are in the single forecasts, not in their mean"
      : followed < 0
        ? "and the forecasts went the other way"
        : followed < NEAR
          ? `of which the forecasts followed ${share(followed)}`
          : followed > 1 / NEAR
            ? `and the forecasts went ${followed.toFixed(1)} times as far`
            : "which the forecasts followed: the errors are in the single forecasts, not in their mean";
  const second = `They were off by ${say(one.mae)}${tendency}; ${name} by ${say(other.mae)}${held.join("")}.`;
  return [first, second, `What came was ${say(came)} ${came < 0 ? "lower" : "higher"}, ${why}.`];
}

export const differences = (one, other) => new Map([...one.means].map(([name, mean]) => [name, mean - (other.means.get(name) ?? 0)]));
export const strongest = (values) => d3.sort(values.keys(), (name) => -Math.abs(values.get(name) ?? 0));
export const labelOf = (model, name) => model.inputs.find((input) => input.name === name)?.short ?? name;
