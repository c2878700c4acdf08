/** Forecasts over time: how wrong they were and what drove them, over all of them, in a span, in each week. */

import "../vendor/d3.min.js";
import { pictureActions, titleBar } from "../actions.js";
import { ApiError, reasonOf } from "../api.js";
import { dropsTo, h, segments, table } from "../dom.js";
import { formatsOf } from "../forecast-summary.js";
import { readGroups } from "../groups.js";
import { forecastOf } from "../intervals.js";
import { distinctNames, titlesOf } from "../names.js";
import { explainMoments, loadMoments, nameMoment, sourceOf, windowLink } from "../references.js";
import { saveSample } from "../sample.js";
import { seriesKey, tellAll, tellSets, tellWeeks } from "../span-summary.js";
import { byWeek, chooseMoments, readSpans, summarise, sumGroups, WORST_NAME, worstOf, writeSpans } from "../spans.js";
import { columnsOf, compareSeries, explainSeries, findTable, keepTable, nameOf, numberOf, partsOf, readFile, readSeries } from "../tables.js";
import { timeline } from "../timeline.js";
import { keepSeveral } from "../windows.js";

/** @typedef {import("../app.js").Page} Page */
/** @typedef {import("../references.js").Moment} Moment */
/** @typedef {import("../spans.js").Summary} Summary */

const N_STRIPS = 6; // groups with a colour or a strip of their own
const N_WORST = 20;
const N_SHARES = 4; // groups with a share by week
const FORBIDDEN = 403;
const N_PROBLEMS = 3; // that are spelled out
const OTHERS = "all others";
/** @type {Record<string, {label: string, order: (error: number) => number}>} */
const WORST = {
  either: { label: "either way", order: (error) => -Math.abs(error) },
  high: { label: "too high", order: (error) => -error },
  low: { label: "too low", order: (error) => error },
};

/**
 * What a file has been asked for the same model and output; kept when the view is left.
 *
 * @type {{key: string, moments: Moment[], waiting: number[], problems: string[], note: string} | undefined}
 */
let last;

