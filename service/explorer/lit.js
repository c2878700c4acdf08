/** What is lit in all that is in view: the part under the pointer or with the focus, or else the one that was picked. */

import { computed, signal } from "./lib.js";
import { address, go } from "./state.js";

/** Parts are named as `input:temp_c`, `unit:lstm:7`, `edge:head/0/7/3`, `output:load+24`; of a step of an input `input:temp_c@-3`. */
export const hovered = signal(/** @type {string | undefined} */ (undefined));
export const lit = computed(() => hovered.value ?? address.value.values.pick);

/**
 * The attributes of an element that stands for a part: it lights the part, and a click or Enter picks it.
 *
 * @param {string} part
 * @param {{pick?: boolean}} [how] `pick: false` for what a click means something else
 */
export function part(part, { pick = true } = {}) {
  const on = () => (hovered.value = part);
  const off = () => hovered.value === part && (hovered.value = undefined);
  const choose = () => go({ pick: address.value.values.pick === part ? "" : part });
  return {
    "data-part": part,
    onPointerEnter: on,
    onPointerLeave: off,
    onFocus: on,
    onBlur: off,
    ...(pick && {
      onClick: choose,
      onKeyDown: (/** @type {KeyboardEvent} */ event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), choose()),
    }),
  };
}
