/** Export of pictures as SVG and PNG files that look the same outside the page. */

import { h, svg } from "./dom.js";

const INHERITED = [
  ...["fill", "stroke", "stroke-width", "stroke-opacity", "fill-opacity", "stroke-dasharray", "stroke-linejoin"],
  ...["stroke-linecap", "font-family", "font-size", "font-weight", "text-anchor", "font-variant", "white-space"],
];
const OWN = ["opacity", "display"]; // properties that are not inherited
const SHARP = 2; // pixels of a PNG per CSS pixel

/**
 * A drawing as a standalone document, with the page's background and with styles as attributes with literal colours,
 * which librsvg, Qt and CairoSVG support.
 *
 * @param {SVGSVGElement} drawing
 */
export function writeDrawing(drawing) {
  const copy = /** @type {SVGSVGElement} */ (drawing.cloneNode(true));
  const originals = [drawing, ...drawing.querySelectorAll("*")];
  const copies = [copy, ...copy.querySelectorAll("*")];
  const paint = literalColors();
  originals.forEach((original, index) => fixLooks(original, copies[index], original === drawing, paint));
  for (const style of copy.querySelectorAll("style")) style.remove();
  const { width, height } = drawing.viewBox.baseVal;
  const size = { width: width || drawing.clientWidth, height: height || drawing.clientHeight };
  for (const [name, value] of Object.entries(size)) copy.setAttribute(name, String(value));
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.prepend(svg("rect", { ...size, fill: paint(getComputedStyle(drawing).getPropertyValue("--card").trim()) }));
  return new XMLSerializer().serializeToString(copy);
}

/**
 * @param {Element} original
 * @param {Element} copy
 * @param {boolean} isRoot
 * @param {(color: string) => string} paint
 */
function fixLooks(original, copy, isRoot, paint) {
  const looks = getComputedStyle(original);
  const above = isRoot || !original.parentElement ? null : getComputedStyle(original.parentElement);
  for (const name of INHERITED) {
    const value = looks.getPropertyValue(name);
    if (value === above?.getPropertyValue(name)) copy.removeAttribute(name);
    else copy.setAttribute(name, name === "fill" || name === "stroke" ? paint(value) : value);
  }
  for (const name of OWN) {
    const value = looks.getPropertyValue(name);
    if (value === "none" || (name === "opacity" && value !== "1")) copy.setAttribute(name, value);
  }
  copy.removeAttribute("style");
}

/** @returns {(color: string) => string} converts any CSS colour to `rgb(…)`, which all programs support */
function literalColors() {
  const canvas = h("canvas", { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  /** @type {Map<string, string>} */
  const known = new Map();
  return (color) => {
    if (color === "none" || !context) return color;
    const found = known.get(color);
    if (found) return found;
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
    const literal = alpha ? `rgb(${red},${green},${blue})` : "none";
    known.set(color, literal);
    return literal;
  };
}

/**
 * A document as a PNG.
 *
 * @param {string} text of an SVG
 * @returns {Promise<Blob>}
 */
export async function rasterise(text) {
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = h("canvas", { width: image.naturalWidth * SHARP, height: image.naturalHeight * SHARP });
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large for a PNG")))),
    );
  } finally {
    URL.revokeObjectURL(url);
  }
}
