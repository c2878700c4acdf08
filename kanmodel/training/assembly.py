"""The network of model units, as a graph, of a chain that was trained on samples relative to a level or a linear path.

It computes the level and the path from a window as the samples do, so that explanations go through them as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kanmodel.network.bases import Line
from kanmodel.network.chain import Network
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.layer import KANLayer
from kanmodel.network.operations import Node, runs_of
from kanmodel.tables.encoding import Rows
from kanmodel.tables.samples import Samples
from kanmodel.training.linear import LinearPath, LinearSamples
from kanmodel.training.relative import FLOOR, RelativeSamples

LEAST = 1e-12  # increment, model units, that has a logarithm


def assemble(network: Network, samples: Samples) -> Network:
    """The network of model units of a chain that was trained on samples; the chain, if these are in model units.

    The softplus of further nodes that follow the forecasts of each step, those of increments (see
    `kanmodel.network.intervals.Intervals`), is relative to the level and the spread; the linear path is no part of it.
    """
    path, others = (samples.path, samples.others) if isinstance(samples, LinearSamples) else (None, samples)
    relative = others if isinstance(others, RelativeSamples) else None
    if path is None and relative is None:
        return network
    graph, config, lines = _Graph(), network.config, None
    values, level = graph.add("window"), 0
    if relative is not None:
        values, level = _read_relative(graph, values, relative, config)
    if path is not None:
        lines = _make_lines(path, config)
        read = graph.arrange((values,), (len(path.places),), path.places)
        line = graph.add("layer", read)
    for _ in config.front:
        values = graph.add("layer", values)
    for _ in range(config.recurrent.num_layers if config.recurrent else 0):
        values = graph.add("recurrent", values)
    last = np.arange((config.lookback - 1) * config.n_units, config.lookback * config.n_units)
    values = graph.arrange((values,), (config.n_units,), last)
    for _ in config.head:
        values = graph.add("layer", values)
    if path is not None:
        values = graph.add("add", values, line)
    if relative is not None:
        _finish(graph, values, level, relative, config)
    return graph.make(network, lines)


def _make_lines(path: LinearPath, config: ModelConfig) -> KANLayer:
    """The layer of a path, whose edges are lines; those of weight 0 are masked, as are all into increments."""
    layer = KANLayer(LayerConfig(len(path.places), config.horizon * len(config.targets), Line(), "zero"))
    weights, bias = layer.coef.new_zeros(layer.coef.shape[:2]), torch.zeros_like(layer.node_bias)
    of_step = len(path.weights) // config.horizon
    forecasts = np.flatnonzero(np.arange(len(weights)) % len(config.targets) < of_step)
    weights[forecasts], bias[forecasts] = path.weights.to(weights), path.intercept.to(weights)
    with torch.no_grad():
        layer.coef.copy_(weights.unsqueeze(-1))
        layer.node_bias.copy_(bias)
        layer.mask_edges(weights == 0)
    return layer


def _read_relative(graph: _Graph, window: int, of: RelativeSamples, config: ModelConfig) -> tuple[int, int]:
    """The nodes of a window, (lookback, n_features), relative to its level, and of the level, (n_targets,)."""
    n_targets, (lookback, n_features) = len(of.own), config.window_shape
    own = [step * n_features + feature for feature in of.own for step in range(lookback)]
    past = graph.arrange((window,), (n_targets, lookback), own)
    past = graph.add("mul", past, graph.constant(of.scale[:, None]))
    past = graph.add("add", past, graph.constant(of.mean[:, None]))
    level = graph.add("add", graph.add("mean", graph.add("abs", past)), graph.constant(FLOOR * of.scale))
    relative = graph.add("div", past, graph.arrange((level,), (n_targets, 1)))
    relative = graph.add("sub", relative, graph.add("number", parameter=1.0))
    relative = graph.add("div", relative, graph.constant(of.spread[:, None]))
    of_own, n = {feature: place for place, feature in enumerate(of.own)}, lookback * n_features
    places = [
        n + of_own[feature] * lookback + step if feature in of_own else step * n_features + feature
        for step, feature in product(range(lookback), range(n_features))
    ]
    return graph.arrange((window, relative), (lookback, n_features), places), level


def _finish(graph: _Graph, values: int, level: int, of: RelativeSamples, config: ModelConfig) -> None:
    """Adds the nodes from relative outputs, (n_outputs,), to those in model units."""
    n_targets = len(of.own)
    column = np.arange(config.horizon * len(config.targets)) % len(config.targets)
    target, is_forecast = column % n_targets, column < n_targets

    def gather(node: int, places: Rows) -> int:
        return graph.arrange((node,), (len(places),), places)

    places, scaling = np.flatnonzero(is_forecast), config.scaling
    spread, scale = of.spread[target], torch.from_numpy(scaling.output_scale).to(of.spread)
    found = graph.add("mul", gather(values, places), graph.constant(spread[places]))
    found = graph.add("add", found, graph.add("number", parameter=1.0))
    found = graph.add("mul", found, gather(level, target[places]))
    found = graph.add("sub", found, graph.constant(torch.from_numpy(scaling.output_mean).to(spread)[places]))
    found = graph.add("div", found, graph.constant(scale[places]))
    others = np.flatnonzero(~is_forecast)
    if not len(others):
        return
    increments = graph.add("softplus", gather(values, others))
    increments = graph.add("mul", increments, graph.constant((spread / scale)[others]))
    increments = graph.add("mul", increments, gather(level, target[others]))
    # the inverse of softplus: s + log(1 - exp(-s))
    negative = graph.add("exp", graph.add("sub", graph.add("number", parameter=0.0), increments))
    rest = graph.add("sub", graph.add("number", parameter=1.0 + LEAST), negative)
    increments = graph.add("add", increments, graph.add("log", rest))
    order = np.argsort(np.concatenate([places, others]))
    graph.arrange((found, increments), (len(order),), order)


class _Graph:
    """The nodes of a graph as they are added, with its constants."""

    def __init__(self) -> None:
        self.nodes, self.constants = list[Node](), dict[int, Tensor]()

    def add(self, op: str, *inputs: int, parameter: float | None = None) -> int:
        self.nodes.append(Node(op, inputs, parameter))
        return len(self.nodes) - 1

    def constant(self, values: Tensor) -> int:
        self.nodes.append(Node("constant", shape=tuple(values.shape)))
        self.constants[len(self.nodes) - 1] = values
        return len(self.nodes) - 1

    def arrange(self, inputs: tuple[int, ...], shape: tuple[int, ...], places: Sequence[int] | Rows = ()) -> int:
        self.nodes.append(Node("arrange", inputs, shape=shape, runs=runs_of(places)))
        return len(self.nodes) - 1

    def make(self, network: Network, lines: KANLayer | None) -> Network:
        """The graph with the weights of a chain and, before it, a layer of lines."""
        config, state = network.config, dict[str, Tensor]()
        first = () if lines is None else (lines.config,)
        n_before = {"front": len(first), "head": len(first) + len(config.front)}
        part = config.recurrent
        recurrents = () if part is None else (replace(part, num_layers=1),) * part.num_layers
        joined = (*first, *config.front, *config.head)
        about: dict[str, Any] = {
            "graph": tuple(self.nodes),
            "head": joined,
            "front": (),
            "recurrent": None,
            "recurrents": recurrents,
        }
        wrapped = Network(replace(config, **about))
        if lines is not None:
            state |= {f"head.0.{name}": tensor for name, tensor in lines.state_dict().items()}
        for name, tensor in network.state_dict().items():
            kind, _, rest = name.partition(".")
            if kind == "recurrent":  # weight_ih_l1_reverse is of the second layer
                weight, _, of_layer = rest.rpartition("_l")
                number, _, reverse = of_layer.partition("_")
                state[f"recurrents.{number}.{weight}_l0{reverse and f'_{reverse}'}"] = tensor
            else:
                number, _, rest = rest.partition(".")
                state[f"head.{int(number) + n_before[kind]}.{rest}"] = tensor
        state |= {f"constants.{number}": values for number, values in self.constants.items()}
        wrapped.load_state_dict(state)
        return wrapped
