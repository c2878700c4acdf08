"""`Graph`, an ONNX graph under construction, and `Value`, a symbolic tensor by which a network is traced.

ONNX implementations of torch's operations, with torch's names and arguments.

Operations use only nodes that ONNX Runtime supports for both float32 and float64; several of its kernels, such as
Elu's, support only float32. Results that are not finite in torch are not finite here either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import pi, sqrt
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor

from kanmodel.errors import ExportError

Operation = Callable[..., Any]
Operand = Any
"""A `Value`; or a tensor, an array or a number, which become constants (numbers in the network's type)."""

OPERATIONS: dict[object, Operation] = {}
"""What each torch operation writes: by its name, or by the function itself where it is one of ours."""


class Graph:
    """Nodes and constants, in the order in which they are computed.

    Args:
        dtype: dtype of the network.
        prefix: prefix of all names, needed for subgraphs.
    """

    def __init__(self, dtype: torch.dtype, prefix: str = "") -> None:
        self.dtype, self._prefix = dtype, prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._scope = ""
        self._count = 0

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names nodes added inside the context after a part of the network."""
        outer, self._scope = self._scope, f"{self._scope}{name}/"
        yield
        self._scope = outer

    def name(self, of: str) -> str:
        """A unique name."""
        self._count += 1
        return f"{self._prefix}{self._scope}{of}_{self._count}"

    def node(self, kind: str, inputs: Iterable[Operand], n_outputs: int = 1, **attributes: Any) -> list[Value]:
        """Adds a node; an input that is None is left out."""
        names = ["" if x is None else self._operand(x) for x in inputs]
        name = self.name(kind)
        outputs = [name] if n_outputs == 1 else [f"{name}.{number}" for number in range(n_outputs)]
        self.nodes.append(helper.make_node(kind, names, outputs, name, **attributes))
        return [Value(self, output) for output in outputs]

    def prune(self, outputs: Iterable[str]) -> None:
        """Removes nodes, and outputs of recurrent nodes, that these values do not depend on."""
        read, kept = set(outputs), []
        for node in reversed(self.nodes):
            if read.isdisjoint(node.output):
                continue
            read.update(node.input)
            if node.op_type in ("LSTM", "GRU"):  # their unused outputs would take time
                named = [name if name in read else "" for name in node.output]
                del node.output[:]
                node.output.extend(named)
            kept.append(node)
        self.nodes = kept[::-1]
        self.constants = [constant for constant in self.constants if constant.name in read]

    def _operand(self, x: Operand) -> str:
        if isinstance(x, Value):
            return x.name
        if isinstance(x, torch.Tensor):
            array: NDArray[Any] = x.numpy(force=True)
        elif isinstance(x, int | float):
            array = torch.tensor(x, dtype=self.dtype).numpy()
        else:
            array = np.asarray(x)
        name = self.name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name


class Value:
    """A symbolic tensor: operations on it add nodes to its graph."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch instead of a function if one of its arguments is a `Value`."""
        return _operation(function if function in OPERATIONS else function.__name__)(*args, **kwargs or {})

    def __getattr__(self, name: str) -> Any:
        """Looks up a method of tensors."""
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(_operation(name), self)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the network."""
        return self.graph.dtype

    def __getitem__(self, key: tuple[Any, Any]) -> Value:
        """``x[:, index]``, for one index or several."""
        everything, index = key
        assert everything == slice(None)
        return write("Gather", self, np.asarray(index), axis=1)

    def __add__(self, other: Operand) -> Value:
        return write("Add", self, other)

    def __radd__(self, other: Operand) -> Value:
        return write("Add", other, self)

    def __sub__(self, other: Operand) -> Value:
        return write("Sub", self, other)

    def __rsub__(self, other: Operand) -> Value:
        return write("Sub", other, self)

    def __mul__(self, other: Operand) -> Value:
        return write("Mul", self, other)

    def __rmul__(self, other: Operand) -> Value:
        return write("Mul", other, self)

    def __truediv__(self, other: Operand) -> Value:
        return write("Div", self, other)

    def __rtruediv__(self, other: Operand) -> Value:
        return write("Div", other, self)

    def __pow__(self, power: float) -> Value:
        return write("Pow", self, power)

    def __matmul__(self, other: Operand) -> Value:
        return write("MatMul", self, other)

    def __neg__(self) -> Value:
        return write("Neg", self)


def write(kind: str, *inputs: Operand, **attributes: Any) -> Value:
    """Adds a node with one output to the graph of its inputs."""
    return write_many(kind, inputs, 1, **attributes)[0]


def write_many(kind: str, inputs: Sequence[Operand], n_outputs: int, **attributes: Any) -> list[Value]:
    """Adds a node with several outputs to the graph of its inputs."""
    graph = next(x.graph for x in inputs if isinstance(x, Value))
    return graph.node(kind, inputs, n_outputs, **attributes)


def _operation(key: object) -> Operation:
    if key not in OPERATIONS:
        raise ExportError(f"there is no ONNX form of {key}")
    return OPERATIONS[key]


SOFTPLUS_LINE = 20.0  # threshold above which torch's softplus is linear
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def clamp(x: Value, low: float, high: float) -> Value:
    """Limits x to an interval; without Clip, which ONNX Runtime 1.32 cannot fuse with a Relu in float64."""
    return write("Min", write("Max", x, low), high)


def relu(x: Value, **_: Any) -> Value:
    """max(x, 0)."""
    return write("Relu", x)


def leaky_relu(x: Value, negative_slope: float = 0.01, **_: Any) -> Value:
    """x, or below 0 negative_slope x."""
    return relu(x) - negative_slope * relu(-x)


def elu(x: Value, alpha: float = 1.0, **_: Any) -> Value:
    """x, or below 0 alpha (exp(x) - 1)."""
    return relu(x) + alpha * (write("Exp", -relu(-x)) - 1)


def selu(x: Value, **_: Any) -> Value:
    """Klambauer et al. 2017, arXiv 1706.02515."""
    return SELU_SCALE * elu(x, SELU_ALPHA)


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x))."""
    return write("Sigmoid", x)


def tanh(x: Value) -> Value:
    """Hyperbolic tangent."""
    return write("Tanh", x)


def gelu(x: Value, approximate: str = "none") -> Value:
    """x times the normal cumulative distribution function, or its approximation by a hyperbolic tangent."""
    if approximate == "tanh":
        return 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + write("Erf", x / sqrt(2)))