/**
 * @param {Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  const { model, unit } = page;
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  /** @type {Moment[]} all of them, with contributions by feature */
  let loaded = [];
  /** @type {Record<string, string>} of the address */
  let given = {};
  let running = new AbortController();
  let isBrushed = "a"; // what a brush does
  /** @type {import("../timeline.js").Scale} */
  let scale = scaleOf(page, [], []);

  const lead = h("p", { class: "lead", "aria-live": "polite" });
  const note = h("p", { class: "muted" });
  const problem = h("p", { class: "refused", role: "alert" });
  const bar = h("progress", { "aria-label": "Forecasts explained" });
  const said = h("span", { role: "status" });
  const stop = h("button", { type: "button", onclick: () => halt() }, "Stop");
  const more = h("button", { type: "button", onclick: () => void ask() }, "Go on");
  const progress = h("div", { class: "row progress", hidden: true }, bar, said, stop, more);
  const source = sourceChoice(page, (name, text) => take(name, text), problem);

  const chart = timeline({
    open: (moment) => (location.hash = page.link("forecast", { window: sourceOf(moment), from: "" })),
    choose: (first, end) => void page.set(withSpan(given, isBrushed, [first, end])),
  });
  const brush = segments("A brush chooses", { a: "a span", more: "one span more", b: "what it is compared with" }, (value) => {
    isBrushed = value;
  });
  brush.set(isBrushed);
  const chips = h("div", { class: "row chips" });
  const key = h("span", {});
  const chartTitle = h("h2", {});
  const form = segments("Contributions", { "": "stacked", strips: "one below another" }, (value) => void page.set({ parts: value }));
  const tenth = h("button", { type: "button", onclick: () => void page.set({ a: WORST_NAME }) }, "Choose the worst tenth");
  const compared = h("section", { class: "card stack", "aria-label": "What it was driven by" });
  const worst = h("div", { class: "scroll weeks", tabindex: 0, role: "region", "aria-label": "Largest errors" });
  const kind = segments("Which errors", Object.fromEntries(Object.entries(WORST).map(([value, { label }]) => [value, label])), () =>
    listWorst(),
  );
  kind.set("either");
  const worstTitle = h("h2", {});
  const worstCard = h("section", { class: "card stack" }, worstTitle, kind.element, worst);
  const weeks = h("div", { class: "scroll weeks", tabindex: 0, role: "region", "aria-label": "By week" });
  const weekCard = h("section", { class: "card stack" }, h("h2", {}, "By week"), weeks);
  const chartCard = h(
    "section",
    { class: "card stack" },
    h("div", { class: "between" }, chartTitle, key, pictureActions(chart.element, () => `${model.name}-over-time`, "Over time")),
    chart.element,
    h("div", { class: "row brushes" }, brush.element, form.element, tenth),
    chips,
  );
  const results = [chartCard, h("div", { class: "halves" }, compared, worstCard), weekCard];
  const element = h(
    "div",
    { class: "view time" },
    titleBar("Over time", () => shown),
    h("section", { class: "card stack told" }, lead, note, progress, source.element, problem),
    ...results,
  );

  const take = (/** @type {string} */ name, /** @type {string} */ text) => {
    try {
      const kept = keepSeveral(name, text, model) ?? keepTable(name, text);
      readSeries(kept, model, targetOf(page));
      void page.set(kept.id === given.file ? {} : { file: kept.id, a: "", b: "", zoom: "" });
    } catch (error) {
      problem.textContent = `${reasonOf(error)}.`;
    }
  };
  const halt = () => {
    running.abort();
    tellProgress(false);
  };
  const listWorst = () => {
    const chosen = WORST[/** @type {HTMLInputElement | null} */ (kind.element.querySelector("input:checked"))?.value ?? "either"];
    const among = given.a ? [...chooseMoments(loaded, given.a)] : inZoom(loaded, given);
    const rows = worstOf(among, N_WORST, chosen.order).map((moment) => worstRow(moment, page, scale));
    worstTitle.textContent = given.a ? "Largest errors in A" : "Largest errors";
    worst.replaceChildren(table(["Window", `Error${unit ? `, ${unit}` : ""}`, "Forecast", "Actual"], rows));
  };
  /** @param {boolean} isRunning */
  const tellProgress = (isRunning) => {
    const left = last?.waiting.length ?? 0;
    progress.hidden = !given.file || (!isRunning && !left);
    Object.assign(bar, { max: loaded.length || 1, value: loaded.length - left });
    bar.hidden = stop.hidden = !isRunning;
    more.hidden = isRunning;
    said.textContent = `${(loaded.length - left).toLocaleString("en")} of ${loaded.length.toLocaleString("en")} forecasts explained${isRunning ? "" : "; stopped"}`;
  };

  /** Draws everything that is known. */
  const draw = () => {
    const groups = readGroups(given, model);
    const known = loaded.filter(({ forecast }) => Number.isFinite(forecast));
    const grouped = known.map((moment) => ({ ...moment, contributions: moment.contributions && sumGroups(moment.contributions, groups) }));
    const all = summarise(grouped);
    const names = d3.sort(Object.keys(all.shares), (name) => -all.shares[name]);
    const within = inZoom(grouped, given);
    const [first, second] = setsOf(grouped, given);
    scale = scaleOf(page, known, names);
    for (const part of results) part.hidden = !known.length;
    tenth.hidden = !all.compared;
    chartTitle.textContent = all.compared ? "Forecasts, errors and contributions" : "Forecasts and contributions";
    lead.textContent = tellAll(grouped, all, names, scale);
    const strips = names.length > N_STRIPS + 1 ? names.slice(0, N_STRIPS) : names;
    const parts = strips.length < names.length ? [...strips, OTHERS] : names;
    form.set(given.parts ?? "");
    key.replaceChildren(seriesKey(model, all.compared > 0, given.parts ? undefined : parts.map(scale.short)));
    chart.set({
      moments: within,
      names: parts,
      isStacked: !given.parts,
      contribution: (moment, name) => (name === OTHERS ? othersOf(moment, strips) : moment.contributions?.[name]),
      scale,
      first: chooseMoments(grouped, given.a),
      second: chooseMoments(grouped, given.b),
    });
    chips.replaceChildren(...chipsOf(given, grouped, page));
    compared.replaceChildren(...tellSets(summarise(first), summarise(second), Boolean(given.a), Boolean(given.b), scale));
    worstCard.hidden = !all.compared;
    listWorst();
    const found = byWeek(within);
    weekCard.hidden = found.length < 2;
    weeks.replaceChildren(tellWeeks(found, names.slice(0, N_SHARES), scale, (from, to) => void page.set({ a: `${from}-${to}` })));
    shown = { ask: asked(), name: `${model.name}-over-time`, data: known, rows: known.map(rowOf) };
  };
  const asked = () => {
    if (!given.file) return { path: `${page.path}/reference`, query: { ...page.query, contributions: true } };
    const series = readSeries(findTable(given.file), model, targetOf(page));
    const { windows } = series.table;
    const part = windows ? undefined : partsOf(series, series.ends).at(-1);
    const body = windows ? { instances: windows } : { series: part?.series, last: part?.ends.length, gaps: "skip" };
    return { path: `${page.path}:explain`, query: page.version, body: { ...body, output: [page.output] } };
  };

  /** Asks for what is not known of the file, part by part, and draws each part. */
  const ask = async () => {
    if (!given.file || !last) return;
    running.abort();
    running = new AbortController();
    const { signal } = running;
    const now = last;
    const { output } = forecastOf(model, page.output);
    const series = readSeries(findTable(given.file), model, targetOf(page));
    const byEnd = new Map(now.moments.map((moment) => [moment.index, moment]));
    const refuse = (/** @type {string} */ reason) => {
      now.problems.push(reason);
      problem.textContent = tellProblems(now.problems);
    };
    tellProgress(true);
    try {
      if (series.target && now.moments.every(({ came }) => came === undefined)) {
        for await (const part of compareSeries(series, page, targetOf(page), output, signal)) {
          for (const { end, targetTime, forecast, actual, intervals } of part) {
            const error = actual === null ? undefined : forecast - actual;
            Object.assign(byEnd.get(end) ?? {}, { targetTime, forecast, came: actual ?? undefined, error, intervals });
          }
          if (signal.aborted) return;
          draw();
        }
      }
      for await (const { ends, explained } of explainSeries(series, page, now.waiting, refuse, signal)) {
        for (const { end, explanation } of explained) {
          const moment = byEnd.get(end);
          if (!moment) continue;
          moment.contributions = explanation.contributions;
          if (output === page.output) {
            moment.forecast = explanation.prediction;
            moment.intervals = explanation.intervals ?? moment.intervals;
          }
        }
        const done = new Set(ends);
        now.waiting = now.waiting.filter((end) => !done.has(end));
        if (signal.aborted || !element.isConnected) return;
        tellProgress(true);
        draw();
      }
      now.note = tellRows(now.moments, series);
      note.textContent = now.note;
      tellProgress(false);
    } catch (error) {
      if (signal.aborted) return;
      refuse(reasonOf(error));
      tellProgress(false);
    }
  };

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    const isSame = given.file === values.file && loaded.length > 0;
    given = values;
    source.set(values.file);
    problem.textContent = "";
    if (!values.file) {
      running.abort();
      progress.hidden = true;
      note.textContent = "";
      try {
        loaded = await loadMoments(page);
        draw();
        loaded = await explainMoments(page, signal);
        draw();
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== FORBIDDEN) throw error;
        loaded = [];
        draw();
        problem.textContent = `${error.message}: choose a file.`;
      }
      return;
    }
    if (isSame) {
      draw();
      return;
    }
    const key = JSON.stringify([values.file, model.checkpoint, page.output]);
    try {
      const series = readSeries(findTable(values.file), model, targetOf(page));
      if (last?.key !== key) last = { key, ...momentsOf(series, values.file) };
    } catch (error) {
      loaded = [];
      for (const part of results) part.hidden = true;
      lead.textContent = "";
      problem.textContent = `${reasonOf(error)}.`;
      return;
    }
    loaded = last.moments;
    note.textContent = last.note;
    problem.textContent = tellProblems(last.problems);
    draw();
    void ask();
  };
  return { element, update };
}

