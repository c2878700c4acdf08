"""`kanscope explain` of a reference window, and the faithfulness of its contributions."""

import json
import re

import numpy as np
import pytest
from factories import make_model

from kanmodel import Model
from kanmodel.attribution.ledger import explain_windows
from kanmodel.checkpoint import load_checkpoint
from kanmodel.report.faithfulness import Faithfulness, measure_faithfulness
from service.commands.explain import describe_losses, find_losses


def test_a_window_is_explained(run, saved):
    """Contributions are the ledger's, largest first; together with the baseline's forecast they sum to the forecast."""
    file = saved(make_model("lstm", targets=("y", "z")))
    model = load_checkpoint(file)
    document = json.loads(run("explain", file, "--window", "7", "--output-name", "z+1", "--json")[1])
    ledger = explain_windows(model, model.reference.scaled[7:8], 1, detail="features")
    assert list(document["contributions"].values()) == pytest.approx(ledger.contributions[0].tolist())
    total = document["baseline_prediction"] + sum(document["contributions"].values())
    assert total == pytest.approx(document["prediction"], abs=document["residual"] + 1e-9)
    assert document["trust"]["sentence"] == str(Model.of(model).trust()[7])
    assert document["target"] == model.reference.targets[7, 1] and document["time"] == model.reference.times[7]
    code, out, _ = run("explain", file)
    last = explain_windows(model, model.reference.scaled[-1:], 0, detail="features")
    assert code == 0 and f"{last.predictions[0]:+.4f}" in out and f"{last.baseline_prediction:+.4f}" in out
    assert out.splitlines()[-1] == str(Model.of(model).trust()[159])
    order = re.findall(r"│ (f\d) ", out)
    sizes = dict(zip(model.config.feature_names, np.abs(last.contributions[0]), strict=True))
    assert order == sorted(sizes, key=lambda name: -sizes[name])


def test_where_all_reference_windows_overlap_none_is_compared(run, saved):
    """The sentence is left out, and in JSON null."""
    file = saved(make_model("lstm", n_reference=3))
    assert "reference windows" not in run("explain", file)[1]
    assert json.loads(run("explain", file, "--json")[1])["trust"] is None


def test_effects_are_printed_with_contributions(run, saved):
    """With --effects each row has the change without the feature and the change by the feature alone."""
    file = saved(make_model("lstm"))
    model = Model.of(load_checkpoint(file))
    effects = model.explain(model.reference.windows[7], effects=True).effects
    document = json.loads(run("explain", file, "--window", "7", "--effects", "--json")[1])
    for number, effect in enumerate(document["effects"].values()):
        assert effect == pytest.approx({"removed": effects.removed[0, number], "alone": effects.alone[0, number]})
    _, out, _ = run("explain", file, "--window", "7", "--effects")
    assert all(f"{value:+.4f}" in out for value in (*effects.removed[0], *effects.alone[0]))
    assert "removed" not in run("explain", file, "--window", "7")[1]


def test_a_window_of_a_model_without_targets(run, saved):
    """Unknown times and targets are omitted."""
    code, out, _ = run("explain", saved(make_model("head", with_targets=False)))
    assert code == 0 and "window 159" in out and "actual value" not in out


def test_faithfulness_is_measured(run, saved):
    """The figures of every method are printed, and without an LSTM also those of pykan's score."""
    file = saved(make_model("head"))
    rows = measure_faithfulness(load_checkpoint(file), 0)
    document = json.loads(run("explain", file, "--faithfulness", "--json")[1])
    assert [row["method"] for row in document["faithfulness"]] == ["ledger", "gradient", "random", "pykan_score"]
    assert [row["deletion"] for row in document["faithfulness"]] == pytest.approx([row.deletion for row in rows])
    code, out, _ = run("explain", file, "--faithfulness")
    assert code == 0 and all(f"{row.insertion:.4g}" in out for row in rows) and "pykan_score" in out


def test_figures_where_the_ledger_is_worse_are_named():
    """A figure in which another method is better is named with both numbers; missing and equal figures are not."""
    rows = [
        Faithfulness("ledger", deletion=0.7, insertion=0.2, infidelity=0.1),
        Faithfulness("gradient", deletion=0.8, insertion=0.2, infidelity=0.3),
        Faithfulness("pykan_score", deletion=0.6, insertion=0.1, infidelity=None),
    ]
    losses = [(loss["measure"], loss["method"]) for loss in find_losses(rows)]
    assert losses == [("deletion", "gradient"), ("insertion", "pykan_score")]
    caption = describe_losses(rows)
    assert "loses to gradient in deletion: 0.7 against 0.8" in caption
    assert "loses to pykan_score in insertion: 0.2 against 0.1" in caption
    assert describe_losses(rows[:1]) == "The ledger is best in every column."
