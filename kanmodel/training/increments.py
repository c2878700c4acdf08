"""Training of prediction intervals: nodes beside those of a trained head, whose softplus are increments of distances.

The forecasts are trained first, as without intervals, and stay as they are. Then every hidden layer of the head gets as
many sum nodes again, and the last layer the nodes of `increment_targets`. The new nodes read old and new ones, the old
nodes only old ones. What is trained are the edges into new nodes, by the pinball loss (Koenker and Bassett 1978) of the
bounds at (1 - p) / 2 and (1 + p) / 2 of each level p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from kanmodel.errors import ConfigError
from kanmodel.network.config import LayerConfig, ModelConfig
from kanmodel.network.intervals import forecasts_of, increment_targets
from kanmodel.network.layer import KANLayer, LayerTrace
from kanmodel.network.network import Network
from kanmodel.tables.samples import Parts, Samples
from kanmodel.training.optimization import Objective, Progress, Stage, TrainingOptions, descend, sparsity_penalty

LEAST = 1e-3  # initial increment, model units, where errors are smaller
PENALTY = 0.01  # of the forecasts' sparsity penalty; with more of it, increments often stay constant


def fit_increments(
    network: Network,
    levels: Sequence[float],
    samples: Samples,
    parts: Parts,
    options: TrainingOptions,
    report: Callable[[Progress], None],
) -> Network:
    """The network of the increments of a trained network, see `kanmodel.network.intervals.Intervals`.

    Its forecasts, and every tensor of the trained network in it, are the same. The increments start constant, such that
    the bounds are quantiles of the errors on the validation part, and stay so if no epoch has a lower pinball loss
    there. Raises as `refuse_increments`, and NonFiniteError if the training diverges.
    """
    refuse_increments(network.config)
    nodes = _Nodes(network, len(levels), torch.Generator().manual_seed(options.seed))
    objective = _PinballLoss(nodes, tuple(levels))
    nodes.set_constants(objective.quantiles(samples.windows(parts.validation), samples.outputs(parts.validation)))
    with_grids = replace(options, grid_updates=max(1, options.grid_updates))  # for the new nodes' values
    descend(objective, samples, parts, with_grids, report, start="compared")
    return nodes.join(levels)


def refuse_increments(config: ModelConfig) -> None:
    """Raises ConfigError if the outputs of an architecture cannot have nodes for intervals."""
    if config.head[-1].mult_arity:
        raise ConfigError("intervals need outputs that are sum nodes, but the last layer of the head has product nodes")
    if len(forecasts_of(config)) < len(config.outputs):
        raise ConfigError("intervals are of forecasts, but a target is named as a quantile of another one")


class _Nodes(nn.Module):
    """New nodes beside those of a trained network's head; the layers' inputs and nodes are those of the joined head."""

    def __init__(self, network: Network, n_levels: int, generator: torch.Generator) -> None:
        super().__init__()
        self._network = [network]  # in a list, so that its weights are not parameters of this module
        self.old = network.stages["head"]
        *hidden, last = (layer.config for layer in self.old)
        added = [0, *(layer.n_out for layer in hidden), 2 * n_levels * last.n_out]  # new nodes among inputs and outputs
        sums = [hidden[0].n_in if hidden else last.n_in, *(layer.n_sum for layer in hidden)]
        # (n_in,) of each joined layer, whether an input is new: sums, new sums, products
        self.new_inputs = [
            torch.tensor([at in range(n_sum, n_sum + n_new) for at in range(layer.config.n_in + n_new)])
            for layer, n_sum, n_new in zip(self.old, sums, added[:-1], strict=True)
        ]
        self.new = list[KANLayer]()
        for layer, is_new, n_new in zip(self.old, self.new_inputs, added[1:], strict=True):
            config = LayerConfig(len(is_new), n_new, layer.config.basis, layer.config.base)
            self.new.append(KANLayer(config, generator).to(layer.mask.dtype))
            for name in config.basis.per_input():
                getattr(self.new[-1], name)[~is_new] = getattr(layer, name)
        self.new[-1].silence()  # the increments start constant
        self.layers = nn.ModuleList(self.new)

    @property
    def network(self) -> Network:
        """The trained network."""
        return self._network[0]

    def set_constants(self, increments: Tensor) -> None:
        """Sets the increments, (2 n_levels, n_outputs), where the edges into their nodes are zero."""
        wanted = increments.double().flatten()
        self.new[-1].node_bias.copy_(wanted + torch.log(-torch.expm1(-wanted)))  # the inverse of softplus

    def trace(self, windows: Tensor, update_grids: bool = False) -> tuple[Tensor, list[LayerTrace]]:
        """Forecasts (n, n_outputs), and the layers of new nodes, the last nodes being (2 n_levels, n_outputs) of each.

        With `update_grids`, the knots of inputs that are new nodes are moved to their values.
        """
        with torch.no_grad():
            trace = self.network.trace(windows)
        traces = list[LayerTrace]()
        for layer, old, is_new in zip(self.new, trace.head, self.new_inputs, strict=True):
            x = old.inputs.new_empty(len(windows), len(is_new))
            x[:, ~is_new] = old.inputs
            if traces:
                x = x.masked_scatter(is_new, traces[-1].nodes)
            if update_grids and traces:
                _update_grids(layer, x, ~is_new)
            traces.append(layer.trace(x))
        return trace.outputs, traces

    def join(self, levels: Sequence[float]) -> Network:
        """One network of old and new nodes, whose outputs are, of each step, the forecasts and then the increments."""
        config = self.network.config
        heads, targets, n_targets = list[LayerConfig](), increment_targets(config, levels), len(config.targets)
        for old, new in zip(self.old, self.new, strict=True):
            heads.append(replace(old.config, n_in=new.config.n_in, n_sum=old.config.n_sum + new.config.n_sum))
        joined = Network(replace(config, targets=targets, head=tuple(heads)))
        joined.load_state_dict(self.network.state_dict() | joined.head.state_dict(prefix="head."))
        places = torch.arange(config.horizon * len(targets)).view(config.horizon, -1, n_targets)
        with torch.no_grad():
            for whole, old, new, is_new in zip(joined.stages["head"], self.old, self.new, self.new_inputs, strict=True):
                new_nodes = torch.arange(old.config.n_sum, whole.config.n_sum)
                if new is self.new[-1]:
                    new_nodes = places[:, 1:].transpose(0, 1).flatten()
                _join_layer(whole, old, new, new_nodes, is_new)
        return joined.eval().requires_grad_(False)


def _update_grids(layer: KANLayer, x: Tensor, kept: Tensor) -> None:
    """Moves the knots of a layer's inputs to their values x (n, n_in), but not of those `kept`, (n_in,), bool."""
    basis = layer.config.basis
    places = {name: (slice(None), kept) for name in basis.per_edge()} | dict.fromkeys(basis.per_input(), (kept,))
    before = {name: getattr(layer, name).detach()[at].clone() for name, at in places.items()}
    layer.update_grid(x)
    with torch.no_grad():
        for name, at in places.items():
            getattr(layer, name)[at] = before[name]


