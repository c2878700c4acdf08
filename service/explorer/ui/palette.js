import { html } from "../lib.js";
export function Palette() { return html``; }
