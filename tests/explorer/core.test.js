/** What the page writes as the core does: what that writes is in the file of the variable EXPECTED. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import "../../service/explorer/vendor/d3.min.js";
import { tell, valueOf } from "../../service/explorer/inputs.js";
import { distinctNames } from "../../service/explorer/names.js";

const { names, shortened, day, rows, days } = JSON.parse(readFileSync(process.env.EXPECTED, "utf-8"));

test("long names lose the words that they share, as long as they still differ", () => {
  const short = (given, room) => [...distinctNames(given, room).values()];
  const parts = ["north", "south"].flatMap((place) => ["oil", "ring"].map((part) => `a_${place}_pump_${part}`));
  assert.deepEqual(short(parts.map((part) => `plant_${part}_celsius`)), parts); // which fit
  assert.deepEqual(short(["temp_c", "dewp_c", "wind_c"]), ["temp_c", "dewp_c", "wind_c"]);
  for (const [room, expected] of Object.entries(shortened)) assert.deepEqual(short(names, Number(room)), expected);
  const long = "the_same_words_in_both_of_two_long_names";
  assert.equal(new Set(short([long, `${long}_x`])).size, 2);
});

test("days of all years are told, of those with 29 February and without", () => {
  const input = { ...day, places: [0, 1] };
  assert.deepEqual(rows.map((row) => tell(input, valueOf(input, row))), days);
});
