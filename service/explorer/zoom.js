/** Zooming and panning of a picture, which initially fits its container. */

import { h } from "./dom.js";

const STEP = 1.5; // zoom factor of a button or key
const LARGEST = 12;
const NARROWEST = 240; // pixels of a picture
const MARGINS = 82; // on both sides of a picture in a card of the view

/**
 * A container for a picture, with zoom buttons.
 *
 * @param {string} name of the region
 * @param {(by: 1 | -1) => boolean} [change] to a finer or a coarser picture, if there is one; otherwise it is scaled
 */
export function zoomable(name, change = () => false) {
  const stage = h("div", { class: "stage" });
  const button = (/** @type {string} */ label, /** @type {string} */ sign, /** @type {() => void} */ act) =>
    h("button", { type: "button", "aria-label": label, title: label, onclick: act }, sign);
  const scaleBy = (/** @type {number} */ factor) => void control.then(({ zoom, target }) => zoom.scaleBy(target, factor));
  const zoomIn = () => void (change(1) || scaleBy(STEP));
  const zoomOut = async () => {
    if (d3.zoomTransform((await control, stage)).k > 1 || !change(-1)) scaleBy(1 / STEP);
  };
  const fit = () => void control.then(({ zoom, target }) => zoom.transform(target, d3.zoomIdentity));
  const element = h(
    "div",
    { class: "zoomable", role: "group", "aria-label": name },
    h(
      "div",
      { class: "zoom" },
      button("Zoom in", "+", zoomIn),
      button("Zoom out", "−", () => void zoomOut()),
      button("Fit into the view", "⤢", fit),
    ),
    stage,
  );
  const control = attach(stage); // the picture is shown before the library is loaded

  /**
   * Pans to a part.
   *
   * @param {Element} part
   */
  const reveal = async (part) => {
    const { zoom, target } = await control;
    const { left, top, width, height } = stage.getBoundingClientRect();
    const box = part.getBoundingClientRect();
    const { k, x, y } = d3.zoomTransform(stage);
    const at = [box.left + box.width / 2 - left, box.top + box.height / 2 - top];
    if (at[0] < 0 || at[1] < 0 || at[0] > width || at[1] > height) {
      zoom.translateTo(target, (at[0] - x) / k, (at[1] - y) / k);
    }
  };
  return { element, stage, reveal };
}

/**
 * The width that a picture has in a stage, also before it is shown.
 *
 * @param {HTMLElement} stage
 */
export function roomOf(stage) {
  const shown = stage.clientWidth || (stage.closest("main")?.clientWidth ?? 0) - MARGINS || innerWidth - MARGINS;
  return Math.max(NARROWEST, Math.floor(shown));
}

/** @param {HTMLElement} stage */
async function attach(stage) {
  await import("./vendor/d3.min.js");
  /** @type {import("d3").ZoomBehavior<HTMLElement, unknown>} */
  const zoom = d3.zoom();
  const target = d3.select(stage);
  zoom
    .scaleExtent([1, LARGEST])
    .filter((event) => isMeant(event, d3.zoomTransform(stage).k))
    .extent(() => [[0, 0], sizeOf(stage)])
    .on("zoom", ({ transform }) => {
      const [width, height] = sizeOf(stage);
      zoom.translateExtent([[0, 0], [width, height]]);
      stage.classList.toggle("near", transform.k > 1);
      for (const picture of stage.querySelectorAll("svg")) {
        picture.style.transform = `translate(${transform.x}px,${transform.y}px) scale(${transform.k})`;
      }
    });
  target.call(zoom).on("dblclick.zoom", null);
  return { zoom, target };
}

/**
 * @param {HTMLElement} stage
 * @returns {[number, number]}
 */
function sizeOf({ clientWidth, clientHeight }) {
  return [clientWidth, clientHeight];
}

/**
 * Whether a gesture is for the picture: scrolling the page is not, nor is dragging while all of the picture is visible.
 *
 * @param {any} event
 * @param {number} scale
 */
function isMeant(event, scale) {
  if (event.type === "wheel") return event.ctrlKey || event.metaKey;
  if (event.type === "touchstart") return scale > 1 || event.touches.length > 1;
  return scale > 1 && !event.button;
}
