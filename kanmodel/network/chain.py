"""The forecaster: [layers per step] -> [recurrent] -> readout -> layers -> [output function].

`Network` covers all supported architectures; `FrozenNetwork` is its form for inference. `forward` is pure: it stores
nothing on the module, so threads can share a network.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kanmodel.network.config import ModelConfig
from kanmodel.network.functions import ACTIVATIONS, activate, pull_back
from kanmodel.network.layer import KANLayer, LayerTrace, layer_shapes, pass_layers
from kanmodel.network.recurrent import FrozenRecurrent, RecurrentTrace, acting_inputs, make_recurrent, recurrent_shapes


@dataclass(frozen=True)
class Trace:
    """All activations of a forward pass, in model units.

    Attributes:
        front: layers per step, of (batch * lookback) rows, steps innermost; empty without.
        readout: inputs of the head, (batch, n_readout).
        head: layers after the readout.
        outputs: the forecasts, (batch, n_outputs): the last layer's nodes after the output function.
        recurrent: None without a recurrent part, or if it was not traced.
    """

    front: tuple[LayerTrace, ...]
    readout: Tensor
    head: tuple[LayerTrace, ...]
    outputs: Tensor
    recurrent: RecurrentTrace | None = None

    @property
    def stages(self) -> dict[str, tuple[LayerTrace, ...]]:
        """The layers by stage name, in the order of the data."""
        return {"front": self.front, "head": self.head} if self.front else {"head": self.head}

    @property
    def layers(self) -> tuple[LayerTrace, ...]:
        """All layers, in the order of the data."""
        return (*self.front, *self.head)

    @property
    def logits(self) -> Tensor:
        """The last layer's nodes, before the output function, (batch, n_outputs)."""
        return self.head[-1].nodes

    @property
    def values(self) -> tuple[Tensor, ...]:
        """Values besides logits and those on edges that a ledger has contributions of, (batch, n) each."""
        return (self.readout,)


class Gradients(NamedTuple):
    """Gradients of a combination of outputs by the activations of a `Trace`, each in the shape of these."""

    window: Tensor
    subnodes: tuple[Tensor, ...]  # of all layers
    logits: Tensor
    values: tuple[Tensor, ...]  # as `Trace.values`


LayerKey = tuple[str, int]  # (stage, layer)
PassLayer = Callable[[str, int, Tensor], LayerTrace]  # (stage, layer, inputs) -> trace


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
        self.to(getattr(torch, config.dtype))

    @classmethod
    def of(cls, config: ModelConfig, generator: torch.Generator | None = None) -> Network:
        """The network of a config, a chain or a graph."""
        from kanmodel.network.graph import GraphNetwork  # here, as a graph is made of what stands in this module

        return (GraphNetwork if config.graph else Network)(config, generator)

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

    def forward(self, window: Tensor) -> Tensor:
        """(batch, lookback, n_features), oldest step first -> (batch, n_outputs)."""
        return apply_output_function(self.config, self.logits(window))

    def logits(self, window: Tensor) -> Tensor:
        """`forward` before the output function."""
        return pass_layers(self.head, self.encode(window))

    def encode(self, window: Tensor) -> Tensor:
        """The head's inputs, (batch, lookback, n_features), oldest step first -> (batch, n_readout)."""
        if self.front:
            window = pass_layers(self.front, window.flatten(0, 1)).view(*window.shape[:2], -1)
        return self.read_out(window)

    def trace(self, window: Tensor) -> Trace:
        """Like `forward`, but returns all activations."""
        stages = self.stages
        return trace_chain(self.config, window, lambda stage, number, x: stages[stage][number].trace(x), self.read_out)

    def retrace(self, trace: Trace, window: Tensor, through: PassLayer) -> Trace:
        """The layers and outputs with other functions of the layers; what comes before them is taken from a trace."""
        read_out = self.read_out if self.front else lambda _: trace.readout
        return trace_chain(self.config, window, through, read_out)

    def read_out(self, steps: Tensor) -> Tensor:
        """Recurrent part and readout of steps after the front, (batch, lookback, n) -> (batch, n_readout)."""
        if self.recurrent is not None:
            steps, _ = self.recurrent(steps)
        return reduce_steps(self.config, steps)

    def acting_steps(self, readout: Tensor) -> Tensor:
        """The values of a step that act, by weights alone, on inputs of the head, (n_readout,) -> (n_steps,), bool."""
        config = self.config
        read = readout.view(config.lookback, -1).any(dim=0) if config.readout == "flatten" else readout
        if self.recurrent is None or config.recurrent is None:
            return read
        return acting_inputs(self.recurrent, config.recurrent, read, config.lookback, config.readout == "last")


def trace_chain(config: ModelConfig, window: Tensor, through: PassLayer, read_out: Callable[[Tensor], Tensor]) -> Trace:
    """All activations of a chain for windows (batch, lookback, n_features), oldest step first.

    `through` applies a layer to (rows, n_in); `read_out` is as `Network.read_out`.
    """

    def trace_stage(stage: str, x: Tensor) -> tuple[LayerTrace, ...]:
        layers: list[LayerTrace] = []
        for number in range(len(config.stages[stage])):
            layers.append(through(stage, number, layers[-1].nodes if layers else x))
        return tuple(layers)

    front = trace_stage("front", window.flatten(0, 1)) if config.front else ()
    readout = read_out(front[-1].nodes.view(*window.shape[:2], -1) if front else window)
    head = trace_stage("head", readout)
    return Trace(front, readout, head, apply_output_function(config, head[-1].nodes))


