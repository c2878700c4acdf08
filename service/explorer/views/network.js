/** The network: pictures of what a rule keeps, from layers to functions, what that costs, and the edges as a list. */

import { ablationControl } from "../ablation.js";
import { titleBar } from "../actions.js";
import { askJson, reasonOf } from "../api.js";
import { h, segments, table } from "../dom.js";
import { enliven, fetchDrawing } from "../drawing.js";
import { amount, percent, range } from "../figures.js";
import { askTopology, edgeId, edgeKey, labelsOf, nameEdge, strongestFirst, topologyAsk } from "../graph.js";
import { help, withHelp } from "../help.js";
import { drawLayers, drawStructure } from "../layers.js";
import { chosenNode, pathsControl, sharesOf, tellLags } from "../paths.js";
import { pruningControl, ruleQuery, tellCost } from "../pruning.js";
import { relate } from "../selection.js";
import { roomOf, zoomable } from "../zoom.js";

/** @typedef {import("../api.js").Schemas} Schemas */
/** @typedef {Schemas["TopologyResponse"]} Topology */
/** @typedef {Schemas["GraphNode"]} Node */
/** @typedef {Schemas["GraphEdge"]} Edge */
/** @typedef {"layers" | "units" | "curves"} Detail */

const N_CURVES = 300; // edges with functions in a picture of the service
const MANY_CURVES = 120; // functions that are drawn unasked
const FEW_CURVES = 16; // the same on a narrow screen
const NARROW = 600; // pixels
const LONGEST = 1500; // pixels of a picture on a narrow screen, some two of them
const SAME_WIDTH = 24; // by which a picture need not be drawn again

/**
 * @param {import("../app.js").Page} page
 * @returns {import("../app.js").View}
 */