/**
 * The target of the output that is shown.
 *
 * @param {Page} page
 */
function targetOf({ model, output }) {
  const name = forecastOf(model, output).output.replace(/\+\d+(?=$|@)/, "");
  return model.targets.find((target) => target.name === name)?.name ?? model.targets[0].name;
}

/**
 * The windows of a file, of which nothing is known yet.
 *
 * @param {import("../tables.js").Series} series
 * @param {string} id
 */
function momentsOf(series, id) {
  const { ends, times, problems, table, model } = series;
  const named = (/** @type {number} */ end) => (table.windows ? `window ${numberOf(table, end, model)}` : null);
  const moments = ends.map((end) => ({
    ...{ index: end, time: times ? String(times[end]) : named(end), source: `row:${end}:${id}` },
    ...{ forecast: NaN, came: undefined, error: undefined, intervals: [] },
  }));
  const wrong = problems.map((one) => `${one}, which is no number and counts as missing`);
  return { moments: /** @type {Moment[]} */ (moments), waiting: [...ends], problems: wrong, note: tellRows([], series) };
}

/**
 * How many windows a file has, and why there are not more.
 *
 * @param {Moment[]} moments that have been asked for
 * @param {import("../tables.js").Series} series
 */
function tellRows(moments, { ends, table: { rows, windows }, target, model: { lookback, targets } }) {
  const say = (/** @type {number} */ count) => count.toLocaleString("en");
  const left = moments.filter(({ forecast }) => !Number.isFinite(forecast)).length;
  const gaps = left ? `; ${say(left)} of these have no forecast` : "";
  if (windows) return `${say(windows.length)} windows, whose times and actual values are not known.`;
  const actual = target ? "" : ` There is no column ${targets.map(({ name }) => name).join(" or ")}, so that actual values are not known.`;
  return `${say(rows.length)} rows, of which ${say(ends.length)} end ${lookback} whole ones without a gap${gaps}.${actual}`;
}

