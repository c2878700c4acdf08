"""Prediction intervals: bounds below and above a forecast, and the network whose outputs they are.

At levels p_1 < p_2 < ..., with increments r >= 0 of the distances and calibrated factors f >= 0,

    lower_k = forecast - sum_{j <= k} f_j r_j,   upper_k = forecast + sum_{j <= k} f'_j r'_j,   width = upper - lower

so an interval holds the forecast and the intervals of lower levels: bounds do not cross. They are functions of the
window like the forecast, so a layer more makes a network of them, which every explanation takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.errors import ConfigError, Index, check_config, check_number
from kanmodel.network.bases import Line
from kanmodel.network.config import LayerConfig, ModelConfig, SymbolicEdge, Transform
from kanmodel.network.functions import FUNCTIONS
from kanmodel.network.layer import KANLayer
from kanmodel.network.network import FrozenNetwork, Network
from kanmodel.network.operations import Node
from kanmodel.tables.columns import QUANTILE, Target

BOUNDS = ("lower", "upper", "width")
LEVEL_DIGITS = 4  # decimals of a level, which stand in the names of bounds
Kind = Literal["nodes", "quantiles", "constant"]
INCREMENTS = {"nodes": "softplus", "quantiles": "relu"}  # the function that makes a value of the network an increment


@dataclass(frozen=True)
class Calibration:
    """The windows on which the factors of intervals were calibrated, and nothing was fitted.

    Attributes:
        windows: number of windows.
        first: time stamp of the first; None if unknown.
        last: that of the last.
    """

    windows: Index
    first: str | None = None
    last: str | None = None

    def __post_init__(self) -> None:
        check_config(self)


@dataclass(frozen=True)
class Intervals:
    """The intervals of a model's forecasts, whose bounds and widths are outputs too, such as ``load+24:width@0.8``.

    Attributes:
        levels: nominal coverages, ascending, in (0, 1), of at most 4 decimals.
        kind: what the increments of the distances are: softplus of ``nodes`` of a network of their own; differences of
            the model's ``quantiles``, 0 where these cross; or ``constant``, 1 in model units, of which no feature is a
            cause.
        below, above: factors of the increments, (n_levels, n_forecasts), at least 0; forecasts as `forecasts_of`.
        calibration: the windows that the factors are from.
        network: that of the nodes, see `increment_targets`; None for other kinds.
    """

    levels: tuple[Annotated[float, check_number], ...]
    kind: Kind
    below: Array
    above: Array
    calibration: Calibration
    network: Network | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.levels or list(self.levels) != sorted({p for p in self.levels if is_level(p)}):
            wanted = f"ascending numbers between 0 and 1, of at most {LEVEL_DIGITS} decimals"
            raise ConfigError(f"levels must be {wanted}, but are {list(self.levels)}")
        for name, factors in (("below", self.below), ("above", self.above)):
            is_table = factors.ndim == 2 and len(factors) == len(self.levels)
            if not is_table or not (np.isfinite(factors) & (factors >= 0)).all():
                raise ConfigError(f"the factors {name} must be finite and at least 0, in a row for each level")
        if (self.network is None) is (self.kind == "nodes"):
            raise ConfigError(f"intervals of kind {self.kind} need {'a' if self.kind == 'nodes' else 'no'} network")
        if self.network is not None:
            self.network.eval().requires_grad_(False)

    def __str__(self) -> str:
        levels, found = ", ".join(f"{level:g}" for level in self.levels), self.calibration
        span = "" if found.first is None else f", {found.first} to {found.last}"
        return f"{levels} ({self.kind}), calibrated on {found.windows} windows{span}"

    @cached_property
    def frozen(self) -> FrozenNetwork | None:
        """The network prepared for inference."""
        with torch.inference_mode(False):
            return None if self.network is None else self.network.freeze()

    def distances(self, below: Array, above: Array) -> tuple[Array, Array]:
        """Distances of the bounds from forecasts, of the increments, (n_levels, n, n_forecasts) each, model units."""
        return np.cumsum(self.below[:, None] * below, axis=0), np.cumsum(self.above[:, None] * above, axis=0)

    def increments(self, config: ModelConfig, outputs: Tensor, windows: Tensor) -> tuple[Array, Array]:
        """The increments below and above, (n_levels, n, n_forecasts) each, model units.

        `outputs` are the model's, (n, n_outputs), of windows (n, lookback, n_features); both in model units.
        """
        n, levels, n_targets = len(outputs), len(self.levels), len(config.targets)
        if self.kind == "constant":
            ones = np.ones((levels, n, len(forecasts_of(config))))
            return ones, ones
        if self.frozen is not None:
            nodes = self.frozen.forward(windows).double().view(n, config.horizon, 1 + 2 * levels, n_targets)
            values = nodes[:, :, 1:].permute(2, 0, 1, 3).reshape(2 * levels, n, -1)
        else:
            weight, bias = differences_of(config, self.levels)
            differences = outputs.double() @ weight.flatten(0, 1).T + bias.flatten()
            values = differences.view(n, *bias.shape).permute(2, 0, 1)[1:]
        found = FUNCTIONS[INCREMENTS[self.kind]](values).numpy()
        return found[0::2], found[1::2]

    def bound(self, network: Network, forecast: int) -> Network:
        """The network of one forecast and, level by level, its lower bound, its upper bound and its width.

        `network` is the model's, `forecast` the index of one in `forecasts_of`. It has one or two layers more.
        """
        source, known = self.network or network, network.config
        output = forecasts_of(known)[forecast]
        levels, n_targets = len(self.levels), len(known.targets)
        step, layers = output // n_targets, list[KANLayer]()
        if self.kind == "quantiles":
            weight, bias = (each[forecast] for each in differences_of(known, self.levels))
            layers.append(_lines(weight, bias))
        columns = list(range(1 + 2 * levels))
        if self.network is not None:
            columns = [step * n_targets * len(columns) + column * n_targets + output % n_targets for column in columns]
        n_in = len(columns) if layers else len(source.config.outputs)
        layers.append(self._bounding_layer(n_in, [output] if self.kind == "constant" else columns, forecast))
        if (function := source.config.output_function) is not None:
            layers[0] = _transformed(layers[0], Transform(function))
        graph = source.config.graph
        for _ in layers if graph else ():
            graph = (*graph, Node("layer", (len(graph) - 1,)))
        config = replace(
            source.config,
            targets=tuple(self._targets(known.target_of(output))),
            horizon=1,
            ahead=max(1, known.ahead) + step,
            head=(*source.config.head, *(layer.config for layer in layers)),
            graph=graph,
            output_function=None,
            groups=known.groups,
        )
        bounded, depth = Network(config), len(source.config.head)
        state = dict(source.state_dict())
        for number, layer in enumerate(layers, depth):
            state |= {f"head.{number}.{name}": value for name, value in layer.state_dict().items()}
        bounded.load_state_dict(state)
        return bounded.eval().requires_grad_(False)

    def _targets(self, target: Target) -> Iterator[Target]:
        name = name_forecast(target.name)
        yield replace(target, name=name)
        for level, bound in product(self.levels, BOUNDS):
            mean = 0.0 if bound == "width" else target.mean
            yield replace(target, name=f"{name}:{bound}@{level:g}", mean=mean)

    def _bounding_layer(self, n_in: int, columns: Sequence[int], forecast: int) -> KANLayer:
        """The layer from a forecast and the values of its increments, at some columns, to the bounds."""
        point, *increments = columns
        edges = [(SymbolicEdge(point, 0, "x"), 1.0)]
        below, above = self.below[:, forecast].tolist(), self.above[:, forecast].tolist()
        bias = [0.0]
        for number in range(len(self.levels)):
            lower, upper, width = (1 + 3 * number + at for at in range(3))
            edges += [(SymbolicEdge(point, lower, "x"), 1.0), (SymbolicEdge(point, upper, "x"), 1.0)]
            if self.kind == "constant":
                less, more = sum(below[: number + 1]), sum(above[: number + 1])
                bias += [-less, more, less + more]
                continue
            bias += [0.0, 0.0, 0.0]
            for at, side in product(range(number + 1), (0, 1)):
                column, factor, sign = increments[2 * at + side], (below, above)[side][at], 2 * side - 1
                edges.append((SymbolicEdge(column, (lower, upper)[side], INCREMENTS[self.kind]), sign * factor))
                edges.append((SymbolicEdge(column, width, INCREMENTS[self.kind]), factor))
        config = LayerConfig(n_in, len(bias), Line(), "zero", symbolic=tuple(edge for edge, _ in edges))
        layer = KANLayer(config).double()
        layer.mask.zero_()
        layer.symbolic_affine.copy_(torch.tensor([[1.0, 0.0, factor, 0.0] for _, factor in edges], dtype=torch.float64))
        layer.subnode_bias.copy_(torch.tensor(bias, dtype=torch.float64))
        return layer


def is_level(level: float) -> bool:
    """Whether a number can be a level, between 0 and 1 and with a name of its own."""
    return 0 < level < 1 and round(level, LEVEL_DIGITS) == level


def name_forecast(name: str) -> str:
    """The name of a target or an output without the quantile in it."""
    return found[1] if (found := QUANTILE.fullmatch(name)) else name


def name_bounds(config: ModelConfig, levels: Sequence[float]) -> tuple[str, ...]:
    """Names of the bounds of each of `forecasts_of`, in the order of `Intervals.bound`."""
    forecasts = [name_forecast(config.outputs[output]) for output in forecasts_of(config)]
    return tuple(f"{name}:{bound}@{level:g}" for name, level, bound in product(forecasts, levels, BOUNDS))


def forecasts_of(config: ModelConfig) -> tuple[int, ...]:
    """The outputs that have intervals: all but parameters, of a target with quantiles itself, or else its median."""
    names = [target.name for target in config.targets]

    def is_forecast(name: str) -> bool:
        forecast = name_forecast(name)
        return forecast == name or (forecast not in names and name == f"{forecast}@0.5")

    of = enumerate(config.target_of(output) for output in range(len(config.outputs)))
    return tuple(n for n, target in of if not target.parameter and is_forecast(target.name))


def quantile_levels(config: ModelConfig) -> tuple[float, ...]:
    """The levels of which a model's outputs have both quantiles, of each of its forecasts, ascending."""
    names = {target.name for target in config.targets}
    forecasts = {name_forecast(config.target_of(output).name) for output in forecasts_of(config)}
    found = [float(match[2][1:]) for match in map(QUANTILE.fullmatch, names) if match]
    levels = sorted({round(1 - 2 * p, 10) for p in found if p < 0.5})
    return tuple(p for p in levels if names.issuperset(name for of in forecasts for name in _name_quantiles(of, p)))


