/** The curves of a network's edges, on one scale per layer, and where a window is on them. */

/** @typedef {import("../model.js").Schemas["EdgeFunction"] | any} Curve */
/** @typedef {{x: (value: number) => number, y: (value: number) => number, path: string, density: string, curve: Curve, low: number, high: number}} Drawn */

const HEAD = 15; // pixels above a curve, for its amount
const FOOT = 3;
const SHADED = 0.5; // of the height that the density of the reference data takes

/**
 * The curves of the cards of a layout.
 *
 * @param {import("./layout.js").Layout} layout
 * @param {import("./network.js").Network} network
 * @param {Map<string, Curve>} curves by key
 * @param {boolean} isOwn whether each has a scale of its own
 * @returns {Map<number, Drawn>} by number of the edge
 */
export function drawCurves({ cards, card: { width, height } }, { edges }, curves, isOwn) {
  const shown = cards.flatMap(({ edge }) => {
    const curve = edge === undefined ? undefined : curves.get(edges[edge].key);
    return curve ? [{ edge: /** @type {number} */ (edge), curve, layer: edges[/** @type {number} */ (edge)].key.replace(/(\/\d+){2}$/, "") }] : [];
  });
  const span = (/** @type {Curve} */ { y }) => Math.max(...y) - Math.min(...y);
  const spans = d3.rollup(shown, (found) => d3.max(found, ({ curve }) => span(curve)) || 1, ({ layer }) => layer);
  return new Map(shown.map(({ edge, curve, layer }) => [edge, drawCurve(curve, width, height, isOwn ? span(curve) || 1 : (spans.get(layer) ?? 1))]));
}

/** @param {Curve} curve @param {number} width @param {number} height @param {number} span of values over it @returns {Drawn} */
function drawCurve(curve, width, height, span) {
  const middle = (Math.max(...curve.y) + Math.min(...curve.y)) / 2;
  const [low, high] = [curve.x[0], curve.x[curve.x.length - 1]];
  const x = d3.scaleLinear([low, high], [6, width - 6]);
  const y = d3.scaleLinear([middle - span / 2, middle + span / 2], [height - FOOT, HEAD]);
  const { edges, counts } = curve.support.histogram;
  const tall = d3.scaleLinear([0, Math.max(...counts)], [0, SHADED * (height - HEAD)]);
  const steps = counts.map((/** @type {number} */ count, /** @type {number} */ bin) => `H${clip(x(edges[bin]), width)}V${(height - tall(count)).toFixed(1)}H${clip(x(edges[bin + 1]), width)}`);
  const path = d3.line((/** @type {number} */ value) => x(value), (/** @type {number} */ _, /** @type {number} */ index) => y(curve.y[index]));
  return { x, y, path: path(curve.x) ?? "", density: `M${clip(x(edges[0]), width)},${height}${steps.join("")}V${height}Z`, curve, low, high };
}

/** @param {number} value @param {number} width */
const clip = (value, width) => Math.max(1, Math.min(width - 1, value)).toFixed(1);

/**
 * Where a window is on a curve, in pixels of its card, and whether that is beyond what is drawn.
 *
 * @param {Drawn | undefined} drawn
 * @param {{x?: number, y?: number} | undefined} at
 */
export function placeBead(drawn, at) {
  if (!drawn || at?.x === undefined) return undefined;
  const { curve, low, high, x, y } = drawn;
  const inside = Math.max(low, Math.min(high, at.x));
  const index = ((inside - low) / (high - low || 1)) * (curve.x.length - 1);
  const before = Math.min(Math.floor(index), curve.x.length - 2);
  const between = curve.y[before] + (index - before) * (curve.y[before + 1] - curve.y[before]);
  const value = inside === at.x && at.y !== undefined ? at.y : between;
  return [x(inside), y(value), Number(inside !== at.x)];
}
