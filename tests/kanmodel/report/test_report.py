import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from factories import SHAPES, disconnect, make_encoded, make_model, with_intervals
from figures import unfounded

import kanmodel
from kanmodel import Model
from kanmodel.checkpoint import load_checkpoint
from kanmodel.forecaster import Reference
from kanmodel.report.report import Report, write_report
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule
from kanmodel.structure.topology import build_topology
from kanmodel.tables.roles import Columns
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.tables.windows import read_windows
from service.models.repository import BUNDLED

IDS = ["skill", "forecast", "accuracy", "drivers", "response", "limits"]
IDS += ["sparsity", "features", "independence", "opacity", "depth", "shapes", "trust"]


def report_of(model, output=0, importance=None):
    importance = importance or measure_importance(model, output)
    return write_report(model, importance, build_topology(model, importance, PruningRule())).findings


def by_id(findings):
    return {finding.id: finding for finding in findings}


@cache
def tiny(shape, n_reference=160, with_targets=True):
    size = {"n_features": 3, "lookback": 3, "hidden_size": 4, "n_hidden": 2}
    model = make_model(shape, n_reference=n_reference, with_targets=with_targets, **size)
    return model, report_of(model)


def check_numbers(findings):
    """Checks that every number outside names is in the finding's evidence, which is JSON."""
    for finding in findings:
        evidence = json.loads(json.dumps(finding.evidence, allow_nan=False))
        for text in (finding.answer, finding.brief, " ".join(map(" ".join, finding.headlines))):
            assert unfounded(text, evidence) == [], text


def check_form(findings):
    """Checks that the findings are in order and are whole sentences."""
    assert [finding.id for finding in findings] == IDS
    for finding in findings:
        assert finding.question.endswith("?")
        assert finding.answer.endswith(".")
        assert not re.search(r"\bnan\b|\binf\b|None|\{|\}", finding.answer), finding.answer


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n_reference", "with_targets"), [(160, True), (100, False), (1, True), (2, True), (20, True)])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_number_is_in_the_evidence(shape, n_reference, with_targets):
    """This holds for all shapes, few windows or one, and without targets."""
    _, findings = tiny(shape, n_reference, with_targets)
    check_form(findings)
    check_numbers(findings)


@pytest.mark.parametrize(("kind", "n_reference", "with_targets"), [("nodes", 1, True), ("constant", 20, False)])
def test_intervals_are_a_question_of_their_own(kind, n_reference, with_targets):
    """After that of errors, on few windows and without targets too, and its pictures are drawn."""
    model, _ = tiny("lstm", n_reference, with_targets)
    report = Model.of(with_intervals(model, kind)).report()
    check_numbers(report.findings)
    assert [finding.id for finding in report.findings] == [*IDS[:3], "intervals", *IDS[3:]]
    assert "interval" in report["intervals"].html() and "<svg" in report["intervals"].html()
    assert "how sure?" in report.html()


def test_a_number_from_nowhere_is_noticed():
    """The check fails if a number is not in the evidence or is rounded wrongly."""
    _, findings = tiny("head")
    sparsity = by_id(findings)["sparsity"]
    for answer in (f"{sparsity.answer} 12345 edges.", re.sub(r"R2 of [\d.]+", "R2 of 0.123", sparsity.answer)):
        assert answer != sparsity.answer
        with pytest.raises(AssertionError):
            check_numbers([replace(sparsity, answer=answer)])


