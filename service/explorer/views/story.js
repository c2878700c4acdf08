/** One forecast as a story: what it is and why, with its history, what would change it, and how far to trust it. */

import "../vendor/d3.min.js";
import { actions, copyText } from "../actions.js";
import { ApiError, askJson, reasonOf } from "../api.js";
import { counterfactuals } from "../counterfactuals.js";
import { breakable, freshLink, h, table, widthOf } from "../dom.js";
import { fit, mayChange, spread, withFeature } from "../edits.js";
import { formatChange, formatValue, percent, stepLabel } from "../figures.js";
import { countWarnings, foldWarnings, formatsOf, spreadOf } from "../forecast-summary.js";
import { byGroupOf, featuresOf, groupsOfBody, outermost, readGroups } from "../groups.js";
import { drawAhead, drawAround, nameBand, seriesKey } from "../history.js";
import { askIntervals, forecastOf, kindOf, levelName, predictOutput } from "../intervals.js";
import { capitalise, titlesOf } from "../names.js";
import { loadMoments, loadTimes } from "../references.js";
import { loadWindow, referenceChoice } from "../window-input.js";
import { keepWindow } from "../windows.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {import("../app.js").Page} Page */
/** @typedef {import("../figures.js").Times} Times */
/** @typedef {import("../forecast-summary.js").Formats} Formats */
/** @typedef {import("../intervals.js").Interval} Interval */
/** @typedef {import("../references.js").Moment} Moment */
/** @typedef {import("../windows.js").Window} Window */

/**
 * What moves a forecast: a feature or a group, with what it adds.
 *
 * @typedef {object} Reason
 * @property {string} name
 * @property {number} value
 * @property {number[]} members indices of its features
 */

/** @typedef {{explanation: Schemas["Explanation"], reasons: Reason[]}} Explained */

/**
 * What is known of the window before it is explained.
 *
 * @typedef {import("../window-input.js").Loaded & {
 *   values: number[],
 *   bands: Record<string, Interval[]>,
 *   moments: Moment[],
 *   times: Times | undefined,
 *   errors: number[],
 *   error: number | undefined,
 *   origin: import("../window-input.js").Loaded,
 * }} Known forecasts of all outputs and their intervals, the reference windows and their absolute errors, the error of
 *   this forecast, and the window as it was before it was changed, or itself
 */

const FORBIDDEN = 403;
const N_REASONS = 3;
const STRONG = 0.6; // share of the first reason from which the second is named too
const CANCELLED = 0.25; // share of the largest reason under which the whole change is none to speak of
const LEVEL = 0.8; // of the band of errors, of a model without intervals
const HELD = 0.8; // share of a reason that its steps hold

