"""What has changed between two models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import SHAPES, make_chain, make_model

from kanmodel import DataError, Model, load
from kanmodel.tables.statistics.bootstrap import Bootstrap

LOADED = make_model(targets=("a", "b"))
MODEL, OTHER = Model.of(LOADED), Model.of(make_chain(LOADED.config, seed=7))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_does_not_differ_from_itself(shape):
    """Every difference is exactly 0, and no edge comes or goes."""
    model = Model.of(make_model(shape))
    found = model.compare(model)
    assert found.difference == 0 and found.mae == found.against_mae
    assert all((one.change, one.interval) == (0, (0, 0)) for one in found.features)
    assert all((edge.change, edge.curve_difference) in ((0, 0), (0, None)) for edge in found.edges)
    assert found.came == found.went == ()


def test_the_shares_are_those_of_both_models_on_the_windows_of_the_first():
    """This model's are its importance; the other's come from its ledger of the same windows and baseline."""
    found = MODEL.compare(OTHER)
    own = {feature.name: feature.share for feature in MODEL.importance().features}
    mean = np.broadcast_to(LOADED.reference.mean, LOADED.config.window_shape)
    theirs = np.abs(OTHER.explain(MODEL.reference.windows, baseline={"instance": mean}).contributions).mean(axis=0)
    for feature in found.features:
        assert feature.share == pytest.approx(own[feature.name])
        number = LOADED.config.feature_names.index(feature.name)
        assert feature.against_share == pytest.approx(theirs[number] / theirs.sum())
        assert feature.change == feature.share - feature.against_share
        assert feature.interval[0] <= feature.change <= feature.interval[1]
    assert [abs(feature.change) for feature in found.features] == sorted(
        (abs(feature.change) for feature in found.features), reverse=True
    )
    apart = MODEL.predict(MODEL.reference.windows)[:, 0] - OTHER.predict(MODEL.reference.windows)[:, 0]
    assert found.difference == pytest.approx(np.sqrt((apart**2).mean()))


def test_a_shifted_edge_alone_differs_in_its_curve():
    """A constant added to one function is the largest difference of that curve, and of no other's in its layer."""
    network = make_chain(LOADED.config, seed=7).network
    network.load_state_dict(LOADED.network.state_dict())
    layer = network.stages["head"][0]
    with torch.no_grad():
        layer.coef[1, 0] += 0.25  # of B-splines, which sum to 1 on the grid
    changed = Model.of(replace(LOADED, network=network))
    place = ("head", 0, 0, 1)
    for edge in changed.compare(MODEL).edges:
        if (edge.stage, edge.layer) == ("head", 0):
            assert edge.curve_difference is not None
            assert (edge.curve_difference > 0) == ((edge.stage, edge.layer, edge.i, edge.j) == place)


@pytest.mark.thorough("prunes and compares")
@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_pruned_copy_edges_have_only_gone(shape, tmp_path):
    """Edges keep their ids through prune, save and load: none came, and what went is masked in the copy."""
    model = Model.of(make_model(shape, 3, product=True, n_features=3, lookback=3, n_reference=128))
    model.prune(fidelity=0.8).save(tmp_path / "small.safetensors")
    small = load(tmp_path / "small.safetensors")
    found, back = small.compare(model, fidelity=1.0), model.compare(small, fidelity=1.0)
    masked = {
        (stage, layer, i, j)
        for (stage, layer), of_layer in small.network.layers.items()
        for j, i in (~of_layer.live).nonzero().tolist()
    }
    assert found.went and not found.came and len(found.edges) == len(model.topology().kan_edges)
    assert {(edge.stage, edge.layer, edge.i, edge.j) for edge in found.went} <= masked
    assert [edge.target for edge in back.came] == [edge.target for edge in found.went] and not back.went


def test_edges_that_one_network_lacks_are_told_by_none():
    """Of a network with more hidden nodes, the edges that the other lacks have no figures there."""
    wide = Model.of(make_model("lstm", n_hidden=LOADED.config.head[0].n_sum + 2, targets=("a", "b")))
    found = MODEL.compare(wide)
    lacking = [edge for edge in found.edges if edge.kept is None]
    assert lacking
    for edge in lacking:
        assert edge.contribution is edge.change is edge.interval is edge.curve_difference is None
    assert found.markdown().count("\n## ") == 0 and "| source |" in found.markdown()


def test_units_of_every_step_are_compared():
    """Where the head reads the units of an LSTM at all steps, their inputs have no unit of a feature."""
    model = Model.of(make_model("lstm", readout="flatten", hidden_size=2, lookback=2, n_features=3))
    found = model.compare(model)
    assert found.edges[0].source == "cell:-1:0"
    assert {edge.curve_difference for edge in found.edges} == {0}


def test_models_that_read_other_features_are_refused():
    """As for two forecasts."""
    with pytest.raises(DataError, match="same features"):
        MODEL.compare(Model.of(make_model(n_features=3, targets=("a", "b"))))


def test_a_paired_difference_is_narrower_than_both():
    """Two series that move together differ by little, however much each moves; with itself the interval is a point."""
    rng = np.random.default_rng(0)
    sizes = rng.uniform(0.5, 1.5, (200, 4))
    others = sizes * (1 + 0.01 * rng.normal(size=sizes.shape))
    bootstrap = Bootstrap(200)
    change, share = bootstrap.share_difference(sizes, others), bootstrap.share(sizes)
    assert change.value == pytest.approx(share.value - bootstrap.share(others).value)
    assert (change.high - change.low < 0.3 * (share.high - share.low)).all()
    same = bootstrap.share_difference(sizes, sizes)
    assert not same.value.any() and not same.low.any() and not same.high.any()
