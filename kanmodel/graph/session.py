"""An ONNX Runtime session for the graph of a forecaster."""

from __future__ import annotations

import os
import re
from typing import cast

import onnx

# Since 1.29 the official builds send usage data, including hashes of weights, to Microsoft, and write to the user's
# cache, unless this is set before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from kanmodel.errors import ExportError
from kanmodel.graph.forward import INPUT, LOGITS, PREDICTIONS
from kanmodel.scaling import Array

FATAL = 4  # log level of ONNX Runtime; other errors are raised anyway


class Session:
    """Runs a graph of `forward.write_forward` on the caller's thread; threads may share it.

    Args:
        model: the graph.

    Raises:
        ExportError: ONNX Runtime cannot compute a layer of it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        options.enable_cpu_mem_arena = False  # 3 MB less for each model, 5 % slower for one window
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
            raise ExportError(_name_layer(str(error))) from error

    def predict(self, windows: Array) -> Array:
        """Predictions, (n, lookback, n_features) -> (n, n_outputs), original units, without any checks.

        n must not be 0: ONNX Runtime 1.32 aborts the process if an LSTM gets no window.
        """
        return self._run(PREDICTIONS, windows)

    def logits(self, windows: Array) -> Array:
        """Inputs of the output function, (n, n_outputs), if the graph has them."""
        return self._run(LOGITS, windows)

    def _run(self, output: str, windows: Array) -> Array:
        return cast(Array, self._session.run([output], {INPUT: windows})[0])


def _name_layer(message: str) -> str:
    """Turns a message such as ``… implementation for Erf(13) node with name 'head.0/Erf_9'`` into a sentence."""
    found = re.search(r"implementation for (\w+)\(\d+\) node with name '(.*)/[^/]*'", message)
    return f"{found[2]} needs {found[1]}, which ONNX Runtime cannot compute in its type" if found else message