/**
 * @param {Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  const { model, output } = page;
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  const title = h("h1", {}, `The forecast of ${output}`);
  const came = h("p", { class: "came" });
  const note = h("span", { class: "muted" });
  const pick = referenceChoice(page, "Window", "window", (window) => page.set({ window, from: "" }));
  const key = h("span", {});
  const chart = h("figure", { class: "chart" });
  const chartTitle = h("h2", {}, "");
  const history = h("section", { class: "card stack history" }, h("div", { class: "between" }, chartTitle, key), chart);
  const why = h("section", { class: "card stack why" });
  const changes = h("div", { class: "scroll" });
  const search = counterfactuals(page, {
    show: () => {},
    take: async (window) => {
      location.hash = page.link("forecast", { window: await keepWindow(window), from: given.from ?? given.window ?? "" });
    },
  });
  const trust = h("section", { class: "card stack trust" });
  /** @type {Record<string, string>} of the address */
  let given = {};
  const change = h("section", { class: "card stack change" }, h("h2", {}, "What would change it"), changes, search.element);
  const when = h("div", { class: "row when" }, pick.element, note);
  const parts = [when, history, why, change, trust];
  const element = h(
    "div",
    { class: "view story" },
    h("section", { class: "card headline", "aria-live": "polite" }, title, came, when),
    h("div", { class: "halves" }, history, why),
    h("div", { class: "halves" }, change, trust),
    onward(page, () => shown),
  );

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    given = values;
    const source = values.window ?? "ref:0";
    const loaded = await loadWindow(source, page, signal).catch((error) => {
      if (error instanceof ApiError && error.status === FORBIDDEN) return undefined;
      throw error;
    });
    for (const part of parts) part.hidden = !loaded;
    if (!loaded) return came.replaceChildren(...tellHidden(page));
    const { window } = loaded;
    const origin = values.from ? await loadWindow(values.from, page, signal) : loaded;
    const ask = {
      path: `${page.path}:explain`,
      query: page.version,
      body: { instances: [window], output: [output], detail: "steps", trust: true, ...groupsOfBody(values) },
    };
    const explaining = /** @type {Promise<Schemas["ExplainResponse"]>} */ (askJson(ask, signal));
    const [predicted, moments, times] = await Promise.all([
      predictAll(page, window, signal),
      momentsOf(page),
      loadTimes(page, origin.time),
    ]);
    const errors = moments.flatMap(({ error }) => (error === undefined ? [] : [Math.abs(error)]));
    const isForecast = forecastOf(model, output).kind === undefined;
    const place = model.outputs.indexOf(output);
    const error = loaded.actual?.[place] === undefined ? undefined : predicted.values[place] - loaded.actual[place];
    /** @type {Known} */
    const known = { ...loaded, ...predicted, moments, times, errors, error, origin };

    pick.element.hidden = origin.index === undefined;
    pick.set(values.from ?? source, origin.time);
    note.textContent = origin.index === undefined ? "Your own window." : (origin.time?.slice(11).replace(/Z$/, " UTC") ?? "");
    let formats = formatsOf(page, d3.deviation(moments, ({ forecast }) => forecast));
    if (isForecast) title.replaceChildren(...tellForecast(page, known, formats));
    came.replaceChildren(...(values.from ? tellChanged(known, place, formats) : tellCame(known, place, formats)));
    const drawn = drawHistory(page, known, widthOf(chart));
    history.hidden = !drawn;
    chartTitle.textContent = drawn?.title ?? "";
    chart.replaceChildren(drawn?.chart ?? "");
    key.replaceChildren(drawn?.key ?? "");

    const answer = await explaining;
    const [explanation] = answer.explanations;
    if (!moments.length) formats = formatsOf(page, spreadOf(explanation));
    const reasons = reasonsOf(explanation, values, page);
    title.replaceChildren(...tellForecast(page, known, formats, { explanation, reasons }));
    why.replaceChildren(...tellReasons(page, known, formats, { explanation, reasons }));
    trust.replaceChildren(...tellTrust(page, known, formats, answer));
    const rows = reasons.map(({ name, value }) => ({ reason: name, contribution: value }));
    shown = { ask, name: `${model.name}-story`, data: answer, rows };
    changes.replaceChildren(...(await tellChanges(page, reasons, window, explanation.prediction, formats, signal)));
    search.set(values, window, formats);
  };
  return { element, update };
}

/**
 * What an output is called in a sentence: the title of its target, or its name, which stays as it is at the start.
 *
 * @param {Page} page
 * @param {boolean} [isFirst] whether the sentence starts with it
 */
function nameOutput({ model, output }, isFirst = false) {
  const { output: forecast, kind } = forecastOf(model, output);
  const target = targetOf(forecast);
  const step = /\+(\d+)(?=$|@)/.exec(forecast)?.[1];
  const title = model.targets.find(({ name }) => name === target)?.title;
  const isNext = model.horizon === 1 && step === "1";
  const name = title ? title + (isNext ? "" : `, ${step} steps ahead,`) : isNext ? target : forecast;
  const said = kind ? `the ${kindOf(output)} of ${name}` : name;
  return isFirst && (title || kind) ? capitalise(said) : said;
}

/**
 * Where the service keeps its reference windows to itself.
 *
 * @param {Page} page
 */
function tellHidden(page) {
  return ["This service shows no windows of its own: ", h("a", { href: page.link("forecast") }, "explain one of yours"), "."];
}

/** @param {Page} page */
function momentsOf(page) {
  return loadMoments(page).catch((error) => {
    if (error instanceof ApiError) return /** @type {Moment[]} */ ([]); // hidden, or none: the story goes without
    throw error;
  });
}

/**
 * @param {Page} page
 * @param {Window} window
 * @param {AbortSignal} signal
 */
async function predictAll(page, window, signal) {
  const [{ predictions }, [bands]] = await Promise.all([
    /** @type {Promise<Schemas["PredictResponse"]>} */ (
      askJson({ path: `${page.path}:predict`, query: page.version, body: { instances: [window] } }, signal)
    ),
    askIntervals(page, [window], signal),
  ]);
  return { values: predictions[0], bands };
}

