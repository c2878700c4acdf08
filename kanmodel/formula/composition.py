"""How an output is computed from the symbols of its formula: nodes of KAN layers, and the operations between them.

The symbols of a chain are the inputs of its head. Those of a graph are the units of its recurrent parts, the cells of
the window, and statistics of either over the steps, such as the mean of a feature, by which a forecast is scaled back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.errors import ConfigError
from kanmodel.forecaster import Forecaster
from kanmodel.network.connections import ledger_key, node_id
from kanmodel.network.layer import KANLayer, LayerTrace
from kanmodel.network.network import LayerKey, Trace
from kanmodel.network.operations import OPERATIONS

Edge = tuple[int, int, int]  # layer, i, j
Subnode = tuple[int, int]  # layer, j
MAX_CALLS = 300  # edges in a formula that is written out; a larger network has none as a whole
MAX_TERMS = 300  # operations between layers
MAX_VALUES = 20_000  # that one output may be computed of
READOUT = -1  # the source of the inputs of a chain
REFUSED = {"softmax": "softmax mixes {} values", "std": "a deviation, as of a norm, mixes {} values"}
REFUSED["median"] = "a median, as of a sort, mixes {} values"
FOLDED = {"sum": "add", "mean": "add", "max": "maximum", "min": "minimum"}  # the operation that folds their values

# Operations of x, and of y or a parameter p, in sympy's notation; numpy's names stand for what sympy would rewrite.
PATTERNS = {
    "add": "x + y",
    "sub": "x - y",
    "mul": "x*y",
    "div": "x/y",
    "maximum": "maximum(x, y)",
    "minimum": "minimum(x, y)",
    "power": "x**p",
    **{name: f"{name}(x)" for name in ("exp", "log", "sqrt", "sin", "cos", "sinh", "asinh", "atan", "tanh")},
    "abs": "Abs(x)",
    "step": "maximum(sign(x), 0)",
    "relu": "maximum(x, 0)",
    "leaky_relu": "maximum(x, 0) + p*minimum(x, 0)",
    "elu": "maximum(x, 0) + p*(exp(minimum(x, 0)) - 1)",
    "selu": "1.0507009873554805*(maximum(x, 0) + 1.6732632423543772*(exp(minimum(x, 0)) - 1))",
    "gelu_tanh": "x*(1 + tanh(0.7978845608028654*(x + 0.044715*x**3)))/2",
    "silu": "x/(1 + exp(-x))",
    "mish": "x*tanh(log(1 + exp(x)))",
    "sigmoid": "1/(1 + exp(-x))",
    "softplus": "log(1 + exp(p*x))/p",
    "softsign": "x/(1 + Abs(x))",
    "relu6": "minimum(maximum(x, 0), 6)",
    "hardtanh": "minimum(maximum(x, -1), 1)",
    "hardsigmoid": "minimum(maximum(x + 3, 0), 6)/6",
    "hardswish": "x*minimum(maximum(x + 3, 0), 6)/6",
}


class Notation(NamedTuple):
    """A pattern as a function of numbers and of sympy's expressions."""

    of_numbers: Callable[..., Any]
    of_symbols: Callable[..., Any]
    n_read: int  # how often x is in it


@cache
def notation_of(op: str) -> Notation:
    """That of an operation. Raises ConfigError if it has none."""
    import sympy  # here, since it is slow to import

    if op not in PATTERNS:
        raise ConfigError(f"{op} cannot be written as a formula, as numpy has no such function")
    x, y, p = sympy.symbols("x y p")
    pattern = sympy.sympify(PATTERNS[op], locals={name: sympy.Function(name) for name in ("maximum", "minimum")})

    def of_symbols(left: Any, right: Any, parameter: float) -> Any:
        given = int(parameter) if parameter == int(parameter) else parameter  # x**2 rather than x**2.0
        return pattern.xreplace({x: sympy.sympify(left), y: sympy.sympify(right), p: sympy.sympify(given)})

    return Notation(sympy.lambdify((x, y, p), pattern, "numpy"), of_symbols, max(pattern.count(x), 1))


class Instruction(NamedTuple):
    """One value: an ``input``, a ``number``, a node of a ``layer`` at one of its rows, or an operation of `PATTERNS`.

    It reads earlier ones: of a layer one by input, of an operation one, or several that are folded.
    """

    op: str
    reads: tuple[int, ...] = ()
    parameter: float = 0.0  # of the operation; or the number
    layer: int = 0
    row: int = 0
    node: int = 0  # of the layer; or the number of the input