def increment_targets(config: ModelConfig, levels: Sequence[float]) -> tuple[Target, ...]:
    """The targets of the network of increments: the model's, and for each level the nodes below and above each."""
    sides = ["", *(f":{side}@{level:g}" for level, side in product(levels, ("below", "above")))]
    return tuple(replace(target, name=target.name + side) for side in sides for target in config.targets)


def differences_of(config: ModelConfig, levels: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Weights (n_forecasts, 1 + 2 n_levels, n_outputs) and biases of each forecast and its distances between quantiles.

    Below and above by turns, level by level; all in model units of the forecast.
    """
    outputs, scaling, n_targets = list(config.outputs), config.scaling, len(config.targets)
    names, forecasts = [target.name for target in config.targets], forecasts_of(config)
    weight = np.zeros((len(forecasts), 1 + 2 * len(levels), len(outputs)))
    bias = np.zeros(weight.shape[:2])
    for number, output in enumerate(forecasts):
        forecast, first = name_forecast(config.target_of(output).name), output - output % n_targets
        inner = [output, output]  # the bounds of the level below
        weight[number, 0, output] = 1.0
        for level, p in enumerate(levels):
            for side, name in enumerate(_name_quantiles(forecast, p)):
                outer, row, sign = first + names.index(name), 1 + 2 * level + side, 2 * side - 1
                for column, of in ((outer, sign), (inner[side], -sign)):
                    weight[number, row, column] += of * scaling.output_scale[column] / scaling.output_scale[output]
                    bias[number, row] += of * scaling.output_mean[column] / scaling.output_scale[output]
                inner[side] = outer
    return torch.from_numpy(weight), torch.from_numpy(bias)


def _name_quantiles(forecast: str, level: float) -> tuple[str, str]:
    return f"{forecast}@{(1 - level) / 2:.4g}", f"{forecast}@{(1 + level) / 2:.4g}"


def _lines(weight: Tensor, bias: Tensor) -> KANLayer:
    """A Linear layer, of weights (n_out, n_in)."""
    layer = KANLayer(LayerConfig(weight.shape[1], len(weight), Line(), "zero")).double()
    with torch.no_grad():
        layer.get_parameter("coef").copy_(weight.unsqueeze(2))
        layer.mask.copy_(weight != 0)
        layer.subnode_bias.copy_(bias)
    return layer


def _transformed(layer: KANLayer, transform: Transform) -> KANLayer:
    """The layer with a transform of its inputs."""
    changed = KANLayer(replace(layer.config, before=(transform,))).double()
    changed.load_state_dict(layer.state_dict(), strict=False)
    return changed
