/** The model: whether it is any good, what matters to it, its network at rest, its formulas, its card, and the report. */

import { Network } from "../flow/flow.js";
import { html } from "../lib.js";
import { address } from "../state.js";
import { SkillTable } from "../ui/skill.js";
import { Card, tellKind } from "./card.js";
import { Choice, Comparison } from "./compare.js";
import { Formulas } from "./formula.js";
import { Importance } from "./importance.js";
import { Report } from "./report.js";
import { Section } from "./section.js";

/** @param {{model: import("../model.js").Model, versus?: import("../model.js").Model, window: any}} props */
export function ModelPage({ model, versus: other, window }) {
  const { verdict } = model.info.skill;
  const { versus } = address.value.values;
  return html`
    <div class="model-page">
      <${Section} name="skill" label="Skill" class=${`skill-first ${verdict}`}>${() => html`
        <div class="between"><h1>${model.chosen}</h1><${Choice} model=${model} /></div>
        <p class="lead">${tellKind(model.info)}</p>
        <div role=${verdict === "red" ? "alert" : undefined}><${SkillTable} model=${model} /></div>`}
      <//>
      ${versus && html`<${Section} key=${versus} name="comparison" label="Comparison">${() => html`<${Comparison} model=${model} versus=${versus} window=${window} />`}<//>`}
      <${Section} name="importance" label="Importance">${() => html`<${Importance} model=${model} />`}<//>
      <${Section} name="network" label="Network">${() => html`<h2>The network at rest</h2><${Network} model=${model} versus=${other} />`}<//>
      <${Section} name="formula" label="Formula">${() => html`<${Formulas} model=${model} />`}<//>
      <${Section} name="card" label="Card">${() => html`<${Card} model=${model} />`}<//>
      <${Section} name="report" label="Questions and answers" class="screen-only">${() => html`<${Report} model=${model} />`}<//>
    </div>
  `;
}
