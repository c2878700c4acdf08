"""Intervals: bounds that do not cross, and networks of them that every explanation takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_model, make_windows, with_intervals
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.computing import SingleFlightCache
from kanmodel.errors import CheckpointError, ConfigError, DataError, UnknownNameError
from kanmodel.forecaster import Forecaster
from kanmodel.model import Model
from kanmodel.network.intervals import Kind, forecasts_of, quantile_levels

QUANTILES = ("y", "y@0.1", "y@0.9", "y@0.025", "y@0.975")
KINDS = ("nodes", "constant", "quantiles")


def make(kind: Kind, shape: str = "lstm", horizon: int = 2, **options: object) -> Forecaster:
    """A model of which the intervals are of one kind."""
    targets = QUANTILES if kind == "quantiles" else ("y", "z")
    return with_intervals(make_model(shape, targets=targets, horizon=horizon, **options), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_of_bounds_computes_the_bounds_and_the_forecast(kind):
    """Of each forecast: its network's outputs are what `predict_bounds` says, and their differences the widths."""
    model = make(kind)
    windows = make_windows(model, 20)
    predictions, lower, upper = model.predict_bounds(windows)
    for number, output in enumerate(forecasts_of(model.config)):
        bound = model.bound(number)
        found = bound.predict(windows)
        expected = np.stack([lower[:, :, number], upper[:, :, number], (upper - lower)[:, :, number]], axis=1)
        point = found[:, 0] if kind == "nodes" else predictions[:, output]  # nodes: of a network of their own
        np.testing.assert_allclose(found[:, 0], point, rtol=1e-9)
        shift = found[:, 0] - predictions[:, output]
        moved = expected + np.array([1, 1, 0])[None, :, None] * shift
        np.testing.assert_allclose(found[:, 1:], moved.reshape(6, -1).T, rtol=1e-8, atol=1e-9)


