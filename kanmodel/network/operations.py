"""The nodes of a graph: a small set of operations, kept as data, whose shapes are checked by arithmetic alone.

Shapes are those of one window; every value has the batch as a further first axis. All movement of data (slices,
transposes, concatenations, pads) is one operation, `arrange`: its values are those of its inputs, each flattened and
one after the other, at given indices. So no other operation needs an axis: reductions and softmax act on the last one.
A `Loop` is a graph of its own that is stepped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from math import prod
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from kanmodel.errors import MAX_SIZE, ConfigError, Index, check_choice, check_config, check_count, check_number, quote
from kanmodel.network.distributions import FAMILIES, quantile
from kanmodel.network.functions import ACTIVATIONS

T = TypeVar("T")
Shape = tuple[int, ...]
MAX_NODES = 1 << 12
MAX_VALUES = 1 << 21  # of all nodes together, for one window
MAX_AXES = 8


class Operation(NamedTuple):
    """An operation of a graph; those without a function are `Graph`'s own."""

    n_inputs: int | None  # None for any number
    function: Callable[..., Tensor] | None = None  # of its inputs, with the batch as first axis, and of its parameter
    shape: Callable[..., Shape] | None = None  # of the result, from those of the inputs; ValueError if they do not fit
    parameter: float | None = None  # its default; NaN if it must be given, None if there is none
    kinks: tuple[float, ...] = ()  # where its slope jumps: arguments, or differences of its two arguments
    watched: bool = True  # whether it is nonlinear, so that paths watch the moves of its arguments


_same = np.broadcast_shapes


def _reduced(shape: Shape) -> Shape:
    return shape[:-1]


def _product(one: Shape, other: Shape) -> Shape:
    if len(one) != len(other) or one[:-2] != other[:-2] or len(one) < 2 or one[-1] != other[-2]:
        raise ValueError
    return (*one[:-1], other[-1])


def _mixed(*shapes: Shape) -> Shape:
    return _same(*shapes)[:-1]


# Arguments, or differences of two, at which the slope of a function jumps, of activations of a layer as well.
KINKS = {**dict.fromkeys(("relu", "leaky_relu", "elu", "selu", "abs", "step"), (0.0,)), "hardtanh": (-1.0, 1.0)}
KINKS |= {
    **dict.fromkeys(("maximum", "minimum"), (0.0,)),
    "relu6": (0.0, 6.0),
    **dict.fromkeys(("hardsigmoid", "hardswish"), (-3.0, 3.0)),
}

# From the steps of a chain, (batch, lookback, n), to the inputs of its head; not for the graph of a document.
READOUTS: dict[str, Operation] = {
    "readout_last": Operation(1, lambda steps: steps[:, -1], lambda shape: shape[1:]),
    "readout_mean": Operation(1, lambda steps: steps.mean(dim=1), lambda shape: shape[1:]),
    "readout_flatten": Operation(1, lambda steps: steps.flatten(1), lambda shape: (prod(shape),)),
}

OPERATIONS: dict[str, Operation] = {
    "window": Operation(0),
    "constant": Operation(0),
    "number": Operation(0, parameter=torch.nan),
    "arrange": Operation(None),
    "layer": Operation(1),
    "recurrent": Operation(1),
    "loop": Operation(None),
    "given": Operation(0),
    **{name: Operation(1, of.function, _same, of.parameter) for name, of in ACTIVATIONS.items() if name != "identity"},
    **{name: Operation(1, getattr(torch, name), _same) for name in ("exp", "log", "sqrt", "abs", "sin", "cos", "atan")},
    **{name: Operation(1, getattr(torch, name), _same) for name in ("sinh", "asinh", "erf")},
    "step": Operation(1, lambda x: torch.relu(torch.sign(x)) + 0 * x, _same),  # 1 above 0; its gradient is 0
    "where": Operation(3, lambda mask, one, other: torch.where(mask > 0, one, other) + 0 * mask, _same, watched=False),
    "power": Operation(1, torch.pow, _same, torch.nan),
    "add": Operation(2, torch.add, _same, watched=False),
    "sub": Operation(2, torch.sub, _same, watched=False),
    "mul": Operation(2, torch.mul, _same, watched=False),
    "div": Operation(2, torch.div, _same),
    "maximum": Operation(2, torch.maximum, _same),
    "minimum": Operation(2, torch.minimum, _same),
    "sum": Operation(1, partial(torch.sum, dim=-1), _reduced, watched=False),
    "mean": Operation(1, partial(torch.mean, dim=-1), _reduced, watched=False),
    "max": Operation(1, partial(torch.amax, dim=-1), _reduced),
    "min": Operation(1, partial(torch.amin, dim=-1), _reduced),
    "median": Operation(1, lambda x: x.median(dim=-1)[0], _reduced),
    "std": Operation(1, partial(torch.std, dim=-1, correction=0), _reduced),
    "softmax": Operation(1, partial(torch.softmax, dim=-1), _same),
    "matmul": Operation(2, torch.matmul, _product),
    **{
        f"quantile_{name}": Operation(1 + len(of.parameters), partial(quantile, name), _mixed, torch.nan)
        for name, of in FAMILIES.items()
    },
}
OPERATIONS |= {name: OPERATIONS[name]._replace(kinks=kinks) for name, kinks in KINKS.items()}
_Size = Annotated[int, partial(check_count, lowest=0)]
_Whole = Annotated[int, partial(check_count, lowest=-MAX_VALUES, highest=MAX_VALUES)]


