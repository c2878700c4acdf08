/** The network as formulas, from the most accurate to a single line, each with its error. */

import "../vendor/d3.min.js";
import "../vendor/plot.umd.min.js";
import { copyText, titleBar } from "../actions.js";
import { ApiError, askLines } from "../api.js";
import { plot } from "../charts.js";
import { figure, h, table, widthOf } from "../dom.js";
import { amount, fixed, formatValue, percent } from "../figures.js";
import { nameNode } from "../graph.js";
import { help, withHelp } from "../help.js";
import { setFormula } from "../mathml.js";
import { titlesOf } from "../names.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["FormulaInfo"]} Formula */

const WAIT = 120; // ms without another move of the slider
/** @type {Record<string, (formula: Formula) => string>} what can be copied */
const TEXTS = { Python: ({ python }) => python, LaTeX: ({ latex }) => latex, Text: ({ expression }) => expression };

/**
 * @param {import("../app.js").Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  /** @type {Formula[]} */
  let front = [];
  let isWhole = false; // the front, which grows while formulas are found
  /** @type {number | undefined} the complexity of the formula that was chosen meanwhile */
  let chosen;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const said = h("output", { for: "terms" });
  const take = () => {
    timer = undefined;
    choose(Number(slider.value));
  };
  const choose = (/** @type {number} */ index) => {
    chosen = front[index].complexity;
    if (isWhole) void page.set({ complexity: String(chosen) });
    else place(index);
  };
  const slider = h("input", {
    ...{ type: "range", id: "terms", min: 0, step: 1 },
    oninput: () => {
      show(front[Number(slider.value)]);
      clearTimeout(timer);
      timer = setTimeout(take, WAIT);
    },
  });
  const answer = h("p", { class: "lead", "aria-live": "polite" });
  const chart = h("figure", { class: "chart front" });
  const figures = h("div", { class: "cost", "aria-live": "polite" });
  const formula = h("div", { class: "formula", tabindex: "0", role: "region", "aria-label": "The formula" });
  const variables = h("div", { class: "scroll" });
  const list = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "All formulas" });
  const found = h("p", { class: "muted", role: "status" });
  const copied = h("span", { role: "status", class: "said" });
  const copy = async (/** @type {string} */ name) => {
    copied.textContent = (await copyText(TEXTS[name](front[Number(slider.value)])))
      ? `copied as ${name}`
      : "the browser does not allow copying";
  };
  const results = h(
    "div",
    { class: "columns wide" },
    h(
      "div",
      { class: "stack" },
      h(
        "section",
        { class: "card stack" },
        h(
          "div",
          { class: "between" },
          h("h2", {}, `${page.output} ≈`),
          h(
            "span",
            { class: "actions" },
            copied,
            ...Object.keys(TEXTS).map((name) =>
              h("button", { type: "button", class: "small", onclick: () => void copy(name) }, `Copy ${name}`),
            ),
          ),
        ),
        formula,
        answer,
      ),
      h("section", { class: "card stack" }, h("h2", {}, "What the symbols stand for ", help("profile")), variables),
      h("section", { class: "card stack all" }, h("h2", {}, "All formulas, the shortest first"), found, list),
    ),
    h(
      "aside",
      { "aria-label": "How long the formula is, and what it costs" },
      h(
        "section",
        { class: "card" },
        h("div", { class: "between" }, h("label", { for: "terms" }, "From one line to the network"), said),
        slider,
        chart,
        figures,
        h("p", { class: "muted" }, "Measured through the whole model, on blocks of the reference windows that neither the search nor the choice of formulas used."),
      ),
    ),
  );
  const problem = h("div", { class: "card", role: "alert" });
  const element = h(
    "div",
    { class: "view formulas" },
    titleBar("Formula", () => shown),
    problem,
    results,
  );

  /** @param {Formula} chosen */
  const show = (chosen) => {
    said.textContent = `complexity ${chosen.complexity}`;
    slider.setAttribute("aria-valuetext", said.textContent);
    copied.textContent = "";
    figures.replaceChildren(...tellFigures(chosen, page.unit));
    answer.textContent = tellAnswer(chosen, front, page);
    chart.replaceChildren(drawFront(front, chosen, widthOf(chart), choose));
    formula.replaceChildren(...setFormula(chosen.expression));
    variables.replaceChildren(tellVariables(chosen, (through) => page.link("network", { through }), titlesOf(page.model.features)));
    for (const row of list.querySelectorAll("tr[data-complexity]")) {
      row.classList.toggle("chosen", row.getAttribute("data-complexity") === String(chosen.complexity));
    }
  };

  const place = (/** @type {number} */ index) => {
    slider.max = String(front.length - 1);
    slider.value = String(index);
    list.replaceChildren(tellFront(front, page.unit, (complexity) => choose(front.findIndex((one) => one.complexity === complexity))));
    show(front[index]);
  };

  /**
   * Shows the front as far as it is known.
   *
   * @param {Formula[]} formulas
   * @param {Record<string, string>} values
   */
  const draw = (formulas, values) => {
    const moved = timer === undefined ? undefined : front[Number(slider.value)].complexity; // and not yet taken
    front = formulas;
    const wanted = moved ?? chosen ?? Number(values.complexity ?? front[kneeOf(front)].complexity); // of another model too
    place(Math.max(0, front.filter(({ complexity }) => complexity <= wanted).length - 1));
    found.textContent = isWhole ? "" : `${front.length} so far; the search goes on …`;
    problem.hidden = true;
    results.hidden = false;
    element.classList.add("answered");
  };

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    if (isWhole) return draw(front, values);
    const ask = { path: `${page.path}/formula`, query: { ...page.query } };
    const none = (/** @type {string} */ reason) => {
      shown = undefined;
      problem.replaceChildren(h("p", {}, `There is no formula for it: ${reason}.`));
      problem.hidden = false;
      results.hidden = true;
    };
    const { head, output_function: last } = page.model.architecture;
    if (last === "softmax") return none("a formula needs outputs that are functions of one node, but softmax mixes them");
    if (head.layers.some(({ before }) => before.includes("layer_norm"))) return none("a layer norm mixes all inputs of a layer");
    results.hidden = !front.length;
    try {
      /** @type {Formula[]} */
      let known = [];
      for await (const line of askLines(ask, signal)) {
        isWhole = "formulas" in line;
        known = isWhole ? line.formulas : frontOf([...known, line.formula]);
        draw(known, values);
        if (!isWhole) continue;
        const rows = front.map(({ complexity, r2, mae, expression }) => ({ complexity, r2, mae, expression }));
        shown = { ask, name: `${page.model.name}-formula`, data: line, rows };
        if (chosen !== undefined) void page.set({ complexity: String(chosen) }, true);
        chosen = undefined;
      }
    } catch (error) {
      if (signal.aborted && front.length) found.textContent = `${front.length} were found before the search was stopped.`;
      if (signal.aborted || !(error instanceof ApiError) || error.status !== 422) throw error;
      none(error.message.replace("model has no formula: ", "")); // as of operations between the layers of a graph
    }
  };
  return { element, update };
}

