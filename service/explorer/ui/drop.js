import { html } from "../lib.js";
export function Drop() { return html``; }