@dataclass(frozen=True)
class Node:
    """One operation of a graph.

    Attributes:
        op: name of the operation. ``layer`` number k of a graph is layer k of the head, on the last axis; ``recurrent``
            number k is number k of the recurrent layers, on the last two axes, steps and values; ``loop`` number k is
            number k of the loops. ``given`` nodes are the first of a loop's body.
        inputs: indices of the nodes that it reads, all before it.
        parameter: of the operation, its default if it has one; the value of a ``number``.
        shape: of a ``constant`` or an ``arrange``, without the batch.
        runs: indices of an ``arrange`` as runs of (first, stride, count); empty for all values in their order.
    """

    op: Annotated[str, partial(check_choice, choices=OPERATIONS | READOUTS)]
    inputs: tuple[Index, ...] = ()
    parameter: float | None = None
    shape: tuple[_Size, ...] | None = None
    runs: tuple[tuple[_Whole, ...], ...] = ()

    def __post_init__(self) -> None:
        check_config(self)
        operation = OPERATIONS.get(self.op) or READOUTS[self.op]
        if operation.n_inputs not in (None, len(self.inputs)) or (self.op == "arrange" and not self.inputs):
            raise ConfigError(f"{self.op} has {len(self.inputs)} inputs")
        if (self.shape is not None) != (self.op in ("constant", "arrange")) or len(self.shape or ()) > MAX_AXES:
            raise ConfigError(f"{self.op} has the shape {quote(self.shape)}")
        if self.runs and self.op != "arrange":
            raise ConfigError(f"{self.op} has runs, which only arrange may have")
        if any(len(run) != 3 or run[2] < 1 for run in self.runs):
            raise ConfigError("runs must be of first, stride and count")
        if self.parameter is None and operation.parameter is not None:
            check_number(operation.parameter, f"the parameter of {self.op}")
            object.__setattr__(self, "parameter", operation.parameter)
        elif self.op.startswith("quantile_") and not 0 < (self.parameter or 0) < 1:
            raise ConfigError(f"the parameter of {self.op} must be a level between 0 and 1, but is {self.parameter}")
        elif self.parameter is not None and operation.parameter is None:
            raise ConfigError(f"{self.op} has no parameter")

    def indices(self) -> NDArray[np.int64]:
        """The indices of its `runs`."""
        return np.concatenate([first + stride * np.arange(count) for first, stride, count in self.runs])

    def arrange(self, parts: Sequence[NDArray[Any]], axis: int = -1) -> NDArray[Any]:
        """What an ``arrange`` node takes, not yet in its shape, from its inputs, which are flat along an axis."""
        every = np.concatenate(parts, axis=axis)
        return every.take(self.indices(), axis=axis) if self.runs else every


