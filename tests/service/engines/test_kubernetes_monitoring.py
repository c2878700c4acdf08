"""The dashboard, the alerts, the rules of drift and the scrape configuration match the service's metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from factories import make_model, make_windows, with_intervals
from prometheus_client.parser import text_string_to_metric_families as parse
from readmes import PAGES, READMES, ROOT
from waiting import poll

from kanmodel.checkpoint import save_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples" / "monitoring"
OVERLAY = ROOT / "service" / "engines" / "kubernetes" / "overlays" / "monitoring"
DASHBOARD = json.loads((OVERLAY / "dashboard.json").read_text())
ALERTS = yaml.safe_load((OVERLAY / "alerts.yaml").read_text())["spec"]
DRIFT = yaml.safe_load((EXAMPLES / "drift.yaml").read_text())["groups"][0]["rules"]
SCRAPE = yaml.safe_load((EXAMPLES / "prometheus.yaml").read_text())["scrape_configs"][0]
OF_PROMETHEUS = {"up"}  # added by Prometheus
OF_A_TARGET = {"namespace", "instance", "job"}
OF_WORKERS = {"pid"}  # with several processes
RECORDED = {rule["record"]: {"model", "version", "of", "name", "bin"} for rule in DRIFT if "record" in rule}
METER, EXPLAIN = "metr" * 8, "expl" * 8


def expressions():
    """Every expression with its location."""
    for panel in DASHBOARD["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]
    for group in ALERTS["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])
    of_drift = {rule["expr"]: rule.get("alert") or rule["record"] for rule in DRIFT if "kanscope" in rule["expr"]}
    yield from ((place, expression) for expression, place in of_drift.items())


def names_and_labels(expression):
    """The metrics of an expression, and the labels by which it selects and groups."""
    text = re.sub(r'"[^"]*"', '""', expression)
    names = set(re.findall(r"\b(?:kanscope|process)_\w+|\bkanscope(?::\w+)+|\bup\b", text))
    labels = set(re.findall(r'(\w+)\s*(?:=~|!=|!~|=)\s*""', text))
    for group in re.findall(r"\bby \(([^)]*)\)", text):
        labels |= {label.strip() for label in group.split(",")}
    return names, labels


@pytest.fixture(scope="module")
def exposed(serve, tmp_path_factory):
    """The labels of each sample, and the status without a key, of a service that has answered each kind of request."""
    path = tmp_path_factory.mktemp("monitoring") / "load.safetensors"
    save_checkpoint(model := with_intervals(make_model("lstm", n_reference=130)), path)
    windows = make_windows(model, 2)
    windows[0, 0, 0] = 1e6
    body = {"instances": windows.tolist()}
    monitor = {"monitor_share": 1, "monitor_cpu": 1, "monitor_seconds": 0.05}
    keys = f"prometheus metrics {METER};notebook explain {EXPLAIN}"
    with serve(models=path, keys=keys, **monitor) as client:
        explain = {"Authorization": f"Bearer {EXPLAIN}"}
        for tolerance in (1e-3, 1e-300):
            client.post("/v1/models/load:explain", json={**body, "tolerance": tolerance}, headers=explain)
        known = {"instances": make_windows(model, 1).tolist(), "receipts": True}
        (receipt,) = client.post("/v1/models/load:predict", json=known, headers=explain).json()["receipts"]
        outcomes = {"outcomes": [{"receipt": receipt, "values": {"y+1": 1.0}}]}
        assert client.post("/v1/models/load:outcomes", json=outcomes, headers=explain).json()["matched"] == 1
        metrics = {"Authorization": f"{SCRAPE['authorization']['type']} {METER}"}
        poll(lambda: "reference_error{" in client.get(SCRAPE["metrics_path"], headers=metrics).text)
        answer = client.get(SCRAPE["metrics_path"], headers=metrics)
        assert client.get(SCRAPE["metrics_path"]).status_code == 401
    labels = {}
    for family in parse(answer.text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_every_metric_and_label_exists(exposed, place, expression):
    """A panel or alert on a missing metric would stay silent forever."""
    names, labels = names_and_labels(expression)
    assert names, place
    stated = {**exposed, **RECORDED}
    assert names - OF_PROMETHEUS <= stated.keys(), place
    known = set().union(*(stated.get(name, set()) for name in names))
    assert labels <= known | OF_A_TARGET | OF_WORKERS, place


def test_every_metric_of_the_service_is_on_the_dashboard(exposed):
    """Except info metrics and creation times of counters."""
    shown = "".join(expression for _, expression in expressions())
    families = {re.sub(r"_(total|bucket|sum|count|created|info)$", "", name) for name in exposed}
    assert [name for name in families if name.startswith("kanscope_") and name not in shown] == []


def test_panels_do_not_overlap():
    """Each panel has its own place and id."""
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in DASHBOARD["panels"]})
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])


def test_the_scrape_configuration_holds_no_key():
    """It refers to a file with the key."""
    assert SCRAPE["authorization"] == {"type": "Bearer", "credentials_file": "/etc/prometheus/kanscope.key"}


def test_the_alerts_are_a_file_of_rules_for_any_prometheus(tmp_path):
    """The command of the page leaves what Prometheus reads of the operator's resource."""
    (command,) = re.findall(r"^(sed -n .*) >alerts.yaml$", READMES[PAGES / "how-to" / "monitoring.md"], re.M)
    file = tmp_path / "alerts.yaml"
    file.write_text(subprocess.check_output(command, shell=True, cwd=ROOT, text=True))
    assert yaml.safe_load(file.read_text()) == ALERTS
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "rules", file], check=True, stdout=subprocess.DEVNULL)


