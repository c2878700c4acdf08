"""ONNX implementations of torch's operations, with torch's names and arguments.

Operations use only nodes that ONNX Runtime supports for both float32 and float64; several of its kernels, such as
Elu's, support only float32. Results that are not finite in torch are not finite here either.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt
from typing import Any

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor

from kanmodel.graph.values import OPERATIONS, Operand, Operation, Value, write, write_many

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
