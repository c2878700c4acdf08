/** One forecast, explained: the way to it feature by feature, step by step, and through the network; and what if. */

import { pictureActions, titleBar } from "../actions.js";
import { allOutputs } from "../all-outputs.js";
import { ApiError, askJson } from "../api.js";
import { counterfactuals } from "../counterfactuals.js";
import { h, segments } from "../dom.js";
import { enliven, fetchDrawing } from "../drawing.js";
import { changedFeatures, countChanges, fit, withFeature } from "../edits.js";
import { colorFlow, flowTeller, tellCarried, tellFlow } from "../flow-picture.js";
import { readFlow } from "../flow.js";
import { FINER, colorKey, foldWarnings, formatsOf, spreadOf, stepRows, tellForecast } from "../forecast-summary.js";
import { askTopology, topologyAsk } from "../graph.js";
import { byGroupOf, groupsOfBody, outermost, readGroups } from "../groups.js";
import { heatMap } from "../heat-map.js";
import { askIntervals, predictOutput } from "../intervals.js";
import { afterRest, latestOnly } from "../latest.js";
import { nearestReference } from "../nearest.js";
import { loadTimes } from "../references.js";
import { responseCurves } from "../response-curves.js";
import { relate } from "../selection.js";
import { seriesCharts } from "../series.js";
import { LostError } from "../tables.js";
import { waterfall } from "../waterfall.js";
import { windowEditor } from "../window-editor.js";
import { windowInput } from "../window-input.js";
import { keepWindow } from "../windows.js";
import { roomOf, zoomable } from "../zoom.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {import("../app.js").Page} Page */
/** @typedef {import("../window-input.js").Chosen} Chosen */
/** @typedef {import("../windows.js").Window} Window */

const FORBIDDEN = 403;
const N_SERIES = 6; // features whose lines are drawn before others are chosen or changed

