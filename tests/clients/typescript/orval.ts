// The client of orval, with axios.
import axios from "axios";
import { groups, halves, instances, stream, url } from "./inputs";
import * as kanscope from "./kanscope";
import type { ErrorResponse, Explanation } from "./kanscope";

axios.defaults.baseURL = url;

async function refusal(request: Promise<unknown>): Promise<{ status: number; body: ErrorResponse }> {
  const error: unknown = await request.catch((reason: unknown) => reason);
  if (!axios.isAxiosError<ErrorResponse>(error) || !error.response) throw error;
  return { status: error.response.status, body: error.response.data };
}

async function main(): Promise<void> {
  const predicted = await kanscope.predict("nyc-weather", { instances });
  const zero = await kanscope.explain("nyc-weather", { instances, baseline: { kind: "zero" } });
  const baseline = { kind: "values" as const, values: halves(zero.data.explanations[0].contributions) };
  const values = await kanscope.explain("nyc-weather", { instances, baseline });
  const grouped = await kanscope.explain("nyc-weather", { instances, groups });
  const window = await kanscope.getReferenceWindow("pair", 0);
  const both = await kanscope.explain("pair", { instances: [window.data.instance], output: ["load+1", "load+2"] });
  const lines = await stream();
  const last: Explanation = JSON.parse(lines[lines.length - 1]);

  const topology = await kanscope.getTopology("nyc-weather", { metric: "backward", fidelity: 0.9 });
  const { layer, i, j } = topology.data.edges.find((one) => one.kind === "edge")!;
  const edge = await kanscope.getEdge("nyc-weather", layer, i, j, { points: 11 });
  const report = await kanscope.getReport("nyc-weather");

  const refused = await refusal(kanscope.predict("nyc-weather", { instances: [] }));
  const unready = await refusal(kanscope.predict("broken", { instances }));
  console.log(
    JSON.stringify({
      forecast: predicted.data.predictions[0][0],
      zero: zero.data.explanations[0].contributions,
      values: values.data.explanations[0].contributions,
      groups: grouped.data.explanations[0].contributions_by_group,
      outputs: both.data.explanations.map((one) => [one.output, one.prediction]),
      lines: [lines.length, last.prediction],
      kept: topology.data.graph.edges.kept,
      nodes: topology.data.nodes.length,
      edge: [edge.data.shape, edge.data.y[0], edge.data.source, edge.data.target],
      report: report.data.findings.find((one) => one.id === "sparsity")?.answer,
      error: [refused.status, refused.body.code, refused.body.errors[0].path],
      unready: [unready.status, unready.body.code],
    }),
  );
}

void main();