/**
 * Reference windows, or a file.
 *
 * @param {Page} page
 * @param {(name: string, text: string) => void} take
 * @param {HTMLElement} problem
 */
function sourceChoice(page, take, problem) {
  const read = async (/** @type {FileList | null | undefined} */ files) => {
    if (!files?.length) return;
    problem.textContent = "";
    try {
      take(files[0].name, await readFile(files[0]));
    } catch (error) {
      problem.textContent = `${files[0].name} can't be read: ${reasonOf(error)}.`;
    }
  };
  const file = h("input", { type: "file", id: "series", accept: ".csv,.tsv,.txt,.json,.gz,text/csv,application/json", onchange: () => void read(file.files) });
  const name = h("strong", {});
  const sample = async () => {
    try {
      await saveSample(page, new AbortController().signal);
    } catch (error) {
      problem.textContent = `${reasonOf(error)}.`;
    }
  };
  const columns = h("span", { class: "muted" }, tellColumns(page));
  const own = h(
    "div",
    { class: "stack" },
    h("div", { class: "row" }, name, h("label", { for: "series" }, "A CSV, or drop it here"), file, h("button", { type: "button", onclick: () => void sample() }, "Download a sample file")),
    columns,
  );
  const kind = segments("Forecasts of", { reference: "reference windows", own: "a file" }, (value) => {
    own.hidden = value === "reference";
    if (value === "reference") void page.set({ file: "", a: "", b: "", zoom: "" });
    else file.focus();
  });
  const element = h(
    "div",
    { class: "stack source", ...dropsTo(read) },
    kind.element,
    own,
  );
  const set = (/** @type {string | undefined} */ id) => {
    kind.set(id ? "own" : "reference");
    own.hidden = !id;
    name.textContent = id ? nameOf(id) : "";
  };
  return { element, set };
}

/**
 * How numbers and names are written.
 *
 * @param {Page} page
 * @param {Moment[]} moments
 * @param {string[]} names
 * @returns {import("../timeline.js").Scale}
 */
function scaleOf(page, moments, names) {
  const spread = d3.deviation(moments, ({ forecast }) => forecast);
  const short = new Map([...distinctNames(names), ...titlesOf(page.model.features)]);
  const bare = formatsOf({ ...page, unit: null }, spread);
  return { ...formatsOf(page, spread), bare, short: (name) => short.get(name) ?? name };
}

/** @param {Page} page */
function tellColumns(page) {
  const { time, targets } = page.model;
  const columns = columnsOf(page.model).map(({ name }) => name);
  const some = columns.length > 8 ? `${columns.slice(0, 8).join(", ")} and ${columns.length - 8} more` : columns.join(", ");
  const others = [time?.name ?? "time", ...targets.map(({ name }) => name)].filter((name) => !columns.includes(name));
  return `Rows oldest first, with the columns ${some}; ${others.join(" and ")} if known. The file stays in this tab, and its rows go to the service alone.`;
}

/** @param {string[]} problems */
function tellProblems(problems) {
  const others = problems.length - N_PROBLEMS;
  const told = problems.slice(0, N_PROBLEMS).join("; ");
  return told && `${told}${others > 0 ? ` and ${others} more problems` : ""}.`;
}

/**
 * The address with a span that was brushed.
 *
 * @param {Record<string, string>} values
 * @param {string} how
 * @param {import("../spans.js").Span} span
 * @returns {Record<string, string>}
 */