@given(seed=st.integers(0, 50), scale=st.floats(0, 1e4))
def test_bounds_do_not_cross_and_higher_levels_hold_lower_ones(seed, scale):
    """In windows near the reference and far from it."""
    for kind in KINDS:
        model = make(kind)
        windows = make_windows(model, 5, seed) * scale
        predictions, lower, upper = model.predict_bounds(windows)
        forecasts = predictions[:, list(forecasts_of(model.config))]
        assert (np.diff([lower[1], lower[0], forecasts, upper[0], upper[1]], axis=0) >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_widths_are_explained_to_the_last_part(kind):
    """Contributions sum to the change of the width, at every layer, and bounds' to theirs; names are like outputs'."""
    model = Model.of(make(kind))
    windows = make_windows(model, 4)
    forecasts = model.predict(windows, intervals="all")
    start = model.predict(model.baseline(), intervals="all")
    for bound in ("lower", "upper", "width"):
        explained = model.explain(windows, f"y+2:{bound}@0.95")
        assert explained.output == f"y+2:{bound}@0.95"
        assert explained.converged.all()
        column = forecasts.outputs.index("y+2")
        change = getattr(forecasts, bound)[1, :, column] - getattr(start, bound)[1, 0, column]
        if kind == "nodes" and bound != "width":
            continue  # the point forecast of its own random network is another
        np.testing.assert_allclose(explained.contributions.sum(axis=1), change, atol=2 * float(explained.tolerance))
        if kind == "constant" and bound == "width":
            assert not explained.contributions.any()


@pytest.mark.parametrize("kind", ("nodes", "quantiles"))
@given(seed=st.integers(0, 10**6), row=st.integers(0, 5), column=st.integers(0, 3))
def test_what_one_value_does_to_a_width_is_its_finite_difference(kind, seed, row, column):
    """From a window in which it alone differs, it has the whole change, and no other value any."""
    model = Model.of(make(kind))
    window, other = make_windows(model, 2, seed)
    other = np.where(np.arange(24).reshape(6, 4) == 4 * row + column, other, window)
    explained = model.explain(window, "y+1:width@0.95", baseline={"instance": other})
    widths = model.predict(np.stack([window, other]), intervals=(0.95,)).width[0, :, 0]
    np.testing.assert_allclose(explained.steps[0, row, column], widths[0] - widths[1], atol=float(explained.tolerance))
    assert np.count_nonzero(explained.steps) <= 1


def test_global_questions_take_a_width():
    """Importance, topology, formula, comparison, what-if, counterfactual of a width."""
    model = Model.of(make("nodes"))
    windows, width = make_windows(model, 2), "z+1:width@0.8"
    assert model.importance(width).output == width
    topology = model.topology(width, fidelity=0.9)
    assert topology.output == width
    assert model.topology("z+1", fidelity=0.9).output == "z+1"
    assert model.compare(None, windows[:1], windows[1:], width).output == width
    assert width in model.what_if(windows, "f0", output=width).outputs
    usual = float(model.predict(windows[:1], intervals=(0.8,)).width[0, 0, 1])
    found = model.counterfactual(windows[:1], width, at_most=0.99 * usual, max_features=1)
    assert found.output == width
    explained = model.explain(windows, outputs=["z+1", width])
    assert explained.outputs == ("z+1", width)
    with pytest.raises(UnknownNameError):
        model.explain(windows, "z+1:width@0.7")


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_keeps_intervals(kind, tmp_path: Path):
    """All of them: loaded bounds are the same numbers."""
    model, path = make(kind), tmp_path / "m.safetensors"
    save_checkpoint(model, path)
    loaded = load_checkpoint(path)
    windows = make_windows(model, 3)
    for one, other in zip(model.predict_bounds(windows), loaded.predict_bounds(windows), strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.intervals is not None and model.intervals is not None
    assert loaded.intervals.calibration == model.intervals.calibration


def test_a_checkpoint_of_quantiles_that_it_lacks_is_refused(tmp_path: Path):
    """As it is loaded, not as it forecasts."""
    path = tmp_path / "m.safetensors"
    save_checkpoint(make("constant"), path)
    tensors, changed = path.read_bytes(), (b'\\"kind\\": \\"constant\\"', b'\\"kind\\":\\"quantiles\\"')
    assert tensors.count(changed[0]) == 1
    path.write_bytes(tensors.replace(*changed))
    with pytest.raises(CheckpointError, match=r"intervals\.levels must have quantiles among the targets"):
        load_checkpoint(path)


def test_levels_of_quantile_heads_are_recognised():
    """Those with both quantiles, of every target."""
    assert quantile_levels(make_model("lstm", targets=QUANTILES).config) == (0.8, 0.95)
    assert quantile_levels(make_model("lstm", targets=("y@0.5", "y@0.1", "y@0.9")).config) == (0.8,)
    assert quantile_levels(make_model("lstm", targets=("y", "z", "y@0.1", "y@0.9")).config) == ()


def test_what_does_not_exist_is_refused():
    """Levels out of order, negative factors, bounds of a model without intervals."""
    model = make("constant")
    intervals = model.intervals
    assert intervals is not None
    levels = (0.95, 0.8), (0.8, 1.0), (0.8, 0.8000001), (0.00001, 0.8), (0.8, 0.99999)  # without a name of their own
    for wrong in (*({"levels": of} for of in levels), {"below": -intervals.below}, {"kind": "nodes"}):
        with pytest.raises(ConfigError):
            replace(intervals, **wrong)
    plain = Model.of(replace(model, intervals=None))
    with pytest.raises(DataError, match="has none"):
        plain.predict(make_windows(model, 1), intervals=(0.8,))
    with pytest.raises(UnknownNameError):
        plain.explain(make_windows(model, 1), "y+1:width@0.8")
    with pytest.raises(DataError, match=r"one of 0\.8, 0\.95"):
        Model.of(model).predict(make_windows(model, 1), intervals=(0.9,))


def test_copies_with_other_results_share_what_is_computed_of_the_network():
    """The network of bounds, and that in float64, are made once for all of them."""
    model = Model.of(with_intervals(make_model(dtype="float32")))
    copies = [model.with_results(SingleFlightCache(4)) for _ in range(2)]
    bounds = [each.find_output(each.bounds[0])[0] for each in copies]
    assert bounds[0].network is bounds[1].network and bounds[0].frozen is bounds[1].frozen
    assert model.bounded_models.count == 1 and [each.results for each in bounds] == [each.results for each in copies]
    assert copies[0].frozen_float64 is copies[1].frozen_float64
