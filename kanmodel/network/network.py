"""The network of a forecaster: the nodes of its config in the order of their computation; a chain is one path of them.

Its leaves are KAN layers and recurrent layers; all else are `operations`. A layer of a ledger is a cut: all values
through which everything flows, at the inputs of one leaf (at the outputs of a recurrent one). What flows around the
leaf there, such as a skip, is part of the cut.

`Network` holds the weights, `FrozenNetwork` is its form for inference. `forward` is pure: it stores nothing on the
module, so threads can share a network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import make_dual, unpack_dual

from kanmodel.network.config import ModelConfig
from kanmodel.network.functions import ACTIVATIONS, BOUNDED, activate, pull_back
from kanmodel.network.layer import KANLayer, LayerTrace, layer_shapes, pass_layers
from kanmodel.network.operations import OPERATIONS, READOUTS, Arrangement, Node, Shape, align, is_linear
from kanmodel.network.recurrent import FrozenRecurrent, RecurrentTrace, acting_inputs, make_recurrent, recurrent_shapes

MOVES = 1 << 22  # values of the moves of inputs that are pushed forward together

T = TypeVar("T")
LayerKey = tuple[str, int]  # (stage, layer)
PassLayer = Callable[[str, int, Tensor], LayerTrace]  # (stage, layer, inputs) -> trace
Leaves = Iterable[Callable[[Tensor], T]]  # functions of layers, of (rows, n_in), or recurrent ones, (rows, steps, n_in)


@dataclass(frozen=True)
class Trace:
    """Activations of a forward pass, in model units.

    Attributes:
        calls: the passes of each layer, in the order of the data: one, or of a layer in a loop one for each step.
        n_front: how many of these layers are the front's.
        recurrents: passes of the recurrent layers, of (batch * rows) sequences.
        loops: what each loop gives, (batch, steps, ...).
        values: those of `ModelConfig.cut_values`; of a chain the `readout`.
        watched: values whose moves paths limit: the front's nodes, if there are any, (batch, lookback, n); then the
            readout, nodes of layers, arguments of nonlinear operations, values of bounded ones and the logits,
            (batch, n).
        kinks: arguments of operations less the positions of their kinks, (batch, n) each.
        logits: the last node, (batch, n_outputs), before the output function.
        outputs: the forecasts, (batch, n_outputs).
        before: values of the nodes before the first KAN layer.
    """

    calls: tuple[tuple[LayerTrace, ...], ...] = field(repr=False)
    n_front: int
    recurrents: tuple[RecurrentTrace, ...]
    loops: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    watched: tuple[Tensor, ...]
    kinks: tuple[Tensor, ...]
    logits: Tensor
    outputs: Tensor
    before: tuple[Tensor, ...] = field(repr=False)

    @property
    def stages(self) -> dict[str, tuple[LayerTrace, ...]]:
        """The layers by stage name, in the order of the data."""
        return {"front": self.front, "head": self.head} if self.front else {"head": self.head}

    @cached_property
    def layers(self) -> tuple[LayerTrace, ...]:
        """All layers, in the order of the data; of one in a loop the passes of all steps are joined."""
        return tuple(join_calls(calls, len(self.outputs)) for calls in self.calls)

    @property
    def front(self) -> tuple[LayerTrace, ...]:
        """Layers per step, of (batch * lookback) rows, steps innermost; empty without."""
        return self.layers[: self.n_front]

    @property
    def head(self) -> tuple[LayerTrace, ...]:
        """The other layers, of (batch * rows) rows, those of one window together."""
        return self.layers[self.n_front :]

    @property
    def readout(self) -> Tensor:
        """Inputs of the head of a chain, (batch, n_readout)."""
        return self.head[0].inputs


def join_calls(calls: Sequence[LayerTrace], n: int) -> LayerTrace:
    """One pass of a layer for n windows from its calls, with the rows of each window together."""
    if len(calls) == 1:
        return calls[0]

    def join(name: str) -> Tensor:
        return join_rows([getattr(call, name) for call in calls], n)

    return LayerTrace(join("inputs"), partial(join, "edges"), join("subnodes"), join("nodes"))


def join_rows(values: Sequence[Tensor], n: int) -> Tensor:
    """Values of several calls for n windows, (n * rows, ...) each -> (n * calls * rows, ...)."""
    if len(values) == 1:
        return values[0]
    return torch.stack([each.reshape(n, -1, *each.shape[1:]) for each in values], dim=1).flatten(0, 2)


class Gradients(NamedTuple):
    """Gradients of a combination of outputs by the activations of a `Trace`, each in the shape of these."""

    window: Tensor
    subnodes: tuple[Tensor, ...]  # of all layers
    logits: Tensor
    values: tuple[Tensor, ...]  # as `Trace.values`


@dataclass(frozen=True)
class _Record:
    """What a traced pass collects; see `Trace`.

    A value may be read before and after a cut. So what has been read before it, and crosses it, is copied there: the
    gradient of a copy is that of what reads it after the cut alone.
    """

    around: Mapping[int, Iterable[int]]  # of the node of each cut, the nodes whose values are copied there
    values: list[Tensor] = field(default_factory=list)
    watched: dict[str, list[Tensor]] = field(default_factory=lambda: {"front": [], "head": []})
    kinks: list[Tensor] = field(default_factory=list)
    before: list[Tensor] = field(default_factory=list)
    loops: list[Tensor] = field(default_factory=list)

    def cut(self, number: int, leaf: Tensor, values: list[Any]) -> Tensor:
        """Copies the values of a cut that are new, those around the leaf in their place, and returns the leaf's."""
        if number not in self.around:  # as in a loop
            return leaf
        leaf = leaf.view_as(leaf)
        self.values.append(leaf)
        for other in self.around[number]:
            values[other] = values[other].view_as(values[other])
            self.values.append(values[other])
        return leaf

    def watch(self, operation: str, arguments: Sequence[Tensor], value: Tensor) -> None:
        """Keeps the arguments of a nonlinear operation, its value if bounded, and those of its kinks less positions."""
        self.watched["head"].extend([*arguments, *([value] if operation in BOUNDED else [])])
        for kink in OPERATIONS[operation].kinks:
            self.kinks.append(arguments[0] - (kink if len(arguments) == 1 else arguments[1]))


