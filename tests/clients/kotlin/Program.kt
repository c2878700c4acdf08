import com.google.gson.Gson
import com.google.gson.GsonBuilder
import java.io.File
import kanscope.apis.EdgesApi
import kanscope.apis.ExplanationsApi
import kanscope.apis.ModelsApi
import kanscope.apis.PredictionsApi
import kanscope.apis.ReportApi
import kanscope.apis.TopologyApi
import kanscope.infrastructure.ClientError
import kanscope.infrastructure.ClientException
import kanscope.infrastructure.ServerError
import kanscope.infrastructure.ServerException
import kanscope.models.Baseline
import kanscope.models.BaselineKind
import kanscope.models.ErrorResponse
import kanscope.models.ExplainHeader
import kanscope.models.ExplainRequest
import kanscope.models.Explanation
import kanscope.models.FindingId
import kanscope.models.GraphEdge
import kanscope.models.Metric
import kanscope.models.PredictRequest
import kanscope.models.Stage
import okhttp3.MediaType.Companion.toMediaType
import okhttp3.OkHttpClient
import okhttp3.Request
import okhttp3.RequestBody.Companion.toRequestBody

const val MODEL = "nyc-weather"
val JSON: Gson = GsonBuilder().disableHtmlEscaping().create()

/** The number of lines of a stream, and the prediction of the last one. */
fun lines(url: String, request: ExplainRequest): List<Any> {
    val body = JSON.toJson(request).toRequestBody("application/json".toMediaType())
    val post = Request.Builder().url("$url/v1/models/$MODEL:explain").header("Accept", "application/x-ndjson").post(body)
    val lines = OkHttpClient().newCall(post.build()).execute().use { it.body.string().trim().lines() }
    JSON.fromJson(lines.first(), ExplainHeader::class.java)
    return listOf(lines.size, JSON.fromJson(lines.last(), Explanation::class.java).prediction)
}

/** The error to a request. */
fun refusal(request: () -> Unit): ErrorResponse {
    val body = try {
        request()
        error("the request was answered")
    } catch (error: ClientException) {
        (error.response as ClientError<*>).body
    } catch (error: ServerException) {
        (error.response as ServerError<*>).body
    }
    return JSON.fromJson(body as String, ErrorResponse::class.java)
}

/** A program with the generated client: ProgramKt URL WINDOW.json. */
fun main(arguments: Array<String>) {
    val url = arguments[0].trimEnd('/')
    val window = JSON.fromJson(File(arguments[1]).readText(), PredictRequest::class.java).instances!!
    val predictions = PredictionsApi(url)
    val explanations = ExplanationsApi(url)

    fun explain(request: ExplainRequest, model: String = MODEL) = explanations.explain(model, request).explanations

    val forecast = predictions.predict(MODEL, PredictRequest(window)).predictions[0][0]
    val zero = Baseline(kind = BaselineKind.BASELINE_KIND_ZERO)
    val contributions = explain(ExplainRequest(window, baseline = zero))[0].contributions
    val series = contributions.keys.withIndex().associate { (column, name) -> name to window[0].map { it[column] } }
    check(predictions.predict(MODEL, PredictRequest(series = series, last = 1)).predictions[0][0] == forecast)
    val half = Baseline(kind = BaselineKind.BASELINE_KIND_VALUES, propertyValues = contributions.mapValues { 0.5 })
    val hour = mapOf("hour" to listOf("hour_sin", "hour_cos"))
    val groups: Map<String, Map<String, Double>>? = explain(ExplainRequest(window, groups = hour))[0].contributionsByGroup

    val pair = ModelsApi(url).getReferenceWindow("pair", 0).instance
    val outputs = explain(ExplainRequest(listOf(pair), output = listOf("load+1", "load+2")), "pair")

    val topology = TopologyApi(url).getTopology(MODEL, metric = Metric.METRIC_BACKWARD, fidelity = 0.9)
    val first = topology.edges.first { it.kind == GraphEdge.Kind.edge }
    val stage = Stage.decode(first.stage)
    val edge = EdgesApi(url).getEdge(MODEL, first.layer, first.i, first.j, stage = stage, points = 11)
    val findings = ReportApi(url).getReport(MODEL).findings

    val error = refusal { predictions.predict(MODEL, PredictRequest(listOf())) }
    val unready = refusal { predictions.predict("broken", PredictRequest(window)) }
    val answers = mapOf(
        "forecast" to forecast,
        "zero" to contributions,
        "values" to explain(ExplainRequest(window, baseline = half))[0].contributions,
        "groups" to groups,
        "outputs" to outputs.map { listOf(it.output, it.prediction) },
        "lines" to lines(url, ExplainRequest(window + window + window)),
        "kept" to topology.graph.edges.kept,
        "nodes" to topology.nodes.size,
        "edge" to listOf(edge.shape, edge.y[0], edge.source, edge.target),
        "report" to findings.first { it.id == FindingId.FINDING_ID_SPARSITY }.answer,
        "error" to listOf(error.status, error.code, error.errors[0].path),
        "unready" to listOf(unready.status, unready.code),
    )
    println(JSON.toJson(answers))
}
