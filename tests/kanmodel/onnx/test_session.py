"""Predictions by ONNX Runtime, compared with those by torch."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_chain, make_model, make_windows
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import model_configs
from thorough import examples

from kanmodel.errors import DataError, NonFiniteError
from kanmodel.model import Model
from kanmodel.network.bases import Chebyshev
from kanmodel.network.config import LayerConfig, SymbolicEdge
from kanmodel.onnx import accelerate, session
from kanmodel.onnx.session import Session


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """Uses ONNX Runtime for up to 16 windows; the sizes of the batches that it predicted."""
    sizes: list[int] = []
    predict = Session.predict

    def count(self, windows):
        sizes.append(len(windows))
        return predict(self, windows)

    monkeypatch.setattr(session, "_time_in_turn", lambda ways, batch: [1e-3, 1e-3 if len(batch) > 16 else 2e-3])
    monkeypatch.setattr(Session, "predict", count)
    return sizes


def test_small_batches_are_predicted_in_one_call(counted):
    """Up to the measured size ONNX Runtime predicts, above it torch; they differ only by rounding."""
    model = make_model(dtype="float32", targets=("a", "b"))
    fast, windows = accelerate(model), make_windows(model, 40)
    counted.clear()
    for n in (1, 3, 16, 17, 40):
        np.testing.assert_allclose(
            fast.predict(windows[:n]), model.predict(windows[:n]), atol=1e-5 * model.output_std.min()
        )
    assert counted == [1, 3, 16]
    together = fast.predict(windows[:16])
    alone = np.concatenate([fast.predict(window[None]) for window in windows[:16]])
    np.testing.assert_allclose(alone, together, atol=1e-5 * model.output_std.min())


@pytest.mark.parametrize(("dtype", "deviation"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("shape", ["lstm", "front", "head", "flat"])
def test_explanations_end_at_the_forecast(shape, dtype, deviation):
    """The prediction of an explanation equals the forecast to rounding, for any batch size."""
    model = make_model(shape, dtype=dtype, n_reference=12)
    core, windows = Model.of(accelerate(model)), make_windows(model, 20)
    explained = core.explain(windows, halvings=0).predictions
    for forecasts in (core.predict(windows)[:, 0], [core.predict(window[None])[0, 0] for window in windows]):
        np.testing.assert_allclose(explained, forecasts, rtol=0, atol=deviation * model.output_std[0])


def exponentials_of_each_other():
    """A config whose reference forecasts overflow, so that their standard deviation is not a number."""
    exponential = (SymbolicEdge(0, 0, "exp"),)
    layers = [LayerConfig(n, 1, Chebyshev(0), "zero", symbolic=exponential) for n in (4, 1, 1)]
    return replace(make_model("head", dtype="float32").config, head=tuple(layers))


@settings(max_examples=examples(60), deadline=None)
@given(model_configs("float32", symbolic=True), st.integers(0, 999))
@example(exponentials_of_each_other(), 141)
def test_any_chain_predicts_the_same(config, seed):
    """A chain predicts as with torch and refuses the same windows, unless only torch's operations overflow."""
    model = make_chain(config, seed)
    fast = accelerate(model)
    far = 100 * torch.randn(3, *config.window_shape, generator=torch.Generator().manual_seed(seed))
    for windows in (make_windows(model, 3), model.scaling.features_to_original(far)):
        try:
            expected = model.predict(windows)
        except NonFiniteError:
            scaled = model.scaling.features_to_model(windows).double()
            expected = model.scaling.outputs_to_original(model.frozen_float64.forward(scaled))
            if not np.isfinite(expected).all():
                with pytest.raises(NonFiniteError):
                    fast.predict(windows)
        if np.isfinite(expected).all():
            with suppress(NonFiniteError):
                unit = np.nan_to_num(model.output_std, nan=0, posinf=0) + np.abs(expected) + 1e-30
                assert (np.abs(fast.predict(windows) - expected) / unit <= 1e-3).all()


@pytest.mark.filterwarnings("error::RuntimeWarning")  # of an overflow, which the service's log would have
def test_errors_are_those_of_torch(counted):
    """For values that are missing, infinite or too large for float32, and for other shapes, the error is torch's."""
    model = make_model(dtype="float32")
    fast, windows = accelerate(model), make_windows(model, 2)
    bad = []
    for value in (np.nan, np.inf, -np.inf, 1e300):
        bad.append(windows.copy())
        bad[-1][1, 3, 2] = value
    counted.clear()
    for instances in (*bad, windows[:, 1:], windows[..., 1:], windows[0]):
        with pytest.raises(DataError) as expected:
            model.predict(instances)
        with pytest.raises(DataError) as found:
            fast.predict(instances)
        assert str(found.value) == str(expected.value) and found.value.problems == expected.value.problems
    assert counted == []


def test_windows_in_any_memory(counted):
    """Views, other types and empty arrays give the same predictions as copies."""
    model = make_model(dtype="float32")
    fast, windows = accelerate(model), make_windows(model, 8)
    tolerance = {"atol": 1e-5 * float(model.output_std[0]), "rtol": 0}
    np.testing.assert_allclose(fast.predict(windows[::2]), model.predict(windows)[::2], **tolerance)
    np.testing.assert_allclose(fast.predict(np.asfortranarray(windows)), model.predict(windows), **tolerance)
    in_float32 = windows.astype(np.float32)
    np.testing.assert_allclose(fast.predict(in_float32), model.predict(in_float32), **tolerance)
    assert fast.predict(windows[:0]).shape == (0, 1)


def test_threads_share_one_model():
    """Each thread gets the prediction for its own windows."""
    model = accelerate(make_model(dtype="float32"))
    windows = make_windows(model, 64)
    expected = [model.predict(window[None]) for window in windows]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: model.predict(windows[number % 64][None]), range(1000)))
    assert all((outputs == expected[number % 64]).all() for number, outputs in enumerate(found))


@pytest.mark.parametrize("reason", ["float64", "slower", "differs", "absent"])
def test_torch_predicts_where_there_is_a_reason(monkeypatch, counted, reason):
    """In float64, where ONNX Runtime is slower or deviates, and where it is not installed."""
    model = make_model(dtype="float64" if reason == "float64" else "float32")
    windows = make_windows(model, 1)
    if reason == "slower":
        monkeypatch.setattr(session, "_time_in_turn", lambda ways, batch: [2e-3, 1e-3])
    if reason == "differs":
        predict = Session.predict
        monkeypatch.setattr(Session, "predict", lambda self, instances: 1.01 * predict(self, instances))
    if reason == "absent":
        monkeypatch.setitem(sys.modules, "kanmodel.onnx.session", None)
    fast = accelerate(model)
    counted.clear()
    np.testing.assert_array_equal(fast.predict(windows), model.predict(windows))
    assert counted == []


def test_a_changed_model_is_not_predicted_by_the_graph_of_another(counted):
    """A model derived from an accelerated model has its own predictions."""
    fast = accelerate(make_model(dtype="float32"))
    other = replace(fast, network=make_model(seed=1, dtype="float32").network)
    windows = make_windows(fast, 2)
    counted.clear()
    assert not np.allclose(other.predict(windows), fast.predict(windows)) and counted == [2]


def test_both_backends_are_timed(monkeypatch):
    """The time is the minimum of several measurements, alternating, until one batch takes long."""
    monkeypatch.undo()
    calls: list[str] = []
    ways = [lambda batch: calls.append("a"), lambda batch: (calls.append("b"), sum(range(100_000)))]
    a, b = session._time_in_turn(ways, np.zeros(1))
    assert a < b and calls[:4] == ["a", "b", "a", "b"]