function withSpan({ a, b }, how, span) {
  if (how === "a") return { a: writeSpans([span]) };
  return how === "b" ? { b: writeSpans([...readSpans(b), span]) } : { a: writeSpans([...readSpans(a), span]) };
}

/**
 * @param {Moment[]} moments
 * @param {Record<string, string>} values
 */
function inZoom(moments, { zoom }) {
  const [span] = readSpans(zoom);
  const found = span ? moments.filter(({ index }) => span[0] <= index && index <= span[1]) : moments;
  return found.filter(({ forecast }) => Number.isFinite(forecast));
}

/**
 * The two sets that are compared: the chosen one, or all; and the other one, or the rest.
 *
 * @param {Moment[]} moments
 * @param {Record<string, string>} values
 * @returns {[Moment[], Moment[]]}
 */
function setsOf(moments, { a, b }) {
  const first = a ? chooseMoments(moments, a) : new Set(moments);
  const second = b ? chooseMoments(moments, b) : new Set(moments.filter((moment) => !first.has(moment)));
  return [[...first], [...second]];
}

/**
 * The chosen spans by their times, each with a button that takes it out.
 *
 * @param {Record<string, string>} values
 * @param {Moment[]} moments that are drawn
 * @param {Page} page
 */
function chipsOf({ a, b, zoom }, moments, page) {
  const button = (/** @type {string} */ label, /** @type {Record<string, string>} */ values) =>
    h("button", { type: "button", onclick: () => void page.set(values) }, label);
  const chip = (/** @type {"a" | "b"} */ key, /** @type {string} */ text, /** @type {string} */ rest) =>
    h(
      "span",
      { class: `chip ${key}` },
      `${key.toUpperCase()}: ${text} `,
      h("button", { type: "button", "aria-label": `Leave out ${text}`, onclick: () => void page.set({ [key]: rest }) }, "×"),
    );
  const chips = (/** @type {"a" | "b"} */ key, /** @type {string | undefined} */ text) => {
    if (text === WORST_NAME) return [chip(key, "the tenth with the largest errors", "")];
    const spans = readSpans(text);
    return spans.map((span) => chip(key, nameSpan(span, moments), writeSpans(spans.filter((other) => other !== span))));
  };
  const spans = readSpans(a);
  return [
    ...chips("a", a),
    ...chips("b", b),
    spans.length > 0 && button("Zoom in", { zoom: `${spans[0][0]}-${spans[spans.length - 1][1]}` }),
    zoom && button("Show all", { zoom: "" }),
    (a || b) && button("Clear", { a: "", b: "" }),
  ].filter((one) => one instanceof HTMLElement);
}

/**
 * @param {import("../spans.js").Span} span
 * @param {Moment[]} moments
 */
function nameSpan([first, end], moments) {
  const inside = moments.filter(({ index }) => first <= index && index <= end);
  const [from, to] = [inside[0], inside.at(-1)];
  return from && to ? `${nameMoment(from)} to ${nameMoment(to)}` : `${first} to ${end}`;
}

/**
 * The sum of all groups that have no strip of their own.
 *
 * @param {Moment} moment
 * @param {string[]} names
 */
function othersOf({ contributions }, names) {
  return contributions && d3.sum(Object.entries(contributions), ([name, value]) => (names.includes(name) ? 0 : value));
}

/**
 * @param {Moment} moment
 * @param {Page} page
 * @param {import("../timeline.js").Scale} scale
 */
function worstRow(moment, page, { bare }) {
  const { index, forecast, came = NaN, error = 0 } = moment;
  return h(
    "tr",
    { "data-worst": index },
    h("th", { scope: "row" }, windowLink(page, moment, nameMoment(moment))),
    ...[bare.change(error), bare.value(forecast), bare.value(came)].map((text) => h("td", { class: "number" }, text)),
  );
}

/** @param {Moment} moment */
function rowOf({ index, time, targetTime, forecast, came, error, intervals, contributions = {} }) {
  const bounds = intervals.flatMap(({ level, lower, upper }) => [
    [`lower@${level}`, lower],
    [`upper@${level}`, upper],
  ]);
  const added = Object.entries(contributions).map(([name, value]) => [`contribution_${name}`, value]);
  const known = { window: index, time, target_time: targetTime, prediction: forecast, actual: came, error };
  return { ...known, ...Object.fromEntries([...bounds, ...added]) };
}