/**
 * @param {Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  const { features, lookback, name: model } = page.model;
  const names = features.map(({ name }) => name);
  const name = () => `${model}-forecast`;
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  /** @type {Chosen | undefined} what the address says */
  let now;
  /** @type {Window | undefined} a change that the address does not say yet */
  let draft;
  /** @type {Window | undefined} a window that has the wanted forecast, drawn over this one */
  let answer;
  /** @type {Record<string, string>} of the address */
  let given = {};
  /** @type {number[]} features by how much they add or take, as they were when the window was chosen */
  let order = [];
  let ordered = ""; // for which window and baseline
  /** @type {import("../figures.js").Times | undefined} */
  let times;
  let was = { origin: "", forecast: NaN }; // before the window was changed
  let kept = ""; // the source that the last change was written as
  const rest = afterRest();

  const summary = h("div", { class: "card summary", "aria-live": "polite" });
  const way = waterfall(page);
  const bars = segments("Bars of", { groups: "groups", features: "features" }, (value) =>
    page.set({ bars: value === "features" ? value : "" }),
  );
  const { element: drawing, stage, reveal } = zoomable("The forecast's way through the network");
  const carried = h("p", { class: "muted" });
  const flowTable = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Flow at each node" });

  const choose = (/** @type {number} */ index, /** @type {number} */ step) => {
    for (const part of [cells, editor, series]) part.chosen(index, step);
    chosen = index;
    drawSeries();
  };
  let chosen = 0;
  const edit = (/** @type {Window} */ window, /** @type {number} */ pause) => {
    draft = window;
    editor.set(window, now?.before ?? now?.window);
    drawSeries();
    void preview(window);
    if (pause === Infinity) rest.stop();
    else rest.after(pause, () => void keep(window));
  };
  const undo = () => page.set({ window: now?.origin ?? "", from: "" });
  const compare = () => page.set({ baseline: now?.origin ?? "" });
  const cells = heatMap(features, page.unit, choose, () => editor.focus());
  const editor = windowEditor(page, edit, { choose, undo, compare });
  const series = seriesCharts(page.model, edit, choose);
  const curves = responseCurves(page, (index, by) => {
    const window = draft ?? now?.window;
    choose(index, lookback - 1);
    if (by === undefined) editor.focusShift();
    else if (window) edit(withFeature(window, index, (old) => fit(old + by, features[index])), 0);
  });

  const search = counterfactuals(page, {
    show: (window) => {
      answer = window;
      drawSeries();
    },
    take: (window) => edit(window, 0),
  });

  const outputs = allOutputs(page);

  const head = (/** @type {string} */ title, /** @type {HTMLElement} */ place, /** @type {HTMLElement[]} */ ...more) =>
    h("div", { class: "between" }, h("h2", {}, title), ...more, pictureActions(place, name, title));
  const answers = [
    summary,
    h(
      "div",
      { class: lookback > 1 ? "halves" : "stack" },
      h("section", { class: "card" }, head("From the baseline to the forecast", way.element, bars.element), way.element),
      ...(lookback > 1
        ? [h("section", { class: "card" }, head("Feature by step", cells.element, cells.scale), cells.element)]
        : []),
    ),
    h(
      "section",
      { class: "card stack" },
      h("h2", {}, "What if a feature were different"),
      h(
        "p",
        { class: "muted" },
        `The forecast${page.unit ? `, in ${page.unit},` : ""} as all steps of one feature are shifted; dashed outside the training range. A click shifts the window so.`,
      ),
      curves.element,
    ),
    h("section", { class: "card stack" }, h("h2", {}, "What must change"), search.element),
    h(
      "section",
      { class: "card flow" },
      head("Through the network", stage, colorKey("pushes up", "pushes down")),
      carried,
      drawing,
      h("details", {}, h("summary", {}, "What comes in and goes out at each node"), flowTable),
    ),
  ];
  const nearest = nearestReference(page);
  const change = h(
    "section",
    { class: "card stack" },
    h("h2", {}, "Change the window"),
    ...(lookback > 1
      ? [
          h("p", { class: "muted" }, "Drag a point, or use the arrow keys on a line; a cell of the map above can be chosen too."),
          editor.element,
          series.element,
        ]
      : [editor.element]),
    editor.changes,
    nearest.element,
  );
  const input = windowInput(page, () => showAnswers(false, false));
  const showAnswers = (/** @type {boolean} */ explained, /** @type {boolean} */ read) => {
    for (const answer of [...answers, outputs.element]) answer.hidden = !explained;
    change.hidden = !read;
    if (!explained) shown = undefined; // what was shown before is not the window that was given
  };
  const element = h(
    "div",
    { class: "view forecast" },
    titleBar("Forecast", () => shown),
    summary,
    input.element,
    ...(page.model.outputs.length > 1 ? [outputs.element] : []),
    ...answers.slice(1, 2),
    change,
    ...answers.slice(2),
  );

  /** @typedef {{explained: Schemas["ExplainResponse"], intervals: import("../intervals.js").Interval[]}} Explained */
  /** @type {{text: string, answer: Explained} | undefined} */
  let known;
  /**
   * @param {import("../api.js").Ask} ask
   * @param {Window} window
   * @param {AbortSignal} [signal]
   */
  const explain = async (ask, window, signal) => {
    const text = JSON.stringify(ask.body);
    if (known?.text !== text) {
      const [explained, [intervals]] = await Promise.all([
        /** @type {Promise<Schemas["ExplainResponse"]>} */ (askJson(ask, signal)),
        askIntervals(page, [window], signal),
      ]);
      known = { text, answer: { explained, intervals: intervals[page.output] ?? [] } };
    }
    return known.answer;
  };
  const askOf = (/** @type {Chosen} */ { baseline }, /** @type {Window} */ window) => ({
    path: `${page.path}:explain`,
    query: page.version,
    body: { instances: [window], output: [page.output], detail: "flow", baseline, ...groupsOfBody(given) },
  });

  /** @type {{topology: Schemas["TopologyResponse"], root: SVGSVGElement} | undefined} the same for all windows */
  let network;
  /** @type {(part: SVGGElement) => string[]} */
  let tell = () => [];
  const loadNetwork = async (/** @type {AbortSignal} */ signal) => {
    if (network) return network;
    const [topology, { root }] = await Promise.all([
      askTopology(page, undefined, signal),
      fetchDrawing(topologyAsk(page, { color: "contribution", width: roomOf(stage) }), signal),
    ]);
    relate(topology);
    const open = (/** @type {string} */ edge) => (location.hash = page.link("edge", { edge }));
    stage.replaceChildren(enliven(root, (part) => tell(part), open, reveal));
    return (network = { topology, root });
  };

  /** Draws the lines of the window, of what matters most and what is chosen or changed. */
  const drawSeries = () => {
    if (!now) return;
    const window = draft ?? now.window;
    const before = draft ? (now.before ?? now.window) : now.before;
    const changed = [before, answer].flatMap((other) => (other ? changedFeatures(window, other) : []));
    const more = [...new Set([chosen, ...changed])].filter((index) => !order.slice(0, N_SERIES).includes(index));
    series.set([...order.slice(0, N_SERIES), ...more], { window, before, other: now.other, answer, times });
  };

  /**
   * @param {Chosen} state
   * @param {Window} window
   * @param {Explained} answer
   */
  const draw = (state, window, { explained, intervals }) => {
    showAnswers(true, true);
    const [explanation] = explained.explanations;
    const { contributions } = explanation;
    const formats = formatsOf(page, spreadOf(explanation) / FINER);
    const isChanged = state.before !== undefined || window !== state.window;
    const chosen = { note: state.note, actual: isChanged ? undefined : state.actual };
    summary.replaceChildren(...tellForecast(explanation, formats, chosen, intervals, isChanged ? was.forecast : undefined), ...foldWarnings(explained));
    if (!isChanged) was = { origin: state.origin, forecast: explanation.prediction };
    const byGroup = byGroupOf(explanation);
    bars.element.hidden = !byGroup;
    bars.set(given.bars ?? "groups");
    const groups = byGroup && given.bars !== "features" ? readGroups(given, page.model) : undefined;
    const parts = byGroup && groups ? outermost(byGroup, groups) : contributions;
    way.set({ explanation, parts, groups: groups ?? {}, window, intervals, formats });
    cells.set(explanation, window, times);
    shown = { ask: askOf(state, window), name: name(), data: explained, rows: stepRows(explanation, names, window) };
    const key = JSON.stringify([state.origin, state.baseline]);
    if (key !== ordered) {
      order = d3.sort(d3.range(names.length), (index) => -Math.abs(contributions[names[index]]));
      if (!ordered) choose(order[0], lookback - 1);
      ordered = key;
    }
    curves.set(window, explanation.prediction, order, formats);
    search.set(given, window, formats);
    if (page.model.outputs.length > 1) outputs.set(window, state.baseline, draft ? undefined : state.actuals, times);
    nearest.set(draft || !state.source.startsWith("ref:") ? window : undefined);
    if (network) drawFlow(explanation, network);
  };

  /**
   * @param {Schemas["Explanation"]} explanation
   * @param {NonNullable<typeof network>} network
   */
  const drawFlow = (explanation, { topology, root }) => {
    const { contributions } = explanation;
    const flow = readFlow(explanation, topology);
    colorFlow(root, flow, contributions);
    carried.textContent = tellCarried(root, flow, topology, page.unit);
    tell = flowTeller(flow, topology, contributions, page.unit);
    flowTable.replaceChildren(tellFlow(flow, page.unit));
  };

  const preview = latestOnly(async (/** @type {Window} */ window) => {
    const state = now;
    if (!state) return;
    try {
      const explained = await explain(askOf(state, window), window);
      if (state === now) draw(state, window, explained);
    } catch (error) {
      if (state === now) refuse(error);
    }
  });
  const refuse = (/** @type {unknown} */ error) => {
    input.refuse(error);
    showAnswers(false, true);
  };

  /** The forecast of the window before it was changed, where it is not known yet. */
  const forecastBefore = async (/** @type {Chosen} */ { origin, before }, /** @type {AbortSignal} */ signal) => {
    if (!before || origin === was.origin) return;
    const [forecast] = await predictOutput(page, [before], signal);
    was = { origin, forecast };
  };

  /** Writes a change into the address. */
  const keep = async (/** @type {Window} */ window) => {
    if (!now) return;
    const { origin } = now;
    const isChanged = countChanges(window, now.before ?? now.window) > 0;
    kept = isChanged ? await keepWindow(window) : origin;
    await page.set({ window: kept, from: isChanged ? origin : "" });
    if (draft === window) draft = undefined;
  };

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    const next = await input.set(values, signal).catch((error) => {
      const isRefused = input.isOwn() && error instanceof ApiError && error.status === 422;
      if (error instanceof LostError || isRefused) return input.refuse(error);
      if (!(error instanceof ApiError) || error.status !== FORBIDDEN || values.window) throw error;
      input.ask("This service shows no windows of its own; explain one of yours.");
    });
    if (!next) return showAnswers(false, false);
    if (next.source !== kept) {
      rest.stop();
      draft = undefined;
    }
    now = next;
    given = values;
    element.classList.remove("answered");
    const window = draft ?? next.window;
    const loading = loadNetwork(signal);
    loading.catch(() => {}); // it is reported below, unless the window is refused before
    [times] = await Promise.all([loadTimes(page, next.time), forecastBefore(next, signal)]);
    editor.set(window, next.before, times);
    change.hidden = false;
    try {
      const explained = await explain(askOf(next, window), window, signal);
      draw(next, window, explained);
      drawSeries();
      element.classList.add("answered"); // the network may take longer
      drawFlow(explained.explained.explanations[0], await loading);
    } catch (error) {
      if (!signal.aborted && input.isOwn() && error instanceof ApiError && error.status === 422) {
        refuse(error);
        drawSeries();
      } else throw error;
    }
  };
  return { element, update };
}
