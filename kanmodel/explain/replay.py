"""A model's forward pass over its reference windows with some edges replaced, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import NonFiniteError
from kanmodel.explain.connectivity import Kept
from kanmodel.kan import LayerTrace
from kanmodel.network import Trace

Fill = Literal["mean", "zero"]


@dataclass(frozen=True)
class Fidelity:
    """What pruning costs, on the reference windows.

    Attributes:
        r2: coefficient of determination of the pruned outputs against the full model's.
        mae: mean absolute error of the pruned outputs against the targets, the target's unit; None where unknown.
        mae_full: the same of the full model.
    """

    r2: float
    mae: float | None
    mae_full: float | None


class Replay:
    """A model's run over its reference windows, repeated with some of its edges replaced.

    Args:
        model: the model; it is not changed.
        fill: what stands for an edge that is not kept.

    Attributes:
        live: the edges that the model itself has not masked.
        fills: what stands for each edge, (n_subnodes, n_in) by (stage, layer).
    """

    def __init__(self, model: LoadedModel, fill: Fill = "mean") -> None:
        self._network = model.network
        with torch.no_grad():
            self._full = model.network.trace(model.reference.windows)
        layers = {
            (stage, number): trace
            for stage in model.network.stages
            for number, trace in enumerate(self._full.stages[stage])
        }
        self.live: Kept = {
            (stage, number): layer.live
            for stage, kan in model.network.stages.items()
            for number, layer in enumerate(kan)
        }
        self.fills = {
            place: trace.edges.mean(dim=0) if fill == "mean" else torch.zeros_like(trace.edges[0])
            for place, trace in layers.items()
        }

    @torch.no_grad()
    def run(self, kept: Kept) -> Trace:
        """What passes when only the kept edges act; an edge of the trace is zero where it is not kept."""
        front: tuple[LayerTrace, ...] = ()
        readout = self._full.readout
        if self._network.front is not None:
            front = self._run_stage("front", self._full.front[0].inputs, kept)
            readout = self._network.read_out(front[-1].nodes.view(len(readout), -1, front[-1].nodes.shape[1]))
        return Trace(front, readout, self._run_stage("head", readout, kept))

    def _run_stage(self, stage: str, inputs: Tensor, kept: Kept) -> tuple[LayerTrace, ...]:
        traces: list[LayerTrace] = []
        for number, layer in enumerate(self._network.stages[stage]):
            full, keep = self._full.stages[stage][number], kept[stage, number]
            edges = full.edges if inputs is full.inputs else layer.edges(inputs)
            edges = torch.where(keep, edges, 0 * inputs[:, None])  # NaN where an input is, as behind a mask of 0
            subnodes = edges.sum(dim=2) + (self.fills[stage, number] * ~keep).sum(dim=1)
            traces.append(LayerTrace(inputs, edges, subnodes, layer.nodes(subnodes)))
            inputs = traces[-1].nodes
        return tuple(traces)


def measure_fidelity(model: LoadedModel, output: int, replay: Replay, edges: Kept) -> Fidelity:
    """What keeping only these edges costs one output.

    Raises:
        NonFiniteError: an output without the other edges is not finite.
    """
    return compare_outputs(model, output, replay.run(replay.live).outputs, replay.run(edges).outputs)


def compare_outputs(model: LoadedModel, output: int, full: Tensor, pruned: Tensor) -> Fidelity:
    """What one output loses, from all outputs for the reference windows, (n, n_outputs), model units.

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
