"""A forecaster whose parts are joined in another way than a chain: a graph of `Node`, in the order of its computation.

Its leaves are KAN layers and recurrent layers, ``head[k]`` and ``recurrents[k]`` of the config, each used once; all
else is glue. A layer of a ledger is a cut: all values through which everything flows, at the inputs of one leaf (at the
outputs of a recurrent one). What flows around the leaf there, such as a skip, is part of the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import make_dual, unpack_dual

from kanmodel.network.chain import FrozenLayers, FrozenNetwork, Gradients, Network, PassLayer, apply_output_function
from kanmodel.network.config import ModelConfig
from kanmodel.network.layer import KANLayer, LayerTrace
from kanmodel.network.operations import OPERATIONS, Arrangement, last_uses
from kanmodel.network.recurrent import FrozenRecurrent, make_recurrent

Leaves = Sequence[Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class GraphTrace:
    """Activations of a forward pass, in model units.

    Attributes:
        layers: the KAN layers, of (batch * rows) rows, those of one window together.
        values: of each cut in turn: those of its leaf, then those that flow around it.
        watched: outputs of KAN layers, arguments of nonlinear operations, and the logits, (batch, n_watched).
        kinks: arguments of operations less the positions of their kinks, (batch, n) each.
        steps: inputs and states of each recurrent layer, (batch, rows, steps, n).
        logits: the last node, (batch, n_outputs), before the output function.
        outputs: the forecasts.
        before: values of the nodes before the first KAN layer.
    """

    layers: tuple[LayerTrace, ...]
    values: tuple[Tensor, ...]
    watched: Tensor
    kinks: tuple[Tensor, ...]
    steps: tuple[tuple[Tensor, Tensor], ...]
    logits: Tensor
    outputs: Tensor
    before: tuple[Tensor, ...] = ()

    @property
    def stages(self) -> dict[str, tuple[LayerTrace, ...]]:
        """The layers by stage name, as of a chain."""
        return {"head": self.layers}


class Cut(NamedTuple):
    """The layer of a ledger at one leaf."""

    stage: str  # head, lstm or gru
    layer: int  # index of the leaf among those of its kind
    node: int
    around: Mapping[int, str]  # further nodes of the cut, and what they come from


class GraphNetwork(Network):
    """The network of a config with a graph; its interface is that of a chain."""

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        nn.Module.__init__(self)
        self.config, self.recurrent = config, None
        generator = generator or torch.Generator()
        self.front = nn.ModuleList()
        self.head = nn.ModuleList(KANLayer(layer, generator) for layer in config.head)
        parts = zip(config.recurrents, config.recurrent_widths, strict=True)
        self.recurrents = nn.ModuleList(make_recurrent(part, n_in, generator) for part, n_in in parts)
        self.constants = nn.Module()
        self._arrangements: dict[int, Arrangement] = {}
        for number, node in enumerate(config.graph):
            if node.op == "arrange":
                self._arrangements[number] = Arrangement(node)
            elif node.op == "constant":
                self.constants.register_buffer(str(number), torch.zeros(node.shape or ()))
            elif node.op == "number":
                value = torch.tensor(node.parameter, dtype=torch.float64)
                self.constants.register_buffer(str(number), value, persistent=False)
        self.to(getattr(torch, config.dtype))

    def logits(self, window: Tensor) -> Tensor:
        """`forward` before the output function."""
        return self.run(window, [layer.forward for layer in self.head], self._recurrent_leaves())

    def trace(self, window: Tensor) -> GraphTrace:  # type: ignore[override]
        """Like `forward`, but returns all activations."""
        return self.record(window, [layer.trace for layer in self.stages["head"]], self._recurrent_leaves())

    def _recurrent_leaves(self) -> Leaves:
        def pass_steps(module: nn.Module, steps: Tensor) -> Tensor:
            states: Tensor = module(steps)[0]
            return states

        return [partial(pass_steps, module) for module in self.recurrents]

    def freeze(self) -> FrozenGraph:
        """As of a chain."""
        return FrozenGraph(self)

    def retrace(self, trace: GraphTrace, window: Tensor, through: PassLayer) -> GraphTrace:  # type: ignore[override]
        """As of a chain."""
        traces = list[LayerTrace]()

        def leaf(number: int, x: Tensor) -> Tensor:
            traces.append(through("head", number, x))
            return traces[-1].nodes

        layers = [partial(leaf, number) for number in range(len(self.head))]
        logits = self.run(window, layers, self._recurrent_leaves(), known=trace.before)
        return replace(trace, layers=tuple(traces), logits=logits, outputs=apply_output_function(self.config, logits))

    def run(
        self,
        window: Tensor,
        layers: Leaves,
        recurrents: Leaves,
        record: _Record | None = None,
        known: Sequence[Tensor] = (),
    ) -> Tensor:
        """The last node's values, from the functions of the leaves, of (rows, n_in) and of (rows, steps, n_in).

        The values of the first nodes may be `known`. All it does with values is in operations that ONNX export traces;
        their shapes are those of the config.
        """
        values, shapes = list(known), self.config.graph_shapes
        left = {"layer": iter(layers), "recurrent": iter(recurrents)}
        for number, node in enumerate(self.config.graph):
            if number < len(known):
                next(left.get(node.op, iter(())), None)
                continue
            read, operation = [values[source] for source in node.inputs], OPERATIONS[node.op]
            if operation.function is not None:
                of = [shapes[source] for source in node.inputs]
                if len({*map(len, of)}) > 1:  # they are broadcast after the batch
                    axes = max(map(len, of))
                    read = [
                        value.reshape(-1, *(1,) * (axes - len(shape)), *shape)
                        for value, shape in zip(read, of, strict=True)
                    ]
                if record is not None and operation.watched:
                    record.watch(read, operation.kinks)
                value = operation.function(*read, *(() if node.parameter is None else (node.parameter,)))
            elif node.op == "arrange":
                value = self._arrangements[number](*read)
            elif node.op == "window":
                value = window
            elif node.op == "layer":
                if record is not None and not record.before:
                    record.before.extend(values)
                x = read[0] if record is None else record.cut(number, read[0], values)
                rows = next(left[node.op])(x.reshape(-1, shapes[node.inputs[0]][-1]))
                value = rows.reshape(-1, *shapes[number])
            elif node.op == "recurrent":
                x = read[0].reshape(-1, *shapes[node.inputs[0]][-2:])
                rows = next(left[node.op])(x)
                value = rows.reshape(-1, *shapes[number])
                if record is not None:
                    value = record.cut(number, value, values)
                    n = len(window)
                    record.steps.append((x.reshape(n, -1, *x.shape[1:]), rows.reshape(n, -1, *rows.shape[1:])))
            else:
                value = self.constants.get_buffer(str(number))[None]  # of one window, for all
            if record is not None and node.op == "layer":
                record.watched.append(value)
            values.append(value)
        return values[-1]

    def record(
        self, window: Tensor, traced: Sequence[Callable[[Tensor], LayerTrace]], recurrents: Leaves
    ) -> GraphTrace:
        """A traced pass, with the traced pass of each layer."""
        traces = list[LayerTrace]()

        def through(trace: Callable[[Tensor], LayerTrace], x: Tensor) -> Tensor:
            traces.append(trace(x))
            return traces[-1].nodes

        layers = [partial(through, trace) for trace in traced]
        record = _Record({cut.node: cut for cut in self.cuts})
        logits = self.run(window, layers, recurrents, record)
        outputs = apply_output_function(self.config, logits)
        watched, kinks = (
            tuple(flat(each).expand(len(window), -1) for each in of) for of in (record.watched, record.kinks)
        )
        return GraphTrace(
            tuple(traces),
            tuple(record.values),
            torch.cat([*watched, logits], dim=1),
            kinks,
            tuple(record.steps),
            logits,
            outputs,
            tuple(record.before),
        )

    @cached_property
    def cuts(self) -> tuple[Cut, ...]:
        """The cuts at the leaves, in the order of the computation."""
        cuts, origins, last = list[Cut](), list[frozenset[str]](), last_uses(self.config.graph)
        counts = {"head": 0, "recurrent": 0}
        for number, node in enumerate(self.config.graph):
            origin = frozenset[str]().union(*(origins[source] for source in node.inputs))
            if node.op in ("layer", "recurrent"):
                kind = "head" if node.op == "layer" else "recurrent"
                layer, counts[kind] = counts[kind], counts[kind] + 1
                stage = "head" if node.op == "layer" else self.config.recurrents[layer].cell
                around = {
                    other: " + ".join(sorted(origins[other]))
                    for other in range(number)
                    if last[other] > number and origins[other]
                }
                cuts.append(Cut(stage, layer, number, around))
                origin = frozenset({f"{stage}:{layer}"})
            origins.append(frozenset({"window"}) if node.op == "window" else origin)
        return tuple(cuts)


def flat(values: Tensor) -> Tensor:
    """(batch, ...) -> (batch, n)."""
    return values.reshape(len(values), -1)


def dual(values: Tensor, moves: Tensor | None) -> Tensor:
    """Values with their first-order moves as tangents, if there are any."""
    return values if moves is None else cast(Tensor, make_dual(values, moves))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _Record:
    """What a traced pass collects.

    A value may be read before and after a cut. So everything that crosses a cut is copied there: the gradient of a copy
    is that of what reads it after the cut alone.
    """

    cuts: Mapping[int, Cut]
    values: list[Tensor] = field(default_factory=list)
    watched: list[Tensor] = field(default_factory=list)
    kinks: list[Tensor] = field(default_factory=list)
    steps: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    before: list[Tensor] = field(default_factory=list)

    def cut(self, number: int, leaf: Tensor, values: list[Tensor]) -> Tensor:
        """Copies the values of a cut, those around the leaf in their place, and returns the leaf's."""
        leaf = leaf.view_as(leaf)
        self.values.append(leaf)
        for other in self.cuts[number].around:
            values[other] = values[other].view_as(values[other])
            self.values.append(values[other])
        return leaf

    def watch(self, arguments: Sequence[Tensor], kinks: Sequence[float]) -> None:
        """Keeps the arguments of a nonlinear operation, and those of its kinks less their positions."""
        self.watched.extend(arguments)
        for kink in kinks:
            self.kinks.append(arguments[0] - (kink if len(arguments) == 1 else arguments[1]))