@pytest.mark.thorough("explains a large model, whose report the example of the README shows too")
def test_the_bundled_model():
    """The bundled model's report agrees with its table."""
    model = load_checkpoint(BUNDLED / "nyc-weather.safetensors")
    importance = measure_importance(model, 0)
    findings = report_of(model, importance=importance)
    check_form(findings)
    check_numbers(findings)
    found = by_id(findings)
    shares = {row.name: row.share for row in importance.features}
    assert found["features"].evidence["shares"] == pytest.approx(shares)
    first, share = next(iter(found["features"].evidence["shown"].items()))
    assert (
        first in {one.label for one in model.inputs} and f"`{first}` ({100 * share:.1f} %)" in found["features"].answer
    )
    assert "`pressure_hpa` and `pressure_lga_hpa`" in found["independence"].answer
    assert 0 < found["opacity"].evidence["rank_correlation"] <= 1
    methods = {row["method"]: row for row in found["trust"].evidence["faithfulness"]}
    assert methods["ledger"]["deletion"] > methods["random"]["deletion"]
    assert found["trust"].evidence["converged_percent"] == 100


def test_shares_are_those_of_one_training():
    """Two trainings on the same data give different shares, and each report says that it describes its own model."""
    generator = np.random.default_rng(0)
    frame = {name: generator.normal(size=300) for name in ("a", "b", "c")}
    frame["y"] = frame["a"] + 0.5 * np.roll(frame["b"], 1)
    reports = []
    for seed in (0, 1):
        model = kanmodel.train(
            frame, target="y", lookback=2, hidden=2, epochs=1, seed=seed, linear=False, progress=False
        )
        reports.append(by_id(model.report().findings))
    shares = [report["features"].evidence["shares"] for report in reports]
    assert shares[0] != pytest.approx(shares[1], abs=0.01)
    for report in reports:
        assert "another training on the same data may give other shares and verdicts" in report["trust"].answer


@pytest.mark.parametrize("shape", SHAPES)
def test_few_windows_have_no_scores(shape):
    """With fewer than 128 reference windows the report says that there are no scores, and has everything else."""
    _, findings = tiny(shape, 100, False)
    found = by_id(findings)
    assert "too few reference windows for scores" in found["opacity"].answer
    assert "rank_correlation" not in found["opacity"].evidence
    assert found["trust"].evidence["disagreements"] == ()
    assert found["trust"].evidence["windows"] == 100
    assert "100 reference windows" in found["trust"].answer
    _, enough = tiny(shape)
    assert "too few" not in by_id(enough)["opacity"].answer
    assert by_id(enough)["opacity"].evidence["rank_correlation"] > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_unknown_targets_are_described(shape):
    """Without targets the report does not mention the error; with targets it does."""
    _, without = tiny(shape, 100, False)
    assert "error" not in by_id(without)["sparsity"].answer
    assert (by_id(without)["sparsity"].evidence["mae"], by_id(without)["sparsity"].evidence["mae_full"]) == (None, None)
    _, findings = tiny(shape)
    assert "mean absolute error goes from" in by_id(findings)["sparsity"].answer


@pytest.mark.parametrize("shape", SHAPES)
def test_a_disconnected_feature_is_named(shape):
    """A feature without a path to the output is named, with a contribution of exactly 0."""
    model = make_model(shape, n_features=3, lookback=3)
    disconnect(model.network, 1)
    findings = report_of(replace(model, reference=model.reference))
    check_numbers(findings)
    features = by_id(findings)["features"]
    assert features.evidence["disconnected"] == ("f1",)
    assert features.evidence["verdicts"]["disconnected"] == 1
    assert "No path leads from `f1` to the output" in features.answer


def test_correlation_and_interaction_are_kept_apart():
    """Two identical features in an additive model are redundant and do not interact."""
    model = make_model("head", n_features=2, n_hidden=1, base_activation="identity")
    with torch.no_grad():
        for layer in model.network.head:
            layer.mask[:] = 1
            layer.scale_spline[:] = 0
    windows = model.reference.scaled.clone()
    windows[:, :, 1] = windows[:, :, 0]
    findings = report_of(replace(model, reference=Reference(windows, model.config)))
    check_numbers(findings)
    independence = by_id(findings)["independence"]
    assert independence.evidence["n_correlated"] == 1
    assert independence.evidence["correlated"][0]["features"] == ("f0", "f1")
    assert independence.evidence["interactions"][0]["strength"] < 1e-9