@dataclass(frozen=True)
class Input:
    """What a symbol stands for."""

    node: str  # id of the node, or the statistic of one over the steps of the window, such as ``mean(load)``
    name: str  # of the symbol, if that can be one
    key: LayerKey  # (stage, layer) under which the node has a profile
    unit: int  # its number there
    # number of the recurrent part of a graph that it is read of; None for its window, `READOUT` of a chain
    source: int | None
    places: tuple[int, ...]  # where, in its values, flattened
    statistic: str | None = None  # over these places; None for the value of one
    mean: float = 0.0  # in original units it is value * scale + mean
    scale: float = 1.0


@dataclass(frozen=True)
class Composition:
    """How one output, before the output function, is computed."""

    layers: Sequence[KANLayer]  # all KAN layers of the head
    inputs: tuple[Input, ...]  # of the formula
    steps: tuple[Instruction, ...]  # values in the order of the computation; the last is the output

    @classmethod
    def of(cls, model: Forecaster, output: int) -> Composition:
        """That of one output. Raises ConfigError, which says why, if it cannot be written as a formula."""
        composed = _GraphComposer(model).compose(output) if model.config.graph else _compose_chain(model, output)
        found = cls(model.network.stages["head"], *composed)
        if any(found.layers[number].config.mixes for number in found.rows):
            reason = "a layer norm mixes all inputs"
            raise ConfigError(f"a formula needs edges that are functions of one number, but {reason}")
        for step in found.steps:
            if step.op not in ("input", "number", "layer"):
                notation_of(step.op)
        if found.find_used(())[2] > MAX_TERMS:
            raise too_long_error()
        return found

    @cached_property
    def rows(self) -> dict[int, list[int]]:
        """The rows of each KAN layer that the output depends on, by its number; layers without any are left out."""
        found = {(step.layer, step.row) for step in self.steps if step.op == "layer"}
        return {layer: sorted(row for of, row in found if of == layer) for layer, _ in sorted(found)}

    @cached_property
    def members(self) -> dict[Subnode, list[int]]:
        """The sub-nodes of each (layer, node)."""
        members: dict[Subnode, list[int]] = defaultdict(list)
        for number in self.rows:
            for j, node in enumerate(self.layers[number].config.node_of_subnode):
                members[number, node].append(j)
        return members

    @cached_property
    def affine(self) -> dict[int, tuple[list[float], ...]]:
        """The affine maps of each layer: scales and biases of sub-nodes, then of nodes."""
        names = ("subnode_scale", "subnode_bias", "node_scale", "node_bias")
        return {number: tuple(getattr(self.layers[number], name).tolist() for name in names) for number in self.rows}

    @cached_property
    def outermost(self) -> set[Subnode]:
        """The sub-nodes from which no other layer stands before the output."""
        layers = [step for step in map(self.steps.__getitem__, self.find_needed(())) if step.op == "layer"]
        return {(step.layer, j) for step in layers for j in self.members[step.layer, step.node]}

    def find_needed(self, edges: Iterable[Edge]) -> list[int]:
        """The steps that the output is computed from, in their order, if a layer reads only by some edges."""
        into: dict[Subnode, set[int]] = defaultdict(set)
        for layer, i, j in edges:
            into[layer, j].add(i)
        needed = {len(self.steps) - 1}
        for at in reversed(range(len(self.steps))):
            step = self.steps[at]
            if at in needed and step.op == "layer":
                for j in self.members[step.layer, step.node]:
                    needed.update(step.reads[i] for i in into[step.layer, j])
            elif at in needed:
                needed.update(step.reads)
        return sorted(needed)

    def read(self, windows: Tensor, trace: Trace) -> Array:
        """The inputs, (n, n_inputs), in model units, of windows and their trace."""
        columns = []
        for one in self.inputs:
            if one.source is None:
                values = windows
            else:
                of = trace.loops if one.key[0] == "loop" else [part.states[-1] for part in trace.recurrents]
                values = trace.readout if one.source == READOUT else of[one.source]
            values = values.reshape(len(windows), -1).double()[:, list(one.places)]
            reduce = OPERATIONS[one.statistic].function if one.statistic else None
            columns.append(values[:, 0] if reduce is None else reduce(values))
        return torch.stack(columns, dim=1).numpy() if columns else np.zeros((len(windows), 0))

    def traces(self, trace: Trace, n_windows: int) -> dict[int, LayerTrace]:
        """The activations of each layer at its `rows`, those of a window together."""
        chosen = {}
        for number, rows in self.rows.items():

            def choose(values: Tensor, rows: Sequence[int] = rows) -> Tensor:
                return values.reshape(n_windows, -1, *values.shape[1:])[:, rows].flatten(0, 1)

            chosen[number] = trace.stages["head"][number].map(choose)
        return chosen

    def find_used(self, edges: Iterable[Edge]) -> tuple[list[Edge], int, int]:
        """The edges by which the output depends on the inputs; how often a formula has edges, and operations.

        Other edges are zero. A formula has some repeatedly, as a node is written out wherever it is read.
        """
        into: dict[Subnode, list[Edge]] = defaultdict(list)
        for edge in edges:
            into[edge[0], edge[2]].append(edge)
        depends: list[bool] = []
        entering: dict[int, list[Edge]] = {}  # of the steps that are nodes of layers
        for at, step in enumerate(self.steps):
            if step.op == "layer":
                all_of = [edge for j in self.members[step.layer, step.node] for edge in into[step.layer, j]]
                entering[at] = [edge for edge in all_of if depends[step.reads[edge[1]]]]
            read = entering[at] if step.op == "layer" else [source for source in step.reads if depends[source]]
            depends.append(step.op == "input" or bool(read))
        times, used, n_edges, n_operations = [0] * (len(self.steps) - 1) + [1], set[Edge](), 0, 0
        for at in reversed(range(len(self.steps))):
            step = self.steps[at]
            if not times[at] or not depends[at]:
                continue
            used.update(entering.get(at, ()))
            n_edges += times[at] * len(entering.get(at, ()))
            for _, i, _ in entering.get(at, ()):
                times[step.reads[i]] += times[at]
            if step.op not in ("layer", "input"):
                n_operations += times[at] * max(len(step.reads) - 1, 1)
                for source in step.reads:
                    times[source] += times[at] * notation_of(step.op).n_read
        return sorted(used), n_edges, n_operations


