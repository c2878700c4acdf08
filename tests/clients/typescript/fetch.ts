// The client of openapi-generator's typescript-fetch.
import { groups, halves, instances, stream, url } from "./inputs";
import {
  BaselineKind,
  Configuration,
  EdgesApi,
  type ErrorResponse,
  ErrorResponseFromJSON,
  ExplanationFromJSON,
  ExplanationsApi,
  Metric,
  ModelsApi,
  PredictionsApi,
  ReportApi,
  ResponseError,
  TopologyApi,
} from "./kanscope";

const configuration = new Configuration({ basePath: url });
const predictions = new PredictionsApi(configuration);
const explanations = new ExplanationsApi(configuration);

async function refusal(request: Promise<unknown>): Promise<{ status: number; body: ErrorResponse }> {
  const error: unknown = await request.catch((reason: unknown) => reason);
  if (!(error instanceof ResponseError)) throw error;
  return { status: error.response.status, body: ErrorResponseFromJSON(await error.response.json()) };
}

async function main(): Promise<void> {
  const predicted = await predictions.predict({ model: "nyc-weather", predictRequest: { instances } });
  const zero = await explanations.explain({ model: "nyc-weather", explainRequest: { instances, baseline: { kind: BaselineKind.BASELINE_KIND_ZERO } } });
  const baseline = { kind: BaselineKind.BASELINE_KIND_VALUES, values: halves(zero.explanations[0].contributions) };
  const values = await explanations.explain({ model: "nyc-weather", explainRequest: { instances, baseline } });
  const grouped = await explanations.explain({ model: "nyc-weather", explainRequest: { instances, groups } });
  const window = await new ModelsApi(configuration).getReferenceWindow({ model: "pair", index: 0 });
  const both = await explanations.explain({ model: "pair", explainRequest: { instances: [window.instance], output: ["load+1", "load+2"] } });
  const lines = await stream();
  const last = ExplanationFromJSON(JSON.parse(lines[lines.length - 1]));

  const topology = await new TopologyApi(configuration).getTopology({
    model: "nyc-weather",
    metric: Metric.METRIC_BACKWARD,
    fidelity: 0.9,
  });
  const { layer, i, j } = topology.edges.find((one) => one.kind === "edge")!;
  const edge = await new EdgesApi(configuration).getEdge({ model: "nyc-weather", layer, i, j, points: 11 });
  const report = await new ReportApi(configuration).getReport({ model: "nyc-weather" });

  const refused = await refusal(predictions.predict({ model: "nyc-weather", predictRequest: { instances: [] } }));
  const unready = await refusal(predictions.predict({ model: "broken", predictRequest: { instances } }));
  console.log(
    JSON.stringify({
      forecast: predicted.predictions[0][0],
      zero: zero.explanations[0].contributions,
      values: values.explanations[0].contributions,
      groups: grouped.explanations[0].contributionsByGroup,
      outputs: both.explanations.map((one) => [one.output, one.prediction]),
      lines: [lines.length, last.prediction],
      kept: topology.graph.edges.kept,
      nodes: topology.nodes.length,
      edge: [edge.shape, edge.y[0], edge.source, edge.target],
      report: report.findings.find((one) => one.id === "sparsity")?.answer,
      error: [refused.status, refused.body.code, refused.body.errors[0].path],
      unready: [unready.status, unready.body.code],
    }),
  );
}

void main();