export function create(page) {
  /** @type {import("../actions.js").Shown | undefined} */
  let shown;
  /** @type {Detail[]} that there are, from coarse to fine */
  let details = ["layers"];
  /** @type {Detail} */
  let detail = "layers";
  const { element: drawing, stage, reveal } = zoomable("Picture of the network", (by) => {
    const next = details[details.indexOf(detail) + by];
    if (next) void page.set({ detail: next });
    return Boolean(next);
  });
  const level = segments("Zoom to", { layers: "layers", units: "units", curves: "curves" }, (value) =>
    page.set({ detail: value }),
  );
  const pruning = pruningControl(page);
  const ablation = ablationControl(page);
  const paths = pathsControl(page);
  const cost = h("div", { class: "cost", "aria-live": "polite" });
  const curve = h("figure", { class: "chart" });
  const listed = h("h2", { class: "below" });
  const edges = h("div", { class: "card scroll edges", tabindex: "0", role: "region", "aria-label": "Edges" });
  const color = segments("Strong edges have a high", { score: "score", contribution: "contribution" }, (value) =>
    page.set({ color: value === "score" ? "" : value }),
  );
  const pruned = segments("Pruned parts are", { fold: "folded", show: "shown" }, (value) =>
    page.set({ pruned: value === "fold" ? "" : value }),
  );
  const element = h(
    "div",
    { class: "view network" },
    titleBar("Network", () => shown, true),
    h(
      "div",
      { class: "columns" },
      h("div", { class: "card drawing" }, h("div", { class: "look" }, paths.element, level.element), drawing),
      h(
        "aside",
        { "aria-label": "Pruning and look" },
        h("section", { class: "card" }, h("h2", {}, "Prune"), pruning.element, cost, curve),
        ablation.element,
        h("section", { class: "card" }, h("h2", {}, "Look ", help("opacity")), color.element, pruned.element),
      ),
    ),
    listed,
    edges,
  );

  /**
   * Draws what each number of edges costs, which the picture does not wait for: it takes the service longer.
   *
   * @param {Topology} topology
   * @param {Record<string, string>} values
   * @param {AbortSignal} signal
   */
  const traceCost = async ({ graph }, values, signal) => {
    const { metric, fill } = graph.rule;
    const ask = { path: `${page.path}/topology/fidelity`, query: { ...page.query, metric, fill } };
    try {
      const [{ drawCost }, traced] = await Promise.all([
        import("../charts.js"),
        /** @type {Promise<Schemas["FidelityCurve"]>} */ (askJson(ask, signal)),
      ]);
      curve.replaceChildren(drawCost(traced.curve, graph.edges.kept, graph.fidelity.r2));
      await pruning.thin(graph, signal);
    } catch (error) {
      if (signal.aborted) return;
      const reason = reasonOf(error);
      curve.replaceChildren(h("p", { class: "muted" }, `The cost of each number of edges is not known: ${reason}.`));
    }
  };

  /** @type {import("../app.js").View["update"]} */
  const update = async (values, signal) => {
    pruning.set(values);
    color.set(values.color ?? "score");
    pruned.set(values.pruned ?? "fold");
    const through = chosenNode(values, page.output);
    const query = { ...ruleQuery(values), pruned: values.pruned !== "show", through };
    const ask = topologyAsk(page, query);
    const room = roomOf(stage);
    if (!stage.firstChild) stage.replaceChildren(drawStructure(page.model, page.output));
    const [topology] = await Promise.all([askTopology(page, query, signal), ablation.set(values, signal)]);
    const kept = new Set(topology.edges.flatMap((edge) => (edge.kept && edge.kind === "edge" ? [edgeId(edge)] : [])));
    details = kept.size > N_CURVES ? ["layers", "units"] : ["layers", "units", "curves"];
    const usual = kept.size > (room < NARROW ? FEW_CURVES : MANY_CURVES) ? "units" : "curves";
    detail = details.find((one) => one === values.detail) ?? (values.detail ? "units" : usual);
    for (const input of level.element.querySelectorAll("input")) {
      input.disabled = !details.some((one) => one === input.value);
      input.title = input.disabled ? "Of so many edges, those of a node that is clicked have their curves" : "";
    }
    const draw = () => {
      const sized = { color: values.color, width: room, curves: detail === "curves" };
      return fetchDrawing({ ...ask, query: { ...ask.query, ...sized } }, signal);
    };
    let picture = detail === "layers" ? undefined : await draw();
    while (picture && !values.detail && !isLegible(picture.root, room)) { // too deep, or too wide a layer
      detail = details[details.indexOf(detail) - 1];
      picture = detail === "layers" ? undefined : await draw();
    }
    level.set(detail);
    const all = picture ? undefined : await askTopology(page, { ...query, pruned: false }, signal);
    const link = (/** @type {string} */ edge) => page.link("edge", { edge });
    const toggle = (/** @type {string} */ id) => ablation.toggle(id, kept.has(id));
    const open = (/** @type {string} */ edge) => {
      if (ablation.isRemoving()) toggle(edge.replaceAll("/", ":"));
      else location.hash = link(edge);
    };
    const choose = (/** @type {string} */ node) => page.set({ through: node === through ? "" : node });
    if (all) stage.replaceChildren(drawLayers(all, page.unit, (node) => page.link("network", { through: node, detail: "" })));
    if (picture) {
      const { root } = picture;
      replacePicture(stage, root, enliven(root, teller(topology, page.unit, values.click), open, reveal, choose));
    }
    followWidth(stage, room, () => void page.set({}, true), signal);
    document.addEventListener("keydown", ({ key }) => key === "Escape" && through && page.set({ through: "" }), { signal });
    relate(topology);
    paths.set(through, topology);
    cost.replaceChildren(...tellCost(topology, page.unit));
    const feature = sharesOf(topology, through);
    listed.textContent = feature
      ? `Edges that ${feature.name} takes part in, the strongest first`
      : "Kept edges, the strongest first";
    replaceRows(edges, edgeTable(topology, page.unit, link, ablation.drop, feature));
    shown = { ask, name: `${page.model.name}-network`, data: topology, rows: edgeRows(topology), picture: async () => (picture ?? (await draw())).text };
    void ablation.follow(values, signal);
    void traceCost(topology, values, signal);
  };
  return { element, update };
}