def too_long_error() -> ConfigError:
    """Where nothing but a constant is short enough."""
    reason = f"more than {MAX_TERMS} operations between its layers, or {MAX_CALLS} edges"
    return ConfigError(f"a formula that is written out would be too long: {reason}")


def _compose_chain(model: Forecaster, output: int) -> tuple[tuple[Input, ...], tuple[Instruction, ...]]:
    config, scaling, key = model.config, model.scaling, ledger_key(model.config, "head", 0)
    are_features = config.has_plain_steps and config.readout != "mean"
    inputs = []
    for index in range(config.head[0].n_in):
        node, feature = node_id(config, "head", 0, index), index % len(config.features)
        mean, scale = scaling.feature_mean[feature], scaling.feature_scale[feature]
        units = (float(mean), float(scale)) if are_features else (0.0, 1.0)
        inputs.append(Input(node, _name_of(node), key, index, READOUT, (index,), None, *units))
    steps = [Instruction("input", node=index) for index in range(len(inputs))]
    read = range(len(steps))
    for number, layer in enumerate(config.head):
        nodes = range(layer.n_out) if number < len(config.head) - 1 else [output]
        steps += [Instruction("layer", tuple(read), layer=number, node=node) for node in nodes]
        read = range(len(steps) - len(nodes), len(steps))
    return tuple(inputs), tuple(steps)


def _name_of(node: str) -> str:
    """``lstm:3`` -> ``u3``; ``cell:-1:load`` -> ``load_1``, as it is one step before the newest."""
    kind, *rest = node.split(":")
    if kind == "cell":
        step, *name = rest
        value = ":".join(name)
        return f"{'u' if value.isdigit() else ''}{value}_{-int(step)}"
    return {"lstm": "u", "gru": "u", "loop": "c", "front": "n"}.get(kind, "") + "_".join(rest)


Value = tuple[int, int]  # a node of a graph, and the place in its values
Build = Callable[[tuple[int, ...], int], list[Instruction]]
"""The instructions that compute a value from others', and the first number that is free; none if it is the one read."""