@dataclass(frozen=True)
class Loop:
    """A recurrence other than an LSTM or a GRU: a body that computes its next states and a value in each step.

    Its node reads sequences, whose first axis is the steps, in the order of these; then values that are the same in
    each step; then the states before the first step. It gives the body's values of all steps, (steps, ...).

    Attributes:
        steps: how often the body is computed.
        n_sequences: how many sequences it reads.
        n_fixed: how many values that are the same in each step.
        body: the nodes of one step. The first are ``given``: the sequences' values in the step, the fixed values and
            the states before the step.
        states: the node that each state is after the step.
        value: the node whose values it gives.
    """

    steps: Annotated[int, check_count]
    n_sequences: Index
    n_fixed: Index
    body: tuple[Node, ...]
    states: tuple[Index, ...]
    value: Index

    def __post_init__(self) -> None:
        check_config(self)
        check_count(len(self.body), "the number of nodes of a body", highest=MAX_NODES)
        given = [number for number, node in enumerate(self.body) if node.op == "given"]
        if given != list(range(self.n_given)) or not self.states:
            raise ConfigError(f"a body must have a state and begin with {self.n_given} given nodes, but has {given}")
        for node in self.body:
            if node.op in ("window", "recurrent", "loop") or node.op in READOUTS:
                raise ConfigError(f"a body cannot have the operation {node.op}")
        if max(*self.states, self.value) >= len(self.body):
            raise ConfigError(f"a body has {len(self.body)} nodes, but its states and value are others")
        needed = {*self.states, self.value, *given}
        for number in reversed(range(len(self.body))):
            if number not in needed:
                raise ConfigError(f"body[{number}] is read by no node")
            needed.update(self.body[number].inputs)

    @property
    def n_given(self) -> int:
        """Number of values that the body, and the node of the loop, read."""
        return self.n_sequences + self.n_fixed + len(self.states)

    @property
    def n_layers(self) -> int:
        """Number of KAN layers in the body."""
        return sum(node.op == "layer" for node in self.body)

    @property
    def feedback(self) -> dict[int, int]:
        """The ``given`` node of each state, and the node that it is after the step."""
        return {self.n_given - len(self.states) + state: node for state, node in enumerate(self.states)}

    def split(self, read: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        """What its node reads: the sequences, the fixed values and the states before the first step."""
        first_state = self.n_sequences + self.n_fixed
        return read[: self.n_sequences], read[self.n_sequences : first_state], read[first_state:]

    def infer_shapes(self, read: Sequence[Shape], layers: Iterator[Any]) -> tuple[Shape, ...]:
        """The shape of every node of the body from those of what the loop reads; raises as `infer_shapes`."""
        sequences, fixed, states = self.split(read)
        if len(read) != self.n_given or any(shape[:1] != (self.steps,) for shape in sequences):
            raise ValueError
        given = [*(shape[1:] for shape in sequences), *fixed, *states]
        shapes = infer_values(self.body, {"layer": layers, "given": iter(given)}, "body")
        if any(shapes[state] != shapes[node] for state, node in self.feedback.items()):
            raise ValueError
        return tuple(shapes)


def infer_shapes(
    nodes: Sequence[Node],
    window: Shape,
    layers: Sequence[Any],
    recurrents: Sequence[Any],
    loops: Sequence[Loop] = (),
    limited: bool = True,
) -> tuple[Shape, ...]:
    """The shape of every node, without the batch; `layers` and `recurrents` are configs.

    Raises `ConfigError`, which names the first node that cannot be: one that reads a later node or itself, whose inputs
    do not fit, or, of `limited` ones, that would make the graph too large.
    """
    check_count(len(nodes), "the number of nodes", highest=MAX_NODES)
    left = {"layer": iter(layers), "recurrent": iter(recurrents), "loop": iter(loops), "window": repeat(window)}
    shapes = infer_values(nodes, left, "graph", limited)
    for name, rest in left.items():
        if name != "window" and next(rest, None) is not None:
            raise ConfigError(f"graph has fewer nodes of the operation {name} than there are of these")
    _check_ways(nodes)
    return tuple(shapes)


def infer_values(
    nodes: Sequence[Node], left: Mapping[str, Iterator[Any]], graph: str, limited: bool = True
) -> list[Shape]:
    """The shapes of nodes; `left` are the configs of those to come by operation, and the shapes of what is given."""
    shapes, total = list[Shape](), 0
    for number, node in enumerate(nodes):
        place = f"{graph}[{number}]"
        if node.op in READOUTS and limited:
            raise ConfigError(f"{place}: {node.op} is an operation of chains")
        if any(source >= number for source in node.inputs):
            raise ConfigError(f"{place}.inputs must be nodes before it, but are {list(node.inputs)}")
        read = [shapes[source] for source in node.inputs]
        try:
            shapes.append(_shape(node, read, left))
        except (ValueError, RuntimeError, IndexError, KeyError, StopIteration) as error:
            raise ConfigError(f"{place}: {node.op} does not fit inputs of shape {[*map(list, read)]}") from error
        size, axes = prod(shapes[-1]), len(shapes[-1])
        total += size
        too_large = total > MAX_VALUES or axes > MAX_AXES or max(shapes[-1], default=1) > MAX_SIZE
        if limited and (size == 0 or too_large):
            raise ConfigError(f"{place} has shape {list(shapes[-1])}, and a graph at most {MAX_VALUES} values")
    return shapes


def align(values: Sequence[Any], shapes: Sequence[Shape]) -> Sequence[Any]:
    """Values of some shapes after the batch, with as many axes each, so that they are broadcast after it."""
    axes = max(map(len, shapes))
    if all(len(own) == axes for own in shapes):
        return values
    return [x.reshape(-1, *(1,) * (axes - len(own)), *own) for x, own in zip(values, shapes, strict=True)]


def is_linear(node: Node, nodes: Sequence[Node | None]) -> bool:
    """Whether a node of a graph is a linear map of the values that depend on the window, by a matrix."""
    read = (nodes[source] for source in node.inputs)
    return node.op == "matmul" and any(one is not None and one.op == "constant" for one in read)


def last_uses(nodes: Sequence[Node]) -> list[int]:
    """The last node that reads each one; for the last node, the number of nodes."""
    last = [0] * (len(nodes) - 1) + [len(nodes)]
    for number, node in enumerate(nodes):
        for source in node.inputs:
            last[source] = number
    return last


def _check_ways(nodes: Sequence[Node]) -> None:
    """Raises `ConfigError` unless every node leads to the last one, and every leaf comes after the only window."""
    read = {source for node in nodes for source in node.inputs}
    follows: list[bool] = []
    for number, node in enumerate(nodes):
        follows.append(node.op == "window" or any(follows[source] for source in node.inputs))
        if number not in read and number < len(nodes) - 1:
            raise ConfigError(f"graph[{number}] is read by no node")
        if not follows[-1] and (node.op in ("layer", "recurrent", "loop") or number == len(nodes) - 1):
            raise ConfigError(f"graph[{number}] does not depend on the window")
    if sum(node.op == "window" for node in nodes) != 1:
        raise ConfigError("graph must read the window at one node")


def _shape(node: Node, read: Sequence[Shape], left: Mapping[str, Iterator[Any]]) -> Shape:
    operation = OPERATIONS.get(node.op) or READOUTS[node.op]
    if operation.shape is not None:
        return operation.shape(*read)
    match node.op:
        case "window" | "given":
            found: Shape = next(left[node.op])
            return found
        case "constant" | "number":
            return node.shape or ()
        case "layer":
            layer = next(left["layer"])
            if read[0][-1] != layer.n_in:
                raise ValueError
            return (*read[0][:-1], layer.n_out)
        case "recurrent":
            return (*read[0][:-2], read[0][-2], next(left["recurrent"]).n_units)
        case "loop":
            loop = next(left["loop"])
            return (loop.steps, *loop.infer_shapes(read, left["layer"])[loop.value])
    assert node.shape is not None
    size = sum(map(prod, read))
    ends = [end for first, stride, count in node.runs for end in (first, first + stride * (count - 1))]
    if sum(count for _, _, count in node.runs) != prod(node.shape) and (node.runs or size != prod(node.shape)):
        raise ValueError
    if ends and not 0 <= min(ends) <= max(ends) < size:
        raise ValueError
    return node.shape


class Arrangement:
    """The function of an ``arrange`` node, as a view of its one input where its indices are a lattice."""

    def __init__(self, node: Node) -> None:
        assert node.shape is not None
        self.shape, self._lattice = node.shape, None
        self.indices = node.indices().reshape(node.shape) if node.runs else None  # None for all values in their order
        if self.indices is not None:
            self._lattice = _lattice(self.indices) if len(node.inputs) == 1 else None
            self._flat = torch.from_numpy(self.indices.ravel())

    def __call__(self, *values: Tensor) -> Tensor:
        """Inputs (batch, ...) -> (batch, *shape); the batch of a constant may be 1."""
        if has_torch_function(values):  # for ONNX export, whose graph has its own operation
            return handle_torch_function(Arrangement.__call__, values, self, *values)
        n = max(map(len, values))
        flat = [(value.flatten(1) if value.ndim > 1 else value[:, None]).expand(n, -1) for value in values]
        every = flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)
        if self._lattice is not None:
            first, strides = self._lattice
            every = every.contiguous()
            return every.as_strided((n, *self.shape), (every.shape[1], *strides), every.storage_offset() + first)
        if self.indices is not None:
            every = every.index_select(1, self._flat)
        return every.reshape(n, *self.shape)


def _lattice(indices: NDArray[np.int64]) -> tuple[int, Shape] | None:
    """First index and strides of indices that are a lattice, such as those of a slice or a transpose; else None."""
    origin = (0,) * indices.ndim
    first, strides = int(indices[origin]), []
    for axis, n in enumerate(indices.shape):
        step = indices[tuple(int(other == axis) for other in range(indices.ndim))] - first if n > 1 else 0
        strides.append(int(step))
    lattice = first + sum(stride * at for stride, at in zip(strides, np.indices(indices.shape), strict=True))
    return (first, tuple(strides)) if min(strides, default=0) >= 0 and np.array_equal(lattice, indices) else None


def runs_of(indices: Sequence[int] | NDArray[np.int64]) -> tuple[tuple[int, int, int], ...]:
    """Indices as the runs of a `Node`."""
    runs: list[tuple[int, int, int]] = []
    rest = np.asarray(indices)
    while len(rest):
        stride = int(rest[1] - rest[0]) if len(rest) > 1 else 1
        breaks = np.flatnonzero(np.diff(rest) != stride)
        count = int(breaks[0]) + 1 if len(breaks) else len(rest)
        runs.append((int(rest[0]), stride, count))
        rest = rest[count:]
    return tuple(runs)
