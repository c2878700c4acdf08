import { h } from "../dom.js";
export function create() { return { element: h("div", {}, "soon"), update: async () => {} }; }