class _GraphComposer:
    """Finds the inputs and steps of an output of a graph: back from it to the inputs, and then in their order."""

    def __init__(self, model: Forecaster) -> None:
        self._model, self._graph, self._shapes = model, model.config.graph, model.config.graph_shapes
        self._leaves: dict[int, int] = {}  # number of each leaf among those of its kind
        for op in ("recurrent", "loop"):
            self._leaves |= {at: n for n, at in enumerate(at for at, node in enumerate(self._graph) if node.op == op)}
        cuts = (cut for cut in model.config.cuts if cut.edges is not None and not cut.inside)
        self._leaves |= {cut.at: cut.edges for cut in cuts if cut.at is not None and cut.edges is not None}
        self._inputs: dict[tuple[int, tuple[int, ...], str | None], Input] = {}
        self._places: dict[tuple[int, int], Any] = {}  # what `_moved` and `_spread` look up

    def compose(self, output: int) -> tuple[tuple[Input, ...], tuple[Instruction, ...]]:
        needed: list[set[int]] = [set() for _ in self._graph]
        expanded: list[list[tuple[int, list[Value], Build]]] = [[] for _ in self._graph]
        needed[-1].add(output)
        left = MAX_VALUES
        for number in reversed(range(len(self._graph))):
            for at in sorted(needed[number]):
                read, build = self._expand(number, at)
                expanded[number].append((at, read, build))
                left -= 1 + len(read)
                if left < 0:
                    raise too_long_error()
                for source, place in read:
                    if source >= 0:
                        needed[source].add(place)
        steps: list[Instruction] = []
        known: dict[Value, int] = {}
        for number, of_node in enumerate(expanded):
            for at, read, build in of_node:
                sources = tuple(known.get(value, -1) for value in read)
                made = build(sources, len(steps))
                steps += made
                known[number, at] = len(steps) - 1 if made else sources[0]
        return tuple(self._inputs.values()), tuple(steps)

    def _expand(self, number: int, at: int) -> tuple[list[Value], Build]:
        """The values that one is computed from, none of an input, a number or a statistic; and how."""
        node, shape = self._graph[number], self._shapes[number]
        if node.op in ("window", "recurrent", "loop"):
            return [], lambda read, first: [self._input(number, (at,), None)]
        if node.op in ("constant", "number"):
            value = float(self._model.network.get_buffer(f"constants.{number}").double().flatten()[at])
            return [], lambda read, first: [Instruction("number", parameter=value)]
        if node.op == "arrange":
            return [self._moved(number, at)], lambda read, first: []
        if node.op == "layer":
            leaf = self._leaves[number]
            layer, (row, own) = self._model.network.stages["head"][leaf], divmod(at, shape[-1])
            live = layer.live[torch.tensor(layer.config.node_of_subnode) == own].any(dim=0).tolist()
            begin = row * layer.config.n_in
            values = [(node.inputs[0], begin + i) if is_live else (-1, i) for i, is_live in enumerate(live)]
            return values, lambda read, first: [Instruction("layer", read, layer=leaf, row=row, node=own)]
        if node.op == "matmul":
            (*_, n), (*_, columns) = (self._shapes[source] for source in node.inputs)
            row, column = divmod(at, columns)
            begin = row // self._shapes[node.inputs[0]][-2] * n
            pairs = (((0, row * n + k), (1, (begin + k) * columns + column)) for k in range(n))
            return [(node.inputs[side], place) for pair in pairs for side, place in pair], _sum_products
        if node.op.startswith("quantile_"):
            raise ConfigError("a formula has no quantiles that are solved for; it may have those parameters")
        if node.op in FOLDED or node.op in REFUSED:
            return self._fold(number, at)
        values = [(source, int(self._spread(number, source)[at])) for source in node.inputs]
        if node.op == "where":
            return values, _choose_value
        return values, lambda read, first: [Instruction(node.op, read, node.parameter or 0.0)]

    def _fold(self, number: int, at: int) -> tuple[list[Value], Build]:
        """As `_expand`, of a reduction or a softmax, whose inputs are a row of the last axis."""
        op, source = self._graph[number].op, self._graph[number].inputs[0]
        n = self._shapes[source][-1]
        begin = at // n * n if op == "softmax" else at * n
        values = [(source, begin + k) for k in range(n)]
        column = None if op == "softmax" else self._column(values)
        if column is not None:
            return [], lambda read, first: [self._input(*column, op)]
        if op in REFUSED:
            raise ConfigError(f"a formula needs operations of a few numbers, but {REFUSED[op].format(n)}")
        if op == "mean":
            scale = Instruction("number", parameter=1 / n)
            return values, lambda read, first: [
                Instruction("add", read),
                scale,
                Instruction("mul", (first, first + 1)),
            ]
        return values, lambda read, first: [Instruction(FOLDED[op], read)] if n > 1 else []

    def _input(self, source: int, places: tuple[int, ...], statistic: str | None) -> Instruction:
        """The instruction of an input, which is added if it is new."""
        key = (source, places, statistic)
        if key not in self._inputs:
            of = self._of_window(places) if self._graph[source].op == "window" else self._of_recurrent(source, places)
            if statistic is not None:
                node, name = f"{statistic}({of.node})", f"{statistic}_{of.name}"
                factor = {"std": 0, "sum": len(places)}.get(statistic, 1)
                of = replace(of, node=node, name=name, statistic=statistic, mean=factor * of.mean)
            self._inputs[key] = of
        return Instruction("input", node=list(self._inputs).index(key))

    def _of_window(self, places: tuple[int, ...]) -> Input:
        """A cell of the window, or a feature at several steps."""
        config, scaling = self._model.config, self._model.scaling
        lookback, n = config.window_shape
        feature, steps = places[0] % n, [place // n - lookback + 1 for place in places]
        name = config.feature_names[feature]
        cell = f"cell:{steps[0]}:{name}"
        node, name = (cell, _name_of(cell)) if len(steps) == 1 else (name + _span(steps, lookback), name)
        mean, scale = float(scaling.feature_mean[feature]), float(scaling.feature_scale[feature])
        return Input(node, name, ("input", 0), feature, None, places, None, mean, scale)

    def _of_recurrent(self, source: int, places: tuple[int, ...]) -> Input:
        """A unit at one step, by default the last that it computes, or at several."""
        *rows, n_steps, n_units = self._shapes[source]
        number, unit, kind, newest = self._leaves[source], places[0] % n_units, "loop", 0
        if self._graph[source].op == "loop":
            n_steps, *rows = self._shapes[source][:-1]
            steps = [place // (n_units * prod(rows)) - n_steps + 1 for place in places]
            row = places[0] // n_units % prod(rows)
        else:
            part = self._model.config.recurrents[number]
            kind, newest = part.cell, 0 if unit < part.hidden_size else 1 - n_steps
            steps = [place // n_units % n_steps - n_steps + 1 for place in places]
            row = places[0] // (n_units * n_steps)
        node = f"{kind}:{number}:{unit}"
        name = _name_of(node)
        if len(steps) > 1:
            node += _span(steps, n_steps)
        elif steps[0] != newest:
            node, name = f"{node} at {steps[0]}", f"{name}_{-steps[0]}"
        if prod(rows) > 1:
            node, name = f"{node} of row {row}", f"{name}_row{row}"
        return Input(node, name, (kind, number), unit, number, places)

    def _column(self, values: Sequence[Value]) -> tuple[int, tuple[int, ...]] | None:
        """The window or recurrent part, and the places, where values are those of one feature or unit at its steps."""
        found = [self._locate(value) for value in values]
        places = tuple(sorted(place for _, place in found))
        source, *others = {source for source, _ in found}
        if others or len(values) < 2 or self._graph[source].op not in ("window", "recurrent"):
            return None
        *_, n_steps, n = self._shapes[source]
        columns = {(place % n, place // (n * n_steps)) for place in places}
        return (source, places) if len(columns) == 1 and len(set(places)) == len(places) else None

    def _locate(self, value: Value) -> Value:
        """The value that another copies."""
        while self._graph[value[0]].op == "arrange":
            value = self._moved(*value)
        return value

    def _moved(self, number: int, at: int) -> Value:
        """The value that one of an arrangement copies."""
        node = self._graph[number]
        if (number, 0) not in self._places:
            ends = np.cumsum([prod(self._shapes[source]) for source in node.inputs])
            self._places[number, 0] = node.indices() if node.runs else np.arange(ends[-1]), ends
        indices, ends = self._places[number, 0]
        place = int(indices[at])
        which = int(np.searchsorted(ends, place, side="right"))
        return node.inputs[which], place - (int(ends[which - 1]) if which else 0)

    def _spread(self, number: int, source: int) -> Any:
        """The place in an input that each value of an elementwise operation reads."""
        if (number, source) not in self._places:
            own = np.arange(prod(self._shapes[source])).reshape(self._shapes[source])
            self._places[number, source] = np.broadcast_to(own, self._shapes[number]).ravel()
        return self._places[number, source]


def _sum_products(read: tuple[int, ...], first: int) -> list[Instruction]:
    products = [Instruction("mul", read[k : k + 2]) for k in range(0, len(read), 2)]
    return [*products, Instruction("add", tuple(range(first, first + len(products))))]


def _choose_value(read: tuple[int, ...], first: int) -> list[Instruction]:
    """Of ``where``: other + step(mask) * (one - other)."""
    mask, one, other = read
    chosen = [Instruction("step", (mask,)), Instruction("sub", (one, other)), Instruction("mul", (first, first + 1))]
    return [*chosen, Instruction("add", (other, first + 2))]


def _span(steps: Sequence[int], n_steps: int) -> str:
    """Which steps of a window are meant, if not all."""
    if len(steps) == n_steps:
        return ""
    if list(steps) == list(range(steps[0], steps[-1] + 1)):
        return f" from {steps[0]} to {steps[-1]}"
    return f" at {', '.join(map(str, steps))}"
