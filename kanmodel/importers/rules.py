"""Rules of tracing: what the numbers of the results of an operation of torch are.

A rule is given the tracer, the result and the arguments. Its operations are named as torch dispatches them, without an
overload, and without the ``_`` of those in place. What is here is what a graph may be made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from kanmodel.importers.parts import Layer
from kanmodel.network.bases import Line
from kanmodel.network.config import LayerConfig

if TYPE_CHECKING:
    from kanmodel.importers.tracing import GraphTracer

UNKNOWN = -1  # number of an element that no node holds, such as the place of a maximum


def _moves(name: str) -> Callable[..., Any]:
    """The rule of an operation that only moves elements."""
    operation = getattr(torch.ops.aten, name)

    def rule(tracer: GraphTracer, out: Any, *args: Any, **kwargs: Any) -> Any:
        def of(value: Tensor) -> Tensor:
            return tracer.of(value) if value.is_floating_point() else value

        return operation(*tree_map_only(Tensor, of, args), **tree_map_only(Tensor, of, kwargs))

    return rule


def _unary(op: str) -> Callable[..., Tensor]:
    return lambda tracer, out, x: tracer.apply(op, x)


def _add(tracer: GraphTracer, out: Tensor, one: Any, other: Any, alpha: float = 1) -> Tensor:
    return tracer.apply("add", one, other if alpha == 1 else tracer.apply("mul", other, alpha))


def _sub(tracer: GraphTracer, out: Tensor, one: Any, other: Any, alpha: float = 1) -> Tensor:
    return tracer.apply("sub", one, other if alpha == 1 else tracer.apply("mul", other, alpha))


def _mul(tracer: GraphTracer, out: Tensor, one: Any, other: Any) -> Tensor:
    """The product, or silu where it is written as x sigmoid(x)."""
    left, right = tracer.of(one), tracer.of(other)
    for x, factor in ((left, right), (right, left)):
        if tracer.is_known("sigmoid", x, factor):
            return tracer.apply("silu", x)
    return tracer.apply("mul", left, right)


def _div(tracer: GraphTracer, out: Tensor, one: Any, other: Any, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        tracer.refuse(f"a division that rounds ({rounding_mode})")
    return tracer.apply("div", one, other)


def _pow(tracer: GraphTracer, out: Tensor, base: Any, exponent: Any) -> Tensor:
    if isinstance(exponent, Tensor):
        tracer.refuse("a power whose exponent is a tensor")
    if not isinstance(base, Tensor):
        return tracer.apply("exp", tracer.apply("mul", exponent, float(np.log(base))))
    return tracer.apply("mul", base, base) if exponent == 2 else tracer.apply("power", base, parameter=float(exponent))


def _power(exponent: float) -> Callable[..., Tensor]:
    return lambda tracer, out, x: tracer.apply("power", x, parameter=exponent)


def _clamp(tracer: GraphTracer, out: Tensor, x: Any, low: Any = None, high: Any = None) -> Tensor:
    numbers = tracer.of(x) if low is None else tracer.apply("maximum", x, low)
    return numbers if high is None else tracer.apply("minimum", numbers, high)


def _gelu(tracer: GraphTracer, out: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    return tracer.apply("gelu" if approximate == "none" else "gelu_tanh", x)


def _elu(
    tracer: GraphTracer, out: Tensor, x: Tensor, alpha: float = 1, scale: float = 1, of_input: float = 1
) -> Tensor:
    inner = x if of_input == 1 else tracer.apply("mul", x, of_input)
    numbers = tracer.apply("elu", inner, parameter=float(alpha))
    return numbers if scale == 1 else tracer.apply("mul", numbers, scale)


def _softplus(tracer: GraphTracer, out: Tensor, x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    if threshold != 20:
        tracer.refuse(f"a softplus with threshold {threshold}")
    return tracer.apply("softplus", x, parameter=float(beta))


def _prelu(tracer: GraphTracer, out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    below = tracer.apply("mul", tracer.apply("minimum", x, 0.0), weight)
    return tracer.apply("add", tracer.apply("relu", x), below)


def _glu(tracer: GraphTracer, out: Tensor, x: Tensor, axis: int = -1) -> Tensor:
    value, gate = tracer.of(x).chunk(2, dim=axis)
    return tracer.apply("mul", value, tracer.apply("sigmoid", gate))


def _reduction(op: str) -> Callable[..., Tensor]:
    def rule(tracer: GraphTracer, out: Tensor, x: Tensor, axes: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
        return tracer.reduce(op, x, axes, keepdim)

    return rule


def _extreme(op: str) -> Callable[..., Any]:
    def rule(tracer: GraphTracer, out: Any, x: Tensor, axis: int | None = None, keepdim: bool = False) -> Any:
        numbers = tracer.reduce(op, x, axis, keepdim)
        return numbers if axis is None else (numbers, torch.full(numbers.shape, UNKNOWN))

    return rule


def _spread(root: bool, mean: bool = False) -> Callable[..., Any]:
    def rule(
        tracer: GraphTracer,
        out: Any,
        x: Tensor,
        axes: Any = None,
        *,
        correction: float | None = None,
        keepdim: bool = False,
    ) -> Any:
        numbers = tracer.reduce("std", x, axes, keepdim)
        n = x.numel() / max(numbers.numel(), 1)
        freedom = n - (1 if correction is None else correction)
        if freedom <= 0:
            tracer.refuse("the deviation of a single value")
        numbers = numbers if freedom == n else tracer.apply("mul", numbers, sqrt(n / freedom))
        numbers = numbers if root else tracer.apply("mul", numbers, numbers)
        return (numbers, tracer.reduce("mean", x, axes, keepdim)) if mean else numbers

    return rule


def _norm(
    tracer: GraphTracer, out: Tensor, x: Tensor, order: float = 2, axes: Any = None, keepdim: bool = False, **_: Any
) -> Tensor:
    if order == 1:
        return tracer.reduce("sum", tracer.apply("abs", x), axes, keepdim)
    if order != 2:
        tracer.refuse(f"a norm of order {order}")
    return tracer.apply("sqrt", tracer.reduce("sum", tracer.apply("mul", x, x), axes, keepdim))


def _addmm(
    tracer: GraphTracer, out: Tensor, bias: Any, one: Any, other: Any, beta: float = 1, alpha: float = 1
) -> Tensor:
    numbers = tracer.matmul(one, other)
    numbers = numbers if alpha == 1 else tracer.apply("mul", numbers, alpha)
    return tracer.apply("add", numbers, bias if beta == 1 else tracer.apply("mul", bias, beta))


def _normalise(tracer: GraphTracer, numbers: Tensor, axes: Sequence[int], eps: float) -> Tensor:
    centred = tracer.apply("sub", numbers, tracer.reduce("mean", numbers, axes, keep=True))
    variance = tracer.reduce("mean", tracer.apply("mul", centred, centred), axes, keep=True)
    return tracer.apply("div", centred, tracer.apply("sqrt", tracer.apply("add", variance, eps)))


def _layer_norm(
    tracer: GraphTracer, out: Any, x: Tensor, shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> Any:
    numbers = _normalise(tracer, tracer.of(x), range(-len(shape), 0), eps)
    return (_affine(tracer, numbers, weight, bias),)


def _group_norm(
    tracer: GraphTracer,
    out: Any,
    x: Tensor,
    weight: Any,
    bias: Any,
    n: int,
    channels: int,
    rest: int,
    groups: int,
    eps: float,
) -> Any:
    numbers = _normalise(tracer, tracer.of(x).reshape(n, groups, -1), [-1], eps).reshape(x.shape)
    shape = (channels, *(1,) * (x.ndim - 2))
    return (_affine(tracer, numbers, *(None if each is None else each.reshape(shape) for each in (weight, bias))),)


def _batch_norm(
    tracer: GraphTracer, out: Any, x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *args: Any
) -> Any:
    if mean is None or (len(args) > 2 and args[0]):  # an instance norm, as there is one window
        numbers = _normalise(tracer, tracer.of(x), [axis for axis in range(x.ndim) if axis != 1], args[-1])
        shape = (-1, *(1,) * (x.ndim - 2))
        return (_affine(tracer, numbers, *(each if each is None else each.reshape(shape) for each in (weight, bias))),)
    shape, scale = (-1, *(1,) * (x.ndim - 2)), (variance + args[-1]).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return (_affine(tracer, tracer.of(x), scale.reshape(shape), shift.reshape(shape)),)


def _affine(tracer: GraphTracer, numbers: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    numbers = numbers if weight is None else tracer.apply("mul", numbers, weight)
    return numbers if bias is None else tracer.apply("add", numbers, bias)


def _patches(
    numbers: Tensor,
    sizes: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    fill: int,
) -> Tensor:
    """(..., *axes) -> (..., *places, values of the patch)."""
    first = numbers.ndim - len(sizes)
    numbers = torch.constant_pad_nd(numbers, [pad for pad in reversed(pads) for _ in range(2)], fill)
    for axis, (size, stride, dilation) in enumerate(zip(sizes, strides, dilations, strict=True)):
        numbers = numbers.unfold(first + axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
    return numbers.flatten(-len(sizes))


def _convolution(
    tracer: GraphTracer,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """A layer of lines that is applied at each place."""
    if transposed or tracer.depends(weight):
        tracer.refuse("a transposed convolution" if transposed else "a convolution by values of the window")
    patches = _patches(tracer.of(x), weight.shape[2:], stride, padding, dilation, int(tracer.of(0.0)))
    patches = patches.reshape(len(patches), groups, -1, *patches.shape[2:])
    patches = patches.movedim(2, -2).flatten(-2)  # (n, groups, *places, values)
    filters = weight.detach().cpu().flatten(1).chunk(groups)
    biases = [None] * groups if bias is None else bias.detach().cpu().chunk(groups)
    of_groups = [
        tracer.layer(_linear(each, shift), patches[:, group]).movedim(-1, 1)
        for group, (each, shift) in enumerate(zip(filters, biases, strict=True))
    ]
    return torch.cat(of_groups, dim=1)


def _linear(weight: Tensor, bias: Tensor | None) -> Layer:
    config = LayerConfig(weight.shape[1], weight.shape[0], Line(), base="zero")
    return Layer(config, {"coef": weight.unsqueeze(-1), **({} if bias is None else {"subnode_bias": bias})})


def _max_pool(
    tracer: GraphTracer,
    out: Any,
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> Any:
    if ceil_mode:
        tracer.refuse("a pooling with ceil_mode")
    patches = _patches(tracer.of(x), size, stride or size, padding, dilation, UNKNOWN)
    patches = torch.where(patches == UNKNOWN, patches.amax(dim=-1, keepdim=True), patches)  # a value of the same patch
    numbers = tracer.reduce("max", patches, -1)
    return numbers, torch.full(numbers.shape, UNKNOWN)


def _avg_pool(
    tracer: GraphTracer,
    out: Tensor,
    x: Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Tensor:
    if ceil_mode or divisor is not None or (any(padding) and not count_include_pad):
        tracer.refuse("a pooling with ceil_mode, divisor_override or without count_include_pad")
    padding = padding[: len(size)]
    patches = _patches(tracer.of(x), size, stride or size, padding, (1,) * len(size), int(tracer.of(0.0)))
    return tracer.reduce("mean", patches, -1)


def _cumsum(tracer: GraphTracer, out: Tensor, x: Tensor, axis: int, **_: Any) -> Tensor:
    numbers = tracer.of(x).movedim(axis, -1)
    rows = tracer.matmul(
        numbers.reshape(-1, numbers.shape[-1]), torch.ones(numbers.shape[-1], numbers.shape[-1]).triu()
    )
    return rows.reshape(numbers.shape).movedim(-1, axis)


RULES: dict[str, Callable[..., Any]] = {
    **{name: _moves(name) for name in ("clone", "cat", "stack", "flip", "roll", "index", "index_select", "gather")},
    **{
        name: _moves(name)
        for name in ("repeat", "slice_scatter", "select_scatter", "index_put", "scatter", "_unsafe_index")
    },
    **{name: lambda tracer, out, x, *args, **kwargs: tracer.of(x).clone() for name in ("_to_copy", "nan_to_num")},
    "copy": lambda tracer, out, target, source, *args: tracer.of(source).expand(target.shape),
    "fill": lambda tracer, out, target, value: tracer.of(value).expand(target.shape),
    "zero": lambda tracer, out, target: tracer.of(0.0).expand(target.shape),
    "where": lambda tracer, out, mask, one, other: torch.where(mask, tracer.of(one), tracer.of(other)),
    "masked_fill": lambda tracer, out, x, mask, value: torch.where(mask, tracer.of(value), tracer.of(x)),
    "constant_pad_nd": lambda tracer, out, x, pad, value=0.0: torch.constant_pad_nd(
        tracer.of(x), pad, int(tracer.of(value))
    ),
    **{name: _unary(name) for name in ("relu", "silu", "mish", "tanh", "sigmoid", "hardsigmoid", "hardswish")},
    **{name: _unary(name) for name in ("exp", "log", "sqrt", "abs", "sin", "cos", "atan", "erf")},
    "neg": lambda tracer, out, x: tracer.apply("mul", x, -1.0),
    "square": lambda tracer, out, x: tracer.apply("mul", x, x),
    "log1p": lambda tracer, out, x: tracer.apply("log", tracer.apply("add", x, 1.0)),
    "expm1": lambda tracer, out, x: tracer.apply("sub", tracer.apply("exp", x), 1.0),
    **{"reciprocal": _power(-1.0), "rsqrt": _power(-0.5), "pow": _pow},
    **{"gelu": _gelu, "elu": _elu, "softplus": _softplus, "_prelu_kernel": _prelu, "glu": _glu},
    "leaky_relu": lambda tracer, out, x, slope=0.01: tracer.apply("leaky_relu", x, parameter=float(slope)),
    "hardtanh": lambda tracer, out, x, low=-1.0, high=1.0: _clamp(tracer, out, x, low, high),
    "clamp": lambda tracer, out, x, min=None, max=None: _clamp(tracer, out, x, min, max),
    "clamp_min": lambda tracer, out, x, low: tracer.apply("maximum", x, low),
    "clamp_max": lambda tracer, out, x, high: tracer.apply("minimum", x, high),
    **{"add": _add, "sub": _sub, "mul": _mul, "div": _div},
    "rsub": lambda tracer, out, one, other, alpha=1: _sub(tracer, out, other, one, alpha),
    **{
        name: lambda tracer, out, one, other, name=name: tracer.apply(name, one, other)
        for name in ("maximum", "minimum")
    },
    "addcmul": lambda tracer, out, x, one, other, value=1: _add(tracer, out, x, tracer.apply("mul", one, other), value),
    **{"mean": _reduction("mean"), "sum": _reduction("sum"), "amax": _reduction("max"), "amin": _reduction("min")},
    **{"max": _extreme("max"), "min": _extreme("min")},
    **{"std": _spread(True), "var": _spread(False), "std_mean": _spread(True, True), "var_mean": _spread(False, True)},
    "linalg_vector_norm": _norm,
    **{name: lambda tracer, out, x, axis, *_: tracer.softmax(x, axis) for name in ("_softmax", "_safe_softmax")},
    "_log_softmax": lambda tracer, out, x, axis, _: tracer.apply("log", tracer.softmax(x, axis)),
    **{name: lambda tracer, out, one, other: tracer.matmul(one, other) for name in ("mm", "bmm")},
    **{"addmm": _addmm, "baddbmm": _addmm},
    "mv": lambda tracer, out, one, other: tracer.matmul(one, tracer.of(other)[:, None])[:, 0],
    "dot": lambda tracer, out, one, other: tracer.matmul(tracer.of(one)[None], tracer.of(other)[:, None]),
    **{"native_layer_norm": _layer_norm, "native_group_norm": _group_norm, "native_batch_norm": _batch_norm},
    "_native_batch_norm_legit_no_training": _batch_norm,
    **{"convolution": _convolution, "max_pool2d_with_indices": _max_pool, "avg_pool2d": _avg_pool},
    "cumsum": _cumsum,
}
