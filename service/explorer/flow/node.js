/** A node of the picture, or the rest of a column: a bar as tall as what flows through, its name and amount. */

import { html } from "../lib.js";
import { part } from "../lit.js";
import { BAR } from "./layout.js";

const LONGEST = 24; // characters
const AMOUNT = 6; // characters beside a name
const LETTER = 6.6; // pixels
const BOLD = 7.4;

/** @param {string} text @param {number} most */
const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1).replace(/[\s,]+$/, "")}…` : text);

/**
 * @param {{model: import("../model.js").Model, place: import("./layout.js").Place, layout: import("./layout.js").Layout, network: import("./network.js").Network, said?: unknown, tab: number}} props
 */
export function Node({ model, place, layout, network, said, tab }) {
  const node = place.node === undefined ? undefined : network.nodes[place.node];
  const name = node?.label ?? `${place.nodes.length} more`;
  const tip = node?.tip ?? place.nodes.map((one) => network.nodes[one].label).slice(0, 20).join("\n");
  const isOutput = place.node === network.output;
  const fit = (/** @type {number} */ most) => (node?.kind === "input" ? model.fit(name, most) : cut(name, most));
  const attributes = node ? part(node.part) : {};
  const shape = html`<rect class="all" /><rect class="net" />`;
  const color = node?.color && html`<circle class="dot" fill=${node.color} r="4" cx=${layout.isDown ? place.across : place.along - BAR / 2 - 8} cy=${layout.isDown ? place.along - BAR / 2 - 8 : place.across} />`;
  return html`
    <g class=${`place ${isOutput ? "output" : (node?.kind ?? "rest")}`} ...${attributes} tabindex=${tab}
      role="img" aria-roledescription="node, lights its paths" aria-label=${name} data-name=${name} data-node=${place.id} data-tip=${tip}>
      ${shape}${color}
      ${layout.isDown ? html`<${LabelAbove} place=${place} fit=${fit} isOutput=${isOutput} said=${said} />` : html`<${LabelBeside} place=${place} layout=${layout} fit=${fit} isOutput=${isOutput} said=${said} />`}
    </g>
  `;
}

/** @param {any} props */
function LabelBeside({ place, layout, fit, isOutput, said }) {
  const { column, along, across, top } = place;
  if (isOutput) {
    const x = along + BAR / 2 + 8;
    return html`<text class="name" x=${x} y=${across - 12}>${fit(Math.floor((layout.width - x) / BOLD))}</text>
      <text class="amount" x=${x} y=${across + 3}></text><text class="forecast-value" x=${x} y=${across + 20}>${said}</text>`;
  }
  if (column === 0) {
    const x = along - BAR / 2 - 16;
    return html`<text class="name" x=${x} y=${across - 1} text-anchor="end">${fit(Math.floor((layout.start - 22) / LETTER))}</text><text class="amount" x=${x} y=${across + 11} text-anchor="end"></text>`;
  }
  if (place.before > 1.5 * place.after) {
    const most = Math.min(LONGEST, Math.floor((0.8 * place.before + BAR + place.after) / LETTER) - AMOUNT); // there is more room before it
    return html`<text class="name" x=${along + BAR / 2 + place.after - 4} y=${top + 11} text-anchor="end">
      <tspan>${fit(most)} </tspan><tspan class="amount"></tspan>
    </text>`;
  }
  return html`<text class="name" x=${along} y=${top + 11} text-anchor="middle">${fit(Math.min(LONGEST, Math.floor(place.room / LETTER)))}</text>
    <text class="amount" x=${along} y=${top + 23} text-anchor="middle"></text>`;
}

/** @param {any} props */
function LabelAbove({ place, fit, isOutput, said }) {
  const { along, across, column } = place;
  if (isOutput) {
    return html`<text class="name" x=${across} y=${along + 18} text-anchor="middle"><tspan>${fit(30)} </tspan><tspan class="amount"></tspan></text>
      <text class="forecast-value" x=${across} y=${along + 35} text-anchor="middle">${said}</text>`;
  }
  const y = along - BAR / 2 - (column ? 3 : 14);
  return html`<text class="name" x=${across} y=${y - 11} text-anchor="middle">${fit(Math.floor((place.room - 4) / LETTER))}</text><text class="amount" x=${across} y=${y} text-anchor="middle"></text>`;
}
