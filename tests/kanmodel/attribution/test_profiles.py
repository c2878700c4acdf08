"""Profiles and their lags against ledgers of each single node, on networks as steep as trained ones and steeper."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import SHAPES, make_chain, make_model
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from wired import EVERY, read

from kanmodel.attribution import profiles
from kanmodel.attribution.baseline import Baseline, baseline_windows
from kanmodel.attribution.ledger import explain_windows
from kanmodel.attribution.profiles import MAX_WINDOWS, MIN_WINDOWS, count_windows, find_lags, profile_nodes
from kanmodel.network.config import ModelConfig, RecurrentConfig, plain_layers
from kanmodel.network.network import Network
from kanmodel.tables.columns import Feature, Target


def steeper(shape, factor):
    """A model whose LSTM weights are several times as large."""
    model = make_model(shape, seed=3, lookback=3, n_features=3, n_reference=6)
    network = Network(model.config)
    state = model.network.state_dict()
    network.load_state_dict({name: v * factor if name.startswith("recurrent.") else v for name, v in state.items()})
    return replace(model, network=network)


def midpoint_shares(model, n_points=4000):
    """Shares of the features in each node, by the midpoint rule with one gradient per node."""
    windows, lookback = model.reference.scaled, model.config.lookback
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
    ("shape", "factor"),
    [pytest.param("lstm", 1, marks=STEEP), ("lstm", 6), pytest.param("front", 3, marks=STEEP), ("head", 1)],
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


@pytest.mark.parametrize("shape", SHAPES)
def test_lags_sum_to_shares(shape):
    """The shares of a feature at all lags sum to its share; a window of one step has no lags, nor has a front."""
    found = profile_nodes(make_model(shape, seed=1, lookback=6, n_features=3, n_reference=8))
    expected = [] if shape == "head" else [place for place in found.shares if place[0] != "front"]
    assert list(found.lags) == expected
    for place, lags in found.lags.items():
        assert lags.dtype == np.float32 and (lags >= 0).all()
        np.testing.assert_allclose(lags.sum(axis=2), found.shares[place], atol=1e-6)


def test_lags_of_the_output_are_the_steps_of_its_ledger():
    """A feature's lags are in proportion to the mean magnitude of its contribution at each step, newest step first."""
    model = make_model("lstm", seed=2, lookback=5, n_features=3, n_reference=12)
    steps = np.abs(explain_windows(model, model.reference.scaled, 0, detail="steps").steps).mean(axis=0).T[:, ::-1]
    lags = profile_nodes(model).lags["head", len(model.config.head)][0]
    by_feature = lags / lags.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(by_feature, steps / steps.sum(axis=1, keepdims=True), atol=3e-3)


def test_bisected_paths_are_divided_by_lag_as_a_whole(monkeypatch):
    """Of an LSTM whose paths are bisected too, a unit's contributions are added over the parts before magnitudes."""
    model, place = steeper("lstm", 6), ("lstm", 0)
    start = model.to_model_units(baseline_windows(model, Baseline()))[0]
    along = (torch.arange(4000, dtype=torch.float64)[:, None, None] + 0.5) / 4000
    expected = np.zeros((model.config.n_readout, 3, 3))
    for window in model.reference.scaled:
        points = torch.lerp(start, window, along).requires_grad_()
        for unit, values in enumerate(model.network.trace(points).readout.unbind(1)):
            (slope,) = torch.autograd.grad(values.sum(), points, retain_graph=True)
            expected[unit] += (slope.mean(dim=0) * (window - start)).abs().T.numpy()[:, ::-1]
    integrated = []
    original = profiles._integrate_cells
    monkeypatch.setattr(profiles, "MAX_CELLS", 3 * expected.size)  # a few parts at a time
    monkeypatch.setattr(
        profiles, "_integrate_cells", lambda m, ends, *rest: integrated.append(ends) or original(m, ends, *rest)
    )
    lags = profile_nodes(model).lags[place]
    assert len(integrated) > 1 and sum(len(ends.ends) for ends in integrated) > len(model.reference.scaled)
    expected /= expected.sum(axis=2, keepdims=True)
    np.testing.assert_allclose(lags / lags.sum(axis=2, keepdims=True), expected, atol=2e-2)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_units_without_memory_read_lag_0_alone(cell):
    """Without weights from one state to the next and with a forget gate that is shut, only the newest step counts."""
    head, features = plain_layers([5, 2, 1]), (Feature("x0"), Feature("x1"))
    config = ModelConfig(features, (Target("y"),), 6, 1, head, RecurrentConfig(cell, 5), dtype="float64")
    model = make_chain(config, seed=3, n_reference=20)
    with torch.no_grad():
        recurrent = model.network.recurrent
        recurrent.weight_hh_l0.zero_()
        shut = slice(5, 10)  # the forget gate of an LSTM; the update gate of a GRU, which keeps the state where it is 1
        recurrent.weight_ih_l0[shut] = 0
        recurrent.bias_ih_l0[shut] = -1e4
    found = profile_nodes(replace(model))
    for place, lags in found.lags.items():
        np.testing.assert_array_equal(lags[..., 1:], 0)
        np.testing.assert_allclose(lags[..., 0], found.shares[place], atol=1e-6)
        assert {(of.newest, of.oldest) for of in find_lags(lags[0])} == {(0, 0)}


