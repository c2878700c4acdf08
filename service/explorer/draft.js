/** What is being dragged: the forecast while an input slides, from explanations of values along its range (a stub until live.js). */

import { signal } from "./lib.js";

/** The input that is dragged and its value as of `valueOf`; undefined while nothing is. */
export const draft = signal(/** @type {{input: string, value: number} | undefined} */ (undefined));
