/** Formulas in Python's notation, typeset as MathML Core, which browsers support without a library. */

const MATHML = "http://www.w3.org/1998/Math/MathML";
const MINUS = "\u2212";
const SHORT = 6; // numbers and names of an addend that is not divided
/** @type {Record<string, (inner: Element) => Element>} functions that are not written as a name */
const SIGNS = {
  exp: (inner) => element("msup", {}, element("mi", {}, "e"), inner),
  sqrt: (inner) => element("msqrt", {}, inner),
  abs: (inner) => element("mrow", {}, operator("|"), inner, operator("|")),
};
const TOKEN = /\s*(\d+(?:\.\d*)?(?:e[+-]?\d+)?|[A-Za-z_]\w*|\*\*|[-+*/(),])/y;

/**
 * A part of a formula: a number or a name, the call of a function, or an operation.
 *
 * @typedef {{kind: "leaf", text: string} | {kind: "call" | "operation", text: string, parts: Tree[]}} Tree
 */

/**
 * The terms of a formula, each an element of its own so that a line can break between them.
 *
 * @param {string} expression
 * @returns {Element[]}
 */
export function setFormula(expression) {
  return setTerms(parse(expression)).map((parts) => element("math", {}, element("mrow", {}, ...parts)));
}

/**
 * The addends, each with its sign; a long one is divided further.
 *
 * @param {Tree} whole
 * @returns {Element[][]}
 */
function setTerms(whole) {
  return addends(whole).flatMap(({ sign, tree }, index) => {
    const form = index ? "infix" : "prefix"; // determines the space around it
    const before = sign < 0 ? [operator(MINUS, form)] : index ? [operator("+", form)] : [];
    const [first, ...others] = setFactors(tree);
    return [[...before, ...first], ...others];
  });
}

/**
 * An addend: whole if it is short, otherwise divided between the terms of the sum that its last function is of.
 *
 * @param {Tree} tree
 * @returns {Element[][]}
 */
function setFactors(tree) {
  if (tree.kind === "operation" && tree.text === "*" && count(tree) > SHORT) {
    const [first, second] = tree.parts;
    const [head, ...others] = setFactors(second);
    const inner = level(first) < 2 ? fence(set(first)) : set(first);
    return [[inner, ...times(second), ...head], ...others];
  }
  if (tree.kind === "call" && tree.parts.length === 1 && !Object.hasOwn(SIGNS, tree.text) && count(tree) > SHORT) {
    const [head, ...others] = setTerms(tree.parts[0]);
    const inside = [[setName(tree.text), operator("("), ...head], ...others];
    return [...inside.slice(0, -1), [...inside[inside.length - 1], operator(")")]];
  }
  return [[level(tree) < 2 ? fence(set(tree)) : set(tree)]];
}

/**
 * @param {Tree} tree
 * @returns {number} of its numbers and names
 */
function count(tree) {
  return tree.kind === "leaf" ? 1 : tree.parts.reduce((sum, part) => sum + count(part), 0);
}

/**
 * @param {string} expression
 * @returns {Tree}
 */
export function parse(expression) {
  const tokens = split(expression);
  let at = 0;
  const take = (/** @type {string} */ token) => tokens[at] === token && Boolean((at += 1));
  const need = (/** @type {string} */ token) => {
    if (!take(token)) throw new Error(`“${token}” is missing in ${expression}`);
  };
  /** @type {(operators: string[], next: () => Tree) => Tree} */
  const chain = (operators, next) => {
    let tree = next();
    for (let text = operators.find(take); text; text = operators.find(take)) {
      tree = { kind: "operation", text, parts: [tree, next()] };
    }
    return tree;
  };
  /** @returns {Tree} */
  const sum = () => chain(["+", "-"], product);
  /** @returns {Tree} */
  const product = () => (take("-") ? { kind: "operation", text: "-", parts: [product()] } : chain(["*", "/"], signed));
  /** @returns {Tree} */
  const signed = () => (take("-") ? { kind: "operation", text: "-", parts: [signed()] } : power());
  /** @returns {Tree} */
  const power = () => {
    const base = atom();
    return take("**") ? { kind: "operation", text: "**", parts: [base, signed()] } : base;
  };
  /** @returns {Tree} */
  const atom = () => {
    if (take("(")) {
      const inner = sum();
      need(")");
      return inner;
    }
    const text = tokens[at++];
    if (!text || !/^\w/.test(text)) throw new Error(`${expression} ends too early`);
    if (!take("(")) return { kind: "leaf", text };
    const parts = [sum()];
    while (take(",")) parts.push(sum());
    need(")");
    return { kind: "call", text, parts };
  };
  const tree = sum();
  if (at < tokens.length) throw new Error(`unexpected “${tokens[at]}” in ${expression}`);
  return tree;
}