/**
 * Whether a picture is no wider than its place, and not much longer than a phone's screens.
 *
 * @param {SVGSVGElement} root
 * @param {number} room
 */
function isLegible(root, room) {
  const [width, height] = ["width", "height"].map((name) => Number(root.getAttribute(name)));
  return width <= room + 1 && (room >= NARROW || height <= LONGEST);
}

/**
 * Draws again, once, when the place of a picture has another width.
 *
 * @param {HTMLElement} stage
 * @param {number} room that it was drawn for
 * @param {() => void} draw
 * @param {AbortSignal} signal
 */
function followWidth(stage, room, draw, signal) {
  const observer = new ResizeObserver(() => {
    if (Math.abs(roomOf(stage) - room) < SAME_WIDTH || signal.aborted) return;
    observer.disconnect();
    draw();
  });
  observer.observe(stage);
  signal.addEventListener("abort", () => observer.disconnect());
}

/**
 * Puts a picture in the place of another; the part that had the focus has it again, or if it is gone the first.
 *
 * @param {HTMLElement} place
 * @param {SVGSVGElement} root
 * @param {HTMLElement} picture what holds it
 */
function replacePicture(place, root, picture) {
  const focused = place.contains(document.activeElement) ? document.activeElement?.getAttribute("aria-label") : null;
  root.style.transform = place.querySelector("svg")?.style.transform ?? "";
  place.replaceChildren(picture);
  if (!focused) return;
  const again = [...root.querySelectorAll("g")].find((part) => part.getAttribute("aria-label") === focused);
  (again ?? /** @type {SVGGElement | null} */ (root.querySelector("g[tabindex='0']")))?.focus();
}

/**
 * Puts a table in the place of another. The buttons of its rows are one stop of the tab key, between which the arrows
 * up and down lead; the one at the place of the one that had the focus has it.
 *
 * @param {HTMLElement} place
 * @param {HTMLTableElement} table
 */
function replaceRows(place, table) {
  const focused = buttonsOf(place).findIndex((button) => button === document.activeElement);
  place.replaceChildren(table);
  const buttons = buttonsOf(table);
  const stop = (/** @type {number} */ at) => buttons.forEach((button, other) => (button.tabIndex = other === at ? 0 : -1));
  const go = (/** @type {number} */ at) => {
    stop(at);
    buttons[at].focus();
  };
  table.addEventListener("keydown", (event) => {
    const from = buttons.findIndex((button) => button === document.activeElement);
    const to = from + Number(event.key === "ArrowDown") - Number(event.key === "ArrowUp");
    if (from < 0 || to === from || !buttons[to]) return;
    event.preventDefault(); // which would scroll
    go(to);
  });
  stop(0);
  if (focused < 0) return;
  if (buttons.length) go(Math.min(focused, buttons.length - 1));
  else place.focus();
}

/** @param {HTMLElement} place */
function buttonsOf(place) {
  return /** @type {HTMLButtonElement[]} */ ([...place.querySelectorAll("tbody button")]);
}

/**
 * @param {Topology} topology
 * @param {string | null} unit
 * @param {string | undefined} click what one on an edge does
 * @returns {(part: SVGGElement) => string[]}
 */
function teller(topology, unit, click) {
  const nodes = new Map(topology.nodes.map((node) => [node.id, node]));
  const labels = labelsOf(topology);
  const edges = new Map(topology.edges.map((edge) => [`${edge.source} ${edge.target}`, edge]));
  return (part) => {
    const { node, source, target } = part.dataset;
    if (node !== undefined) return tellNode(nodes.get(node), unit);
    if (source !== undefined) return tellEdge(edges.get(`${source} ${target}`), labels, unit, click);
    return part.getAttribute("aria-label")?.split(", pruned: ") ?? [];
  };
}