def silu(x: Value, **_: Any) -> Value:
    """x sigmoid(x)."""
    return x * sigmoid(x)


def softplus(x: Value, beta: float = 1.0, **_: Any) -> Value:
    """log(1 + exp(beta x)) / beta, without overflow."""
    scaled = beta * x
    smooth = relu(scaled) + write("Log", 1 + write("Exp", -write("Abs", scaled)))
    return write("Where", write("Greater", scaled, SOFTPLUS_LINE), x, smooth / beta)


def mish(x: Value, **_: Any) -> Value:
    """x tanh(softplus(x))."""
    return x * tanh(softplus(x))


def softsign(x: Value) -> Value:
    """x / (1 + |x|)."""
    return x / (1 + write("Abs", x))


def hardsigmoid(x: Value, **_: Any) -> Value:
    """A line from 0 at -3 to 1 at 3."""
    return clamp(x + 3, 0, 6) / 6


def arctanh(x: Value) -> Value:
    """Inverse hyperbolic tangent, by logarithms."""
    return 0.5 * write("Log", (1 + x) / (1 - x))


def zeros_like(x: Value) -> Value:
    """0, also for NaN."""
    zero = torch.zeros(1, dtype=x.dtype).numpy()
    return write("ConstantOfShape", write("Shape", x), value=numpy_helper.from_array(zero))


