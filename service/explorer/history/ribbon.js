import { html } from "../lib.js";
export function Ribbon() { return html``; }