/**
 * The band that held that share of the errors of the reference windows.
 *
 * @param {number} forecast
 * @param {number[]} errors
 * @returns {Interval | undefined}
 */
function errorBand(forecast, errors) {
  const reach = d3.quantile(errors, LEVEL);
  return reach === undefined ? undefined : { level: LEVEL, lower: forecast - reach, upper: forecast + reach };
}

/**
 * The reasons of a forecast, the largest first; none where it is the same for all windows, as a constant width is.
 *
 * @param {Schemas["Explanation"]} explanation
 * @param {Record<string, string>} values of the address
 * @param {Page} page
 * @returns {Reason[]}
 */
function reasonsOf(explanation, values, { model }) {
  const groups = readGroups(values, model);
  const byGroup = byGroupOf(explanation);
  const places = new Map(model.features.map((feature, index) => [feature.name, index]));
  return d3
    .sort(Object.entries(byGroup ? outermost(byGroup, groups) : explanation.contributions), ([, value]) => -Math.abs(value))
    .filter(([, value]) => value !== 0)
    .map(([name, value]) => ({ name, value, members: featuresOf(name, groups).map((member) => places.get(member) ?? -1) }));
}

/**
 * The forecast in a sentence: what it is, mainly why, and how far off it usually is.
 *
 * @param {Page} page
 * @param {Known} known
 * @param {Formats} formats
 * @param {Explained} [explained]
 */
function tellForecast(page, { values, errors }, formats, explained) {
  const { model, output } = page;
  const place = model.outputs.indexOf(output);
  const value = h("strong", {}, formats.value(explained?.explanation.prediction ?? values[place]));
  const because = explained ? tellCause(page, explained, formats) : "";
  if (!formats.isShare) {
    const usual = place < 0 || !errors.length ? "" : `; usually off by ${formats.value(d3.mean(errors) ?? 0)}`;
    return [nameOutput(page, true), " will be ", value, because, usual, "."];
  }
  const likeliest = d3.maxIndex(values);
  const rank =
    likeliest === place
      ? `, the most likely of ${values.length}`
      : ` (${model.targets[likeliest]?.name}: ${formats.value(values[likeliest])})`;
  return ["The chance of ", nameOutput(page), " is ", value, values.length > 1 ? rank : "", because, "."];
}

/**
 * @param {Page} page
 * @param {Explained} explained
 * @param {Formats} formats
 */
function tellCause({ model }, { explanation, reasons }, formats) {
  const { prediction, baseline_prediction: baseline } = explanation;
  const named = titlesOf(model.features);
  const say = (/** @type {Reason} */ { name }) => named.get(name) ?? name;
  const change = prediction - baseline;
  const [largest] = reasons;
  if (!largest) return ", whatever the inputs";
  const against = reasons.find(({ value }) => value * largest.value < 0);
  const average = `the ${formats.value(baseline)} of average inputs`;
  if (against && Math.abs(change) < CANCELLED * Math.abs(largest.value)) {
    return `, close to ${average}: ${say(largest)} and ${say(against)} nearly cancel`;
  }
  const [first, second] = reasons.filter(({ value }) => value * change > 0);
  if (!first) return "";
  const isShared = second && Math.abs(second.value) > STRONG * Math.abs(first.value);
  const from = `${formats.difference(Math.abs(change))} ${change > 0 ? "above" : "below"} ${average}`;
  return `, ${from}, mainly because of ${say(first)}${isShared ? ` and ${say(second)}` : ""}`;
}

/**
 * @param {Known} known
 * @param {number} place of the output
 * @param {Formats} formats
 */
function tellCame({ actual, error }, place, formats) {
  if (!actual || error === undefined) return [];
  const off = `${formats.difference(Math.abs(error))} too ${error > 0 ? "high" : "low"}`;
  return [`The actual value was ${formats.value(actual[place])}: the forecast was ${off}.`];
}

/**
 * @param {Known} known
 * @param {number} place of the output
 * @param {Formats} formats
 */
function tellChanged({ values, moments, origin }, place, formats) {
  const before = moments.find(({ index }) => index === origin.index)?.forecast;
  if (before === undefined || place < 0) return ["The window was changed."];
  const change = values[place] - before;
  const by = `${formats.difference(Math.abs(change))} ${change < 0 ? "lower" : "higher"}`;
  return [`The window was changed: as it was, the forecast was ${formats.value(before)}; the change makes it ${by}.`];
}

