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
from waiting import poll

from kanmodel.checkpoint import save_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples" / "monitoring"
README = Path(__file__).parents[3] / "service" / "telemetry" / "README.md"
OVERLAY = README.parents[1] / "engines" / "kubernetes" / "overlays" / "monitoring"
DASHBOARD = json.loads((OVERLAY / "dashboard.json").read_text())
ALERTS = yaml.safe_load((OVERLAY / "alerts.yaml").read_text())["spec"]
DRIFT = yaml.safe_load((EXAMPLES / "drift.yaml").read_text())["groups"][0]["rules"]
SCRAPE = yaml.safe_load((EXAMPLES / "prometheus.yaml").read_text())["scrape_configs"][0]
OF_PROMETHEUS = {"up"}  # added by Prometheus
OF_A_TARGET = {"instance", "job"}
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
    """The command of the README leaves what Prometheus reads of the operator's resource."""
    (command,) = re.findall(r"^(sed -n .*) >alerts.yaml$", README.read_text(), re.M)
    file = tmp_path / "alerts.yaml"
    file.write_text(subprocess.check_output(command, shell=True, cwd=README.parents[2], text=True))
    assert yaml.safe_load(file.read_text()) == ALERTS
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "rules", file], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt-get install promtool")
@pytest.mark.parametrize(
    ("status", "code", "alert"),
    [
        (503, "queue_full", "KanscopeOverloaded"),
        (503, "deadline_exceeded", "KanscopeOverloaded"),
        (200, "internal_error", "KanscopeErrors"),  # in a stream
        (503, "model_failed", None),
        (499, "client_gone", None),
    ],
)
def test_alerts_tell_one_503_from_another(tmp_path, status, code, alert):
    """Requests that have no place or no time are an overload; those for a model that failed, or that left, are not."""
    labels = f'instance="pod", route="/v1/models/{{model}}:predict", status="{status}", code="{code}"'
    series = [{"series": f"kanscope_requests_total{{{labels}}}", "values": "0+60x60"}]
    shown = {"{{ $labels.instance }}": "pod", "{{ $value | humanizePercentage }}": "100%"}
    tests = []
    for rule in ALERTS["groups"][0]["rules"]:
        if rule["alert"] in ("KanscopeOverloaded", "KanscopeErrors"):
            texts = {
                name: re.sub(r"{{.*?}}", lambda one: shown[one[0]], text) for name, text in rule["annotations"].items()
            }
            fired = {"exp_labels": {**rule["labels"], "instance": "pod"}, "exp_annotations": texts}
            expected = [fired] if rule["alert"] == alert else []
            tests.append({"eval_time": "50m", "alertname": rule["alert"], "exp_alerts": expected})
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(ALERTS))
    document = {"rule_files": ["alerts.yaml"], "tests": [{"interval": "1m", "input_series": series}]}
    document["tests"][0]["alert_rule_test"] = tests
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document))
    subprocess.run(["promtool", "test", "rules", tmp_path / "test.yaml"], check=True)
