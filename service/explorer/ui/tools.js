import { html } from "../lib.js";
export function Tools() { return html``; }
