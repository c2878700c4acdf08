/** Creation of elements without markup in strings, so that names of models and features are always text. */

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * An HTML element.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} attributes functions are event listeners, such as `onclick`; true is an attribute
 *   without a value, and null, undefined and false are left out
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  fill(element, attributes, children);
  return element;
}

/**
 * An SVG element.
 *
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} attributes
 * @param {...(Child | Child[])} children
 * @returns {SVGElementTagNameMap[K]}
 */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  fill(element, attributes, children);
  return element;
}

/**
 * @param {Element} element
 * @param {Record<string, unknown>} attributes
 * @param {(Child | Child[])[]} children
 */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  for (const child of children.flat()) if (child) element.append(child);
}

/**
 * A table with a header in the first column and numbers in the others.
 *
 * @param {(Child | Child[])[]} names of the columns
 * @param {HTMLTableRowElement[]} rows
 * @param {Record<string, unknown>} [attributes]
 */
export function table(names, rows, attributes = {}) {
  const head = names.map((name, index) => h("th", { scope: "col", class: index ? "number" : null }, name));
  return h("table", attributes, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
}

/**
 * A number with its name.
 *
 * @param {string} name
 * @param {string} value
 * @param {string} [note] an explanation
 * @param {Child} [label] replaces the name, for example by a term with a question mark
 */
export function figure(name, value, note, label = name) {
  return h(
    "div",
    { class: "figure", "data-figure": name },
    h("span", { class: "muted" }, label),
    h("strong", {}, value),
    note === undefined ? null : h("span", { class: "muted" }, note),
  );
}

/**
 * A link whose address is updated just before it is followed, so that it has the current choices.
 *
 * @param {() => string} address
 * @param {string} label
 */
export function freshLink(address, label) {
  const refresh = () => link.setAttribute("href", address());
  const link = h("a", { href: address(), onfocus: refresh, onpointerenter: refresh, onpointerdown: refresh }, label);
  return link;
}

/**
 * Attributes of an element that takes files which are dropped on it.
 *
 * @param {(files: FileList | undefined) => Promise<void>} read
 */
export function dropsTo(read) {
  return {
    ondragover: (/** @type {DragEvent} */ event) => event.preventDefault(),
    ondrop: (/** @type {DragEvent} */ event) => {
      event.preventDefault();
      void read(event.dataTransfer?.files);
    },
  };
}

/**
 * A name that lines may break only after what joins its words.
 *
 * @param {string} name
 * @returns {Child[]}
 */
export function breakable(name) {
  return name.split(/(?<=[_.:/+-])/).flatMap((part, index) => (index ? [h("wbr"), part] : [part]));
}

/**
 * The width available to a chart.
 *
 * @param {Element} place
 */
export function widthOf(place) {
  return Math.max(280, place.clientWidth);
}

/**
 * The element of the page with an id.
 *
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/**
 * A group of radio buttons.
 *
 * @param {string} legend what is chosen
 * @param {Record<string, string>} options labels by value
 * @param {(value: string) => void} choose
 * @returns {{element: HTMLElement, set: (value: string) => void}}
 */
export function segments(legend, options, choose) {
  const group = `choice-${++segments.count}`;
  const inputs = Object.entries(options).map(([value, label]) => {
    const input = h("input", { type: "radio", name: group, value, onchange: () => choose(value) });
    return { input, label: h("label", {}, input, h("span", {}, label)) };
  });
  const element = h("fieldset", { class: "segments" }, h("legend", {}, legend), ...inputs.map(({ label }) => label));
  const set = (/** @type {string} */ value) => inputs.forEach(({ input }) => (input.checked = input.value === value));
  return { element, set };
}
segments.count = 0;