/**
 * The chart: the target and its forecasts, the reference windows around, or the classes; none where nothing is known.
 *
 * @param {Page} page
 * @param {Known} known
 * @param {number} width
 */
function drawHistory(page, { window, index, origin, actual, values, bands, moments, times, errors }, width) {
  const { model, unit } = page;
  const { output } = forecastOf(model, page.output);
  if (formatsOf(page, undefined).isShare) return { title: "The classes", chart: listClasses(page, values), key: "" };
  const isOwn = Object.hasOwn(bands, output);
  const bandOf = (/** @type {string} */ name, /** @type {number} */ value) =>
    bands[name]?.[0] ?? (name === output ? errorBand(value, errors) : undefined);
  const own = bandOf(output, values[model.outputs.indexOf(output)]);
  const key = seriesKey({ actual: true, band: nameBand(own, isOwn) });
  const target = targetOf(output);
  const column = model.features.findIndex(({ name }) => name === target);
  if (column >= 0 && model.lookback > 1) {
    const ahead = model.outputs.flatMap((name, place) => {
      const one = { output: name, forecast: values[place], came: actual?.[place], band: bandOf(name, values[place]) };
      return targetOf(name) === target ? [{ ...one, step: Number(/\+(\d+)/.exec(name)?.[1]) }] : [];
    });
    const chart = drawAhead(window.map((row) => row[column]), ahead, page, times, width);
    return { title: `${target}${unit ? `, ${unit}` : ""}: what it was, and its forecast`, chart, key };
  }
  const place = moments.findIndex((moment) => moment.index === origin.index);
  if (place < 0 || moments[place].came === undefined) return undefined;
  const point = { forecast: values[model.outputs.indexOf(output)], came: index === undefined ? undefined : moments[place].came };
  const chart = drawAround(moments, place, { ...point, band: own }, page, width);
  return { title: `${target} before it, and what came`, chart, key };
}

/** @param {string} output */
function targetOf(output) {
  return output.replace(/\+\d+(?=$|@)/, "");
}

/**
 * The classes with their probabilities, the likeliest first.
 *
 * @param {Page} page
 * @param {number[]} values
 */
function listClasses(page, values) {
  const rows = d3.sort(d3.range(values.length), (index) => -values[index]).map((index) => {
    const name = page.model.targets[index]?.name ?? page.model.outputs[index];
    const bar = h("i", { class: "bar" });
    bar.style.width = `${100 * values[index]}%`;
    const label = page.model.outputs[index] === page.output ? h("strong", {}, name) : freshLink(() => page.link("story", { output: page.model.outputs[index] }), name);
    return h("tr", {}, h("th", { scope: "row" }, label), h("td", { class: "track" }, bar), h("td", { class: "number" }, percent(values[index])));
  });
  return h("table", { class: "classes" }, h("tbody", {}, ...rows));
}

/**
 * The largest reasons in words with their numbers, and the sum that they are part of.
 *
 * @param {Page} page
 * @param {Known} known
 * @param {Formats} formats
 * @param {Explained} explained
 */
function tellReasons(page, { window, times }, formats, { explanation, reasons }) {
  const { prediction, baseline_prediction: baseline } = explanation;
  const named = titlesOf(page.model.features);
  const others = reasons.slice(N_REASONS);
  const rest = d3.sum(others, ({ value }) => value);
  const largest = Math.max(...reasons.map(({ value }) => Math.abs(value)), Math.abs(rest)) || 1;
  const row = (/** @type {string} */ name, /** @type {number} */ value, /** @type {string} */ more, members = reasons.slice(N_REASONS).flatMap((reason) => reason.members)) => {
    const bar = h("i", { class: `bar ${value < 0 ? "down" : "up"}` });
    bar.style.width = `${(100 * Math.abs(value)) / largest}%`;
    return h(
      "li",
      { "data-feature": namesOf(members, page) },
      h("span", { class: "between" }, h("strong", { title: name }, ...breakable(named.get(name) ?? name)), h("span", {}, tellAdded(value, formats))),
      bar,
      more ? h("span", { class: "muted" }, more) : null,
    );
  };
  const items = reasons.slice(0, N_REASONS).map((reason) => {
    return row(reason.name, reason.value, tellInputs(reason, explanation, page, window, times), reason.members);
  });
  const more = others.length ? [row(others.length === 1 ? others[0].name : `${others.length} others together`, rest, "")] : [];
  return [
    h("h2", {}, "Why"),
    reasons.length ? h("ol", { class: "reasons" }, ...items, ...more) : h("p", {}, "No input moves it."),
    h(
      "p",
      { class: "muted" },
      `From the ${formats.value(baseline)} of average inputs to ${formats.value(prediction)}. `,
      freshLink(() => page.link("forecast"), "Every contribution"),
    ),
  ];
}

