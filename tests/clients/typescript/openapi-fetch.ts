// The types of openapi-typescript, with openapi-fetch.
import { notStrictEqual, strictEqual } from "node:assert";
import createClient from "openapi-fetch";
import { groups, halves, instances, stream, url } from "./inputs";
import type { components, paths } from "./kanscope";

type Schemas = components["schemas"];

const client = createClient<paths>({ baseUrl: url });
const params = { path: { model: "nyc-weather" } };

async function explain(model: string, body: Schemas["ExplainRequest"]): Promise<Schemas["ExplainResponse"]> {
  const { data, error } = await client.POST("/v1/models/{model}:explain", { params: { path: { model } }, body });
  if (error) throw new Error(error.error);
  return data;
}

async function main(): Promise<void> {
  const predicted = await client.POST("/v1/models/{model}:predict", { params, body: { instances } });
  const zero = await explain("nyc-weather", { instances, baseline: { kind: "zero" } });
  const given = { kind: "values" as const, values: halves(zero.explanations[0].contributions) };
  const values = await explain("nyc-weather", { instances, baseline: given });
  const grouped = await explain("nyc-weather", { instances, groups });
  const window = await client.GET("/v1/models/{model}/reference/{index}", {
    params: { path: { model: "pair", index: 0 } },
  });
  const both = await explain("pair", { instances: [window.data!.instance], output: ["load+1", "load+2"] });
  const lines = await stream();
  const last: Schemas["Explanation"] = JSON.parse(lines[lines.length - 1]);

  const query = { metric: "backward" as const, fidelity: 0.9 };
  const topology = await client.GET("/v1/models/{model}/topology", { params: { ...params, query } });
  const { layer, i, j } = topology.data!.edges.find((one) => one.kind === "edge")!;
  const edge = await client.GET("/v1/models/{model}/edges/{layer}/{i}/{j}", {
    params: { path: { model: "nyc-weather", layer, i, j }, query: { points: 11 } },
  });
  const report = await client.GET("/v1/models/{model}/report", { params });

  const refused = await client.POST("/v1/models/{model}:predict", { params, body: { instances: [] } });
  const unready = await client.POST("/v1/models/{model}:predict", {
    params: { path: { model: "broken" } },
    body: { instances },
  });
  await checkOthers(predicted.data!.predictions[0][0], Object.keys(zero.explanations[0].contributions));
  console.log(
    JSON.stringify({
      forecast: predicted.data?.predictions[0][0],
      zero: zero.explanations[0].contributions,
      values: values.explanations[0].contributions,
      groups: grouped.explanations[0].contributions_by_group,
      outputs: both.explanations.map((one) => [one.output, one.prediction]),
      lines: [lines.length, last.prediction],
      kept: topology.data?.graph.edges.kept,
      nodes: topology.data?.nodes.length,
      edge: [edge.data?.shape, edge.data?.y[0], edge.data?.source, edge.data?.target],
      report: report.data?.findings.find((one) => one.id === "sparsity")?.answer,
      error: [refused.response.status, refused.error?.code, refused.error?.errors[0].path],
      unready: [unready.response.status, unready.error?.code],
    }),
  );
}

/** Checks what other operations answer. */
async function checkOthers(forecast: number, names: string[]): Promise<void> {
  const rows = names.map((name, feature) => [name, instances[0].map((step) => step[feature])]);
  const time = instances[0].map((_, hour) => `2013-06-12T${String(hour).padStart(2, "0")}:00Z`);
  const series: Schemas["PredictRequest"]["series"] = { time, ...Object.fromEntries(rows) };
  const ofRows = await client.POST("/v1/models/{model}:predict", { params, body: { series, last: 1 } });
  strictEqual(ofRows.data?.predictions[0][0], forecast);
  strictEqual(ofRows.data?.times?.[0], time.at(-1));

  const shifted = await client.POST("/v1/models/{model}:whatif", {
    params,
    body: { instances, features: ["temp_c"], steps: [-5, 0], shift: { from: -1, to: 1, points: 3 } },
  });
  strictEqual(shifted.data?.curves[0][0].predictions[1], forecast);
  const found = await client.POST("/v1/models/{model}:counterfactual", {
    params,
    body: { instances, target: { at_most: forecast + 1 }, max_features: 2, within_training_range: true },
  });
  strictEqual(found.data?.counterfactuals[0].reached, true);
  const removed = await client.POST("/v1/models/{model}:ablate", {
    params,
    body: { instances, fidelity: 1, without: ["head:0:7:3"] },
  });
  strictEqual(removed.data?.rule.without?.[0], "head:0:7:3");
  notStrictEqual(removed.data?.ablations[0].ablated_prediction, forecast);

  const compared = await client.POST("/v1/models/{model}:compare", {
    params,
    body: { instances, against: { version: "1" }, tolerance: 0.001 },
  });
  strictEqual(compared.data?.comparisons[0].difference, 0);
  const changed = await client.GET("/v1/models/{model}/comparison", {
    params: { ...params, query: { against_version: "1" } },
  });
  strictEqual(changed.data?.difference, 0);
  const written = await client.GET("/v1/models/{model}/formula", { params: { ...params, query: { complexity: 8 } } });
  strictEqual(typeof written.data?.formulas[0].expression, "string");
}

void main();
