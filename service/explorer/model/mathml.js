/** The service's MathML in the page: of its elements those of mathematics alone, and lines that may break between terms. */

import { html, useLayoutEffect, useRef } from "../lib.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";
const KNOWN = ["mrow", "mi", "mn", "mo", "msub", "msup", "msubsup", "mfrac", "msqrt", "mroot"];
const LONG = 14; // texts of a line from which on it may break

/** @param {{of: string}} props */
export function Mathematics({ of }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  useLayoutEffect(() => place.current?.replaceChildren(...setMathematics(of)), [of]);
  return html`<span class="mathematics" ref=${place}></span>`;
}

/** One `math` for each stretch between which a line may break, of MathML without `math` around it. */
export function setMathematics(text) {
  const parsed = new DOMParser().parseFromString(`<math xmlns="${MATHML}">${text}</math>`, "application/xml");
  if (parsed.querySelector("parsererror")) throw new Error("The formula of the service is no MathML.");
  return breakLines(flatten(parsed.documentElement).map(take)).map((parts) => {
    const math = document.createElementNS(MATHML, "math");
    math.append(...parts);
    return math;
  });
}

/** What stands in a row, at any depth of rows: they only group. */
function flatten(row) {
  return [...row.children].flatMap((child) => (child.localName === "mrow" ? flatten(child) : [child]));
}

/** A copy of an element with nothing but known elements and their texts. */
function take(element) {
  if (element.namespaceURI !== MATHML || !KNOWN.includes(element.localName)) throw new Error(`A formula has no <${element.localName}>.`);
  const made = document.createElementNS(MATHML, element.localName);
  if (element.children.length) made.append(...[...element.children].map(take));
  else made.textContent = element.textContent;
  return made;
}

/** Stretches of some length, each of which but the first begins with a plus or a minus between terms. */
function breakLines(parts) {
  /** @type {Element[][]} */
  const lines = [[]];
  let length = 0;
  parts.forEach((part, place) => {
    const text = part.textContent ?? "";
    const before = parts[place - 1];
    const isBetween = /^[-+\u2212]$/.test(text) && before && !(before.localName === "mo" && before.textContent !== ")");
    if (isBetween && length > LONG) {
      lines.push([]);
      length = 0;
    }
    if (isBetween) part.setAttribute("form", "infix"); // determines the space around it
    lines[lines.length - 1].push(part);
    length += text.length;
  });
  return lines;
}