/**
 * Features by name, for the selection.
 *
 * @param {number[]} members
 * @param {Page} page
 */
function namesOf(members, { model }) {
  return members.map((index) => model.features[index].name).join("\n");
}

/**
 * @param {number} value
 * @param {Formats} formats
 */
function tellAdded(value, formats) {
  return `${value < 0 ? "lowers it by" : "raises it by"} ${formats.difference(Math.abs(value))}`;
}

/**
 * What was given for a reason, and at which steps it counted.
 *
 * @param {Reason} reason
 * @param {Schemas["Explanation"]} explanation
 * @param {Page} page
 * @param {Window} window
 * @param {Times | undefined} times
 */
function tellInputs({ members }, { steps = [] }, { model }, window, times) {
  const newest = window[window.length - 1];
  const given = members.map((index) => {
    const feature = model.features[index];
    const value = formatValue(newest[index], feature.unit, feature);
    return members.length > 1 ? `${feature.name} ${value}` : `${value}${tellUsual(newest[index], feature)}`;
  });
  if (window.length < 2) return given.join(", ");
  const run = runOf(steps.map((row) => d3.sum(members, (index) => Math.abs(row[index]))));
  return `${given.join(", ")} at the newest step; it counts ${tellRun(run, window.length, times)}`;
}

/**
 * @param {[number, number]} run of steps
 * @param {number} lookback
 * @param {Times | undefined} times
 */
function tellRun([first, last], lookback, times) {
  if (last - first + 1 > HELD * lookback) return "over the whole window";
  const [from, to] = [first, last].map((step) => stepLabel(step - lookback + 1, times));
  if (first === last) return `mostly at ${times ? "" : "the "}${to}`;
  if (!times) return last === lookback - 1 ? `mostly in the last ${last - first + 1} steps` : `mostly from ${from} to ${to}`;
  const [day, clock = day] = to.split(", ");
  return `mostly from ${from} to ${from.startsWith(`${day}, `) ? clock : to}`;
}

/**
 * @param {number} value
 * @param {Schemas["FeatureInfo"]} feature
 */
function tellUsual(value, { mean, std }) {
  if (!std) return "";
  const by = (value - mean) / std;
  return Math.abs(by) < 1 ? ", a usual value" : `, ${Math.abs(by).toFixed(1)} std ${by > 0 ? "above" : "below"} its mean`;
}

/**
 * The shortest run of steps that holds most of a reason.
 *
 * @param {number[]} sizes
 * @returns {[number, number]}
 */
function runOf(sizes) {
  const sums = [0, ...d3.cumsum(sizes)];
  const wanted = HELD * sums[sums.length - 1];
  /** @type {[number, number]} */
  let best = [0, sizes.length - 1];
  let last = 0;
  for (let first = 0; first < sizes.length; first += 1) {
    while (last < sizes.length && sums[last + 1] - sums[first] < wanted) last += 1;
    if (last === sizes.length) break;
    if (last - first < best[1] - best[0]) best = [first, last];
  }
  return best;
}

/**
 * The forecast if a reason were lower or higher by a standard deviation at every step.
 *
 * @param {Page} page
 * @param {Reason[]} reasons
 * @param {Window} window
 * @param {number} prediction
 * @param {Formats} formats
 * @param {AbortSignal} signal
 */
async function tellChanges(page, reasons, window, prediction, formats, signal) {
  const { features } = page.model;
  const named = titlesOf(features);
  const able = reasons.filter(({ members }) => members.every((index) => mayChange(features[index]))).slice(0, N_REASONS);
  if (!able.length) return [h("p", { class: "muted" }, "No input that can be changed moves it.")];
  const shifted = (/** @type {Reason} */ { members }, /** @type {number} */ way) =>
    members.reduce((now, index) => withFeature(now, index, (old) => fit(old + way * spread(features[index]), features[index])), window);
  const found = await predictOutput(page, able.flatMap((reason) => [shifted(reason, -1), shifted(reason, 1)]), signal);
  const cell = (/** @type {number} */ value) =>
    h("td", { class: "number" }, formats.value(value), h("span", { class: "muted" }, formats.change(value - prediction)));
  const rows = able.map(({ name, members }, number) => {
    const [index] = members;
    const by = members.length > 1 ? "1 std each" : formatValue(spread(features[index]), features[index].unit, features[index]);
    return h(
      "tr",
      { "data-feature": namesOf(members, page) },
      h("th", { scope: "row", title: name }, ...breakable(named.get(name) ?? name), h("span", { class: "muted" }, ` by ${by}`)),
      cell(found[2 * number]),
      cell(found[2 * number + 1]),
    );
  });
  return [table(["If at every step it were", "lower", "higher"], rows, { class: "tight" })];
}