def test_levels_of_one_column_are_no_redundant_pair():
    """One of two always holds, so that their correlation is -1, which says nothing about two inputs."""
    at = np.arange(60)
    columns = {"load": np.sin(at), "tariff": np.where(at % 3 == 0, "high", "low"), "is_high": at % 3 == 0}
    model = make_encoded(frame := pl.DataFrame(columns), Columns(("load",), ahead=1))
    windows, *_ = read_windows(model.config.table, frame)
    reference = Reference(model.scaling.features_to_model(windows), model.config)
    evidence = by_id(report_of(replace(model, reference=reference)))["independence"].evidence
    found = {frozenset(pair["features"]): pair["correlation"] for pair in evidence["correlated"]}
    levels = ("tariff=high", "tariff=low")
    assert found == {
        frozenset({"is_high", level}): pytest.approx(sign) for level, sign in zip(levels, (1, -1), strict=True)
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_counts_are_those_of_the_graph(shape):
    """Counts of masked, kept and linear edges are those of the topology."""
    model, findings = tiny(shape)
    topology = build_topology(model, measure_importance(model, 0), PruningRule())
    found = by_id(findings)
    masked = sum(int((layer.mask == 0).sum()) for layers in model.network.stages.values() for layer in layers)
    kept = sum(edge.kept for edge in topology.kan_edges)
    assert (found["sparsity"].evidence["masked"], found["sparsity"].evidence["kept"]) == (masked, kept)
    assert found["sparsity"].evidence["r2"] == topology.fidelity.r2
    assert found["sparsity"].answer.startswith("Yes" if masked else "No")
    assert sum(found["shapes"].evidence["shapes"].values()) == found["shapes"].evidence["kept"] == kept
    outside = {f"{edge.source} -> {edge.target}" for edge in topology.kan_edges if edge.outside_grid > 0.05}
    assert set(found["trust"].evidence["outside_grid"]) == outside
    assert found["trust"].evidence["n_outside"] == len(outside)


def test_nothing_is_claimed_of_a_forecast_that_never_changes():
    """A model with a constant forecast has a report too."""
    model = make_model("head", n_features=2)
    with torch.no_grad():
        model.network.head[1].mask[:] = 0
    findings = report_of(replace(model, reference=model.reference))
    check_form(findings)
    check_numbers(findings)
    assert by_id(findings)["sparsity"].evidence["kept"] == 0


def test_markdown():
    """Each question is a heading and each answer a paragraph, in order."""
    model, findings = tiny("lstm")
    text = Report("y+1", "K", findings, reference=model.reference.span, origin="m").markdown()
    assert text.startswith(
        "# How the model forecasts `y+1`\n\nm, unit K.\n\n## Does the model know more than simple forecasts?\n\n"
    )
    places = [text.index(f"## {finding.question}\n\n{finding.answer}") for finding in findings]
    assert places == sorted(places)
    assert np.diff([*places, len(text)]).min() > 0
    assert text.endswith("\n") and not text.endswith("\n\n")


def test_the_report_lists_features_that_act_together():
    """Pairs are sorted by the mean of |removed - alone| over the reference windows, as the answer says."""
    model, findings = tiny("lstm")
    independence = by_id(findings)["independence"]
    rows = independence.evidence["acting_together"]
    effects = Model.of(model).explain(Model.of(model).reference.windows, effects=True).effects
    chosen = choose_evenly(len(effects.removed), 128)
    for name in ("removed", "alone", "together"):
        means = np.abs(getattr(effects, name)[chosen]).mean(axis=0)
        found = {row["feature"]: row[f"mean_abs_{name}"] for row in rows}
        assert [found[f"f{f}"] for f in range(3)] == pytest.approx(means.tolist())
    by_together = [row["mean_abs_together"] for row in rows]
    assert by_together == sorted(by_together, reverse=True)
    assert f"for `{rows[0]['feature']}` (" in independence.answer
    assert "`removed` says what the forecast loses without a feature" in independence.answer
