"""Profiles against ledgers of each single node, on networks with gradients as steep as in training and steeper."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_chain, make_model

from kanmodel.data import Feature, Target
from kanmodel.explain.baseline import Baseline, baseline_windows
from kanmodel.explain.profiles import MAX_WINDOWS, MIN_WINDOWS, count_windows, profile_nodes
from kanmodel.network.chain import Network
from kanmodel.network.config import ModelConfig, RecurrentConfig, plain_layers


def steeper(shape, factor):
    """A model whose LSTM weights are several times as large."""
    model = make_model(shape, seed=3, lookback=3, n_features=3, n_reference=6)
    network = Network(model.config)
    state = model.network.state_dict()
    network.load_state_dict({name: v * factor if name.startswith("recurrent.") else v for name, v in state.items()})
    return replace(model, network=network)


def midpoint_shares(model, n_points=4000):
    """Shares of the features in each node, by the midpoint rule with one gradient per node."""
    windows, lookback = model.reference.windows, model.config.lookback
    start = model.to_model_units(baseline_windows(model, Baseline()))[0]
    totals = {}
    for window in windows:
        along = (torch.arange(n_points, dtype=torch.float64)[:, None, None] + 0.5) / n_points
        points = torch.lerp(start, window, along).requires_grad_()
        trace = model.network.trace(points)
        stage = model.config.readout_stage
        values = {} if stage is None else {(stage, 0): trace.readout}
        for number, layer in enumerate(trace.front):
            values["front", number + 1] = layer.nodes.view(n_points, lookback, -1).sum(dim=1)
        values |= {("head", number + 1): layer.nodes for number, layer in enumerate(trace.head)}
        for place, nodes in values.items():
            slopes = [torch.autograd.grad(node.sum(), points, retain_graph=True)[0] for node in nodes.unbind(1)]
            moved = [((slope.mean(dim=0) * (window - start)).sum(dim=0)).abs().numpy() for slope in slopes]
            totals[place] = totals.get(place, 0) + np.stack(moved)
    return {place: total / total.sum(axis=1, keepdims=True) for place, total in totals.items()}


STEEP = pytest.mark.thorough("4,000 points of a front, which take 3 s")


@pytest.mark.parametrize(
    ("shape", "factor"), [("lstm", 1), ("lstm", 6), pytest.param("front", 3, marks=STEEP), ("head", 1)]
)
def test_shares_are_within_their_errors(shape, factor):
    """Each share is within 3 stated errors of that with 4,000 points, and no error exceeds one percent."""
    model = steeper(shape, factor)
    found, exact = profile_nodes(model), midpoint_shares(model)
    assert found.shares.keys() == found.errors.keys() == exact.keys()
    for place, shares in exact.items():
        off = np.abs(found.shares[place] - shares).max(axis=1)
        assert (off <= 3 * found.errors[place] + 1e-4).all()
        assert (found.errors[place] <= 1e-2).all()


def test_a_large_model_is_profiled_on_fewer_windows():
    """Models of usual size are profiled on 128 reference windows, larger ones on at least 16."""
    config = make_model("lstm").config
    features = tuple(Feature(f"x{number}") for number in range(64))
    counts = [
        count_windows(
            replace(
                config,
                features=features,
                lookback=168,
                recurrent=RecurrentConfig("lstm", units),
                head=plain_layers([units, len(config.outputs)]),
            )
        )
        for units in (64, 256, 512, 2048)
    ]
    assert count_windows(config) == counts[0] == MAX_WINDOWS
    assert counts == sorted(counts, reverse=True)
    assert MAX_WINDOWS > counts[1] > counts[2] > counts[3] == MIN_WINDOWS


@pytest.mark.thorough("profiles of many units")
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("readout", ["last", "mean", "flatten"])
def test_more_units_than_features(cell, readout):
    """With fewer features than units, shares still equal those of one gradient per node."""
    n_readout = 5 * 3 if readout == "flatten" else 5
    features, recurrent = (Feature("x0"), Feature("x1")), RecurrentConfig(cell, 5)
    head = plain_layers([n_readout, 2, 1])
    config = ModelConfig(features, (Target("y"),), 3, 1, head, recurrent, readout=readout, dtype="float64")
    model = make_chain(config, seed=3, n_reference=8)
    found, exact = profile_nodes(model), midpoint_shares(model, 1000)
    for place, shares in exact.items():
        np.testing.assert_allclose(found.shares[place], shares, atol=3 * found.errors[place].max() + 1e-4)