const VERDICTS = {
  usual: "Yes, as far as any forecast for usual inputs",
  some: "With care: some inputs are outside the training range",
  unusual: "With care: the inputs are unusual",
  outside: "Hardly: inputs are outside the training range",
  unknown: "That is not known",
};

/**
 * @param {Page} page
 * @param {Known} known
 * @param {Formats} formats
 * @param {Schemas["ExplainResponse"]} answer
 */
function tellTrust({ model, output }, { index, errors, error }, formats, answer) {
  const trust = answer.trust?.[0];
  const verdict = countWarnings(answer) && trust?.verdict === "usual" ? "some" : (trust?.verdict ?? "unknown");
  const near = trust?.mean_abs_error?.[forecastOf(model, output).output];
  const worse = error === undefined ? undefined : d3.mean(errors, (one) => Number(one > Math.abs(error)));
  const { test_r2: r2, ridge_r2: ridge, test_windows: count } = /** @type {Record<string, number | undefined>} */ (
    model.metrics
  );
  /** @type {string[]} */
  const facts = [];
  if (errors.length) {
    const [mean, most] = [d3.mean(errors) ?? 0, d3.quantile(errors, LEVEL) ?? 0];
    facts.push(
      `On the ${errors.length} reference windows, forecasts are off by ${formats.difference(mean)} on average, and 8 of 10 by less than ${formats.difference(most)}.`,
    );
  }
  if (error !== undefined && worse !== undefined) {
    facts.push(`This one was off by ${formats.difference(Math.abs(error))}; ${whole(worse)} of them were worse.`);
  }
  if (index === undefined && trust) {
    facts.push(trust.sentence);
    if (near !== undefined) facts.push(`On the reference windows like it, forecasts are off by ${formats.difference(near)}.`);
  }
  for (const { level, covered } of trust?.coverage ?? []) {
    facts.push(`Of the actual values of windows like it, ${whole(covered)} were in the ${levelName(level)} interval.`);
  }
  if (r2 !== undefined) {
    const where = `In the test after training${count ? `, on ${count.toLocaleString("en")} windows` : ""}`;
    facts.push(`${where}: R² ${r2.toFixed(2)}${ridge === undefined ? "" : `; of a ridge regression ${ridge.toFixed(2)}`}.`);
  }
  if (!facts.length) facts.push("Nothing is known of its errors: the model comes without actual values.");
  return [
    h("h2", {}, "Can it be trusted here?"),
    h("p", { class: "verdict-line" }, VERDICTS[verdict]),
    h("ul", { class: "facts-list" }, ...facts.map((fact) => h("li", {}, fact))),
    ...foldWarnings(answer),
  ];
}

/** @param {number} share */
function whole(share) {
  return `${Math.round(100 * share)} %`;
}

/**
 * Where the story leads, and how it is passed on.
 *
 * @param {Page} page
 * @param {() => import("../actions.js").Shown | undefined} shown
 */
function onward(page, shown) {
  const said = h("span", { role: "status", class: "said" });
  const copy = async () => {
    said.textContent = (await copyText(location.href)) ? "copied" : "the browser does not allow copying";
    setTimeout(() => (said.textContent = ""), 2000);
  };
  const link = (/** @type {string} */ view, /** @type {string} */ label) => h("li", {}, freshLink(() => page.link(view), label));
  return h(
    "footer",
    { class: "between onward" },
    h("ul", { class: "row" }, link("network", "The network behind it"), link("forecast", "Every contribution, and what if"), link("time", "Over time, with your own data")),
    h("div", { class: "actions" }, said, h("button", { type: "button", onclick: copy }, "Copy the link"), h("button", { type: "button", onclick: () => print() }, "Print"), actions(shown, false)),
  );
}