/** @param {string} expression */
function split(expression) {
  const tokens = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < expression.trimEnd().length) {
    const start = TOKEN.lastIndex;
    const found = TOKEN.exec(expression);
    if (!found) throw new Error(`“${expression.slice(start)}” is not a formula`);
    tokens.push(found[1]);
  }
  return tokens;
}

/**
 * @param {Tree} tree
 * @param {number} [sign] of all of it
 * @returns {{sign: number, tree: Tree}[]}
 */
function addends(tree, sign = 1) {
  if (tree.kind !== "operation" || !"+-".includes(tree.text)) return [{ sign, tree }];
  const [first, second] = tree.parts;
  const last = tree.text === "-" ? -sign : sign;
  return second ? [...addends(first, sign), ...addends(second, last)] : addends(first, last);
}

/**
 * How tightly a part binds: 1 sums, 2 products, 3 powers, 4 all else.
 *
 * @param {Tree} tree
 */
function level(tree) {
  if (tree.kind !== "operation") return 4;
  return { "+": 1, "-": 1, "*": 2, "/": 3, "**": 3 }[tree.text] ?? 4;
}

/**
 * @param {Tree} tree
 * @returns {Element}
 */
function set(tree) {
  if (tree.kind === "leaf") return setLeaf(tree.text);
  if (tree.kind === "call") return setCall(tree.text, tree.parts);
  const [first, second] = tree.parts;
  const inside = (/** @type {Tree} */ part, /** @type {number} */ least) =>
    level(part) < least ? fence(set(part)) : set(part);
  if (tree.text === "/") return element("mfrac", {}, set(first), set(second));
  if (tree.text === "**") return element("msup", {}, inside(first, 4), set(second));
  if (tree.text === "*") return element("mrow", {}, inside(first, 2), ...times(second), inside(second, 2));
  if (!second) return element("mrow", {}, operator(MINUS), inside(first, 2));
  const sign = tree.text === "-" ? MINUS : "+";
  return element("mrow", {}, set(first), operator(sign), inside(second, tree.text === "-" ? 2 : 1));
}

/**
 * The operator between two factors: a dot before a number, otherwise nothing.
 *
 * @param {Tree} second
 */
function times(second) {
  const first = second.kind === "operation" ? second.parts[0] : second;
  if (first.kind === "leaf" && /^\d/.test(first.text)) return [operator("·")];
  return second.kind === "call" ? [operator("\u2062"), element("mspace", { width: "0.17em" })] : [operator("\u2062")];
}

/** @param {string} text */
function setLeaf(text) {
  if (/^\d/.test(text)) {
    const [digits, exponent] = text.split("e");
    if (exponent === undefined) return element("mn", {}, digits);
    const power = element("msup", {}, element("mn", {}, "10"), element("mn", {}, exponent.replace("-", MINUS)));
    return element("mrow", {}, element("mn", {}, digits), operator("·"), power);
  }
  const indexed = /^([A-Za-z])(\d+)$/.exec(text);
  if (text === "pi") return element("mi", {}, "π");
  if (!indexed) return element("mi", { mathvariant: "normal" }, text);
  return element("msub", {}, element("mi", {}, indexed[1]), element("mn", {}, indexed[2]));
}

/**
 * @param {string} name
 * @param {Tree[]} parts
 */
function setCall(name, parts) {
  if (Object.hasOwn(SIGNS, name)) return SIGNS[name](set(parts[0]));
  const listed = parts.flatMap((part, index) => (index ? [operator(","), set(part)] : [set(part)]));
  const inner = element("mrow", {}, operator("("), ...listed, operator(")"));
  return element("mrow", {}, setName(name), operator("\u2061"), inner);
}

/**
 * The name of a function; that of an edge of the head, phi_0_7_3, with its layer and nodes below.
 *
 * @param {string} name
 */
function setName(name) {
  const [kind, ...place] = name.split("_");
  if (kind !== "phi" || !place.length) return element("mi", { mathvariant: "normal" }, name);
  return element("msub", {}, element("mi", {}, "φ"), element("mtext", {}, place.join(",")));
}

/** @param {Element} inner */
function fence(inner) {
  return element("mrow", {}, operator("("), inner, operator(")"));
}

/**
 * @param {string} sign
 * @param {string} [form]
 */
function operator(sign, form) {
  return element("mo", form ? { form } : {}, sign);
}

/**
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {...(Element | string)} children
 */
function element(tag, attributes, ...children) {
  const made = document.createElementNS(MATHML, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}
