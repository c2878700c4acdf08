"""Predictions by ONNX Runtime: one call for a small batch, where torch makes dozens of small calls."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import thread_time
from typing import cast

import numpy as np
import onnx
import onnxruntime

from kanmodel.arrays import Array
from kanmodel.errors import ExportError
from kanmodel.forecaster import Forecaster
from kanmodel.onnx.forward import INPUT, PREDICTIONS, write_forward

Predict = Callable[[Array], Array]
FATAL = 4  # log level of ONNX Runtime; other errors are raised anyway
SIZES = (1, 2, 4, 8, 16, 32, 64)  # of batches that are timed
N_TIMINGS = 3
LONG = 0.02  # seconds: if a batch takes longer, larger ones are not timed
TOLERANCE = 1e-5  # in standard deviations of an output: if both differ by more, torch is used


class Session:
    """Runs a graph of `forward.write_forward` on the caller's thread; threads may share it.

    Raises:
        ExportError: ONNX Runtime cannot compute a layer of it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        options.enable_cpu_mem_arena = False  # 3 MB less for each model, 5 % slower for one window
        graph, providers = model.SerializeToString(), ["CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(graph, options, providers=providers)
        except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
            # such as "… implementation for Erf(13) node with name 'head.0/Erf_9'"
            found = re.search(r"implementation for (\w+)\(\d+\) node with name '(.*)/[^/]*'", str(error))
            message = f"{found[2]} needs {found[1]}, which ONNX Runtime cannot compute in its type" if found else error
            raise ExportError(str(message)) from error

    def predict(self, windows: Array) -> Array:
        """Predictions, (n, lookback, n_features) -> (n, n_outputs), original units, without any checks.

        n must not be 0: ONNX Runtime 1.32 aborts the process if an LSTM gets no window.
        """
        return cast(Array, self._session.run([PREDICTIONS], {INPUT: windows})[0])


def find_fast_predict(model: Forecaster) -> Callable[[Array], Array | None] | None:
    """`Forecaster.predict` for batches up to the size for which it is measured to be faster than torch.

    The function returns None if torch has to predict or raise an error: for larger and empty batches, for windows that
    may not be finite in the network's dtype, and for predictions that are not finite. There is none if torch is faster
    for a single window, or predicts otherwise.

    Raises:
        ExportError: a layer has no ONNX form.
        NonFiniteError: a forecast for the windows that are timed is not finite.
    """
    session, max_windows = Session(write_forward(model)), 0
    windows = model.scaling.features_to_original(model.reference.scaled[: max(SIZES)])
    windows = np.resize(windows, (max(SIZES), *windows.shape[1:]))
    for size in SIZES:
        batch = windows[:size]
        agrees = np.abs(session.predict(batch) - model.predict(batch)) <= TOLERANCE * model.output_std
        seconds, of_torch = _time_in_turn([session.predict, model.predict], batch)
        if not agrees.all() or seconds >= of_torch:
            break
        max_windows = size
        if of_torch > LONG:
            break
    window_shape = model.config.window_shape
    largest_square = max(float(model.scaling.feature_limit.min()), 0.0) ** 2

    def predict(windows: Array) -> Array | None:
        if not 0 < len(windows) <= max_windows or windows.shape[1:] != window_shape:
            return None
        values = np.asarray(windows, np.float64).ravel()
        with np.errstate(over="ignore"):  # infinity is too large as well
            if not values.dot(values) <= largest_square:  # false for NaN too
                return None
        outputs = session.predict(values.reshape(windows.shape))
        return outputs if np.isfinite(outputs).all() else None

    return predict if max_windows else None


def _time_in_turn(ways: list[Predict], batch: Array) -> list[float]:
    """The least processor time that each took on this thread, in seconds."""
    seconds: list[list[float]] = []
    while len(seconds) < N_TIMINGS and sum(map(sum, seconds)) <= LONG:
        seconds.append([])
        for way in ways:
            start = thread_time()
            way(batch)
            seconds[-1].append(thread_time() - start)
    return [min(taken) for taken in zip(*seconds, strict=True)]