class Network(nn.Module):
    """The network of a `ModelConfig`, of windows and outputs in model units (scaled).

    Its initial weights are random, from the generator or a new one, so that torch's own is not advanced.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        generator = generator or torch.Generator()
        self.front = nn.ModuleList(KANLayer(layer, generator) for layer in config.front)
        self.recurrent = make_recurrent(config.recurrent, config.n_steps, generator) if config.recurrent else None
        self.head = nn.ModuleList(KANLayer(layer, generator) for layer in config.head)
        parts = zip(config.recurrents, config.recurrent_widths, strict=False)  # of a graph
        self.recurrents = nn.ModuleList(make_recurrent(part, n_in, generator) for part, n_in in parts)
        self.constants = nn.Module()
        self._around = config.cut_values.new
        self._arrangements: dict[str, Arrangement] = {}
        for name, node in named_nodes(config):
            if node.op == "arrange":
                self._arrangements[name] = Arrangement(node)
            elif node.op == "constant":
                self.constants.register_buffer(name, torch.zeros(node.shape or ()))
            elif node.op == "number":
                value = torch.tensor(node.parameter, dtype=torch.float64)
                self.constants.register_buffer(name, value, persistent=False)
        self.to(getattr(torch, config.dtype))

    def freeze(self) -> FrozenNetwork:
        """The network for inference, which its weights must not change after."""
        return FrozenNetwork(self)

    @cached_property
    def stages(self) -> Mapping[str, Sequence[KANLayer]]:
        """The layers by stage name, in the order of the data."""
        return {stage: list(getattr(self, stage)) for stage in self.config.stages}

    @cached_property
    def layers(self) -> dict[LayerKey, KANLayer]:
        """The layers by (stage, layer), in the order of the data."""
        return {(stage, number): layer for stage, layers in self.stages.items() for number, layer in enumerate(layers)}

    @property
    def recurrent_modules(self) -> list[nn.LSTM | nn.GRU]:
        """The recurrent layers, of a chain the one it may have."""
        return cast("list[nn.LSTM | nn.GRU]", [*self.recurrents, *([self.recurrent] if self.recurrent else [])])

    def forward(self, window: Tensor) -> Tensor:
        """(batch, lookback, n_features), oldest step first -> (batch, n_outputs)."""
        return apply_output_function(self.config, self.logits(window))

    def logits(self, window: Tensor) -> Tensor:
        """`forward` before the output function."""
        return self.run(window, [layer.forward for layer in self.layers.values()], self._recurrent_leaves())

    def encode(self, window: Tensor) -> Tensor:
        """The inputs of a chain's head, (batch, lookback, n_features), oldest step first -> (batch, n_readout)."""
        if self.front:
            window = pass_layers(self.front, window.flatten(0, 1)).view(*window.shape[:2], -1)
        for leaf in self._recurrent_leaves():
            window = leaf(window)
        return reduce_steps(self.config, window)

    def trace(self, window: Tensor) -> Trace:
        """Like `forward`, but returns all activations."""
        recurrents = [lambda x, leaf=leaf: RecurrentTrace(x, (leaf(x),)) for leaf in self._recurrent_leaves()]
        return self.record(window, [layer.trace for layer in self.layers.values()], recurrents)

    def retrace(self, trace: Trace, window: Tensor, through: PassLayer) -> Trace:
        """The layers and outputs with other functions of the layers; what comes before them is taken from a trace."""
        layers, passed = _collect([partial(through, *key) for key in self.layers], lambda layer: layer.nodes)
        logits = self.run(window, layers, self._recurrent_leaves(), known=trace.before)
        outputs = apply_output_function(self.config, logits)
        return replace(trace, calls=tuple(map(tuple, passed)), logits=logits, outputs=outputs)

    def record(self, window: Tensor, layers: Leaves[LayerTrace], recurrents: Leaves[RecurrentTrace]) -> Trace:
        """A traced pass, with the traced pass of each leaf."""
        of_layers, passed = _collect(layers, lambda layer: layer.nodes)
        of_recurrents, sequences = _collect(recurrents, lambda recurrent: recurrent.states[-1])
        record = _Record(self._around)
        logits = self.run(window, of_layers, of_recurrents, record)

        def flat_values(values: Iterable[Tensor]) -> list[Tensor]:
            n = len(window)  # of constants the batch is 1
            return [flat(each) if len(each) == n else flat(each).expand(n, -1) for each in values]

        *others, last = record.watched["head"] or [logits]
        others += [last] if last is not logits else []
        watched = [torch.cat(record.watched["front"], dim=-1)] if self.front else []
        return Trace(
            calls=tuple(map(tuple, passed)),
            n_front=len(self.front),
            recurrents=tuple(sequence for (sequence,) in sequences),
            loops=tuple(record.loops),
            values=tuple(record.values),
            watched=(*watched, torch.cat([*flat_values(others), logits], dim=1)),
            kinks=tuple(flat_values(record.kinks)),
            logits=logits,
            outputs=apply_output_function(self.config, logits),
            before=tuple(record.before),
        )

    def run(
        self,
        window: Tensor,
        layers: Leaves[Tensor],
        recurrents: Leaves[Tensor],
        record: _Record | None = None,
        known: Sequence[Tensor] = (),
        fused: Sequence[Node | None] | None = None,
        loops: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The last node's values, from the functions of the leaves, of (rows, n_in) and of (rows, steps, n_in).

        The values of the first nodes, and what `loops` give, may be known; and the nodes be `fused`, see `fuse_layers`.
        All it does with values is in operations that ONNX export traces; their shapes are those of the config.
        """
        bodies = iter(enumerate(zip(self.config.loops, self.config.body_shapes, strict=True)))
        left = {"layer": iter(layers), "recurrent": iter(recurrents), "given": iter([window])}

        def run_loop(number: int, read: Sequence[Any]) -> Any:
            which, (loop, shapes) = next(bodies)
            functions = [next(left["layer"]) for _ in range(loop.n_layers)]
            if loops is not None:
                return loops[which]
            if record is not None:  # of a constant the batch is 1
                read = [x if len(x) == len(window) else x.expand(len(window), *x.shape[1:]) for x in read]
            (sequences, fixed, states), found = loop.split(read), list[Any]()
            for step in range(loop.steps):
                given = iter([*(x[:, step] for x in sequences), *fixed, *states])
                of_step = {"layer": iter(functions), "given": given}
                values = self._run_nodes(loop.body, shapes, of_step, record, place=f"{number}_")
                states = [values[state] for state in loop.states]
                found.append(values[loop.value])
            return torch.stack(found, dim=1)

        values = self._run_nodes(fused or self.config.nodes, self.config.graph_shapes, left, record, known, run_loop)
        return cast(Tensor, values[-1])

    def _run_nodes(
        self,
        nodes: Sequence[Node | None],
        shapes: Sequence[Shape],
        left: Mapping[str, Iterator[Any]],
        record: _Record | None,
        known: Sequence[Tensor] = (),
        run_loop: Callable[[int, Sequence[Any]], Any] | None = None,
        place: str = "",
    ) -> list[Any]:
        """The values of nodes of the graph, or of a body at a place: `left` are the leaves and what is given, by name.

        A record is made of the values of cuts, of which a body has none.
        """
        values: list[Any] = list(known)
        layers, loops = iter(self.layers.items()), iter(self.config.loops)
        for number, node in enumerate(nodes):
            if number < len(known):
                next(left.get(node.op, iter(())), None)  # type: ignore[union-attr]
                continue
            if node is None:
                values.append(None)
                continue
            inputs, shape = node.inputs, shapes[number]
            if node.op in ("layer", "recurrent"):
                x, axes = values[inputs[0]], 1 if node.op == "layer" else 2  # the last axes, which the leaf takes
                if record is not None and node.op == "layer":
                    record.before.extend([] if record.before else values)
                    x = x if place else record.cut(number, x, values)
                source = shapes[inputs[0]]
                value = next(left[node.op])(x if len(source) == axes else x.reshape(-1, *source[-axes:]))
                value = value if len(shape) == axes else value.reshape(-1, *shape)
                if record is not None and node.op == "layer":
                    (stage, _), layer = next(layers) if not place else (("head", 0), None)
                    record.watched[stage] += [*(layer.bounded(x) if layer else ()), value]
                elif record is not None:
                    value = record.cut(number, value, values)
            elif node.op == "loop":
                assert run_loop is not None
                if record is not None:
                    record.before.extend([] if record.before else values)
                    deque(islice(layers, next(loops).n_layers), maxlen=0)  # which are those of the loop
                value = run_loop(number, [values[source] for source in inputs])
                if record is not None:
                    value = record.cut(number, value, values)
                    record.loops.append(value)
            elif node.op in ("window", "given"):
                value = next(left["given"])
            elif node.op == "arrange":
                value = self._arrangements[f"{place}{number}"](*(values[source] for source in inputs))
            elif node.op in READOUTS:
                value = reduce_steps(self.config, values[inputs[0]])
                if record is not None:
                    value = record.cut(number, value, values)
                    record.watched["head"].append(value)
            elif (operation := OPERATIONS[node.op]).function is not None:
                read = align([values[source] for source in inputs], [shapes[source] for source in inputs])
                value = operation.function(*read, *(() if node.parameter is None else (node.parameter,)))
                if record is not None and operation.watched and not is_linear(node, nodes):
                    record.watch(node.op, read, value)
            else:
                value = self.constants.get_buffer(f"{place}{number}")[None]  # of one window, for all
            values.append(value)
        return values

    def acting_steps(self, readout: Tensor) -> Tensor:
        """The values of a step that act, by weights alone, on inputs of the head, (n_readout,) -> (n_steps,), bool."""
        config = self.config
        read = readout.view(config.lookback, -1).any(dim=0) if config.readout == "flatten" else readout
        if self.recurrent is None or config.recurrent is None:
            return read
        return acting_inputs(self.recurrent, config.recurrent, read, config.lookback, config.readout == "last")

    def _recurrent_leaves(self) -> list[Callable[[Tensor], Tensor]]:
        def states(module: nn.Module, steps: Tensor) -> Tensor:
            return cast(Tensor, module(steps)[0])

        return [partial(states, module) for module in self.recurrent_modules]


def _collect(
    leaves: Leaves[T], result: Callable[[T], Tensor]
) -> tuple[list[Callable[[Tensor], Tensor]], list[list[T]]]:
    """Traced passes of leaves as functions with their results alone, and the lists that the traces of each get into."""

    def through(leaf: Callable[[Tensor], T], found: list[T], x: Tensor) -> Tensor:
        found.append(leaf(x))
        return result(found[-1])

    leaves = list(leaves)
    passed: list[list[T]] = [[] for _ in leaves]
    return [partial(through, *each) for each in zip(leaves, passed, strict=True)], passed


def named_nodes(config: ModelConfig) -> Iterator[tuple[str, Node]]:
    """Yields the nodes of a config with the names of what they hold, and those of the bodies of its loops."""
    loops = iter(config.loops)
    for number, node in enumerate(config.nodes):
        yield str(number), node
        if node.op == "loop":
            yield from ((f"{number}_{inner}", one) for inner, one in enumerate(next(loops).body))


def flat(values: Tensor) -> Tensor:
    """(batch, ...) -> (batch, n)."""
    return values if values.ndim == 2 else values.reshape(len(values), -1)


def reduce_steps(config: ModelConfig, steps: Tensor) -> Tensor:
    """The readout of a chain, (batch, lookback, n), oldest step first -> (batch, n_readout)."""
    function = READOUTS[f"readout_{config.readout}"].function
    assert function is not None
    return function(steps)


def spread_steps(config: ModelConfig, gradient: Tensor) -> Tensor:
    """The gradient by the steps from that by their `reduce_steps`, (batch, n_readout) -> (batch, lookback, n)."""
    if config.readout == "flatten":
        return gradient.view(len(gradient), config.lookback, -1)
    if config.readout == "mean":
        return (gradient / config.lookback).unsqueeze(1).expand(-1, config.lookback, -1)
    steps = gradient.new_zeros(config.lookback, *gradient.T.shape).permute(2, 0, 1)  # the order of recurrent passes
    steps[:, -1] = gradient
    return steps


def apply_output_function(config: ModelConfig, logits: Tensor) -> Tensor:
    """(batch, n_outputs) -> the same shape."""
    if config.output_function is None:
        return logits
    if config.output_function == "softmax":
        return logits.softmax(dim=1)
    return activate(config.output_function, ACTIVATIONS[config.output_function].parameter, logits)


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a `Network` with this config, computed without building it."""
    parts = {f"front.{number}": layer_shapes(layer) for number, layer in enumerate(config.front)}
    if config.recurrent:
        parts["recurrent"] = recurrent_shapes(config.recurrent, config.n_steps)
    parts |= {f"head.{number}": layer_shapes(layer) for number, layer in enumerate(config.head)}
    for number, part in enumerate(config.recurrents):
        parts[f"recurrents.{number}"] = recurrent_shapes(part, config.recurrent_widths[number])
    constants = {name: node.shape for name, node in named_nodes(config) if node.op == "constant"}
    parts["constants"] = {number: shape for number, shape in constants.items() if shape is not None}
    return {f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}


def fuse_layers(config: ModelConfig) -> tuple[list[Node | None], list[list[int]]]:
    """Nodes of which layers that only the next layer reads are one with it, None in their place; and their rows.

    A row has the numbers of the layers that are one.
    """
    nodes, loops, count = config.nodes, iter(config.loops), 0
    rows, inside = dict[int, list[int]](), list[list[int]]()
    readers: list[list[int]] = [[] for _ in nodes]
    for at, node in enumerate(nodes):
        if node.op == "layer":
            rows[at] = [count]
        elif node.op == "loop":
            n_layers = next(loops).n_layers
            inside += [[count + k] for k in range(n_layers)]
            count += n_layers
        count += node.op == "layer"
        for source in node.inputs:
            readers[source].append(at)
    fused: list[Node | None] = [*nodes]
    for at in list(rows):
        if len(readers[at]) == 1 and readers[at][0] in rows:
            reader = readers[at][0]
            fused[at], fused[reader] = None, fused[at]
            rows[reader] = rows.pop(at) + rows[reader]
    return fused, sorted([*rows.values(), *inside])


class FrozenNetwork:
    """A `Network`, not changed, with constant weights for inference; equal to it up to rounding, also at knots.

    `forward` folds masks and affine maps into the tables of piecewise polynomials and removes nodes without effect;
    `trace` has the edges and nodes of the network, and is differentiable. Consecutive layers are `rows`, by the key of
    the first. A network `is_path` if nothing stands between its leaves but a readout.
    """

    def __init__(self, network: Network) -> None:
        self.network, self.config = network, network.config
        self._functions = {key: layer.functions(frozen=True) for key, layer in network.layers.items()}
        self.is_path = all(node.op in ("window", "layer", "recurrent", *READOUTS) for node in self.config.nodes)
        self._fused, rows = fuse_layers(self.config)
        layers, keys = [*network.layers.values()], [*network.layers]
        self.rows = {keys[row[0]]: FrozenLayers([layers[number] for number in row]) for row in rows}
        parts = zip(network.recurrent_modules, self.config.recurrent_parts, strict=True)
        self.recurrents = tuple(FrozenRecurrent(module, part) for module, part in parts)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, lookback, n_features), oldest step first -> (batch, n_outputs); without a gradient."""
        return apply_output_function(self.config, self.logits(window))

    def logits(self, window: Tensor) -> Tensor:
        """`forward` before the output function."""
        with torch.inference_mode():
            if not self.is_path:
                return self.run_rows(window, [row.forward for row in self.rows.values()])
            if self.config.front:  # without the walk, which would take a tenth of the time of one window
                window = self.rows["front", 0].forward(window.flatten(0, 1)).view(*window.shape[:2], -1)
            for recurrent in self.recurrents:
                window = recurrent(window)
            return self.rows["head", 0].forward(reduce_steps(self.config, window))

    def run_rows(self, window: Tensor, rows: Leaves[Tensor]) -> Tensor:
        """The logits, from functions of the `rows`."""
        return self.network.run(window, rows, self.recurrents, fused=self._fused)

    def trace(self, window: Tensor) -> Trace:
        """As `Network.trace`, with the states of all recurrent layers; differentiable."""
        layers = self.network.layers.items()
        traced = [partial(layer.trace, functions=self._functions[key]) for key, layer in layers]
        return self.network.record(window, traced, [recurrent.trace for recurrent in self.recurrents])

    @cached_property
    def lines(self) -> tuple[Tensor | None, ...]:
        """The weights of each Linear layer, see `Edges.lines`, in the order of the data; None of other layers."""
        return tuple(functions.lines for functions in self._functions.values())

    def linearise(self, window: Tensor) -> tuple[Trace, Callable[[Tensor], Gradients]]:
        """A trace as of `trace`, and the map of gradients by the outputs to those by all else.

        Of a path of leaves and a readout it is computed without autograd, which is faster.
        """
        if self.is_path:
            return self._linearise_path(window)
        with torch.enable_grad():
            points = window.detach().requires_grad_()
            trace = self.trace(points)

        def of_outputs(gradient: Tensor) -> Gradients:
            subnodes = [call.subnodes for calls in trace.calls for call in calls]
            wanted = [points, trace.logits, *subnodes, *trace.values]
            moving = [values for values in wanted if values.requires_grad]  # all but those of first states in a loop
            is_loop = bool(self.config.loops)  # whose last step computes what no other reads
            of_moving = iter(
                torch.autograd.grad(trace.outputs, moving, gradient, allow_unused=is_loop, materialize_grads=is_loop)
            )
            found = [next(of_moving) if values.requires_grad else torch.zeros_like(values) for values in wanted]
            by_points, by_logits, *others = found
            left = iter(others)
            of_layers = [join_rows([next(left) for _ in calls], len(window)) for calls in trace.calls]
            return Gradients(by_points, tuple(of_layers), by_logits, tuple(left))

        return trace, of_outputs

    def _linearise_path(self, window: Tensor) -> tuple[Trace, Callable[[Tensor], Gradients]]:
        tape: list[Callable[[Tensor], Any]] = []  # the map of each leaf, in the order of the data

        def through(leaf: Callable[[Tensor], tuple[T, Callable[[Tensor], Any]]], x: Tensor) -> T:
            trace, of_result = leaf(x)
            tape.append(of_result)
            return trace

        layers = [
            partial(through, partial(layer.linearise, functions=self._functions[key]))
            for key, layer in self.network.layers.items()
        ]
        recurrents = [partial(through, recurrent.linearise) for recurrent in self.recurrents]
        with torch.no_grad():
            trace = self.network.record(window, layers, recurrents)

        @torch.no_grad()
        def of_outputs(gradient: Tensor) -> Gradients:
            if self.config.output_function is not None:
                gradient = pull_back(partial(apply_output_function, self.config), trace.logits, gradient)
            by_value, left, subnodes, readout = gradient, [*tape], list[Tensor](), gradient
            for node in reversed(self.config.nodes):
                if node.op == "layer":
                    by_subnodes, by_value = left.pop()(by_value.flatten(0, -2))
                    subnodes.insert(0, by_subnodes)
                elif node.op == "recurrent":
                    by_value = left.pop()(by_value.view(len(window), self.config.lookback, -1))
                elif node.op in READOUTS:
                    readout, by_value = by_value, spread_steps(self.config, by_value)
            return Gradients(by_value.view(window.shape), tuple(subnodes), gradient, (readout,))

        return trace, of_outputs

    @torch.no_grad()
    def push_forward(self, window: Tensor, moves: Iterable[Tensor]) -> Iterator[Trace]:
        """Yields for each of some moves of the windows a trace whose values have their first-order moves as tangents.

        It is valid within a `torch.autograd.forward_ad.dual_level`. Layers and recurrent layers are linearised once for
        all moves.
        """
        known: dict[Any, Any] = {}
        calls: dict[LayerKey, int] = {}  # of a layer in a loop one for each step

        def through(key: LayerKey, x: Tensor) -> LayerTrace:
            value, move = unpack_dual(x)  # type: ignore[no-untyped-call]
            call = key, calls.get(key, 0)
            calls[key] = call[1] + 1
            if call not in known:
                known[call] = self.network.layers[key].linearise(value, self._functions[key])
            trace, of_nodes = known[call]
            with torch.enable_grad():  # the map of gradients is linear: its own gradient is the map of moves
                gradient = torch.zeros_like(trace.nodes, requires_grad=True)
                moved = None if move is None else torch.autograd.grad(of_nodes(gradient)[1], gradient, move)[0]
            return LayerTrace(x, trace.make_edges, trace.subnodes, _dual(trace.nodes, moved))

        def pass_steps(recurrent: FrozenRecurrent, x: Tensor) -> RecurrentTrace:
            value, move = unpack_dual(x)  # type: ignore[no-untyped-call]
            if recurrent not in known:
                known[recurrent] = recurrent.linearise(value)[0]
            trace = known[recurrent]
            moved = None if move is None else recurrent.tangents(trace, move.unsqueeze(1), last=False).squeeze(1)
            return RecurrentTrace(x, (*trace.states[:-1], _dual(trace.states[-1], moved)))

        layers = [partial(through, key) for key in self.network.layers]
        recurrents = [partial(pass_steps, recurrent) for recurrent in self.recurrents]
        for each in moves:
            calls.clear()
            yield self.network.record(_dual(window.detach(), each), layers, recurrents)

    def readout_slopes(self, trace: Trace, change: Tensor) -> Tensor:
        """First-order moves of a recurrent chain's readout, by forward mode, (batch, n_readout, n_steps).

        They are those with each value that the recurrent layer reads, whose moves are `change`, (batch, lookback,
        n_steps), at the points of a trace: a feature, or a last node of the front.
        """
        slopes, last = list[Tensor](), self.config.readout == "last"
        each = torch.eye(change.shape[2], dtype=change.dtype)
        for some in torch.split(each, max(1, MOVES // max(change.numel(), 1))):
            moves = change.unsqueeze(1) * some[:, None]  # (batch, n_some, lookback, n_steps)
            states = self.recurrents[0].tangents(trace.recurrents[0], moves, last).flatten(0, 1)
            slopes.append(reduce_steps(self.config, states).view(len(change), len(some), -1))
        return torch.cat(slopes, dim=1).transpose(1, 2)

    def edges(self, key: LayerKey, x: Tensor) -> Tensor:
        """Values of all edges of a layer at its inputs, (rows, n_in) -> (rows, n_subnodes, n_in)."""
        return self._functions[key].edges(*self.network.layers[key].read(x))


def _dual(values: Tensor, moves: Tensor | None) -> Tensor:
    """Values with their first-order moves as tangents, if there are any."""
    return values if moves is None else cast(Tensor, make_dual(values, moves))  # type: ignore[no-untyped-call]


class FrozenLayers:
    """Consecutive layers for inference, each reduced to the nodes that the next one reads."""

    def __init__(self, layers: Sequence[KANLayer]) -> None:
        nodes = torch.arange(layers[-1].config.n_out)
        self.layers: list[FrozenLayer] = []
        for layer in reversed(layers):
            self.layers.insert(0, FrozenLayer(layer, nodes))
            nodes = self.layers[0].inputs
        self.inputs = nodes if len(nodes) < layers[0].config.n_in else None  # that the first reads; None for all

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_inputs) -> (batch, n_outputs)."""
        if self.inputs is not None:
            x = x[:, self.inputs]
        for layer in self.layers:
            x = layer.forward(x)
        return x


