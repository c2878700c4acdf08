/** Files of one's own, read and kept in the memory of this tab; the service cuts windows from their rows (`series`). */

/**
 * @param {import("./model.js").Model} model
 * @param {string} row `file:time`
 * @param {AbortSignal} signal
 * @returns {Promise<import("./windows.js").Window>}
 */
export async function findRow(model, row, signal) {
  void [model, signal];
  throw new Error(`The file of ${row} is no longer in the memory of this tab: drop it again.`);
}
