"""The forward pass over the reference windows with some edges replaced (mean ablation), and its fidelity."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import NonFiniteError
from kanmodel.explain.structure.connectivity import Kept
from kanmodel.network.chain import Trace, trace_chain
from kanmodel.network.layer import LayerTrace

Fill = Literal["mean", "zero"]


@dataclass(frozen=True)
class Fidelity:
    """How well a pruned network forecasts, on the reference windows.

    Attributes:
        r2: coefficient of determination of the pruned outputs against the full model's.
        mae: mean absolute error of the pruned outputs against the targets, the target's unit; None where unknown.
        mae_full: the same of the full model.
    """

    r2: float
    mae: float | None
    mae_full: float | None


class Replay:
    """A forward pass over the reference windows in which masked edges are replaced by a constant.

    Args:
        model: the model; it is not changed.
        fill: the value of an edge that is not kept.

    Attributes:
        live: the edges that the model itself has not masked.
        fills: the value of each edge when it is not kept, (n_subnodes, n_in) by (stage, layer).
    """

    def __init__(self, model: LoadedModel, fill: Fill = "mean") -> None:
        self._network, self._windows = model.network, model.reference.windows
        self._layers = model.network.layers
        self._first = next(iter(self._layers))  # the layer whose inputs no edge changes
        with torch.no_grad():
            self._full = model.network.trace(self._windows)
        self.live: Kept = {place: layer.live for place, layer in self._layers.items()}
        self.fills = {
            (stage, number): trace.edges.mean(dim=0) if fill == "mean" else torch.zeros_like(trace.edges[0])
            for stage, traces in self._full.stages.items()
            for number, trace in enumerate(traces)
        }

    @torch.no_grad()
    def run(self, kept: Kept) -> Trace:
        """The activations with the kept edges alone; edges that are not kept are 0 in the trace."""

        def through(stage: str, number: int, x: Tensor) -> LayerTrace:
            layer, full, keep = self._layers[stage, number], self._full.stages[stage][number], kept[stage, number]
            edges = full.edges if (stage, number) == self._first else layer.edges(x)
            edges = torch.where(keep, edges, 0 * x[:, None])  # NaN where an input is, as behind a mask of 0
            subnodes = edges.sum(dim=2) + (self.fills[stage, number] * ~keep).sum(dim=1)
            return LayerTrace(x, edges, subnodes, layer.nodes(subnodes))

        def read_out(steps: Tensor) -> Tensor:
            return self._full.readout if self._first == ("head", 0) else self._network.read_out(steps)

        return trace_chain(self._network.config, self._windows, through, read_out)


def measure_fidelity(model: LoadedModel, output: int, replay: Replay, edges: Kept) -> Fidelity:
    """The fidelity of one output with these edges alone.

    Raises:
        NonFiniteError: an output without the other edges is not finite.
    """
    return compare_outputs(model, output, replay.run(replay.live).outputs, replay.run(edges).outputs)


def compare_outputs(model: LoadedModel, output: int, full: Tensor, pruned: Tensor) -> Fidelity:
    """The fidelity of one output, from all outputs for the reference windows, (n, n_outputs), model units.

    Raises:
        NonFiniteError: the pruned output is not finite for a window, or too large for an R2.
    """
    full, pruned = full[:, output].double(), pruned[:, output].double()
    kept = r2(full, pruned)
    if not isfinite(kept):
        n_lost = int((~torch.isfinite(pruned)).sum())
        raise NonFiniteError(
            f"the pruned network's output {model.config.outputs[output]} is not finite for {n_lost} of {len(pruned)} "
            "reference windows: a function of an edge has left its domain; keep more edges"
            if n_lost
            else f"the pruned network's output {model.config.outputs[output]} is too large for an R2; keep more edges"
        )
    if model.reference.targets is None:
        return Fidelity(kept, None, None)
    targets = torch.from_numpy(model.reference.targets)[:, output]
    scale, mean = float(model.scaling.output_scale[output]), float(model.scaling.output_mean[output])
    errors = [float((outputs * scale + mean - targets).abs().mean()) for outputs in (pruned, full)]
    return Fidelity(kept, *errors)


def r2(full: Tensor, pruned: Tensor) -> float:
    """Coefficient of determination of pruned outputs against full ones, (n,).

    Of constant full outputs it is 1 if the pruned ones are equal, else 0. It is minus infinity where a pruned output is
    not finite, so that no fidelity is ever held.
    """
    if not torch.isfinite(pruned).all():
        return float("-inf")
    deviation = full - full.mean()
    size = float(deviation.abs().max())
    if size == 0:
        return float(torch.equal(pruned, full))
    lost, spread = (float(((values / size) ** 2).sum()) for values in (pruned - full, deviation))
    return 1 - lost / spread