class FrozenLayer:
    """A `KANLayer` reduced to some of its nodes and, without a layer norm, to the `inputs` that act on them.

    Both are ascending indices.
    """

    def __init__(self, layer: KANLayer, nodes: Tensor) -> None:
        config = layer.config
        node_of_subnode = torch.tensor(config.node_of_subnode)
        subnodes = torch.isin(node_of_subnode, nodes).nonzero().flatten()
        # A sum node's two affine maps are folded into its edges and one bias; a product's own is applied after it.
        of_sum = node_of_subnode[subnodes] < config.n_sum
        outer_scale = torch.where(of_sum, layer.node_scale[node_of_subnode[subnodes]], 1)
        outer_bias = torch.where(of_sum, layer.node_bias[node_of_subnode[subnodes]], 0)
        scale = layer.subnode_scale[subnodes] * outer_scale

        acting = (layer.acts[subnodes] & (scale != 0)[:, None]).any(dim=0)
        acting[0] |= ~acting.any()  # a layer of constants still reads one node, because ONNX has no empty products
        self.inputs = torch.arange(config.n_in) if config.mixes else acting.nonzero().flatten()
        self._layer, self._chosen = layer, None if len(self.inputs) == config.n_in else self.inputs
        self._functions = layer.functions(self.inputs, subnodes, scale, frozen=True)
        self._bias = layer.subnode_bias[subnodes] * outer_scale + outer_bias
        self._n_sum = int(of_sum.sum())
        products = nodes[nodes >= config.n_sum]
        self._arity = [config.mult_arity[product - config.n_sum] for product in products.tolist()]
        self._product_scale, self._product_bias = layer.node_scale[products], layer.node_bias[products]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, n_inputs) -> (batch, n_nodes)."""
        subnodes = self._functions.sums(*self._layer.read(x, self._chosen)) + self._bias
        if not self._arity:
            return subnodes
        sums, *factors = torch.split(subnodes, [self._n_sum, *self._arity], dim=1)
        products = torch.stack([factor.prod(dim=1) for factor in factors], dim=1)
        return torch.cat([sums, self._product_scale * products + self._product_bias], dim=1)
