/** Formatting of numbers. */

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

/**
 * With a sign, as in +1.64 K.
 *
 * @param {number} value
 * @param {string | null} [unit]
 */
export function signed(value, unit) {
  return (value > 0 ? "+" : "") + amount(value, unit);
}

/**
 * With a fixed number of decimals, and never −0.
 *
 * @param {number} value
 * @param {number} digits
 */
export function fixed(value, digits) {
  return (Number(value.toFixed(digits)) || 0).toFixed(digits).replace("-", MINUS);
}

/**
 * A share as a percentage, as in 18.6 %.
 *
 * @param {number} share
 */
export function percent(share) {
  return `${fixed(share * 100, 1)} %`;
}

/**
 * An interval, as in 0.31 to 0.42.
 *
 * @param {number[] | null | undefined} interval
 */
export function range(interval) {
  return interval ? `${amount(interval[0])} to ${amount(interval[1])}` : "";
}