def _join_layer(joined: KANLayer, old: KANLayer, new: KANLayer, new_nodes: Tensor, new_inputs: Tensor) -> None:
    """Copies the tensors of old and new nodes, at some places among the joined; old nodes do not read new inputs."""
    tensors, of_old, of_new = (layer.state_dict() for layer in (joined, old, new))
    for name, tensor in tensors.items():
        if name in joined.config.basis.per_input():
            tensor.copy_(of_new[name])
            continue
        is_old = torch.ones(len(tensor), dtype=torch.bool)
        is_old[new_nodes] = False
        old_nodes, old_inputs = is_old.nonzero(), (~new_inputs).nonzero()[:, 0]
        tensor[old_nodes[:, 0]] = 0
        tensor[old_nodes[:, 0] if tensor.ndim == 1 else (old_nodes, old_inputs)] = of_old[name]
        tensor[new_nodes] = of_new[name]


@dataclass(frozen=True)
class _PinballLoss(Objective):
    """The pinball loss of the bounds, in standard deviations of the target: mean over outputs, sum over bounds."""

    module: _Nodes
    levels: tuple[float, ...]
    stage: Stage = "intervals"

    def evaluate(self, windows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """See `Objective`."""
        forecasts, traces = self.module.trace(windows)
        increments = softplus(traces[-1].nodes).view(len(windows), len(self.levels), 2, -1)
        errors = targets - forecasts
        loss = errors.new_zeros(())
        for level, distances in zip(self.levels, increments.cumsum(dim=1).unbind(dim=1), strict=True):
            for excess in (-errors - distances[:, 0], errors - distances[:, 1]):
                loss = loss + torch.maximum(excess * (1 + level) / 2, -excess * (1 - level) / 2).mean()
        return loss, PENALTY * sparsity_penalty(tuple(traces), targets.shape[1])

    def update_grids(self, windows: Tensor) -> None:
        """See `Objective`."""
        with torch.no_grad():
            self.module.trace(windows, update_grids=True)

    def quantiles(self, windows: Tensor, targets: Tensor) -> Tensor:
        """Constant increments, (2 n_levels, n_outputs), whose bounds are quantiles of the errors on windows."""
        with torch.no_grad():
            errors = targets - self.module.network(windows)
        found, inner = list[Tensor](), [torch.zeros_like(errors[0])] * 2
        for level in self.levels:
            for side, excess in enumerate((-errors, errors)):
                outer = torch.maximum(excess.quantile((1 + level) / 2, dim=0), inner[side] + LEAST)
                found.append(outer - inner[side])
                inner[side] = outer
        return torch.stack(found)
