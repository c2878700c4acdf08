/** The charts that the explorer draws itself, over Observable Plot. */

import "./vendor/d3.min.js";
import "./vendor/plot.umd.min.js";

const CLASS = "plot"; // whose style the page's Content-Security-Policy lets in

/**
 * What each number of edges costs, and where the rule stands on it.
 *
 * @param {{edges: number, r2: number}[]} curve
 * @param {number} edges
 * @param {number} r2
 */
export function drawCost(curve, edges, r2) {
  return Plot.plot({
    className: CLASS,
    width: 264,
    height: 130,
    marginLeft: 34,
    marginRight: 8,
    marginTop: 18,
    ariaLabel: "R² of the pruned network by the number of edges kept",
    x: { label: "edges kept →", ticks: 4 },
    y: { label: "↑ R²", domain: [0, 1], clamp: true, ticks: 3, grid: true },
    marks: [
      Plot.lineY(curve, { x: "edges", y: "r2", stroke: "var(--up)", strokeWidth: 2 }),
      Plot.dot([{ edges, r2 }], { x: "edges", y: "r2", r: 5, fill: "var(--up)", stroke: "var(--card)" }),
    ],
  });
}