/**
 * @param {Node | undefined} node
 * @param {string | null} unit
 */
function tellNode(node, unit) {
  if (!node) return [];
  const profile = Object.entries(node.profile ?? {}).slice(0, 4);
  const made = profile.map(([name, share]) => `${percent(share)} ${name} ${tellLags(node.lags?.[name])}`.trim());
  return [node.label, ...tellWorth(node, unit), ...made, "Click, or press Enter, for its paths alone"];
}

/**
 * @param {Edge | undefined} edge
 * @param {Map<string, string>} labels of the nodes
 * @param {string | null} unit
 * @param {string | undefined} click what one does
 */
function tellEdge(edge, labels, unit, click) {
  if (!edge) return [];
  const lines = [nameEdge(edge, labels), ...tellWorth(edge, unit)];
  if (edge.share !== undefined) lines.push(`${percent(edge.share)} of the target's profile`);
  if (edge.reads) lines.push(`reads ${edge.reads}`);
  if (edge.kind === "link") lines.push("What operations between the layers lead on");
  if (edge.outside_grid) lines.push(`${percent(edge.outside_grid)} of its inputs outside the grid`);
  if (edge.kind === "edge") lines.push(`Click, or press Enter, ${click === "remove" ? "to remove it" : "for its function"}`);
  return lines;
}

/**
 * Contribution with its interval, and scores, as far as there are such.
 *
 * @param {Node | Edge} part
 * @param {string | null} unit
 */
function tellWorth({ contribution, interval, scores, kept }, unit) {
  const lines = [];
  if (contribution !== null) lines.push(`mean |contribution| ${amount(contribution, unit)}`);
  if (interval) lines.push(`95 % interval ${range(interval)}`);
  if (scores) lines.push(`score ${amount(scores.backward)}`);
  if (!kept) lines.push("pruned");
  return lines;
}

/**
 * @param {Topology} topology
 * @param {string | null} unit
 * @param {(edge: string) => string} link
 * @param {(edge: string) => void} drop
 * @param {ReturnType<typeof sharesOf>} feature whose share in each edge is told as well
 */
function edgeTable(topology, unit, link, drop, feature) {
  const labels = labelsOf(topology);
  const kept = strongestFirst(topology).filter((edge) => edge.kept);
  const remove = (/** @type {Edge} */ edge) =>
    h(
      "button",
      {
        type: "button",
        class: "small",
        "aria-label": `Remove ${nameEdge(edge, labels)}`,
        onclick: () => drop(edgeId(edge)),
      },
      "Remove",
    );
  const rows = kept.map((edge) =>
    h(
      "tr",
      { "data-edge": edgeKey(edge) },
      h(
        "td",
        {},
        h("div", { class: "removable" }, h("a", { href: link(edgeKey(edge)) }, nameEdge(edge, labels)), remove(edge)),
      ),
      h("td", { class: "number" }, amount(edge.contribution, unit)),
      h("td", { class: "number" }, range(edge.interval)),
      h("td", { class: "number" }, edge.scores ? amount(edge.scores.backward) : ""),
      feature && h("td", { class: "number" }, percent(feature.share(edge))),
    ),
  );
  const [worth, score] = [withHelp("Mean |contribution|", "contribution"), withHelp("Score", "score")];
  const share = feature ? [withHelp(`Of its input is ${feature.name}`, "profile")] : [];
  return table(["Edge", worth, "95 % interval", score, ...share], rows);
}

/** @param {Topology} topology */
function edgeRows(topology) {
  return topology.edges.map(
    ({ source, target, kind, stage, layer, i, j, kept, contribution, interval, share, scores }) => ({
      ...{ source, target, kind, stage, layer, i, j, kept, contribution, share },
      ...{ interval_low: interval?.[0], interval_high: interval?.[1] },
      ...scores,
    }),
  );
}
