"""The ONNX graph of a whole forecaster, scaling included.

A spline gathers the polynomials of its input's interval, which it finds as `PiecewisePolynomial` does, and multiplies
them by the powers. LSTM and GRU are the operators of that name, or for float64, which ONNX Runtime lacks, a Scan over
the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import NoReturn, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from kanmodel.errors import ExportError
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import Cell
from kanmodel.network.distributions import quantile
from kanmodel.network.network import FrozenLayers, apply_output_function
from kanmodel.network.operations import Arrangement
from kanmodel.network.recurrent import FrozenRecurrent, GateWeights
from kanmodel.network.splines import PiecewisePolynomial
from kanmodel.onnx.values import OPERATIONS, Graph, Operand, Traced, Value, concatenate, write, write_many

INPUT, PREDICTIONS, LOGITS = "instances", "predictions", "logits"
OPSET, IR_VERSION = 17, 8  # from 2022, the oldest with LayerNormalization
GATES: dict[Cell, tuple[int, ...]] = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
"""Torch's number of each of ONNX's gates: input, output, forget, cell; update, reset, hidden."""


def sum_splines(splines: PiecewisePolynomial, x: Value) -> Value:
    """`PiecewisePolynomial.sums`: (batch, n_in) -> (batch, n_out)."""
    n_in, n_terms, n_out = len(splines.first), splines.order + 1, splines.table.shape[2]
    if splines.even is None:
        graph_type = helper.np_dtype_to_tensor_dtype(splines.knots.numpy().dtype)
        above = write("GreaterOrEqual", x.unsqueeze(2), splines.knots.squeeze(1).T)  # (batch, n_in, n_knots)
        count = write("Cast", above, to=graph_type).sum(2)
        interval = write("Cast", count, to=TensorProto.INT64) + splines.first
        u = (x - write("Gather", splines.start, interval)) * write("Gather", splines.inverse_width, interval)
    else:
        even = splines.even
        position = (x - even.origin) * even.inverse_width
        below = write("Floor", position)
        u = position - below
        within = write("Where", write("GreaterOrEqual", below, even.first), below, even.first)  # NaN is not
        within = write("Cast", write("Min", within, even.last), to=TensorProto.INT64)
        interval = within + even.rows.astype(np.int64)
    u = u.unsqueeze(2)
    powers = [u - u + 1, u]
    while len(powers) < n_terms:
        powers.append(powers[-1] * u)
    row = write("Reshape", concatenate(powers[:n_terms], 2), np.array([0, 1, n_in * n_terms]))
    terms = write("Gather", splines.table, interval)  # (batch, n_in, n_terms, n_out)
    matrix = write("Reshape", terms, np.array([0, n_in * n_terms, n_out]))
    return write("Squeeze", write("MatMul", row, matrix), np.array([1]))


def run_recurrent(recurrent: FrozenRecurrent, steps: Value) -> Traced:
    """`FrozenRecurrent` on (batch, lookback, n_in); NaN is added to the states of windows that are not finite.

    ONNX Runtime's operators would turn it into a finite state, and hide missing values.
    """
    x = write("Transpose", steps, perm=[1, 0, 2])
    nothing = 0.0 * write("ReduceSum", steps, np.array([1, 2]), keepdims=1)
    for directions in recurrent.gate_weights:
        with x.graph.scope("recurrent"):
            run = _scan if x.graph.dtype == torch.float64 else _operator
            x = run(recurrent.config.cell, x, directions)
    return write("Transpose", x, perm=[1, 0, 2]) + nothing


def _operator(cell: Cell, x: Value, directions: Sequence[GateWeights]) -> Value:
    """One layer with ONNX's operator, (lookback, batch, n_in) -> (lookback, batch, n_units)."""

    def in_order(weight: Tensor) -> Tensor:  # (..., n_gates * hidden) -> (n_gates * hidden, ...), gates as in ONNX
        gates = weight.movedim(-1, 0).chunk(len(GATES[cell]))
        return torch.cat([gates[number] for number in GATES[cell]])

    hidden = len(directions[0].from_state)
    from_inputs = torch.stack([in_order(of.from_inputs) for of in directions])
    from_state = torch.stack([in_order(of.from_state) for of in directions])
    bias = torch.stack([torch.cat([in_order(of.bias), in_order(of.state_bias)]) for of in directions])
    states, *_ = write_many(
        cell.upper(),
        [x, from_inputs, from_state, bias],
        3 if cell == "lstm" else 2,
        hidden_size=hidden,
        direction="bidirectional" if len(directions) == 2 else "forward",
        **({"linear_before_reset": 1} if cell == "gru" else {}),
    )  # (lookback, directions, batch, hidden)
    if len(directions) == 1:
        return write("Squeeze", states, np.array([1]))
    return write("Reshape", write("Transpose", states, perm=[0, 2, 1, 3]), np.array([0, 0, 2 * hidden]))


