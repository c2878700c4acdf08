import { html } from "../lib.js";
export function History({ model }) { return html`<h1>${model.heading}</h1>`; }
