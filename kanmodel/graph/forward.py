"""The ONNX graph of a whole forecaster, scaling included."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from kanmodel.graph import pieces, recurrent  # noqa: F401  (they register what they write)
from kanmodel.graph.values import Graph, Value, write
from kanmodel.network.chain import apply_output_function, reduce_steps
from kanmodel.network.frozen import FrozenLayers, FrozenNetwork
from kanmodel.scaling import Scaling

INPUT = "instances"
PREDICTIONS, LOGITS = "predictions", "logits"
Traced = Any
"""A `Value`, which the network takes for a tensor."""
OPSET, IR_VERSION = 17, 8  # from 2022, the oldest with LayerNormalization


def write_forward(frozen: FrozenNetwork, scaling: Scaling) -> onnx.ModelProto:
    """Builds the graph of the forward pass, for any number of windows.

    Its input is ``instances`` (n, lookback, n_features), float64, original units, oldest step first. Its outputs are
    ``predictions`` (n, n_outputs), float64, original units, and, if there is an output function, its inputs ``logits``.

    Args:
        frozen: the network.
        scaling: original units <-> model units.

    Raises:
        ExportError: a layer has no ONNX form.
    """
    config = frozen.config
    graph = Graph(scaling.dtype)
    steps: Traced
    windows = Value(graph, INPUT)
    with graph.scope("scaling"):
        scaled = (windows - scaling.feature_mean) / scaling.feature_scale
        steps = write("Cast", scaled, to=helper.np_dtype_to_tensor_dtype(np.dtype(config.dtype)))
    if "front" in frozen.stages:
        n_features = len(config.features)
        rows = _pass(frozen.stages["front"], "front", write("Reshape", steps, np.array([-1, n_features])))
        steps = write("Reshape", rows, np.array([-1, config.lookback, config.n_steps]))
    states = steps if frozen.recurrent is None else frozen.recurrent(steps)
    logits = _pass(frozen.stages["head"], "head", reduce_steps(config, states))
    with graph.scope("output"):
        outputs = [_as_double(apply_output_function(config, logits)) * scaling.output_scale + scaling.output_mean]
        names = [PREDICTIONS]
        if config.output_function is not None:
            outputs.append(_as_double(logits))
            names.append(LOGITS)
    for value, name in zip(outputs, names, strict=True):
        graph.nodes.append(helper.make_node("Identity", [value.name], [name], f"output/{name}"))
    graph.prune(names)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "forward",
            [helper.make_tensor_value_info(INPUT, TensorProto.DOUBLE, ["n", *config.window_shape])],
            [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", len(config.outputs)]) for name in names],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="kanscope",
    )


def _pass(layers: FrozenLayers, stage: str, x: Traced) -> Traced:
    """Applies consecutive layers, (rows, n_in) -> (rows, n_out); their nodes are named after them."""
    if layers.inputs is not None:
        x = x[:, layers.inputs]
    for number, layer in enumerate(layers.layers):
        with x.graph.scope(f"{stage}.{number}"):
            x = layer.forward(x)
    return x


def _as_double(x: Traced) -> Value:
    return write("Cast", x, to=TensorProto.DOUBLE)
