/** The libraries, at one place: Preact with htm and signals, and d3, which leaves itself as a global; Plot is in chart.js. */

import htm from "htm";
import { h } from "preact";
import "./vendor/d3.min.js";

export { computed, effect, signal } from "@preact/signals";
export { render } from "preact";
export { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

/** Markup: html`<p>${text}</p>`. Text is always text, whatever names of models and features hold. */
export const html = htm.bind(h);
