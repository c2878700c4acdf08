"""`Graph`, an ONNX graph under construction, and `Value`, a symbolic tensor by which a network is traced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

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
