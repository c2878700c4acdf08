/** The verdict on the model's skill, which stands before any reason: as a chip in the bar, and as a sentence. */

import { percent } from "../figures.js";
import { html } from "../lib.js";
import { Help, Menu } from "./float.js";

const WORDS = { green: "better than simple forecasts", amber: "hardly better", red: "no skill", unknown: "skill unknown" };

/** @param {{model: import("../model.js").Model}} props */
export function SkillChip({ model }) {
  const { skill } = model.info;
  const label = html`<span class="dot" aria-hidden="true"></span>${WORDS[skill.verdict]}`;
  return html`<${Menu} label=${label} class=${`chip ${skill.verdict}`}><${SkillTable} model=${model} /><//>`;
}

/** @param {{model: import("../model.js").Model}} props the verdict as a sentence, and the errors beside simple forecasts */
export function SkillTable({ model }) {
  const { skill } = model.info;
  const rows = [{ name: "this model", season: null, mae: skill.mae }, ...(skill.baselines ?? [])];
  const interval = skill.interval ? `, 95 % interval ${percent(skill.interval[0])} to ${percent(skill.interval[1])}` : "";
  return html`
    <div class="skill">
      <p>${skill.reason} <${Help} term="skill" /></p>
      ${skill.mae != null && html`<table>
        <caption class="muted">Mean absolute error</caption>
        <tbody>${rows.map((row) => html`<tr><th scope="row">${row.name}${row.season ? `, ${row.season} steps` : ""}</th><td class="number">${model.error(row.mae)}</td></tr>`)}</tbody>
      </table>`}
      ${skill.better_by != null && html`<p class="muted">${percent(skill.better_by)} better than the best of them${interval}</p>`}
    </div>
  `;
}
