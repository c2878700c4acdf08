// What a user writes against the generated types: node built/program.js URL MODEL WINDOW.json
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import type { components, paths } from "./kanscope.js";

type Windows = components["schemas"]["PredictRequest"];

const [url, model, file] = process.argv.slice(2);
const { instances }: Windows = JSON.parse(readFileSync(file, "utf-8"));
const client = createClient<paths, "application/json">({ baseUrl: url }); // of the media types of an answer this one
const params = { path: { model } };

const predicted = await client.POST("/v1/models/{model}:predict", {
  params: { ...params, query: { version: "1" } },
  body: { instances },
});
const forecast: number | undefined = predicted.data?.predictions[0][0];
const version: string | undefined = predicted.data?.version;

const explained = await client.POST("/v1/models/{model}:explain", {
  params,
  body: { instances, detail: "steps", baseline: "zero" },
});
const contributions: Record<string, number> | undefined = explained.data?.explanations[0].contributions;

const rows: [string, number[] | undefined][] = Object.keys(contributions ?? {}).map((name, feature) => [
  name,
  instances?.[0].map((step) => step[feature]),
]);
const time = rows[0][1]?.map((_, hour) => `2013-06-12T${String(hour).padStart(2, "0")}:00Z`);
const ofRows = await client.POST("/v1/models/{model}:predict", {
  params,
  body: { series: Object.fromEntries([["time", time ?? []], ...rows.map(([name, cells]) => [name, cells ?? []])]), last: 1 },
});
if (ofRows.data?.predictions[0][0] !== forecast || ofRows.data?.times?.[0] !== time?.at(-1)) {
  throw new Error(JSON.stringify({ forecast, ofRows: ofRows.data ?? ofRows.error }));
}

const grouped = await client.POST("/v1/models/{model}:explain", {
  params,
  body: { instances, baseline: "zero", groups: { hour: ["hour_sin", "hour_cos"] } },
});
const hour: number | Record<string, number> | undefined = grouped.data?.explanations[0].contributions_by_group?.hour;

const drawn = await client.GET("/v1/models/{model}/topology", {
  params: { ...params, query: { metric: "backward", fidelity: 0.9 } },
});
const kept: number | undefined = drawn.data?.graph.edges.kept;

const shifted = await client.POST("/v1/models/{model}:whatif", {
  params,
  body: { instances, features: ["temp_c"], steps: [-5, 0], shift: { from: -1, to: 1, points: 3 } },
});
const unshifted: number | undefined = shifted.data?.curves[0][0].predictions[1];

const found = await client.POST("/v1/models/{model}:counterfactual", {
  params,
  body: { instances, target: { at_most: (forecast ?? 0) + 1 }, max_features: 2, within_training_range: true },
});
const reached: boolean | undefined = found.data?.counterfactuals[0].reached;

const removed = await client.POST("/v1/models/{model}:ablate", {
  params,
  body: { instances, fidelity: 1, without: ["head:0:7:3"] },
});
const ablated: number | undefined = removed.data?.ablations[0].ablated_prediction;

const compared = await client.POST("/v1/models/{model}:compare", {
  params,
  body: { instances, against: { version: "1" }, tolerance: 0.001 },
});
const difference: number | undefined = compared.data?.comparisons[0].difference;

const changed = await client.GET("/v1/models/{model}/comparison", {
  params: { ...params, query: { against_version: "1" } },
});
const written = await client.GET("/v1/models/{model}/formula", { params: { ...params, query: { complexity: 8 } } });
const expression: string | undefined = written.data?.formulas[0].expression;
if (ablated === undefined || ablated === forecast || removed.data?.rule.without?.[0] !== "head:0:7:3") {
  throw new Error(JSON.stringify({ ablated, removed: removed.data }));
}
if (unshifted !== forecast || !reached || difference !== 0 || changed.data?.difference !== 0 || !expression) {
  throw new Error(JSON.stringify({ unshifted, reached, difference, changed: changed.data?.difference, expression }));
}

const refused = await client.POST("/v1/models/{model}:predict", { params, body: { instances: [] } });
const place: string | undefined = refused.error?.errors[0].path;
const code: "invalid_value" | undefined = refused.error?.code === "invalid_value" ? refused.error.code : undefined;

console.log(
  JSON.stringify({ forecast, version, contributions, hour, kept, status: refused.response.status, code, place }),
);
