"""Samples in units of their own, and the graph in model units of a chain that was trained on them.

*Relative* samples are scaled by series: a network sees its target's past, and forecasts, relative to the level of each
window, the mean magnitude of that past plus a floor, so new series have one too (DeepAR divides by such a mean: Salinas
et al. 2017, arXiv 1704.04110, section 3.3). With x in units of its `spread` over the training windows,

    x = past / level - 1,   forecast = level (1 + spread chain(x))

*Linear* samples have as targets what a sparse linear path leaves. `assemble` makes the graph that computes level and
path from a window, so that explanations go through them as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kanmodel.errors import ConfigError
from kanmodel.network.bases import Line
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.layer import KANLayer
from kanmodel.network.network import Network
from kanmodel.network.operations import Node, runs_of
from kanmodel.tables.encoding import Rows
from kanmodel.tables.samples import Samples
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.training.baselines import LinearPath

FLOOR = 1e-3  # of the level, in standard deviations of the target
ROWS = 8192  # windows from which the spread is measured
LEAST = 1e-12  # increment, model units, that has a logarithm


def find_without_level(config: ModelConfig) -> str | None:
    """The first target whose level is not in a window: its past is no feature, or of one step; None if all are."""
    names = config.feature_names if config.lookback > 1 else ()
    return next((target.name for target in config.targets if target.name not in names), None)


@dataclass(frozen=True)
class RelativeSamples(Samples):
    """Samples whose windows and targets are relative to the level of each window."""

    own: tuple[int, ...]  # the number of the feature that is each target's past
    mean: Tensor  # of these features, (n_targets,), original units
    scale: Tensor
    spread: Tensor  # standard deviation of relative targets over training windows, (n_targets,)

    @classmethod
    def of_samples(cls, samples: Samples, config: ModelConfig, train: Rows) -> RelativeSamples:
        """Those of samples; raises ConfigError if a target's past is not a feature, or windows have one step."""
        if (target := find_without_level(config)) is not None:
            reason = f"the past of {target} must be a feature, with ahead, over several steps"
            raise ConfigError(f"scaling by series divides by the level of a window: {reason}")
        own = tuple(config.feature_names.index(target.name) for target in config.targets)
        figures = np.array([[config.features[n].mean, config.features[n].std or 1.0] for n in own])
        mean, scale = torch.from_numpy(figures.T).to(samples.rows.dtype)
        plain = cls(samples.source, samples.rows, samples.targets, own, mean, scale, torch.ones_like(scale))
        relative = plain.outputs(train[choose_evenly(len(train), ROWS)]).view(-1, config.horizon, len(own))
        return replace(plain, spread=relative.std(dim=(0, 1)).clamp_min(FLOOR))

    def windows(self, numbers: Rows) -> Tensor:
        """See `Samples`."""
        windows = super().windows(numbers).clone()
        past, levels = self._levels(windows)
        windows[..., list(self.own)] = (past / levels[:, None] - 1) / self.spread
        return windows

    def outputs(self, numbers: Rows) -> Tensor:
        """See `Samples`."""
        _, levels = self._levels(super().windows(numbers))
        original = super().outputs(numbers).view(len(numbers), -1, len(self.own)) * self.scale + self.mean
        return ((original / levels[:, None] - 1) / self.spread).flatten(1)

    def _levels(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """The past of each target, (n, lookback, n_targets), original units, and its level, (n, n_targets)."""
        past = windows[..., list(self.own)] * self.scale + self.mean
        return past, past.abs().mean(dim=1) + FLOOR * self.scale


@dataclass(frozen=True)
class LinearSamples(Samples):
    """Samples whose targets are what a linear path leaves of those of others."""

    others: Samples
    path: LinearPath

    @classmethod
    def of(cls, others: Samples, path: LinearPath) -> LinearSamples:  # type: ignore[override]
        """Those of samples."""
        return cls(others.source, others.rows, others.targets, others, path)

    def windows(self, numbers: Rows) -> Tensor:
        """See `Samples`."""
        return self.others.windows(numbers)

    def outputs(self, numbers: Rows) -> Tensor:
        """See `Samples`."""
        return self.others.outputs(numbers) - self.path.forecast(self.windows(numbers))


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
        line = graph.add("layer", graph.arrange((values,), path.places))
    for _ in config.front:
        values = graph.add("layer", values)
    for _ in range(config.recurrent.num_layers if config.recurrent else 0):
        values = graph.add("recurrent", values)
    last = np.arange((config.lookback - 1) * config.n_units, config.lookback * config.n_units)
    values = graph.arrange((values,), last)
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
    past = graph.arrange((window,), own, (n_targets, lookback))
    past = graph.add("mul", past, graph.constant(of.scale[:, None]))
    past = graph.add("add", past, graph.constant(of.mean[:, None]))
    level = graph.add("add", graph.add("mean", graph.add("abs", past)), graph.constant(FLOOR * of.scale))
    relative = graph.add("div", past, graph.arrange((level,), (), (n_targets, 1)))
    relative = graph.add("sub", relative, graph.add("number", parameter=1.0))
    relative = graph.add("div", relative, graph.constant(of.spread[:, None]))
    of_own, n = {feature: place for place, feature in enumerate(of.own)}, lookback * n_features
    places = [
        n + of_own[feature] * lookback + step if feature in of_own else step * n_features + feature
        for step, feature in product(range(lookback), range(n_features))
    ]
    return graph.arrange((window, relative), places, (lookback, n_features)), level


def _finish(graph: _Graph, values: int, level: int, of: RelativeSamples, config: ModelConfig) -> None:
    """Adds the nodes from relative outputs, (n_outputs,), to those in model units."""
    n_targets, scaling = len(of.own), config.scaling
    column = np.arange(config.horizon * len(config.targets)) % len(config.targets)
    target, is_forecast = column % n_targets, column < n_targets
    places, others = np.flatnonzero(is_forecast), np.flatnonzero(~is_forecast)
    spread, scale = of.spread[target], torch.from_numpy(scaling.output_scale).to(of.spread)
    found = graph.add("mul", graph.arrange((values,), places), graph.constant(spread[places]))
    found = graph.add("add", found, graph.add("number", parameter=1.0))
    found = graph.add("mul", found, graph.arrange((level,), target[places]))
    found = graph.add("sub", found, graph.constant(torch.from_numpy(scaling.output_mean).to(spread)[places]))
    found = graph.add("div", found, graph.constant(scale[places]))
    if not len(others):
        return
    increments = graph.add("softplus", graph.arrange((values,), others))
    increments = graph.add("mul", increments, graph.constant((spread / scale)[others]))
    increments = graph.add("mul", increments, graph.arrange((level,), target[others]))
    # the inverse of softplus: s + log(1 - exp(-s))
    negative = graph.add("exp", graph.add("sub", graph.add("number", parameter=0.0), increments))
    rest = graph.add("sub", graph.add("number", parameter=1.0 + LEAST), negative)
    increments = graph.add("add", increments, graph.add("log", rest))
    graph.arrange((found, increments), np.argsort(np.concatenate([places, others])))


class _Graph:
    """The nodes of a graph as they are added, with its constants."""

    def __init__(self) -> None:
        self.nodes, self.constants = list[Node](), dict[int, Tensor]()

    def add(self, op: str, *inputs: int, **about: Any) -> int:
        self.nodes.append(Node(op, inputs, **about))
        return len(self.nodes) - 1

    def constant(self, values: Tensor) -> int:
        self.constants[len(self.nodes)] = values
        return self.add("constant", shape=tuple(values.shape))

    def arrange(self, inputs: tuple[int, ...], places: Sequence[int] | Rows, shape: tuple[int, ...] = ()) -> int:
        return self.add("arrange", *inputs, shape=shape or (len(places),), runs=runs_of(places))

    def make(self, network: Network, lines: KANLayer | None) -> Network:
        """The graph with the weights of a chain and, before it, a layer of lines."""
        config, part, first = network.config, network.config.recurrent, () if lines is None else (lines.config,)
        recurrents = () if part is None else (replace(part, num_layers=1),) * part.num_layers
        about: dict[str, Any] = {"graph": tuple(self.nodes), "head": (*first, *config.front, *config.head)}
        about |= {"front": (), "recurrent": None, "recurrents": recurrents}
        wrapped, n_before = Network(replace(config, **about)), {"front": len(first)}
        n_before["head"] = len(first) + len(config.front)
        state = {f"constants.{number}": values for number, values in self.constants.items()}
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
        wrapped.load_state_dict(state)
        return wrapped
