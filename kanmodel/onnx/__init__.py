"""The forward pass as one ONNX graph: windows in original units in, predictions in original units out."""

from __future__ import annotations

import os
from typing import TypeVar

from kanmodel.errors import KanscopeError
from kanmodel.forecaster import Forecaster

# Since 1.29 the official builds of ONNX Runtime send usage data, including hashes of weights, to Microsoft, and write
# to the user's cache, unless this is set before they are imported.
M = TypeVar("M", bound=Forecaster)
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def accelerate(model: M) -> M:
    """The same model with ONNX Runtime for the batch sizes for which it is measured to be faster.

    Its predictions are equal up to rounding; where they are not, it is not used. The weights are shared. Torch is still
    used for float64, for which ONNX Runtime has no LSTM or GRU, for networks without an ONNX form, and if ONNX Runtime
    is not installed.
    """
    if model.config.dtype == "float64":
        return model
    try:
        from kanmodel.onnx.session import find_fast_predict  # here, since ONNX Runtime is slow to import

        predict = find_fast_predict(model)
    except (ImportError, KanscopeError):  # torch raises the error of a bad prediction when it is requested
        return model
    return model if predict is None else model.with_fast_predict(predict)
