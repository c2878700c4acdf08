// The client of @hey-api/openapi-ts.
import { groups, halves, instances, stream, url } from "./inputs";
import * as kanscope from "./kanscope";
import type { ExplainRequest, ExplainResponse, Explanation } from "./kanscope";
import { client } from "./kanscope/client.gen";

client.setConfig({ baseUrl: url });
const path = { model: "nyc-weather" };

async function explain(model: string, body: ExplainRequest): Promise<ExplainResponse> {
  const { data, error } = await kanscope.explain({ path: { model }, body });
  if (error) throw new Error(error.error);
  return data;
}

async function main(): Promise<void> {
  const predicted = await kanscope.predict({ path, body: { instances } });
  const zero = await explain("nyc-weather", { instances, baseline: { kind: "zero" } });
  const given = { kind: "values" as const, values: halves(zero.explanations[0].contributions) };
  const values = await explain("nyc-weather", { instances, baseline: given });
  const grouped = await explain("nyc-weather", { instances, groups });
  const window = await kanscope.getReferenceWindow({ path: { model: "pair", index: 0 } });
  const both = await explain("pair", { instances: [window.data!.instance], output: ["load+1", "load+2"] });
  const lines = await stream();
  const last: Explanation = JSON.parse(lines[lines.length - 1]);

  const query = { metric: "backward" as const, fidelity: 0.9 };
  const topology = await kanscope.getTopology({ path, query });
  const { layer, i, j } = topology.data!.edges.find((one) => one.kind === "edge")!;
  const edge = await kanscope.getEdge({ path: { ...path, layer, i, j }, query: { points: 11 } });
  const report = await kanscope.getReport({ path });

  const refused = await kanscope.predict({ path, body: { instances: [] } });
  const unready = await kanscope.predict({ path: { model: "broken" }, body: { instances } });
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
      error: [refused.response?.status, refused.error?.code, refused.error?.errors[0].path],
      unready: [unready.response?.status, unready.error?.code],
    }),
  );
}

void main();