def _scan(cell: Cell, x: Value, directions: Sequence[GateWeights]) -> Value:
    """One layer as a Scan with the equations of its cell, as documented by torch."""
    states = []
    for reverse, weights in enumerate(directions):
        graph = Graph(x.graph.dtype, prefix=f"{x.graph.name('cell')}/")
        hidden = len(weights.from_state)
        before = [Value(graph, graph.name(name)) for name in (("h", "c") if cell == "lstm" else ("h",))]
        step = Value(graph, graph.name("x"))
        after = (_lstm_step if cell == "lstm" else _gru_step)(weights, step, *before)
        outputs = [*after, write("Identity", after[0])]
        ends = (*before, step, *outputs)
        infos = [helper.make_tensor_value_info(value.name, TensorProto.DOUBLE, None) for value in ends]
        n = len(before) + 1  # the states and the step are read
        body = helper.make_graph(graph.nodes, graph.name("body"), infos[:n], infos[n:], graph.constants)
        batch = write("Gather", write("Shape", x), np.array([1]), axis=0)
        zeros = write("Expand", torch.zeros(1, 1, dtype=graph.dtype), concatenate([batch, np.array([hidden])]))
        directed = {"scan_input_directions": [reverse], "scan_output_directions": [reverse]}
        inputs = [*[zeros] * len(before), x]
        states.append(write_many("Scan", inputs, len(outputs), body=body, num_scan_inputs=1, **directed)[-1])
    return states[0] if len(states) == 1 else concatenate(states, 2)


def _lstm_step(weights: GateWeights, x: Value, h: Value, c: Value) -> tuple[Value, ...]:
    moved = x @ weights.from_inputs + h @ weights.from_state + (weights.bias + weights.state_bias)
    i, f, g, o = moved.split([len(weights.from_state)] * 4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru_step(weights: GateWeights, x: Value, h: Value) -> tuple[Value, ...]:
    sizes = [len(weights.from_state)] * 3
    of_inputs = (x @ weights.from_inputs + weights.bias).split(sizes, 1)
    of_state = (h @ weights.from_state + weights.state_bias).split(sizes, 1)
    r, z = ((inputs + state).sigmoid() for inputs, state in zip(of_inputs[:2], of_state[:2], strict=True))
    n = (of_inputs[2] + r * of_state[2]).tanh()
    return ((1 - z) * n + z * h,)


def arrange(arrangement: Arrangement, *values: Operand) -> Value:
    """`Arrangement`, of constants too, which have a batch of 1."""
    first = next(value for value in values if isinstance(value, Value))
    batch = write("Gather", write("Shape", first), np.array([0]), axis=0)
    flat = []
    for value in values:
        if isinstance(value, Tensor):
            value = write("Expand", value.reshape(1, -1), concatenate([batch, np.array([value.numel()])]))
        flat.append(write("Flatten", value, axis=1))
    every = flat[0] if len(flat) == 1 else concatenate(flat, 1)
    if arrangement.indices is None:
        return cast(Value, every.reshape(-1, *arrangement.shape))
    return write("Gather", every, arrangement.indices, axis=1)


def refuse_quantile(family: str, *_: Operand) -> NoReturn:
    """Refuses quantiles that are solved for."""
    raise ExportError(
        f"ONNX has no quantiles of a {family.replace('_', ' ')} distribution: export what from_torch(..., "
        "quantiles=()) makes, its mean and its parameters"
    )


OPERATIONS[quantile] = refuse_quantile
OPERATIONS[PiecewisePolynomial.sums] = sum_splines
OPERATIONS[FrozenRecurrent.__call__] = run_recurrent
OPERATIONS[Arrangement.__call__] = arrange


def write_forward(model: Forecaster) -> onnx.ModelProto:
    """Builds the graph of a model's forward pass, for any number of windows.

    Its input is ``instances`` (n, lookback, n_features), float64, original units, oldest step first. Its outputs are
    ``predictions`` (n, n_outputs), float64, original units, and, if there is an output function, its inputs ``logits``.

    Raises:
        ExportError: a layer has no ONNX form.
    """
    frozen, scaling, config = model.frozen, model.scaling, model.config
    graph = Graph(scaling.dtype)
    steps: Traced
    with graph.scope("scaling"):
        scaled = (Value(graph, INPUT) - scaling.feature_mean) / scaling.feature_scale
        steps = write("Cast", scaled, to=helper.np_dtype_to_tensor_dtype(np.dtype(config.dtype)))
    with nullcontext() if frozen.is_path else graph.scope("graph"):
        logits = frozen.run_rows(steps, [partial(_pass, row, *key) for key, row in frozen.rows.items()])
    with graph.scope("output"):
        scaled = write("Cast", apply_output_function(config, logits), to=TensorProto.DOUBLE)
        outputs = {PREDICTIONS: scaled * scaling.output_scale + scaling.output_mean}
        if config.output_function is not None:
            outputs[LOGITS] = write("Cast", logits, to=TensorProto.DOUBLE)
    for name, value in outputs.items():
        graph.nodes.append(helper.make_node("Identity", [value.name], [name], f"output/{name}"))
    graph.prune(outputs)
    shape: list[str | int] = ["n", len(config.outputs)]
    read = [helper.make_tensor_value_info(INPUT, TensorProto.DOUBLE, ["n", *config.window_shape])]
    written = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape) for name in outputs]
    whole = helper.make_graph(graph.nodes, "forward", read, written, graph.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION, producer_name="kanscope")


def _pass(layers: FrozenLayers, stage: str, first: int, x: Traced) -> Traced:
    """Applies consecutive layers, (rows, n_in) -> (rows, n_out); their nodes are named by stage and number."""
    if layers.inputs is not None:
        x = x[:, layers.inputs]
    for number, layer in enumerate(layers.layers, first):
        with x.graph.scope(f"{stage}.{number}"):
            x = layer.forward(x)
    return x
