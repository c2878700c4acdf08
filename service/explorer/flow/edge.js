import { html } from "../lib.js";
export function EdgePanel() { return html``; }
