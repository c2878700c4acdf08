/** The picture as a file that needs nothing else: as it is, as a slide (16:9), or as a page of A4. */

import { link } from "../state.js";
import { save } from "../ui/save.js";

/** @typedef {"picture" | "slide" | "a4"} Kind */
/** @typedef {{svg: SVGSVGElement, model: import("../model.js").Model, label: string, window?: string | null}} Shown */

const LOOKS = [
  ...["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linejoin", "paint-order"],
  ...["font-family", "font-size", "font-weight", "text-anchor"],
];
const PAGES = /** @type {Record<string, {width: number, height: number, margin: number, title: number, text: number}>} */ ({
  slide: { width: 1920, height: 1080, margin: 72, title: 44, text: 22 },
  a4: { width: 1123, height: 794, margin: 48, title: 26, text: 13 }, // 297 by 210 mm, at 96 pixels an inch
});
const WIDE = 0.62; // of a letter of the title, in its size
const SHARP = 2; // pixels of a PNG per CSS pixel
const NAMESPACE = "http://www.w3.org/2000/svg";

/** @type {Shown | undefined} */
let shown;

/** Notes the picture in view, which is what is exported. @param {Shown | undefined} picture */
export const showPicture = (picture) => (shown = picture);

/** Whether there is a picture to export. */
export const hasPicture = () => Boolean(shown?.svg.isConnected);

/** @param {Kind} [kind] */
export async function exportSvg(kind = "picture") {
  save(`${nameOf(kind)}.svg`, "image/svg+xml", writePicture(kind));
}

/** @param {Kind} [kind] */
export async function exportPng(kind = "picture") {
  save(`${nameOf(kind)}.png`, "image/png", await rasterise(writePicture(kind)));
}

/** The picture in view as a standalone document with literal colours. @param {Kind} [kind] */
export function writePicture(kind = "picture") {
  if (!shown?.svg.isConnected) throw new Error("There is no picture in view.");
  const { svg, model, label, window } = shown;
  const { width, height } = svg.viewBox.baseVal;
  const page = PAGES[kind];
  const looks = getComputedStyle(svg);
  const [ground, ink, muted] = ["--card", "--ink", "--muted"].map((name) => looks.getPropertyValue(name).trim());
  const size = page ?? { width, height };
  const root = make("svg", { xmlns: NAMESPACE, width: size.width, height: size.height, viewBox: `0 0 ${size.width} ${size.height}`, "font-family": looks.fontFamily });
  root.append(make("title", {}, label), make("rect", { width: size.width, height: size.height, fill: ground }));
  const picture = make("g", { "font-size": looks.fontSize, fill: looks.fill });
  picture.append(...copyOf(svg).childNodes);
  root.append(picture);
  if (page) {
    const { margin, title, text } = page;
    const top = margin + title + 2.2 * text;
    const scale = Math.min((page.width - 2 * margin) / width, (page.height - top - margin - 2 * text) / height);
    picture.setAttribute("transform", `translate(${((page.width - scale * width) / 2).toFixed(1)} ${top.toFixed(1)}) scale(${scale.toFixed(4)})`);
    const day = new Date().toISOString().slice(0, 10);
    const foot = `${model.name}, version ${model.info.version} · ${model.info.checkpoint.slice(0, 19)}… · ${day} · Kanscope`;
    root.append(
      make("text", { x: margin, y: margin + title * 0.8, fill: ink, "font-size": Math.min(title, (page.width - 2 * margin) / (WIDE * label.length)), "font-weight": 650 }, label),
      make("text", { x: margin, y: margin + title + text, fill: muted, "font-size": text }, [window, "A ribbon is as wide as its contribution; blue raises, orange lowers."].filter(Boolean).join(" · ")),
      make("text", { x: margin, y: page.height - margin + text * 0.4, fill: muted, "font-size": text }, foot),
    );
  }
  return new XMLSerializer().serializeToString(root);
}

/**
 * The drawing as it fits the view, with its looks as attributes, and without what is hidden.
 *
 * @param {SVGSVGElement} svg
 */
function copyOf(svg) {
  const copy = /** @type {SVGSVGElement} */ (svg.cloneNode(true));
  const copies = [...copy.querySelectorAll("*")];
  const hidden = [...svg.querySelectorAll("*")].filter((original, index) => {
    const [looks, above] = [getComputedStyle(original), getComputedStyle(/** @type {Element} */ (original.parentElement))];
    const target = copies[index];
    for (const name of [...target.attributes].map((one) => one.name)) if (/^(data-|aria-|class$|role$|tabindex$|style$)/.test(name)) target.removeAttribute(name);
    for (const name of LOOKS) {
      const value = looks.getPropertyValue(name);
      if (value !== above.getPropertyValue(name)) target.setAttribute(name, value);
    }
    if (looks.opacity !== "1") target.setAttribute("opacity", looks.opacity);
    const isHidden = looks.display === "none" || (original.tagName === "path" && !original.getAttribute("d"));
    if (isHidden) target.setAttribute("display", "none");
    return isHidden;
  });
  if (hidden.length) for (const one of copy.querySelectorAll('[display="none"]')) one.remove();
  copy.querySelector("g[transform]")?.closest("svg > g")?.removeAttribute("transform"); // as it was before any zoom
  return copy;
}

/** @param {string} name @param {Record<string, string | number>} attributes @param {string} [text] */
function make(name, attributes, text) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) if (key !== "xmlns") element.setAttribute(key, String(value));
  if (text !== undefined) element.textContent = text;
  return element;
}

/** @param {string} text of an SVG @returns {Promise<Blob>} */
async function rasterise(text) {
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth * SHARP, image.naturalHeight * SHARP];
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The picture is too large for a PNG.")))));
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** @param {Kind} kind */
const nameOf = (kind) => [shown?.model.name, new URL(link(), location.href).hash.split("?")[0].slice(2), kind === "picture" ? "" : kind].filter(Boolean).join("-");