def reduce_steps(config: ModelConfig, steps: Tensor) -> Tensor:
    """The readout of (batch, lookback, n), oldest step first -> (batch, n_readout)."""
    if config.readout == "last":
        return steps[:, -1]
    return steps.mean(dim=1) if config.readout == "mean" else steps.flatten(1)


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
    for number, (part, n_in) in enumerate(zip(config.recurrents, config.recurrent_widths, strict=True)):
        parts[f"recurrents.{number}"] = recurrent_shapes(part, n_in)
    constants = {str(number): node.shape for number, node in enumerate(config.graph) if node.op == "constant"}
    parts["constants"] = {number: shape for number, shape in constants.items() if shape is not None}
    return {f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}


class FrozenNetwork:
    """A `Network`, not changed, with constant weights for inference; equal to it up to rounding, also at knots.

    `forward` folds masks and affine maps into the tables of piecewise polynomials and removes nodes without effect;
    `trace` has the edges and nodes of the network, and is differentiable.
    """

    def __init__(self, network: Network) -> None:
        self.network, self.config, self._layers = network, network.config, network.stages
        self.stages = {stage: FrozenLayers(layers) for stage, layers in self._layers.items()}
        self._functions = {name: [of.functions(frozen=True) for of in stage] for name, stage in self._layers.items()}
        self.recurrent = None
        if network.recurrent is not None and network.config.recurrent is not None:
            self.recurrent = FrozenRecurrent(network.recurrent, network.config.recurrent)
        self.recurrents: tuple[FrozenRecurrent, ...] = () if self.recurrent is None else (self.recurrent,)

    def forward(self, window: Tensor) -> Tensor:
        """(batch, lookback, n_features), oldest step first -> (batch, n_outputs); without a gradient."""
        return apply_output_function(self.config, self.logits(window))

    def logits(self, window: Tensor) -> Tensor:
        """`forward` before the output function."""
        with torch.inference_mode():
            steps = window
            if "front" in self.stages:
                steps = self.stages["front"].forward(window.flatten(0, 1)).view(*window.shape[:2], -1)
            if self.recurrent is not None:
                steps = self.recurrent(steps)
            return self.stages["head"].forward(reduce_steps(self.config, steps))

    def trace(self, window: Tensor) -> Trace:
        """As `Network.trace`, with the activations of the recurrent part; differentiable."""
        recurrent: list[RecurrentTrace] = []

        def read_out(steps: Tensor) -> Tensor:
            if self.recurrent is not None:
                recurrent.append(self.recurrent.trace(steps))
                steps = recurrent[0].states[-1]
            return reduce_steps(self.config, steps)

        def through(stage: str, number: int, x: Tensor) -> LayerTrace:
            return self._layers[stage][number].trace(x, self._functions[stage][number])

        return replace(trace_chain(self.config, window, through, read_out), recurrent=next(iter(recurrent), None))

    def linearise(self, window: Tensor) -> tuple[Trace, Callable[[Tensor], Gradients]]:
        """A trace as of `trace`, and the map of gradients by the outputs to those by all else; without autograd."""
        recurrent: list[RecurrentTrace] = []
        pull_backs: dict[str, list[Callable[..., Any]]] = defaultdict(list)

        def read_out(steps: Tensor) -> Tensor:
            if self.recurrent is not None:
                found, of_states = self.recurrent.linearise(steps)
                recurrent.append(found)
                pull_backs["recurrent"].append(of_states)
                steps = found.states[-1]
            return reduce_steps(self.config, steps)

        def through(stage: str, number: int, x: Tensor) -> LayerTrace:
            trace, of_nodes = self._layers[stage][number].linearise(x, self._functions[stage][number])
            pull_backs[stage].append(of_nodes)
            return trace

        def of_outputs(gradient: Tensor) -> Gradients:
            subnodes: list[Tensor] = []

            def pass_back(stage: str, by_nodes: Tensor) -> Tensor:
                for of_nodes in reversed(pull_backs[stage]):
                    by_subnodes, by_nodes = of_nodes(by_nodes)
                    subnodes.insert(0, by_subnodes)
                return by_nodes

            if self.config.output_function is not None:
                gradient = pull_back(partial(apply_output_function, self.config), trace.logits, gradient)
            readout = pass_back("head", gradient)
            steps = spread_steps(self.config, readout)
            for of_states in pull_backs["recurrent"]:
                steps = of_states(steps)
            if pull_backs["front"]:
                steps = pass_back("front", steps.flatten(0, 1)).view(window.shape)
            return Gradients(steps, tuple(subnodes), gradient, (readout,))

        with torch.no_grad():
            trace = trace_chain(self.config, window, through, read_out)
        return replace(trace, recurrent=next(iter(recurrent), None)), torch.no_grad()(of_outputs)

    def readout_slopes(self, trace: Trace, change: Tensor) -> Tensor | None:
        """First-order moves of the readout with each feature alone, (batch, n_readout, n_features), by forward mode.

        `trace` is that of the points, `change` the features' moves, (batch, lookback, n_features). None if there is no
        forward mode, or gradients of the readout take fewer passes.
        """
        n_features, recurrent = change.shape[2], self.recurrent
        if recurrent is None or trace.recurrent is None or self.config.front or n_features >= self.config.n_readout:
            return None
        moves = torch.diag_embed(change).transpose(1, 2)  # (batch, n_features, lookback, n_features)
        states = recurrent.tangents(trace.recurrent, moves, last=self.config.readout == "last").flatten(0, 1)
        return reduce_steps(self.config, states).view(len(change), n_features, -1).transpose(1, 2)

    def edges(self, stage: str, number: int, x: Tensor) -> Tensor:
        """Values of all edges of a layer at its inputs, (rows, n_in) -> (rows, n_subnodes, n_in)."""
        return self._functions[stage][number].edges(*self._layers[stage][number].read(x))


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
