/** The report: the questions that people ask, each with its answer, what it rests on, and the place where it shows. */

import { askText, hasKey, reasonOf, urlOf } from "../api.js";
import { amount } from "../figures.js";
import { html, useState } from "../lib.js";
import { go, link } from "../state.js";
import { save } from "../ui/save.js";
import { useLines } from "./lines.js";
import { show } from "./section.js";

/** @typedef {import("../model.js").Model} Model */
/** @typedef {import("../model.js").Schemas["FindingInfo"]} Finding */
/** @typedef {{label: string, place: string, values?: Record<string, string>}} Place */

const IMPORTANCE = { place: "model", values: { at: "importance" } };
const NETWORK = { place: "model", values: { at: "network" } };
/** @type {Record<import("../model.js").Schemas["FindingId"], Place>} where each answer shows, in its order */
const PLACES = {
  skill: { label: "The verdict, beside simple forecasts", place: "model", values: { at: "skill" } },
  forecast: { label: "A forecast", place: "forecast" },
  accuracy: { label: "Forecasts and what came", place: "history" },
  intervals: { label: "A forecast and its interval", place: "forecast" },
  drivers: { label: "The inputs by share", ...IMPORTANCE },
  response: { label: "A forecast, whose inputs can be dragged", place: "forecast" },
  limits: { label: "All inputs", ...IMPORTANCE },
  sparsity: { label: "The network, and pruning it", ...NETWORK },
  features: { label: "The inputs by share", ...IMPORTANCE },
  independence: { label: "What can replace an input", place: "model", values: { at: "importance", sort: "redundant" } },
  opacity: { label: "The edges by their scores", ...NETWORK },
  depth: { label: "The network", ...NETWORK },
  shapes: { label: "The curves on the edges", ...NETWORK },
  trust: { label: "A forecast, and how exactly it adds up", place: "forecast" },
};
const OF_NETWORK = ["sparsity", "features", "independence", "opacity", "depth", "shapes", "trust"];
const FORMATS = { Markdown: ["markdown", "md", "text/markdown"], HTML: ["html", "html", "text/html"] };

/** @param {{model: Model}} props */
export function Report({ model }) {
  const found = useLines({ path: `${model.path}/report`, query: model.query }, "finding", "findings");
  const known = new Map(found.parts.map((finding) => [finding.id, finding]));
  const answers = Object.keys(PLACES).flatMap((id) => known.get(id) ?? []);
  const list = (ofNetwork) => {
    const shown = answers.filter(({ id }) => OF_NETWORK.includes(id) === ofNetwork);
    return html`<div>${shown.map((finding) => html`<${Answer} key=${finding.id} model=${model} finding=${finding} />`)}</div>`;
  };
  return html`
    <div class="between"><h2>Questions and answers</h2><${Export} model=${model} /></div>
    ${!found.isWhole && html`<p class="muted between" role="status">
      <span>${found.error ? reasonOf(found.error) : `${answers.length} answered so far …`}</span>
      ${!found.pending && html`<button type="button" onClick=${found.again}>Try again</button>`}
    </p>`}
    ${list(false)}
    ${answers.some(({ id }) => OF_NETWORK.includes(id)) && html`<h3>What people ask of a KAN’s picture</h3>${list(true)}`}
  `;
}

/** @param {{model: Model}} props the report as a file, and as a page of its own */
function Export({ model }) {
  const [said, setSaid] = useState("");
  const askFor = (format) => ({ path: `${model.path}/report`, query: { ...model.query, format } });
  const write = (name) => async () => {
    const [format, ending, type] = FORMATS[name];
    setSaid("Writing the report …");
    try {
      save(`${model.name}-report.${ending}`, type, await askText({ ...askFor(format), accept: type }));
      setSaid("");
    } catch (error) {
      setSaid(reasonOf(error));
    }
  };
  return html`<span class="row export" aria-label="The report as a file" role="group">
    <span role="status" class="muted">${said}</span>
    ${!hasKey() && html`<a class="button" href=${urlOf(askFor("html")).href} target="_blank" rel="noopener">Report as a page</a>`}
    ${Object.keys(FORMATS).map((name) => html`<button type="button" onClick=${write(name)}>Save as ${name}</button>`)}
  </span>`;
}

/** @param {{model: Model, finding: Finding}} props */
function Answer({ model, finding: { id, question, answer, brief, evidence, headlines } }) {
  const { label, place, values = {} } = PLACES[id];
  const isShort = !brief || brief === answer;
  const follow = (event) => (event.preventDefault(), go(values, { place }), show(values.at ?? ""));
  return html`
    <details class="answer" data-finding=${id}>
      <summary>${question}${headlines[0] && html` <span class="muted"><${Words} model=${model} of=${headlines[0].join(" ")} /></span>`}</summary>
      <${Paragraphs} model=${model} of=${brief || answer} />
      ${!isShort && html`<${Paragraphs} model=${model} of=${answer} />`}
      <details>
        <summary>The numbers behind it</summary>
        <div class="scroll evidence" tabindex="0" role="region" aria-label=${`Numbers of: ${question}`}><${Evidence} of=${evidence} /></div>
      </details>
      <p><a href=${link(place, values)} onClick=${follow}>${label} →</a></p>
    </details>
  `;
}

/** @param {{model: Model, of: string}} props paragraphs, or a list of lines that begin with a dash */
function Paragraphs({ model, of }) {
  if (!of.startsWith("- ")) return html`<p><${Words} model=${model} of=${of} /></p>`;
  return html`<ul>${of.split("\n").map((line) => html`<li><${Words} model=${model} of=${line.replace(/^- /, "")} /></li>`)}</ul>`;
}

/** @param {{model: Model, of: string}} props a text in which backticks mark names */
function Words({ model, of }) {
  return of.split("`").map((text, index) => {
    if (!(index % 2)) return text.replace(/(^|[\s(])-(?=\d)/g, "$1\u2212");
    const input = model.inputOf.get(text);
    return html`<b data-input=${input?.name} data-tip=${input && `${input.label}: ${text}`}>${input?.features.length === 1 ? input.short : text}</b>`;
  });
}

/** @param {{of: unknown}} props JSON: members by name, lists of objects as tables */
function Evidence({ of }) {
  if (typeof of === "number") return Number.isInteger(of) ? String(of) : amount(of);
  if (of === null || typeof of !== "object") return of === null || of === undefined ? "unknown" : String(of);
  if (Array.isArray(of) && !of.some(isObject)) return of.map((one) => html`<span><${Evidence} of=${one} /> </span>`);
  if (Array.isArray(of)) {
    const columns = [...new Set(of.flatMap((row) => Object.keys(row ?? {})))];
    return html`<table><thead><tr>${columns.map((name) => html`<th scope="col">${nameOf(name)}</th>`)}</tr></thead>
      <tbody>${of.map((row) => html`<tr>${columns.map((name) => html`<td><${Evidence} of=${row?.[name] ?? null} /></td>`)}</tr>`)}</tbody></table>`;
  }
  const members = Object.entries(of);
  if (!members.length) return "none";
  return html`<dl class="facts">${members.map(([name, member]) => html`
    <div><dt>${nameOf(name)}</dt><dd><${Evidence} of=${member} /></dd></div>`)}</dl>`;
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** @param {string} name of a member, such as `mean_abs_contribution` */
const nameOf = (name) => name.replaceAll("_", " ");
