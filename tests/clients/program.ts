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

const grouped = await client.POST("/v1/models/{model}:explain", {
  params,
  body: { instances, baseline: "zero", groups: { hour: ["hour_sin", "hour_cos"] } },
});
const hour: number | Record<string, number> | undefined = grouped.data?.explanations[0].contributions_by_group?.hour;

const drawn = await client.GET("/v1/models/{model}/topology", {
  params: { ...params, query: { metric: "backward", fidelity: 0.9 } },
});
const kept: number | undefined = drawn.data?.graph.edges.kept;

const refused = await client.POST("/v1/models/{model}:predict", { params, body: { instances: [] } });
const place: string | undefined = refused.error?.errors[0].path;
const code: "invalid_value" | undefined = refused.error?.code === "invalid_value" ? refused.error.code : undefined;

console.log(
  JSON.stringify({ forecast, version, contributions, hour, kept, status: refused.response.status, code, place }),
);
