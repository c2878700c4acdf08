"""`Graph`, an ONNX graph under construction, and `Value`, a symbolic tensor by which a network is traced.

Operations use only nodes that ONNX Runtime supports for both float32 and float64; several of its kernels, such as
Elu's, support only float32. Results that are not finite in torch are not finite here either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import pi, sqrt
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin
from onnx import helper, numpy_helper
from torch import Tensor

from kanmodel.errors import ExportError

Operation = Callable[..., Any]
Operand = Any  # a `Value`; or a tensor, an array or a number, which become constants (numbers in the network's type)
Traced = Any  # a `Value`, which the network takes for a tensor

# The ONNX form of each operation, with the arguments of torch: by torch's or numpy's name, or by the function itself if
# it is one of this package.
OPERATIONS: dict[object, Operation] = {}

SOFTPLUS_LINE = 20.0  # threshold above which torch's softplus is linear
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


class Graph:
    """Nodes and constants, in the order in which they are computed; subgraphs need a prefix of all names."""

    def __init__(self, dtype: torch.dtype, prefix: str = "") -> None:
        self.dtype, self._scope, self._count = dtype, prefix, 0
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names nodes added inside the context after a part of the network."""
        outer, self._scope = self._scope, f"{self._scope}{name}/"
        yield
        self._scope = outer

    def name(self, of: str) -> str:
        """A unique name."""
        self._count += 1
        return f"{self._scope}{of}_{self._count}"

    def operand(self, x: Operand) -> str:
        """The name of an input of a node, which is a constant unless it is a `Value`; empty for None."""
        if x is None or isinstance(x, Value):
            return "" if x is None else x.name
        x = torch.tensor(x, dtype=self.dtype) if isinstance(x, int | float) else x
        array = x.numpy(force=True) if isinstance(x, Tensor) else np.asarray(x)
        name = self.name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def prune(self, outputs: Iterable[str]) -> None:
        """Removes nodes, and outputs of recurrent nodes, that these values do not depend on."""
        read, kept = set(outputs), []
        for node in reversed(self.nodes):
            if read.isdisjoint(node.output):
                continue
            read.update(node.input)
            if node.op_type in ("LSTM", "GRU"):  # their unused outputs would take time
                node.output[:] = [name if name in read else "" for name in node.output]
            kept.append(node)
        self.nodes = kept[::-1]
        self.constants = [constant for constant in self.constants if constant.name in read]


class Value(NDArrayOperatorsMixin):
    """A symbolic tensor: operations on it add nodes to its graph."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name, self.dtype = graph, name, graph.dtype

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch instead of a function if one of its arguments is a `Value`."""
        return _operation(function if function in OPERATIONS else function.__name__)(*args, **kwargs or {})

    def __array_ufunc__(self, function: np.ufunc, method: str, *args: Operand) -> Value:
        """Called by numpy instead of the function of an operator."""
        return cast(Value, _operation(function.__name__)(*args))

    def __getattr__(self, name: str) -> Any:
        """Looks up a method of tensors."""
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(_operation(name), self)

    def __getitem__(self, key: tuple[Any, Any]) -> Value:
        """``x[:, index]``, for one index or several."""
        everything, index = key
        assert everything == slice(None)
        return write("Gather", self, np.asarray(index), axis=1)


def write(kind: str, *inputs: Operand, **attributes: Any) -> Value:
    """Adds a node with one output to the graph of its inputs."""
    return write_many(kind, inputs, 1, **attributes)[0]


def write_many(kind: str, inputs: Sequence[Operand], n_outputs: int, **attributes: Any) -> list[Value]:
    """Adds a node with several outputs to the graph of its inputs."""
    graph = next(x.graph for x in inputs if isinstance(x, Value))
    names, name = [graph.operand(x) for x in inputs], graph.name(kind)
    outputs = [name] if n_outputs == 1 else [f"{name}.{number}" for number in range(n_outputs)]
    graph.nodes.append(helper.make_node(kind, names, outputs, name, **attributes))
    return [Value(graph, output) for output in outputs]


def concatenate(values: Sequence[Operand], dim: int = 0) -> Value:
    """Concatenates along an axis."""
    return write("Concat", *values, axis=dim)


def _operation(key: object) -> Operation:
    if key not in OPERATIONS:
        raise ExportError(f"there is no ONNX form of {key}")
    return OPERATIONS[key]


def _node(kind: str) -> Operation:
    """An operation that is a single node with the same arguments."""
    return lambda *inputs, **_: write(kind, *inputs)


def _reduce(kind: str) -> Operation:
    """A reduction of one axis."""
    return lambda x, dim: write(kind, x, axes=[dim], keepdims=0)


def _clamp(x: Value, low: float, high: float) -> Value:
    """Limits x to an interval; without Clip, which ONNX Runtime 1.32 cannot fuse with a Relu in float64."""
    return write("Min", write("Max", x, low), high)


def _relu(x: Value) -> Value:
    return write("Relu", x)


def _elu(x: Value, alpha: float = 1.0, **_: Any) -> Traced:
    return _relu(x) + alpha * (write("Exp", -_relu(-x)) - 1)


