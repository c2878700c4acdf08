/** Questions that people ask of a forecaster, and where they are answered. */

/** @type {{label: string, place: string, values?: Record<string, string>}[]} */
export const QUESTIONS = [
  { label: "What is forecast, and mainly why?", place: "forecast" },
  { label: "Is this model any good?", place: "model" },
  { label: "What if an input were different?", place: "forecast" },
  { label: "Which hours matter?", place: "forecast" },
  { label: "What must change for a wanted forecast?", place: "forecast" },
  { label: "Which inputs matter overall?", place: "model" },
  { label: "Which formula comes near the network?", place: "model" },
  { label: "When was it most wrong, and why?", place: "history" },
  { label: "Has the data drifted?", place: "history" },
  { label: "How does my own file fare?", place: "history" },
];
