from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from factories import PROVENANCE, SHAPES, make_model
from goldens import load_case
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel.attribution.baseline import Baseline, ReferenceBaselines
from kanmodel.attribution.ledger import explain_windows
from kanmodel.checkpoint import load_checkpoint
from kanmodel.forecaster import Forecaster, Reference
from kanmodel.network.config import ModelConfig, plain_layers
from kanmodel.network.network import Network
from kanmodel.report.faithfulness import compare_baselines, measure_faithfulness
from kanmodel.structure.importance import measure_importance
from kanmodel.tables.columns import Feature, Target
from service.models.repository import BUNDLED


@cache
def bundled():
    return load_checkpoint(BUNDLED / "nyc-weather.safetensors")


def by_method(model, seed=0, output=0):
    return {row.method: row for row in measure_faithfulness(model, output, seed)}


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.thorough("other samples")) for seed in (1, 2))]
)
def test_the_ledger_wins_on_the_bundled_model(seed):
    """On the bundled model the ledger beats random scores and the plain gradient in order and amount."""
    rows = by_method(bundled(), seed)
    ledger = rows["ledger"]
    for rival in ("random", "gradient"):
        assert ledger.deletion > rows[rival].deletion
        assert ledger.insertion < rows[rival].insertion
        assert ledger.infidelity < rows[rival].infidelity


@pytest.mark.parametrize("name", ["proxy20", "interp4"])
def test_the_ledger_wins_on_kans_of_pykan(name):
    """On KANs trained by pykan, the ledger's order beats that of pykan's feature scores."""
    rows = by_method(load_case(name).model)
    for rival in ("random", "gradient", "pykan_score"):
        assert rows["ledger"].deletion > rows[rival].deletion
        assert rows["ledger"].insertion < rows[rival].insertion


@pytest.mark.parametrize("shape", SHAPES)
def test_methods(shape):
    """pykan's score is included if it is one of features; a ranking alone has no infidelity."""
    rows = by_method(make_model(shape, n_features=3, lookback=3))
    expected = ["ledger", "gradient", "random"] + ["pykan_score"] * (shape == "head")
    assert list(rows) == expected
    assert {row.method for row in rows.values() if row.infidelity is None} <= {"pykan_score"}
    assert "pykan_score" not in by_method(make_model("head", n_reference=100))


@settings(max_examples=examples(15))
@given(st.integers(0, 1000), st.integers(2, 5))
def test_an_additive_model(seed, n_features):
    """In an additive model the ledger has infidelity 0."""
    rng = np.random.default_rng(seed)
    names = tuple(Feature(f"x{i}", None, 1.0, 2.0) for i in range(n_features))
    config = ModelConfig(names, (Target("y", None, 5.0, 3.0),), 1, 1, plain_layers([n_features, 1]), dtype="float64")
    network = Network(config, torch.Generator().manual_seed(seed))
    windows = torch.from_numpy(rng.uniform(-1, 1, size=(140, 1, n_features)))
    rows = by_method(Forecaster(network, Reference(windows, network.config), {}, PROVENANCE))
    assert rows["ledger"].infidelity < 1e-6
    assert rows["random"].infidelity > rows["ledger"].infidelity


@pytest.mark.parametrize("shape", ["lstm", "head"])
def test_curves_by_hand(shape):
    """Deletion and insertion are means, over windows and fractions, of the distance to the full forecast."""
    model = make_model(shape, n_features=3, lookback=3, n_reference=20)
    row = by_method(model)["ledger"]
    windows = model.scaling.features_to_original(model.reference.scaled)
    order = np.argsort(
        -np.abs(explain_windows(model, model.reference.scaled, 0, detail="features").contributions), axis=1
    )

    def distance(gone):
        changed = windows.copy()
        for window, features in enumerate(gone):
            changed[window][:, features] = model.reference.mean[features]
        return np.abs(model.predict(changed)[:, 0] - model.predict(windows)[:, 0]).mean() / model.output_std[0]

    assert row.deletion == pytest.approx(np.mean([distance(order[:, :k]) for k in (1, 2)]))
    assert row.insertion == pytest.approx(np.mean([distance(order[:, k:]) for k in (1, 2)]))


def test_units_do_not_matter():
    """Errors are in standard deviations of the output, so they do not depend on the target's unit."""
    model = make_model("head", n_features=3)
    target = replace(model.config.targets[0], std=100.0)
    network = Network(replace(model.config, targets=(target,)))
    network.load_state_dict(model.network.state_dict())
    scaled = by_method(replace(model, network=network))
    for method, row in by_method(model).items():
        assert scaled[method].deletion == pytest.approx(row.deletion)
        assert scaled[method].infidelity == pytest.approx(row.infidelity)


def test_each_pair_of_baselines_is_compared_by_its_own_ledgers():
    """The largest difference of shares and its feature are those of the ledgers of both baselines."""
    model = make_model("lstm", n_reference=40)
    windows = model.reference.scaled
    shares = {}
    for kind, ledger in {
        "mean": explain_windows(model, windows, 0),
        "zero": explain_windows(model, windows, 0, Baseline("zero"), detail="features"),
        "reference": explain_windows(model, windows, 0, ReferenceBaselines(16), detail="features"),
    }.items():
        sizes = np.abs(ledger.contributions).mean(axis=0)
        shares[kind] = sizes / sizes.sum()
    agreements = compare_baselines(model, measure_importance(model, 0))
    assert [agreement.baselines for agreement in agreements] == [
        ("mean", "zero"),
        ("mean", "reference"),
        ("zero", "reference"),
    ]
    for agreement in agreements:
        a, b = agreement.baselines
        difference = np.abs(shares[a] - shares[b])
        assert agreement.share_difference == pytest.approx(difference.max())
        assert agreement.feature == model.config.feature_names[difference.argmax()]
        order = [np.argsort(np.argsort(shares[kind])) for kind in agreement.baselines]
        assert agreement.rank_correlation == pytest.approx(np.corrcoef(order)[0, 1])


def test_all_reference_windows_are_baselines_where_there_are_few():
    """A checkpoint with three reference windows is compared as well."""
    model = make_model("head", n_reference=3)
    assert len(compare_baselines(model, measure_importance(model, 0))) == 3
