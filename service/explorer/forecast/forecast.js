import { html } from "../lib.js";
export function Forecast({ model }) { return html`<h1>${model.heading}</h1>`; }