@pytest.mark.parametrize("lag", [0, 2, 5])
def test_a_head_on_the_flattened_window_reads_the_step_that_it_has_an_edge_from(lag):
    """With edges from one feature at one step alone, all nodes read that feature at that lag and nothing else."""
    model = make_model("flat", lookback=6, n_features=3, n_reference=12)
    n_inputs = model.config.head[0].n_in
    with torch.no_grad():
        model.network.head[0].mask[:] = 0
        model.network.head[0].mask[:, n_inputs - 3 * (lag + 1) + 1] = 1  # oldest step first, the second feature
    found = profile_nodes(replace(model))
    expected = np.zeros((3, 6))
    expected[1, lag] = 1
    for place in (("head", 1), ("head", 2)):
        np.testing.assert_array_equal(found.lags[place], np.broadcast_to(expected, found.lags[place].shape))
    for index, of_cell in enumerate(found.lags["cell", 0]):
        assert of_cell[index % 3, 5 - index // 3] == pytest.approx(1) == of_cell.sum()


def test_other_windows_follow_where_the_first_do_not_move_a_node(monkeypatch):
    """A unit that a feature moves in one window alone has lags of it, however few windows are divided by lag."""
    model = make_model("lstm", seed=1, lookback=4, n_features=2, n_reference=16)
    windows = model.reference.scaled.clone()
    windows[:, :, 1] = windows[0, :, 1]
    windows[7, :, 1] += 5
    model = replace(model, reference=replace(model.reference, scaled=windows))
    monkeypatch.setattr(profiles, "MAX_LAG_WINDOWS", 2)
    monkeypatch.setattr(profiles, "scaled_baselines", lambda model: windows[:1])
    found = profile_nodes(model)
    assert (found.shares["lstm", 0][:, 1] > 0).all()
    np.testing.assert_allclose(found.lags["lstm", 0].sum(axis=2), found.shares["lstm", 0], atol=1e-6)


@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 12)), elements=st.floats(0, 1, width=32)))
def test_a_run_is_the_shortest_that_holds_most(shares):
    """No shorter run holds 80 % of a feature's share, no run of its length more, and none before it as much."""
    for of, lags in zip(shares.astype(float), find_lags(shares), strict=True):
        held = [(sum(of[a : b + 1]), a, b) for a in range(len(of)) for b in range(a, len(of))]
        enough = [run for run in held if run[0] >= (0.8 - 1e-6) * of.sum() - 1e-12]
        least = min(b - a for _, a, b in enough)
        best = max(run[0] for run in held if run[2] - run[1] == least)
        assert lags.oldest - lags.newest == least
        assert of[lags.newest : lags.oldest + 1].sum() == pytest.approx(best, rel=1e-9)
        assert str(lags) == (f"lag {lags.newest}" if least == 0 else f"lags {lags.newest} to {lags.oldest}")


def test_a_large_model_has_no_lags(monkeypatch):
    """Beyond a number of nodes x features x steps there are shares alone."""
    model = make_model("lstm", lookback=4, n_features=2, n_reference=8)
    cells = 4 * sum(shares.size for shares in profile_nodes(model).shares.values())
    monkeypatch.setattr(profiles, "MAX_CELLS", cells)
    assert profile_nodes(model).lags
    monkeypatch.setattr(profiles, "MAX_CELLS", cells - 1)
    assert not profile_nodes(model).lags


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


@EVERY
def test_forward_mode_of_a_graph_has_the_slopes_of_backward_passes(name):
    """Whichever takes fewer passes: one for each feature, or one for each node."""
    model = read(name)
    network = model.frozen_float64
    points = model.reference.scaled[:7].double()
    change = torch.from_numpy(np.random.default_rng(0).standard_normal(points.shape))
    traced = points.clone().requires_grad_()
    nodes = profiles.node_values(model.config, network.trace(traced))
    slopes = profiles._push_forward(network, [*nodes], points, change)
    for number, node in enumerate(torch.cat([*nodes.values()], dim=1).unbind(1)):
        (gradient,) = torch.autograd.grad(node.sum(), traced, retain_graph=True)
        torch.testing.assert_close(slopes[:, number], (gradient * change).sum(dim=1), rtol=1e-7, atol=1e-9)


def test_graphs_are_profiled_in_several_threads_at_once():
    """Forward mode of torch has one level in a process; each thread has what it has alone."""
    models = [read("SkipAroundHead"), read("RevIN")]
    alone = [profiles.profile_nodes(model) for model in models]
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(profiles.profile_nodes, 4 * models)]
    for number, each in enumerate(found):
        for place, shares in alone[number % 2].shares.items():
            np.testing.assert_array_equal(each.shares[place], shares)
