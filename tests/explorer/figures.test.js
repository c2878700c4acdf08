/** Values have the decimals that their spread gives a meaning to, and steps their clock times. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { amount, fixed, formatChange, formatValue, percent, points, stepLabel } from "../../service/explorer/figures.js";

// A twentieth of the spread is the last digit's least meaning; without a spread three digits stand.
test("values are as precise as their spread", () => {
  const said = [
    [-0.8317, "K", 3.5], [1017.94, "hPa", 6.9], [45123.4, "MW", 4800], [3, null, { std: 2, integer: true }],
    [-1e-17, "", { std: 0.7, integer: false }], [2e-9, "m", 1e-9], [0.12345, null, null], [null, "K", 3],
  ].map((given) => formatValue(...given));
  assert.deepEqual(said, ["−0.8 K", "1017.9 hPa", "45,123 MW", "3", "0.00", "2.0e−9 m", "0.123", "unknown"]);
  assert.deepEqual([0.01, 1.64, -2].map((one) => formatChange(one, "K", 3.5)), ["0.0 K", "+1.6 K", "−2.0 K"]);
  assert.deepEqual(
    [1e-4, 0.018, -0.5].map((share) => points(share, "points")),
    ["0.0 points", "+1.8 points", "−50.0 points"],
  );
});

test("a negative number that rounds to zero has no sign", () => {
  const said = [fixed(-0.00001, 4), fixed(-0, 4), percent(-0.0000001), amount(-0), fixed(-0.5, 1)];
  assert.deepEqual(said, ["0.0000", "0.0000", "0.0 %", "0", "−0.5"]);
});

// Days on an axis of days, and counts where no times are known.
test("steps have clock times", () => {
  const times = { newest: Date.UTC(2013, 2, 3, 2), step: 3600000 };
  const said = [0, -2, -3, 1].flatMap((step) => [0, 24].map((count) => stepLabel(step, times, count)));
  assert.deepEqual(
    [...said, stepLabel(-50, times, 168)],
    ["3 Mar, 02:00", "02:00", "3 Mar, 00:00", "3 Mar", "2 Mar, 23:00", "23:00", "3 Mar, 03:00", "03:00", "1 Mar"],
  );
  const daily = { newest: Date.UTC(2013, 2, 3), step: 86400000 };
  assert.deepEqual([stepLabel(-1, daily), stepLabel(-1, daily, 9)], ["2 Mar 2013", "2 Mar"]);
  const counted = [...[0, -3, 2].map((step) => stepLabel(step)), stepLabel(-3, undefined, 9)];
  assert.deepEqual(counted, ["newest step", "3 before the newest", "2 after the newest", "−3"]);
});