def layer_norm(x: Value, shape: Sequence[int], weight: Tensor, bias: Tensor, eps: float) -> Value:
    """Layer normalization over the last axis."""
    return write("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)


def flatten(x: Value, start: int) -> Value:
    """Flattens all axes but the first, for any number of rows."""
    assert start == 1
    return write("Flatten", x, axis=1)


def unsqueeze(x: Value, dim: int) -> Value:
    """Adds an axis."""
    return write("Unsqueeze", x, np.array([dim]))


def concatenate(values: Sequence[Operand], dim: int = 0) -> Value:
    """Concatenates along an axis."""
    return write("Concat", *values, axis=dim)


def stack(values: Sequence[Value], dim: int = 0) -> Value:
    """Stacks along a new axis."""
    return concatenate([unsqueeze(value, dim) for value in values], dim)


def split(x: Value, sizes: Sequence[int], dim: int = 0) -> list[Value]:
    """Splits along an axis."""
    return write_many("Split", [x, np.array(sizes)], len(sizes), axis=dim)


def total(x: Value, dim: int) -> Value:
    """Sum over an axis."""
    return write("ReduceSum", x, np.array([dim]), keepdims=0)


def prod(x: Value, dim: int) -> Value:
    """Product over an axis."""
    return write("ReduceProd", x, axes=[dim], keepdims=0)


def mean(x: Value, dim: int) -> Value:
    """Mean over an axis."""
    return write("ReduceMean", x, axes=[dim], keepdims=0)


def index_add(x: Value, dim: int, index: Tensor, values: Value) -> Value:
    """(batch, n) with columns added at some indices, which may repeat."""
    assert dim == 1
    by_column = write("ScatterND", _swap(x), index[:, None], _swap(values), reduction="add")
    return _swap(by_column)


def _swap(x: Value) -> Value:
    return write("Transpose", x, perm=[1, 0])


def _node(kind: str) -> Operation:
    """An operation that is a single node with the same arguments."""
    return lambda *inputs, **_: write(kind, *inputs)


OPERATIONS.update(
    {
        "add": _node("Add"),
        "sub": _node("Sub"),
        "mul": _node("Mul"),
        "div": _node("Div"),
        "matmul": _node("MatMul"),
        "sqrt": _node("Sqrt"),
        "exp": _node("Exp"),
        "log": _node("Log"),
        "abs": _node("Abs"),
        "sin": _node("Sin"),
        "cos": _node("Cos"),
        "tan": lambda x: write("Sin", x) / write("Cos", x),
        "sign": _node("Sign"),
        "arcsin": _node("Asin"),
        "arccos": _node("Acos"),
        "arctan": _node("Atan"),
        "arctanh": arctanh,
        "zeros_like": zeros_like,
        "relu": relu,
        "leaky_relu": leaky_relu,
        "elu": elu,
        "selu": selu,
        "gelu": gelu,
        "silu": silu,
        "mish": mish,
        "tanh": tanh,
        "sigmoid": sigmoid,
        "softplus": softplus,
        "softsign": softsign,
        "relu6": lambda x, **_: clamp(x, 0, 6),
        "hardtanh": lambda x, **_: clamp(x, -1, 1),
        "hardsigmoid": hardsigmoid,
        "hardswish": lambda x, **_: x * hardsigmoid(x),
        "softmax": lambda x, dim: write("Softmax", x, axis=dim),
        "layer_norm": layer_norm,
        "addmm": lambda added, left, right: added + write("MatMul", left, right),
        "addcmul": lambda added, left, right: added + left * right,
        "flatten": flatten,
        "unsqueeze": unsqueeze,
        "cat": concatenate,
        "stack": stack,
        "split": split,
        "sum": total,
        "prod": prod,
        "mean": mean,
        "index_add": index_add,
    }
)
