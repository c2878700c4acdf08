"""Profiles against those of the ledgers of each node alone, on networks as steep as trained ones get and steeper."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_model

from kanmodel.explain.importance.profiles import profile_nodes
from kanmodel.explain.paths.baseline import Baseline, baseline_window
from kanmodel.network.chain import Network


def steeper(shape, factor):
    """A model whose LSTM has weights several times as large."""
    model = make_model(shape, seed=3, lookback=3, n_features=3, n_reference=12)
    network = Network(model.config)
    state = model.network.state_dict()
    network.load_state_dict({name: v * factor if name.startswith("recurrent.") else v for name, v in state.items()})
    return replace(model, network=network)


def midpoint_shares(model, n_points=4000):
    """Shares of the features in each node, by the midpoint rule and one gradient for each node."""
    windows, lookback = model.reference.windows, model.config.lookback
    start = model.to_model_units(baseline_window(model, Baseline())[None])[0]
    totals = {}
    for window in windows:
        along = (torch.arange(n_points, dtype=torch.float64)[:, None, None] + 0.5) / n_points
        points = torch.lerp(start, window, along).requires_grad_()
        trace = model.network.trace(points)
        values = {("lstm", 0): trace.readout} if model.config.readout_stage == "lstm" else {}
        for number, layer in enumerate(trace.front):
            values["front", number + 1] = layer.nodes.view(n_points, lookback, -1).sum(dim=1)
        values |= {("head", number + 1): layer.nodes for number, layer in enumerate(trace.head)}
        for place, nodes in values.items():
            slopes = [torch.autograd.grad(node.sum(), points, retain_graph=True)[0] for node in nodes.unbind(1)]
            moved = [((slope.mean(dim=0) * (window - start)).sum(dim=0)).abs().numpy() for slope in slopes]
            totals[place] = totals.get(place, 0) + np.stack(moved)
    return {place: total / total.sum(axis=1, keepdims=True) for place, total in totals.items()}


@pytest.mark.parametrize(("shape", "factor"), [("lstm", 1), ("lstm", 6), ("front", 3), ("head", 1)])
def test_shares_are_within_their_errors(shape, factor):
    """Each share is within 3 stated errors of the one at 4,000 points, and no error is above half a percent."""
    model = steeper(shape, factor)
    found, exact = profile_nodes(model), midpoint_shares(model)
    assert found.shares.keys() == found.errors.keys() == exact.keys()
    for place, shares in exact.items():
        off = np.abs(found.shares[place] - shares).max(axis=1)
        assert (off <= 3 * found.errors[place] + 1e-4).all()
        assert (found.errors[place] <= 5e-3).all()
