"""Scaling by series: a network sees its target's past, and forecasts, relative to the level of each window.

The level is the mean magnitude of the target's past in the window, plus a floor, so new series have
one too (DeepAR divides by such a mean: Salinas et al. 2017, arXiv 1704.04110, section 3.3). A chain is trained on
relative values; then it becomes the graph that computes them, and its forecasts, from windows in model units, so that
explanations go through the level as well:

    x = past / level - 1,   forecast = level (1 + spread chain(x))

with x in units of its `spread` over the training windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.errors import ConfigError
from kanmodel.network.chain import Network
from kanmodel.network.config import ModelConfig
from kanmodel.network.operations import Node, runs_of
from kanmodel.tables.encoding import Rows
from kanmodel.tables.samples import Samples

FLOOR = 1e-3  # of the level, in standard deviations of the target
LEAST = 1e-12  # increment, model units, that has a logarithm
ROWS = 8192  # windows from which the spread is measured


def find_without_level(config: ModelConfig) -> str | None:
    """The first target whose level is not in a window: its past is no feature, or of one step; None if all are."""
    names = config.feature_names if config.lookback > 1 else ()
    return next((target.name for target in config.targets if target.name not in names), None)


@dataclass(frozen=True)
class RelativeSamples(Samples):
    """Samples whose windows and targets are relative to the level of each window.

    Attributes:
        own: the number of the feature that is each target's past.
        mean, scale: of these features, (n_targets,), original units.
        spread: standard deviation of relative targets over training windows, (n_targets,).
    """

    own: tuple[int, ...]
    mean: Tensor
    scale: Tensor
    spread: Tensor

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
        relative = plain.outputs(train[:: max(1, len(train) // ROWS)]).view(-1, config.horizon, len(own))
        return replace(plain, spread=relative.std(dim=(0, 1)).clamp_min(FLOOR))

    def windows(self, numbers: Rows) -> Tensor:
        """(len(numbers), lookback, n_features), oldest step first."""
        windows = super().windows(numbers).clone()
        past, levels = self._levels(windows)
        windows[..., list(self.own)] = (past / levels[:, None] - 1) / self.spread
        return windows

    def outputs(self, numbers: Rows) -> Tensor:
        """(len(numbers), horizon * n_targets), steps outermost."""
        _, levels = self._levels(super().windows(numbers))
        original = super().outputs(numbers).view(len(numbers), -1, len(self.own)) * self.scale + self.mean
        relative = (original / levels[:, None] - 1) / self.spread
        return relative.flatten(1)

    def _levels(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """The past of each target, (n, lookback, n_targets), original units, and its level, (n, n_targets)."""
        past = windows[..., list(self.own)] * self.scale + self.mean
        return past, past.abs().mean(dim=1) + FLOOR * self.scale

    def wrap(self, network: Network) -> Network:
        """The graph, of model units, of a chain that was trained on these samples.

        The softplus of further nodes that follow the forecasts of each step, those of increments (see
        `kanmodel.network.intervals.Intervals`), is relative to the level and the spread.
        """
        graph, config = _Graph(), network.config
        targets, n_targets = config.targets, len(self.own)
        lookback, n_features = config.window_shape
        window = graph.add("window")
        own = [step * n_features + feature for feature in self.own for step in range(lookback)]
        past = graph.arrange((window,), (n_targets, lookback), own)
        past = graph.add("mul", past, graph.constant(self.scale[:, None]))
        past = graph.add("add", past, graph.constant(self.mean[:, None]))
        level = graph.add("add", graph.add("mean", graph.add("abs", past)), graph.constant(FLOOR * self.scale))
        relative = graph.add("div", past, graph.arrange((level,), (n_targets, 1)))
        relative = graph.add("sub", relative, graph.add("number", parameter=1.0))
        relative = graph.add("div", relative, graph.constant(self.spread[:, None]))
        of_own, n = {feature: place for place, feature in enumerate(self.own)}, lookback * n_features
        places = [
            n + of_own[feature] * lookback + step if feature in of_own else step * n_features + feature
            for step, feature in product(range(lookback), range(n_features))
        ]
        values = graph.arrange((window, relative), (lookback, n_features), places)
        for _ in config.front:
            values = graph.add("layer", values)
        if config.recurrent is not None:
            values = graph.add("recurrent", values)
        last = np.arange((lookback - 1) * config.n_units, lookback * config.n_units)
        values = graph.arrange((values,), (config.n_units,), last)
        for _ in config.head:
            values = graph.add("layer", values)
        column = np.arange(config.horizon * len(targets)) % len(targets)
        target, is_forecast = column % n_targets, column < n_targets
        self._finish(graph, values, level, target, is_forecast, config)
        return graph.make(network)

    def _finish(
        self, graph: _Graph, values: int, level: int, target: Rows, is_forecast: NDArray[np.bool_], config: ModelConfig
    ) -> None:
        """Adds the nodes from the chain's outputs, (n_outputs,), to those in model units."""

        def gather(node: int, places: Rows) -> int:
            return graph.arrange((node,), (len(places),), places)

        places, scaling = np.flatnonzero(is_forecast), config.scaling
        spread, scale = self.spread[target], torch.from_numpy(scaling.output_scale).to(self.spread)
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

    def make(self, network: Network) -> Network:
        """The graph with the weights of a chain."""
        config, n_front = network.config, len(network.config.front)
        recurrents = () if config.recurrent is None else (config.recurrent,)
        joined = (*config.front, *config.head)
        about: dict[str, Any] = {
            "graph": tuple(self.nodes),
            "head": joined,
            "front": (),
            "recurrent": None,
            "recurrents": recurrents,
        }
        wrapped, state = Network.of(replace(config, **about)), dict[str, Tensor]()
        for name, tensor in network.state_dict().items():
            kind, _, rest = name.partition(".")
            if kind == "recurrent":
                state[f"recurrents.0.{rest}"] = tensor
            else:
                number, _, rest = rest.partition(".")
                state[f"head.{int(number) + (n_front if kind == 'head' else 0)}.{rest}"] = tensor
        state |= {f"constants.{number}": values for number, values in self.constants.items()}
        wrapped.load_state_dict(state)
        return wrapped