/**
 * The formulas that are nearer to the network than each simpler one, of those that are found so far.
 *
 * @param {Formula[]} formulas
 */
function frontOf(formulas) {
  let best = -Infinity;
  return d3.sort(formulas, ({ complexity }) => complexity, ({ r2 }) => -(r2 ?? -Infinity)).filter(({ r2 }) => {
    const isNearer = (r2 ?? -Infinity) > best;
    best = Math.max(best, r2 ?? -Infinity);
    return isNearer;
  });
}

/** @param {Formula} formula */
function deviation({ r2 }) {
  return Math.sqrt(Math.max(0, 1 - (r2 ?? 0)));
}

/**
 * The knee of the front (Satopaa et al. 2011, "Kneedle"): the formula that is farthest below the line from the shortest
 * to the nearest, of the root mean square deviation over the logarithm of the complexity.
 *
 * @param {Formula[]} front the shortest first
 */
export function kneeOf(front) {
  const [first, last] = [front[0], front[front.length - 1]];
  const length = Math.log(last.complexity / first.complexity) || 1;
  const fall = deviation(first) - deviation(last) || 1;
  const below = front.map(
    (one) => 1 - Math.log(one.complexity / first.complexity) / length - (deviation(one) - deviation(last)) / fall,
  );
  return below.indexOf(Math.max(...below));
}

/**
 * @param {Formula} chosen
 * @param {Formula[]} front
 * @param {import("../app.js").Page} page
 */