POD = 'namespace="ml", job="kanscope", instance="pod"'
OTHER = 'job="other", instance="pod"'


def counted(name, labels, fires, silent):
    """A metric of a pod with further labels, in a case in which an alert fires and in one in which it does not."""
    series = f"{name}{{{POD}{labels and ', '}{labels}}}"
    return {series: fires}, {series: silent}


def slow(bound):
    """A histogram of forecasts whose time is below a bound."""
    labels = f'{POD}, route="/v1/models/{{model}}:predict"'
    name = "kanscope_request_seconds_bucket"
    return {f'{name}{{{labels}, le="{le}"}}': "0+60x60" if le >= bound else "0x60" for le in (0.25, 1, float("inf"))}


def unconverged(values):
    """Explanations of a model, and those that did not converge."""
    labels = f'{POD}, model="gas"'
    return {
        f"kanscope_explanations_unconverged_total{{{labels}}}": values,
        f"kanscope_explanation_residual_count{{{labels}}}": "0+100x120",
    }


def refused(code):
    """Requests that end with the code of an error, or with none."""
    return {f'kanscope_requests_total{{{POD}, route="r", status="503", code="{code}"}}': "0+60x60"}


# By alert: series in which it fires and does not, when that is, labels that it has beside the pod's, and what it says.
CASES = {
    "KanscopeDown": (*counted("up", "", "1x30 0x30", "1x60"), "40m", {}, "pod does not answer /metrics"),
    "KanscopeAbsent": (
        {f"up{{{OTHER}}}": "1x60"},
        counted("up", "", "1x60", "0x60")[1],  # that is KanscopeDown
        "10m",
        {"namespace": None, "instance": None},
        "Prometheus knows no instance of the job kanscope",
    ),
    "KanscopeRestarts": (
        *counted("kanscope_worker_restarts_total", "", "0 0 1x10 2x10 3x10 4x60", "0 0 1x10 2x90"),
        "50m",
        {},
        "pod was started anew 4 times in an hour",
    ),
    "KanscopeModelsMissing": (
        *counted("kanscope_models_missing", "", "1x60", "1x3 0x57"),
        "20m",
        {},
        "the folder or file of the models is gone from pod, which cannot be started anew",
    ),
    "KanscopeBundledModel": (
        *counted("kanscope_bundled_model", "", "1x90", "0x90"),
        "80m",
        {},
        "pod serves the bundled model, a demonstration",
    ),
    "KanscopeNoModel": (
        *counted("kanscope_models", 'state="ready"', "0x60", "1x60"),
        "20m",
        {},
        "pod has no model that answers",
    ),
    "KanscopeModelFailed": (
        *counted("kanscope_models", 'state="failed"', "2x60", "0x60"),
        "20m",
        {"state": "failed"},
        "pod has 2 checkpoints that cannot be loaded",
    ),
    "KanscopeModelsOutdated": (
        *counted("kanscope_models_outdated", "", "1x60", "1x10 0x50"),
        "30m",
        {},
        "pod may not have the models of its folder or bucket by now, and serves those it has",
    ),
    "KanscopeErrors": (
        refused("internal_error"),
        refused("model_failed"),
        "20m",
        {},
        "pod fails: the log has a traceback for each request id",
    ),
    "KanscopeOverloaded": (
        refused("queue_full") | refused("deadline_exceeded"),
        refused("client_gone") | refused("model_failed"),
        "20m",
        {},
        "pod has no place or no time for 100% of its requests",
    ),
    "KanscopeSlowForecasts": (
        slow(1),
        slow(0.25),
        "30m",
        {},
        "one in a hundred forecasts of pod takes longer than 992.5ms",
    ),
    "KanscopeDrift": (
        *counted("kanscope_inputs_outside_range_total", 'model="gas", feature="temp"', "0+10x180", "0+1x180"),
        "150m",
        {"model": "gas", "feature": "temp"},
        "gas gets values of temp that it was not trained on",
    ),
    "KanscopeUnconverged": (
        unconverged("0+5x120"),
        unconverged("0x120"),
        "60m",
        {"model": "gas"},
        "5% of the explanations of gas miss their tolerance",
    ),
    "KanscopeRecordStalled": (
        *counted("kanscope_unwritten_seconds", "", "0x10 20 80 140x30", "0x10 20 0 1x30"),
        "12m",
        {},
        "pod has not written to the record for 1m 20s, and events wait",
    ),
    "KanscopeUnrecorded": (
        *counted("kanscope_unrecorded_events_total", 'reason="full"', "0x10 30x60", "30x60"),
        "20m",
        {"reason": "full"},
        "pod lost 30 events to the record (full)",
    ),
    "KanscopeUnwatched": (
        *counted("kanscope_unwatched_forecasts_total", 'reason="full"', "0x10 30x60", "30x60"),
        "20m",
        {"reason": "full"},
        "pod left 30 forecasts out of the hours of drift (full)",
    ),
}


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    """An alert that nobody has seen fire may be one that never does."""
    assert {rule["alert"] for rule in ALERTS["groups"][0]["rules"]} == CASES.keys()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt-get install promtool")
