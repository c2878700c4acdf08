//! A program with the generated client: cargo run -- BASE_URL WINDOW.json.
use std::collections::HashMap;

use kanscope::apis::configuration::Configuration;
use kanscope::apis::{edges_api, explanations_api, models_api, predictions_api, report_api, topology_api, Error};
use kanscope::models::{
    graph_edge, Baseline, BaselineKind, ErrorResponse, ExplainHeader, ExplainRequest, Explanation, FindingId, Metric,
    PredictRequest,
};
use serde_json::json;

type Windows = Vec<Vec<Vec<f64>>>;
type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const WEATHER: &str = "nyc-weather";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let service = Configuration {
        base_path: arguments[1].clone(),
        ..Configuration::new()
    };
    let file: serde_json::Value = serde_json::from_reader(std::fs::File::open(&arguments[2])?)?;
    let windows: Windows = serde_json::from_value(file["instances"].clone())?;

    let request = predicted(&windows);
    let forecast = predictions_api::predict(&service, WEATHER, request, None, None, None).await?;

    let named = Baseline {
        kind: Some(Some(BaselineKind::BASELINE_KIND_ZERO)),
        ..Baseline::new()
    };
    let request = ExplainRequest {
        baseline: Some(Some(Box::new(named))),
        ..explained(&windows)
    };
    let zero = explain(&service, WEATHER, request).await?.remove(0).contributions;

    let half = zero.keys().map(|feature| (feature.clone(), 0.5)).collect();
    let given = Baseline {
        kind: Some(Some(BaselineKind::BASELINE_KIND_VALUES)),
        values: Some(Some(half)),
        ..Baseline::new()
    };
    let request = ExplainRequest {
        baseline: Some(Some(Box::new(given))),
        ..explained(&windows)
    };
    let values = explain(&service, WEATHER, request).await?.remove(0).contributions;

    let hour = HashMap::from([("hour".into(), vec!["hour_sin".into(), "hour_cos".into()])]);
    let request = ExplainRequest {
        groups: Some(Some(hour)),
        ..explained(&windows)
    };
    let groups = explain(&service, WEATHER, request)
        .await?
        .remove(0)
        .contributions_by_group
        .ok_or("no groups")?;

    let first = models_api::get_reference_window(&service, "pair", 0, None, None)
        .await?
        .instance;
    let both = vec!["load+1".into(), "load+2".into()];
    let request = ExplainRequest {
        output: Some(Some(both)),
        ..explained(&vec![first])
    };
    let outputs: Vec<(String, f64)> = explain(&service, "pair", request)
        .await?
        .into_iter()
        .map(|one| (one.output, one.prediction))
        .collect();

    let topology = topology_api::get_topology(
        &service,
        WEATHER,
        None,
        None,
        Some(Metric::METRIC_BACKWARD),
        Some(0.9),
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
    )
    .await?;
    let edge = topology
        .edges
        .iter()
        .find(|edge| edge.kind == graph_edge::Kind::Edge)
        .ok_or("no edge")?;
    let stage = serde_json::to_value(edge.stage)?;
    let edge = edges_api::get_edge(
        &service,
        WEATHER,
        edge.layer,
        edge.i,
        edge.j,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        Some(11),
        None,
        stage.as_str(),
        None,
        None,
        None,
        None,
    )
    .await?;

    let report = report_api::get_report(&service, WEATHER, None, None, None, None).await?;
    let sparsity = report
        .findings
        .iter()
        .find(|one| one.id == FindingId::FINDING_ID_SPARSITY)
        .ok_or("no finding")?;

    let none = predictions_api::predict(&service, WEATHER, predicted(&vec![]), None, None, None).await;
    let (status, refusal) = refused(none.err().ok_or("forecasts without windows")?)?;
    let failed = predictions_api::predict(&service, "broken", predicted(&windows), None, None, None).await;
    let (unready, failure) = refused(failed.err().ok_or("forecasts of a broken model")?)?;

    let answers = json!({
        "forecast": forecast.predictions[0][0],
        "zero": zero,
        "values": values,
        "groups": groups,
        "outputs": outputs,
        "lines": stream(&service, &windows[0]).await?,
        "kept": topology.graph.edges.kept,
        "nodes": topology.nodes.len(),
        "edge": json!([edge.shape, edge.y[0], edge.source, edge.target]),
        "report": sparsity.answer,
        "error": json!([status, refusal.code, refusal.errors[0].path]),
        "unready": json!([unready, failure.code]),
    });
    println!("{answers}");
    Ok(())
}

fn predicted(windows: &Windows) -> PredictRequest {
    PredictRequest {
        instances: Some(Some(windows.clone())),
        ..PredictRequest::new()
    }
}

fn explained(windows: &Windows) -> ExplainRequest {
    ExplainRequest {
        instances: Some(Some(windows.clone())),
        ..ExplainRequest::new()
    }
}

async fn explain(service: &Configuration, model: &str, request: ExplainRequest) -> Fallible<Vec<Explanation>> {
    Ok(explanations_api::explain(service, model, request, None, None, None)
        .await?
        .explanations)
}

/// Explains the window three times: the number of lines, and the prediction of the last.
async fn stream(service: &Configuration, window: &[Vec<f64>]) -> Fallible<(usize, f64)> {
    let response = service
        .client
        .post(format!("{}/v1/models/{WEATHER}:explain", service.base_path))
        .header("Accept", "application/x-ndjson")
        .json(&explained(&vec![window.to_vec(); 3]))
        .send()
        .await?;
    let text = response.text().await?;
    let mut lines = text.lines();
    let _: ExplainHeader = serde_json::from_str(lines.next().ok_or("no line")?)?;
    let rest = lines
        .map(serde_json::from_str)
        .collect::<Result<Vec<Explanation>, _>>()?;
    Ok((1 + rest.len(), rest.last().ok_or("no explanation")?.prediction))
}

/// The status and the error of a request that fails.
fn refused<T>(error: Error<T>) -> Fallible<(u16, ErrorResponse)> {
    match error {
        Error::ResponseError(response) => Ok((response.status.as_u16(), serde_json::from_str(&response.content)?)),
        error => Err(error.to_string().into()),
    }
}
