// The client of openapi-generator's typescript-axios.
import axios from "axios";
import { groups, halves, instances, stream, url } from "./inputs";
import {
  BaselineKind,
  Configuration,
  EdgesApi,
  type ErrorResponse,
  type Explanation,
  ExplanationsApi,
  Metric,
  ModelsApi,
  PredictionsApi,
  ReportApi,
  TopologyApi,
} from "./kanscope";

const configuration = new Configuration({ basePath: url });
const predictions = new PredictionsApi(configuration);
const explanations = new ExplanationsApi(configuration);

async function refusal(request: Promise<unknown>): Promise<{ status: number; body: ErrorResponse }> {
  const error: unknown = await request.catch((reason: unknown) => reason);
  if (!axios.isAxiosError<ErrorResponse>(error) || !error.response) throw error;
  return { status: error.response.status, body: error.response.data };
}

async function main(): Promise<void> {
  const predicted = await predictions.predict("nyc-weather", { instances });
  const zero = await explanations.explain("nyc-weather", { instances, baseline: { kind: BaselineKind.BASELINE_KIND_ZERO } });
  const baseline = { kind: BaselineKind.BASELINE_KIND_VALUES, values: halves(zero.data.explanations[0].contributions) };
  const values = await explanations.explain("nyc-weather", { instances, baseline });
  const grouped = await explanations.explain("nyc-weather", { instances, groups });
  const window = await new ModelsApi(configuration).getReferenceWindow("pair", 0);
  const both = await explanations.explain("pair", { instances: [window.data.instance], output: ["load+1", "load+2"] });
  const lines = await stream();
  const last: Explanation = JSON.parse(lines[lines.length - 1]);

  const topology = await new TopologyApi(configuration).getTopology(
    "nyc-weather",
    undefined,
    undefined,
    Metric.METRIC_BACKWARD,
    0.9,
  );
  const { layer, i, j } = topology.data.edges.find((one) => one.kind === "edge")!;
  const edge = await new EdgesApi(configuration).getEdge("nyc-weather", layer, i, j, undefined, undefined, undefined, undefined, undefined, undefined, undefined, undefined, undefined, 11);
  const report = await new ReportApi(configuration).getReport("nyc-weather");

  const refused = await refusal(predictions.predict("nyc-weather", { instances: [] }));
  const unready = await refusal(predictions.predict("broken", { instances }));
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