class FrozenGraph(FrozenNetwork):
    """A `GraphNetwork` for inference, with the interface of a frozen chain."""

    network: GraphNetwork

    def __init__(self, network: GraphNetwork) -> None:
        self.network, self.config, self._layers, self.recurrent = network, network.config, network.stages, None
        self._functions = {"head": [layer.functions(frozen=True) for layer in self._layers["head"]]}
        both = [*zip(self._layers["head"], self._functions["head"], strict=True)]
        self._traced = [partial(layer.trace, functions=functions) for layer, functions in both]
        self._linearised = [partial(layer.linearise, functions=functions) for layer, functions in both]
        self.leaves = [FrozenLayers([layer]) for layer in self._layers["head"]]
        self.recurrents = tuple(
            FrozenRecurrent(module, config)  # type: ignore[arg-type]
            for module, config in zip(network.recurrents, network.config.recurrents, strict=True)
        )

    def logits(self, window: Tensor) -> Tensor:
        """`forward` before the output function."""
        with torch.inference_mode():
            return self.network.run(window, [leaf.forward for leaf in self.leaves], self.recurrents)

    def trace(self, window: Tensor) -> GraphTrace:  # type: ignore[override]
        """As `GraphNetwork.trace`; differentiable."""
        recurrents = [lambda steps, of=of: of.trace(steps).states[-1] for of in self.recurrents]
        return self.network.record(window, self._traced, recurrents)

    @torch.no_grad()
    def push_forward(self, window: Tensor, moves: Iterable[Tensor]) -> Iterator[GraphTrace]:
        """Yields for each of some moves of the windows a trace whose values have their first-order moves as tangents.

        It is valid within a `torch.autograd.forward_ad.dual_level`. Layers and recurrent parts are linearised once for
        all moves.
        """
        known: dict[tuple[str, int], Any] = {}

        def through(number: int, x: Tensor) -> LayerTrace:
            value, move = unpack_dual(x)  # type: ignore[no-untyped-call]
            if ("layer", number) not in known:
                known["layer", number] = self._linearised[number](value)
            trace, of_nodes = known["layer", number]
            with torch.enable_grad():  # the map of gradients is linear: its own gradient is the map of moves
                gradient = torch.zeros_like(trace.nodes, requires_grad=True)
                moved = None if move is None else torch.autograd.grad(of_nodes(gradient)[1], gradient, move)[0]
            return LayerTrace(x, trace.edges, trace.subnodes, dual(trace.nodes, moved))

        def pass_steps(number: int, x: Tensor) -> Tensor:
            value, move = unpack_dual(x)  # type: ignore[no-untyped-call]
            recurrent = self.recurrents[number]
            if ("recurrent", number) not in known:
                known["recurrent", number] = recurrent.linearise(value)[0]
            trace = known["recurrent", number]
            moved = None if move is None else recurrent.tangents(trace, move.unsqueeze(1), last=False).squeeze(1)
            return dual(trace.states[-1], moved)

        layers = [partial(through, number) for number in range(len(self._linearised))]
        recurrents = [partial(pass_steps, number) for number in range(len(self.recurrents))]
        for each in moves:
            yield self.network.record(dual(window.detach(), each), layers, recurrents)

    def linearise(self, window: Tensor) -> tuple[GraphTrace, Callable[[Tensor], Gradients]]:  # type: ignore[override]
        """As of a chain, but by autograd."""
        with torch.enable_grad():
            points = window.detach().requires_grad_()
            trace = self.trace(points)

        def of_outputs(gradient: Tensor) -> Gradients:
            subnodes = [layer.subnodes for layer in trace.layers]
            by_points, by_logits, *others = torch.autograd.grad(
                trace.outputs, [points, trace.logits, *subnodes, *trace.values], gradient
            )
            return Gradients(by_points, tuple(others[: len(subnodes)]), by_logits, tuple(others[len(subnodes) :]))

        return trace, of_outputs