@pytest.mark.parametrize("alert", CASES)
def test_each_alert_fires_and_does_not(tmp_path, alert):
    """By promtool, with the labels by which it is routed, and what it says."""
    fires, silent, time, labels, summary = CASES[alert]
    (rule,) = (rule for rule in ALERTS["groups"][0]["rules"] if rule["alert"] == alert)
    labels = {"namespace": "ml", "job": "kanscope", "instance": "pod", **labels, **rule["labels"]}
    fired = {
        "exp_labels": {name: label for name, label in labels.items() if label is not None},
        "exp_annotations": {**rule["annotations"], "summary": summary},
    }
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": time, "alertname": alert, "exp_alerts": expected}],
        }
        for series, expected in ((fires, [fired]), (silent, []))
    ]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(ALERTS))
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_of_a_namespace_a_job_and_an_instance():
    """Each is a variable, by which each panel of the service's metrics selects; all where there is no such label."""
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert [*variables] == ["datasource", "namespace", "job", "instance"]
    assert all(variables[name]["allValue"] == ".*" for name in ("namespace", "job", "instance"))
    selected = 'namespace=~"$namespace", job=~"$job", instance=~"$instance"'
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            for selector in re.findall(r"(?:kanscope|process)_\w+({[^}]*}|)", target["expr"]):
                assert selected in selector, target["expr"]