function tellAnswer(chosen, front, { unit }) {
  const nearest = front[front.length - 1];
  const { r2, mae, complexity } = chosen;
  if (r2 === null) return "It has no finite value on one of the windows.";
  const kept = `With ${complexity === 1 ? "one number" : `complexity ${complexity}`} it keeps ${percent(Math.max(0, r2))} of what the network's forecasts vary by`;
  if (mae === null || nearest.mae === null) return `${kept}.`;
  const value = (/** @type {number} */ of) => formatValue(of, unit, nearest.mae);
  return chosen === nearest ? `${kept}, and misses by ${value(mae)} on average.` : `${kept}, and misses by ${value(mae)} on average; the formula nearest to the network by ${value(nearest.mae)}.`;
}

/**
 * The front: R² over complexity.
 *
 * @param {Formula[]} front
 * @param {Formula} chosen
 * @param {number} width
 * @param {(index: number) => void} choose
 */
function drawFront(front, chosen, width, choose) {
  const known = front.filter(({ r2 }) => r2 !== null).map((one) => ({ ...one, r2: Math.max(0, one.r2 ?? 0) }));
  const drawn = plot({
    ...{ width, height: 150, marginLeft: 34, marginRight: 14, marginTop: 20 },
    ariaLabel: "R² of the formulas by their complexity",
    x: { type: "log", label: "complexity →", ticks: 4, tickFormat: "~s", tickSize: 0 },
    y: { label: "↑ R²", domain: [0, 1], ticks: 4, grid: true },
    marks: [
      Plot.lineY(known, { x: "complexity", y: "r2", stroke: "var(--muted)", curve: "step-after" }),
      Plot.dot(known, {
        ...{ x: "complexity", y: "r2", stroke: "var(--muted)", strokeWidth: 1.5 },
        r: (one) => (one.complexity === chosen.complexity ? 6 : 4),
        fill: (one) => (one.complexity === chosen.complexity ? "var(--ink)" : "var(--card)"),
        title: ({ complexity, r2 }) => `complexity ${complexity}: R² ${fixed(r2, 4)}`,
      }),
    ],
  });
  drawn.querySelectorAll("circle").forEach((circle, index) => {
    const place = front.findIndex(({ complexity }) => complexity === known[index].complexity);
    circle.addEventListener("click", () => choose(place)); // the slider does the same by keyboard
  });
  return drawn;
}

/**
 * @param {Formula} formula
 * @param {string | null} unit
 */
function tellFigures({ r2, mae, complexity }, unit) {
  const known = mae === null ? "no targets known" : "against actual values";
  return [
    figure("R²", r2 === null ? "–" : fixed(r2, 4), "against the full model", withHelp("R²", "R²")),
    figure("MAE", amount(mae, unit), known, withHelp("MAE", "MAE")),
    figure("complexity", String(complexity), "price of its functions", withHelp("complexity", "complexity")),
  ];
}

/**
 * @param {Formula} formula
 * @param {(node: string) => string} link to the paths through a node
 * @param {Map<string, string>} short names of features
 */
function tellVariables({ variables }, link, short) {
  const rows = Object.entries(variables).map(([symbol, { node, profile }]) => {
    const made = Object.entries(profile).map(([name, share]) => `${percent(share)} ${short.get(name) ?? name}`);
    return h(
      "tr",
      { "data-node": node },
      h("td", {}, ...setFormula(symbol)),
      h(
        "td",
        {},
        node.includes("(") ? node : h("a", { href: link(node.replace(/ (at|of) .*/, "")) }, nameNode(node)),
        h("span", { class: "muted made" }, made.join(", ")),
      ),
    );
  });
  return withTextLast(table(["Symbol", "Stands for"], rows, { class: "tight" }));
}

/**
 * @param {Formula[]} front
 * @param {string | null} unit
 * @param {(complexity: number) => void} choose
 */
function tellFront(front, unit, choose) {
  const spread = front[front.length - 1].mae;
  const rows = front.map(({ complexity, r2, mae, expression }) => {
    const name = String(complexity);
    const button = h(
      "button",
      { type: "button", class: "small", "aria-label": `Formula of complexity ${name}`, onclick: () => choose(complexity) },
      name,
    );
    return h(
      "tr",
      { "data-complexity": name },
      h("td", {}, button),
      h("td", { class: "number" }, r2 === null ? "–" : fixed(r2, 4)),
      h("td", { class: "number" }, formatValue(mae, unit, spread)),
      h("td", {}, h("code", { class: "clamped" }, expression)),
    );
  });
  return withTextLast(table(["Complexity", "R²", "MAE", "Formula"], rows));
}

/**
 * A table whose last column is text.
 *
 * @param {HTMLTableElement} made
 */
function withTextLast(made) {
  made.querySelector("th:last-child")?.classList.remove("number");
  return made;
}
