/** Questions that people ask of a forecaster, and where they are answered. */

/** @type {{label: string, place: string, values?: Record<string, string>}[]} */
export const QUESTIONS = [
  { label: "What is forecast, and mainly why?", place: "forecast" },
  { label: "Is this model any good?", place: "model" },
  { label: "Which hours matter?", place: "forecast", values: { ask: "" } },
  { label: "What if an input were different?", place: "forecast", values: { ask: "whatif" } },
  { label: "What would change the forecast?", place: "forecast", values: { ask: "change" } },
  { label: "Can this forecast be trusted?", place: "forecast", values: { ask: "trust" } },
  { label: "Which inputs matter overall?", place: "model", values: { at: "importance" } },
  { label: "Which edges can go, and at what price?", place: "model", values: { at: "network" } },
  { label: "Which formula comes near the network?", place: "model", values: { at: "formula" } },
  { label: "When was it most wrong, and why?", place: "history", values: { view: "" } },
  { label: "Has the data drifted?", place: "history", values: { view: "drift" } },
];
