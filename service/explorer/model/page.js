import { html } from "../lib.js";
export function ModelPage({ model }) { return html`<h1>${model.heading}</h1>`; }
