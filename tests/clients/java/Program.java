import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import kanscope.ApiClient;
import kanscope.ApiException;
import kanscope.api.EdgesApi;
import kanscope.api.ExplanationsApi;
import kanscope.api.ModelsApi;
import kanscope.api.PredictionsApi;
import kanscope.api.ReportApi;
import kanscope.api.TopologyApi;
import kanscope.model.Baseline;
import kanscope.model.BaselineKind;
import kanscope.model.EdgeResponse;
import kanscope.model.ErrorResponse;
import kanscope.model.ExplainHeader;
import kanscope.model.ExplainRequest;
import kanscope.model.Explanation;
import kanscope.model.FindingId;
import kanscope.model.GraphEdge;
import kanscope.model.Metric;
import kanscope.model.PredictRequest;
import kanscope.model.Stage;
import kanscope.model.TopologyResponse;

/** A program with the generated client: java Program URL WINDOW.json. */
public class Program {
    private static final String MODEL = "nyc-weather";
    private static final ApiClient CLIENT = new ApiClient();
    private static final ObjectMapper JSON = CLIENT.getObjectMapper();

    public static void main(String[] arguments) throws Exception {
        CLIENT.updateBaseUri(arguments[0]);
        List<List<List<Double>>> window = JSON.readValue(new File(arguments[1]), PredictRequest.class).getInstances();
        Map<String, Object> answers = new LinkedHashMap<>();

        double forecast = predict(new PredictRequest().instances(window));
        answers.put("forecast", forecast);

        ExplainRequest request = new ExplainRequest().instances(window);
        Baseline zero = new Baseline().kind(BaselineKind.BASELINE_KIND_ZERO);
        Map<String, Double> contributions = explain(MODEL, request.baseline(zero)).get(0).getContributions();
        answers.put("zero", contributions);
        Map<String, List<Object>> series = new LinkedHashMap<>();
        for (String name : contributions.keySet()) {
            int column = series.size();
            series.put(name, window.get(0).stream().<Object>map(step -> step.get(column)).toList());
        }
        if (predict(new PredictRequest().series(series).last(1)) != forecast) {
            throw new AssertionError("a series has another forecast than its window");
        }
        Map<String, Double> half = contributions.keySet().stream().collect(Collectors.toMap(name -> name, name -> 0.5));
        Baseline values = new Baseline().kind(BaselineKind.BASELINE_KIND_VALUES).values(half);
        answers.put("values", explain(MODEL, request.baseline(values)).get(0).getContributions());
        request.baseline(null).groups(Map.of("hour", List.of("hour_sin", "hour_cos")));
        Map<String, Map<String, Double>> groups = explain(MODEL, request).get(0).getContributionsByGroup();
        answers.put("groups", groups);

        List<List<Double>> pair = new ModelsApi(CLIENT).getReferenceWindow("pair", 0L, null, null).getInstance();
        request = new ExplainRequest().instances(List.of(pair)).output(List.of("load+1", "load+2"));
        answers.put("outputs", explain("pair", request).stream()
                .map(one -> List.of(one.getOutput(), one.getPrediction())).toList());
        answers.put("lines", lines(arguments[0], new ExplainRequest().instances(Collections.nCopies(3, window.get(0)))));

        TopologyResponse topology = new TopologyApi(CLIENT).getTopology(TopologyApi.APIGetTopologyRequest.newBuilder()
                .model(MODEL).metric(Metric.METRIC_BACKWARD).fidelity(0.9).build());
        answers.put("kept", topology.getGraph().getEdges().getKept());
        answers.put("nodes", topology.getNodes().size());
        GraphEdge first = topology.getEdges().stream()
                .filter(edge -> edge.getKind() == GraphEdge.KindEnum.EDGE).findFirst().orElseThrow();
        EdgeResponse edge = new EdgesApi(CLIENT).getEdge(EdgesApi.APIGetEdgeRequest.newBuilder()
                .model(MODEL).layer(first.getLayer()).i(first.getI()).j(first.getJ())
                .stage(Stage.fromValue(first.getStage().getValue())).points(11L).build());
        answers.put("edge", List.of(edge.getShape(), edge.getY().get(0), edge.getSource(), edge.getTarget()));
        answers.put("report", new ReportApi(CLIENT).getReport(MODEL, null, null, null, null).getFindings().stream()
                .filter(finding -> finding.getId() == FindingId.FINDING_ID_SPARSITY).findFirst().orElseThrow()
                .getAnswer());

        ErrorResponse error = refusal(MODEL, List.of());
        answers.put("error", List.of(error.getStatus(), error.getCode(), error.getErrors().get(0).getPath()));
        ErrorResponse unready = refusal("broken", window);
        answers.put("unready", List.of(unready.getStatus(), unready.getCode()));
        System.out.println(JSON.writeValueAsString(answers));
    }

    private static double predict(PredictRequest request) throws ApiException {
        return new PredictionsApi(CLIENT).predict(MODEL, request, null, null, null).getPredictions().get(0).get(0);
    }

    private static List<Explanation> explain(String model, ExplainRequest request) throws ApiException {
        return new ExplanationsApi(CLIENT).explain(model, request, null, null, null).getExplanations();
    }

    /** The number of lines of a stream, and the prediction of the last one. */
    private static List<Object> lines(String url, ExplainRequest request) throws Exception {
        HttpRequest post = HttpRequest.newBuilder(URI.create(url).resolve("/v1/models/" + MODEL + ":explain"))
                .header("Content-Type", "application/json").header("Accept", "application/x-ndjson")
                .POST(HttpRequest.BodyPublishers.ofString(JSON.writeValueAsString(request))).build();
        List<String> lines = HttpClient.newHttpClient().send(post, BodyHandlers.ofLines()).body().toList();
        JSON.readValue(lines.get(0), ExplainHeader.class);
        return List.of(lines.size(), JSON.readValue(lines.get(lines.size() - 1), Explanation.class).getPrediction());
    }

    /** The error to a request for a forecast. */
    private static ErrorResponse refusal(String model, List<List<List<Double>>> instances) throws Exception {
        try {
            PredictRequest request = new PredictRequest().instances(instances);
            new PredictionsApi(CLIENT).predict(model, request, null, null, null);
        } catch (ApiException error) {
            return JSON.readValue(error.getResponseBody(), ErrorResponse.class);
        }
        throw new AssertionError("the request was answered");
    }
}
