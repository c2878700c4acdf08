"""Diagnosis when no reading fits: unsupported computations that would reproduce the predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.importers.assembly import make_layer
from kanmodel.importers.libraries import AnyPart, Item, Layer, Norm, Part, RecurrentPart
from kanmodel.importers.search.evidence import Evidence
from kanmodel.importers.search.screening import choose_windows
from kanmodel.importers.search.space import INPUTS, PREDICTIONS, READOUT, Reading, Space
from kanmodel.importers.search.walk import Function, Stage, Variants, items_function, stages_of, walk
from kanmodel.network.bases import BSpline, Chebyshev
from kanmodel.scaling import Array

MAX_DEPARTURES = 2  # choices that differ from the usual reading, besides the unsupported computation
MAX_WINDOWS = 512  # windows tried as one batch
MAX_SECONDS = 15.0
Numbers = NDArray[np.intp]  # of windows
TINY = float(np.finfo(float).tiny)


@dataclass(frozen=True)
class UnsupportedComputation:
    """A computation that no reading can express, tried in place of a stage.

    Attributes:
        reason: continues "only if" in the error message.
        change: maps a stage to its replacement, or to None to keep it.
        of_batch: whether a window's forecast depends on the others in its batch.
    """

    reason: str
    change: Callable[[Stage], Stage | None]
    of_batch: bool = False


def explain_failure(spaces: Sequence[Space], evidence: Evidence, nearest: Sequence[Reading]) -> str | None:
    """The reason of the first unsupported computation that reproduces the predictions; None if none is found.

    Args:
        spaces: the spaces of all readings, none of which reproduces the predictions.
        evidence: windows and predictions.
        nearest: the nearest readings.
    """
    if not evidence.bounds.varies.all():
        return None
    deadline = monotonic() + MAX_SECONDS
    few, batch = choose_windows(evidence), np.arange(min(len(evidence.windows), MAX_WINDOWS))
    with torch.inference_mode():
        for space in dict.fromkeys([*(reading.space for reading in nearest), *spaces]):
            for kinds in space.each_kind():
                if sum(map(bool, kinds)) > 1:
                    continue
                scaled = _scaled_outputs(*_stages(space, kinds, evidence, few), space, evidence, few)
                if scaled is not None:
                    return scaled
                for unsupported in _unsupported_computations(space):
                    if monotonic() > deadline:
                        return None
                    for windows in (batch,) if unsupported.of_batch else (few, batch):
                        stages, first = _stages(space, kinds, evidence, windows)
                        changed = [unsupported.change(stage) or stage for stage in stages]
                        if changed == stages or not _gives(changed, first, space, evidence, windows):
                            break
                    else:
                        return unsupported.reason
    return None


def _stages(space: Space, kinds: Sequence[int], evidence: Evidence, windows: Numbers) -> tuple[list[Stage], Variants]:
    options = space.choices[space.index[INPUTS]].options
    return stages_of(
        space, kinds, [evidence.to_model(evidence.windows[windows], units) for units in options], torch.float32
    )


def _gives(stages: list[Stage], first: Variants, space: Space, evidence: Evidence, windows: Numbers) -> bool:
    """Whether any of these readings gives the predictions."""
    for variants in walk(stages, first, MAX_DEPARTURES):
        for units in space.choices[space.index[PREDICTIONS]].options:
            differences = np.abs(evidence.from_model(variants.values, units) - evidence.expected[windows])
            excess = np.nan_to_num(differences / np.maximum(evidence.bounds.allowed, TINY), nan=np.inf)
            if bool((excess.max(axis=(1, 2)) <= 1).any()):
                return True
    return False


def _scaled_outputs(
    stages: list[Stage], first: Variants, space: Space, evidence: Evidence, windows: Numbers
) -> str | None:
    """Fits a factor and an offset per output; None if these do not reproduce the predictions."""
    expected = evidence.expected[windows]
    if len(expected) < 4:
        return None
    wanted = expected - expected.mean(axis=0)
    for variants in walk(stages, first, MAX_DEPARTURES):
        for units in space.choices[space.index[PREDICTIONS]].options:
            values = np.nan_to_num(evidence.from_model(variants.values, units), posinf=0, neginf=0)
            centred = values - values.mean(axis=1, keepdims=True)
            factors = (centred * wanted).sum(axis=1) / np.maximum((centred**2).sum(axis=1), TINY)  # of each variant
            added = expected.mean(axis=0) - factors * values.mean(axis=1)
            left = np.abs(factors[:, None] * centred - wanted) / np.maximum(evidence.bounds.allowed, TINY)
            other = (np.abs(factors - 1) > 1e-3) | (np.abs(added) > 1e-2 * evidence.bounds.unit)
            found = np.flatnonzero((left.max(axis=(1, 2)) <= 1) & other.any(axis=1))
            if len(found):
                return (
                    f"its outputs are multiplied by {_numbers(factors[found[0]])} and {_numbers(added[found[0]])} is "
                    "added (by a constant in forward, or by a scaling of the targets that is not given: "
                    "scaling.target_mean and target_std)"
                )
    return None


def _numbers(values: Array) -> str:
    return ", ".join(f"{value:.4g}" for value in values[:4])


def _unsupported_computations(space: Space) -> Iterator[UnsupportedComputation]:
    """Yields unsupported computations that occur in practice, some of them mistakes."""
    recurrent = space.recurrent
    if recurrent is not None:
        yield UnsupportedComputation(
            "its recurrent part runs across the windows of a batch instead of their steps (batch_first does not fit "
            "the layout of the windows)",
            lambda stage: _around(stage, RecurrentPart, lambda f: lambda x: f(x.transpose(1, 2)).transpose(1, 2)),
            of_batch=True,
        )
        yield UnsupportedComputation(
            "the steps of its windows are read newest first",
            lambda stage: _around(stage, RecurrentPart, lambda f: lambda x: f(x.flip(-2))),
        )
        if recurrent.config.bidirectional:
            yield UnsupportedComputation(
                "its head reads the final states of both directions (h_n) instead of the last step",
                lambda stage: (
                    replace(stage, functions=(_final_states,))
                    if stage.choice is not None and stage.choice == space.index[READOUT]
                    else None
                ),
            )
    yield UnsupportedComputation(
        "its batch norms use the statistics of the batch (the model was not in eval mode)",
        lambda stage: _with_items(stage, _of_batch),
        of_batch=True,
    )
    every: list[AnyPart] = [*space.order.front, *space.order.head]
    for part in every if recurrent is None else [*every, recurrent]:
        if part.n_in == part.n_out:
            yield UnsupportedComputation(
                f"a residual connection adds the input of {part.place or 'the KAN'} to its output",
                lambda stage, part=part: (  # type: ignore[misc]
                    replace(stage, functions=tuple(_residual(f) for f in stage.functions))
                    if stage.part is part
                    else None
                ),
            )
    yield UnsupportedComputation(
        "its splines clip their inputs to the grid", lambda stage: _with_items(stage, _clipped)
    )
    for what, squash in SQUASHES.items():
        yield UnsupportedComputation(
            f"its Chebyshev polynomials are of {what} instead of tanh",
            lambda stage, squash=squash: _with_items(stage, lambda item: _squashed(item, squash)),  # type: ignore[misc]
        )


def _around(stage: Stage, kind: type, wrap: Callable[[Function], Function]) -> Stage | None:
    if not isinstance(stage.part, kind):
        return None
    return replace(stage, functions=tuple(wrap(function) for function in stage.functions))


def _residual(function: Function) -> Function:
    return lambda x: x + function(x)


def _final_states(values: Tensor) -> Tensor:
    """The last state of each direction of (..., lookback, 2 h)."""
    h = values.shape[-1] // 2
    return torch.cat([values[..., -1, :h], values[..., 0, h:]], dim=-1)


def _with_items(stage: Stage, change: Callable[[Item], Function | None]) -> Stage | None:
    """The stage with other functions for its items."""
    if not isinstance(stage.part, Part):
        return None
    changed = [change(item) for item in stage.items]
    if not any(changed):
        return None
    functions = [new or items_function([item], torch.float32) for new, item in zip(changed, stage.items, strict=True)]

    def compute(values: Tensor) -> Tensor:
        for function in functions:
            values = function(values)
        return values

    return replace(stage, functions=(compute,))


def _of_batch(item: Item) -> Function | None:
    if not isinstance(item, Norm) or item.statistics is None:
        return None
    mean, std = item.statistics
    weight, bias = (item.weight * std).float(), (item.bias + mean * item.weight).float()

    def compute(values: Tensor) -> Tensor:
        """Of (n_variants, n_windows, n): the windows of each variant are its batch."""
        variance, centre = torch.var_mean(values, dim=1, keepdim=True, correction=0)
        return weight * (values - centre) / torch.sqrt(variance + 1e-5) + bias

    return compute


def _clipped(item: Item) -> Function | None:
    if not isinstance(item, Layer) or not isinstance(item.config.basis, BSpline):
        return None
    layer = make_layer(item, torch.float32)
    functions, core = layer.functions(frozen=True), layer.core
    assert core is not None

    def compute(values: Tensor) -> Tensor:
        of_base, of_basis = layer.read(values.flatten(0, -2))
        subnodes = functions.sums(of_base, torch.minimum(torch.maximum(of_basis, core[0]), core[1] - 1e-6))
        return layer.nodes(subnodes).view(*values.shape[:-1], -1)

    return compute


def _squashed(item: Item, squash: Function) -> Function | None:
    if not isinstance(item, Layer) or not isinstance(item.config.basis, Chebyshev):
        return None
    function = items_function([item], torch.float32)
    return lambda values: function(torch.atanh(squash(values)))


def _min_max(x: Tensor) -> Tensor:
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    return 2 * (x - low) / (high - low) - 1


SQUASHES: dict[str, Function] = {
    "the inputs themselves": lambda x: x,
    "sigmoid": torch.sigmoid,
    "inputs scaled from the smallest to the largest": _min_max,
}
