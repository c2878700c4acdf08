/** Formatting of numbers, and of the times of steps. */

const MINUS = "\u2212";

/**
 * Three significant digits, as in 1.64, −0.0215 or 4.5e−7.
 *
 * @param {number | null | undefined} value
 * @param {string | null} [unit]
 */
export function amount(value, unit) {
  if (value === null || value === undefined) return "unknown";
  const size = Math.abs(value);
  const digits =
    value === 0 || (size >= 1e-3 && size < 1e5) ? String(Number(value.toPrecision(3))) : value.toExponential(1);
  return digits.replaceAll("-", MINUS) + (unit ? ` ${unit}` : "");
}

/** With a sign, as in +1.64 K. @param {number} value @param {string | null} [unit] */
export function signed(value, unit) {
  return (value > 0 ? "+" : "") + amount(value, unit);
}

const RESOLUTION = 20; // a spread in steps of the last digit, at least
const MOST_DECIMALS = 6; // beyond them three significant digits stand
const GROUPED = 1e4; // from which on thousands are set apart

/**
 * What values of one kind vary by: a standard deviation, or a feature, whose values may be whole.
 *
 * @typedef {number | {std: number, integer: boolean} | null | undefined} Spread
 */

/**
 * With as many decimals as its spread gives a meaning to, the same for all values of one kind so that they align: −0.8 K
 * of forecasts that vary by 3.5 K, 1017.9 hPa, 45,120 MW. Without a spread, three significant digits.
 *
 * @param {number | null | undefined} value
 * @param {string | null} [unit]
 * @param {Spread} [spread]
 */
export function formatValue(value, unit, spread) {
  const decimals = decimalsOf(spread);
  if (value === null || value === undefined || decimals === undefined) return amount(value, unit);
  const text = fixed(value, decimals);
  const [whole, part] = text.split(".");
  const grouped = Math.abs(value) < GROUPED ? whole : whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return grouped + (part ? `.${part}` : "") + (unit ? ` ${unit}` : "");
}

/**
 * The same with a sign, as in +1.6 K.
 *
 * @param {number} value
 * @param {string | null} [unit]
 * @param {Spread} [spread]
 */
export function formatChange(value, unit, spread) {
  const text = formatValue(value, unit, spread);
  return value > 0 && /[1-9]/.test(text) ? `+${text}` : text;
}

/** @param {Spread} spread */
function decimalsOf(spread) {
  if (typeof spread === "object" && spread?.integer) return 0;
  const size = typeof spread === "object" ? spread?.std : spread;
  if (!size || !Number.isFinite(size)) return undefined;
  const decimals = Math.max(0, -Math.floor(Math.log10(size / RESOLUTION)));
  return decimals > MOST_DECIMALS ? undefined : decimals;
}

/**
 * When the steps of a window are: the time of the newest as its clock shows it, and the time from step to step, in ms.
 *
 * @typedef {{newest: number, step: number}} Times
 */

export const DAY = 86_400_000; // ms
const clock = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", hour: "2-digit", minute: "2-digit" });
const date = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short" });
const year = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short", year: "numeric" });

/**
 * The name of a step: 3 Mar, 12:00, or 3 before the newest where times are not known. The short one is for an axis:
 * 12:00, the day at midnight and on an axis of more than two days, or −3.
 *
 * @param {number} step 0 the newest, those before it negative, and those that are forecast positive
 * @param {Times | undefined} times
 * @param {number} [count] of steps on the axis; 0 for the long name
 */
export function stepLabel(step, times, count = 0) {
  if (times) return timeLabel(times.newest + step * times.step, times.step, count * times.step);
  if (count) return amount(step);
  if (step === 0) return "newest step";
  return step < 0 ? `${-step} before the newest` : `${step} after the newest`;
}

/**
 * The name of a time: with its day, of steps of a day that alone; the short one is for an axis.
 *
 * @param {number} time in ms
 * @param {number} step in ms, of times that follow one another
 * @param {number} span of the axis in ms; 0 for the long name
 */
export function timeLabel(time, step, span) {
  if (step >= DAY) return span ? date.format(time) : year.format(time);
  if (!span) return `${date.format(time)}, ${clock.format(time)}`;
  return time % DAY === 0 || span > 2 * DAY ? date.format(time) : clock.format(time);
}

/** A change of a share in percentage points, as in +1.8. @param {number} share @param {string | null} [unit] */
export const points = (share, unit) => formatChange(100 * share, unit, 2);

/** With a fixed number of decimals, and never −0. @param {number} value @param {number} digits */
export function fixed(value, digits) {
  return (Number(value.toFixed(digits)) || 0).toFixed(digits).replace("-", MINUS);
}

/** A share as a percentage, as in 18.6 %. @param {number} share */
export function percent(share) {
  return `${fixed(share * 100, 1)} %`;
}