def _gelu(x: Value, approximate: str = "none") -> Traced:
    if approximate == "tanh":
        return 0.5 * x * (1 + write("Tanh", sqrt(2 / pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + write("Erf", x / sqrt(2)))


def _softplus(x: Value, beta: float = 1.0, **_: Any) -> Value:
    """log(1 + exp(beta x)) / beta, without overflow."""
    scaled = beta * x
    smooth = _relu(scaled) + write("Log", 1 + write("Exp", -write("Abs", scaled)))
    return write("Where", write("Greater", scaled, SOFTPLUS_LINE), x, smooth / beta)


def _std(x: Value, dim: int, correction: int) -> Traced:
    assert correction == 0
    away = x - write("ReduceMean", x, axes=[dim], keepdims=1)
    return write("Sqrt", write("ReduceMean", away * away, axes=[dim], keepdims=0))


def _beside_missing(x: Value, dim: int, find: Callable[[], Traced]) -> Traced:
    """What is found along an axis; NaN beside a NaN, over which ONNX Runtime's kernels may pass."""
    missing = write("Where", write("IsNaN", x), x, 0.0)
    return find() + write("ReduceSum", missing, np.array([dim]), keepdims=0)


def _extreme(kind: str, x: Value, dim: int) -> Traced:
    """The largest or smallest value."""
    return _beside_missing(x, dim, lambda: _reduce(kind)(x, dim))


def _median(x: Value, dim: int) -> tuple[Traced]:
    """The lower median of the last axis, as torch's first result."""
    assert dim == -1
    half = write("Div", write("Add", write("Shape", x, start=-1), np.array([1])), np.array([2]))
    lower, _ = write_many("TopK", [x, half], 2, axis=-1, largest=0)
    return (_beside_missing(x, -1, lambda: write("Gather", lower, np.array(-1), axis=-1)),)


def _zeros_like(x: Value) -> Value:
    """0, also for NaN."""
    zero = torch.zeros(1, dtype=x.dtype).numpy()
    return write("ConstantOfShape", write("Shape", x), value=numpy_helper.from_array(zero))


def _flatten(x: Value, start: int) -> Value:
    """Flattens all axes but the first, for any number of rows."""
    assert start == 1
    return write("Flatten", x, axis=1)


def _unsqueeze(x: Value, dim: int) -> Value:
    return write("Unsqueeze", x, np.array([dim]))


def _index_add(x: Value, dim: int, index: Tensor, values: Value) -> Value:
    """(batch, n) with columns added at some indices, which may repeat."""
    assert dim == 1
    columns, added = (write("Transpose", matrix, perm=[1, 0]) for matrix in (x, values))
    summed = write("ScatterND", columns, index[:, None], added, reduction="add")
    return write("Transpose", summed, perm=[1, 0])


SAME: tuple[str, ...] = ("add", "sub", "mul", "div", "pow", "sqrt", "exp", "log", "abs", "sign", "where", "greater")
SAME += ("sin", "cos", "atan", "sinh", "asinh", "tanh", "erf", "sigmoid", "relu")
OTHER = {"subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow", "negative": "Neg", "matmul": "MatMul"}
OTHER |= {"maximum": "Max", "minimum": "Min", "arcsin": "Asin", "arccos": "Acos", "arctan": "Atan"}
OPERATIONS.update({name: _node(kind) for name, kind in ({name: name.capitalize() for name in SAME} | OTHER).items()})
OPERATIONS.update(
    {
        "tan": lambda x: write("Sin", x) / write("Cos", x),
        "arctanh": lambda x: 0.5 * write("Log", (1 + x) / (1 - x)),
        "zeros_like": _zeros_like,
        "leaky_relu": lambda x, negative_slope=0.01, **_: _relu(x) - negative_slope * _relu(-x),
        "elu": _elu,
        "selu": lambda x, **_: SELU_SCALE * _elu(x, SELU_ALPHA),  # Klambauer et al. 2017, arXiv 1706.02515
        "gelu": _gelu,
        "silu": lambda x, **_: x * write("Sigmoid", x),
        "mish": lambda x, **_: x * write("Tanh", _softplus(x)),
        "softplus": _softplus,
        "softsign": lambda x: x / (1 + write("Abs", x)),
        "relu6": lambda x, **_: _clamp(x, 0, 6),
        "hardtanh": lambda x, **_: _clamp(x, -1, 1),
        "hardsigmoid": lambda x, **_: _clamp(x + 3, 0, 6) / 6,
        "hardswish": lambda x, **_: x * (_clamp(x + 3, 0, 6) / 6),
        "softmax": lambda x, dim: write("Softmax", x, axis=dim),
        "layer_norm": lambda x, _, weight, bias, eps: write(
            "LayerNormalization", x, weight, bias, axis=-1, epsilon=eps
        ),
        "addmm": lambda added, left, right: added + write("MatMul", left, right),
        "addcmul": lambda added, left, right: added + left * right,
        "flatten": _flatten,
        "unsqueeze": _unsqueeze,
        "cat": concatenate,
        "stack": lambda values, dim=0: concatenate([_unsqueeze(value, dim) for value in values], dim),
        "split": lambda x, sizes, dim=0: write_many("Split", [x, np.array(sizes)], len(sizes), axis=dim),
        "sum": lambda x, dim: write("ReduceSum", x, np.array([dim]), keepdims=0),
        "prod": _reduce("ReduceProd"),
        "mean": _reduce("ReduceMean"),
        "amax": partial(_extreme, "ReduceMax"),
        "amin": partial(_extreme, "ReduceMin"),
        "median": _median,
        "std": _std,
        "reshape": lambda x, *shape: write("Reshape", x, np.array(shape)),
        "index_add": _index_add,
    }
)
