"""Why an import is refused: no reading gives the predictions, or several different functions do.

If none does, computations that no reading expresses are tried in place of stages; one that gives the predictions is the
reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.data import Array
from kanmodel.errors import CheckpointError
from kanmodel.importers.assembly import make_layer
from kanmodel.importers.evaluation import Function, Stage, Variants, choose_windows, items_function, stages_of, walk
from kanmodel.importers.libraries import AnyPart, Item, Layer, Norm
from kanmodel.importers.samples import Samples, describe_relative
from kanmodel.importers.search import Match, Result
from kanmodel.importers.space import INPUTS, OUTPUT, PREDICTIONS, READOUT, Reading, Space
from kanmodel.network.bases import BSpline, Chebyshev

FAR = 5.0  # distance, in standard deviations, of windows that are certainly not in the same units
MAX_DEPARTURES = 2  # choices that differ from the usual reading, besides the unsupported computation
MAX_WINDOWS = 512  # windows tried as one batch
MAX_SECONDS = 15.0
Numbers = NDArray[np.intp]  # of windows
Change = Callable[[Stage], Stage | None]
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
    change: Change
    of_batch: bool = False


def refuse_mixed_units(name: str, samples: Samples, found: Reading) -> None:
    """Raises if the reference windows are not in the units of the check's windows.

    This is assumed if they are near the windows of the check in the other units, and far from them in the same.
    """
    if not samples.has_check or samples.inputs is samples.reference:
        return
    units = found.chosen[INPUTS]
    checked = samples.to_model(samples.inputs, units).flatten(0, 1)
    spread = checked.std(dim=0, correction=0).clamp(min=1e-3)

    def distance(units: str) -> float:
        """Largest distance of the means of reference and check, in standard deviations of a feature."""
        reference = samples.to_model(samples.reference, units).flatten(0, 1)
        return float(((reference.mean(dim=0) - checked.mean(dim=0)).abs() / spread).max())

    other = "scaled" if units == "original" else "original"
    same = distance(units)
    if same > FAR and distance(other) < same / FAR:
        words = {"scaled": "scaled", "original": "in original units"}
        raise CheckpointError(
            f"{name} was found by windows of the check that are {words[units]}, but {samples.reference_name} seems to "
            f"be {words[other]}: give both in the same units"
        )


def describe_apart(match: Match, first: Match) -> str:
    """Describes another function, and the windows that would distinguish it from the first."""
    described, spread = match.reading.describe(), f"{match.stretch:g} times as far from their mean"
    if set(match.reading.differs_from(first.reading)) == {OUTPUT}:
        return f"{described}, which only predictions of another sign or size would tell, as for values {spread}"
    return f"{described}, which windows with values {'mixed anew' if match.stretch == 1 else spread} would tell"


def refuse_ambiguous(name: str, samples: Samples, result: Result, strict: bool) -> None:
    """Raises if several functions give the predictions and differ on a known window, or, if strict, anywhere."""
    first = result.matches[0]
    if strict and (result.undecided or result.left_out):
        others = "; ".join(describe_apart(match, first) for match in result.undecided[:5])
        raise CheckpointError(
            f"{name} can be read as {len(result.undecided) + 1 + result.left_out} functions that all give "
            f"{samples.predictions_name}: {first.reading.describe()}; {others or 'and more'}: add such windows to the "
            "check, or say in the manifest which it is"
        )
    for match in result.matches:
        if match.is_material:
            fitting = "; ".join(match.reading.describe() for match in result.matches[:5])
            raise CheckpointError(
                f"{name} can be read as {len(result.matches)} functions that all give {samples.predictions_name}: "
                f"{fitting}; the first and [{match.reading.describe()}] differ by {match.difference:.2g} standard "
                f"deviations at window {match.window} of {samples.reference_name}: add the model's prediction for it "
                "to the check, or say in the manifest which it is"
            )


def describe_mismatch(samples: Samples, spaces: Sequence[Space], result: Result) -> str:
    """Why no reading gives the predictions, starting with a verb: what would explain it, or the nearest reading."""
    if np.isin(samples.predictions, (0.0, 1.0)).all():
        return (
            f"does not compute {samples.predictions_name}, which holds only 0 and 1, as labels do: give what the "
            "model computes, such as probabilities"
        )
    reason = _explain_failure(spaces, samples, result.nearest)
    if reason is not None:
        return f"gives {samples.predictions_name} only if {reason}, which Kanscope does not serve"
    if not result.nearest:
        return f"does not compute {samples.predictions_name}: no reading of it gives finite predictions"
    compared = [(samples.compare(reading), reading) for reading in result.nearest]
    off, nearest = min(compared, key=lambda pair: pair[0].relative)
    wrong = f"{off.computed:.7g} in place of {off.expected:.7g}"
    tried = f"{result.tried:,} of {result.total:,} readings tried, the nearest: {nearest.describe() or 'the only one'}"
    return (
        f"does not compute {samples.predictions_name}: the largest difference is {off.absolute:.3g}, at window "
        f"{off.window}, output {samples.shapes.outputs[off.output]} ({wrong}), which is {describe_relative(off)}, and "
        f"{samples.bounds.allowed[off.output] / (samples.bounds.unit[off.output] or 1):.2g} is allowed ({tried})"
    )


def _explain_failure(spaces: Sequence[Space], samples: Samples, nearest: Sequence[Reading]) -> str | None:
    """The reason of the first unsupported computation that reproduces the predictions; None if none is found.

    Args:
        spaces: the spaces of all readings, none of which reproduces the predictions.
        samples: windows and predictions.
        nearest: the nearest readings.
    """
    if not samples.bounds.varies.all():
        return None
    deadline = monotonic() + MAX_SECONDS
    few, batch = choose_windows(samples), np.arange(min(len(samples.inputs), MAX_WINDOWS))
    with torch.inference_mode():
        for space in dict.fromkeys([*(reading.space for reading in nearest), *spaces]):
            for kinds in space.each_kind():
                if sum(map(bool, kinds)) > 1:
                    continue
                scaled = _scaled_outputs(*stages_of(space, kinds, samples, few), space, samples, few)
                if scaled is not None:
                    return scaled
                for unsupported in _unsupported_computations(space):
                    if monotonic() > deadline:
                        return None
                    for windows in (batch,) if unsupported.of_batch else (few, batch):
                        stages, first = stages_of(space, kinds, samples, windows)
                        changed = [unsupported.change(stage) or stage for stage in stages]
                        if changed == stages or not _gives(changed, first, space, samples, windows):
                            break
                    else:
                        return unsupported.reason
    return None


def _gives(stages: list[Stage], first: Variants, space: Space, samples: Samples, windows: Numbers) -> bool:
    """Whether any of these readings gives the predictions."""
    for variants in walk(stages, first, MAX_DEPARTURES):
        for units in space.options(PREDICTIONS):
            differences = np.abs(samples.from_model(variants.values, units) - samples.predictions[windows])
            excess = np.nan_to_num(differences / np.maximum(samples.bounds.allowed, TINY), nan=np.inf)
            if bool((excess.max(axis=(1, 2)) <= 1).any()):
                return True
    return False


def _scaled_outputs(
    stages: list[Stage], first: Variants, space: Space, samples: Samples, windows: Numbers
) -> str | None:
    """Fits a factor and an offset per output; None if these do not reproduce the predictions."""
    expected = samples.predictions[windows]
    if len(expected) < 4:
        return None
    wanted = expected - expected.mean(axis=0)
    for variants in walk(stages, first, MAX_DEPARTURES):
        for units in space.options(PREDICTIONS):
            values = np.nan_to_num(samples.from_model(variants.values, units), posinf=0, neginf=0)
            centred = values - values.mean(axis=1, keepdims=True)
            factors = (centred * wanted).sum(axis=1) / np.maximum((centred**2).sum(axis=1), TINY)  # of each variant
            added = expected.mean(axis=0) - factors * values.mean(axis=1)
            left = np.abs(factors[:, None] * centred - wanted) / np.maximum(samples.bounds.allowed, TINY)
            other = (np.abs(factors - 1) > 1e-3) | (np.abs(added) > 1e-2 * samples.bounds.unit)
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
            _around(recurrent, lambda f: lambda x: f(x.transpose(1, 2)).transpose(1, 2)),
            of_batch=True,
        )
        yield UnsupportedComputation(
            "the steps of its windows are read newest first", _around(recurrent, lambda f: lambda x: f(x.flip(-2)))
        )
        if recurrent.config.bidirectional:
            yield UnsupportedComputation(
                "its head reads the final states of both directions (h_n) instead of the last step",
                lambda stage: (
                    replace(stage, functions=(_final_states,)) if stage.choice == space.index[READOUT] else None
                ),
            )
    yield UnsupportedComputation(
        "its batch norms use the statistics of the batch (the model was not in eval mode)",
        _with_items(_of_batch),
        of_batch=True,
    )
    every: list[AnyPart] = [*space.order.front, *space.order.head]
    for part in every if recurrent is None else [*every, recurrent]:
        if part.n_in == part.n_out:
            yield UnsupportedComputation(
                f"a residual connection adds the input of {part.place or 'the KAN'} to its output",
                _around(part, lambda f: lambda x: x + f(x)),
            )
    yield UnsupportedComputation("its splines clip their inputs to the grid", _with_items(_clipped))
    for what, squash in SQUASHES.items():
        yield UnsupportedComputation(
            f"its Chebyshev polynomials are of {what} instead of tanh", _with_items(partial(_squashed, squash=squash))
        )


def _around(part: AnyPart, wrap: Callable[[Function], Function]) -> Change:
    """Wraps the function of a part."""
    return lambda stage: replace(stage, functions=tuple(map(wrap, stage.functions))) if stage.part is part else None


def _final_states(values: Tensor) -> Tensor:
    """The last state of each direction of (..., lookback, 2 h)."""
    h = values.shape[-1] // 2
    return torch.cat([values[..., -1, :h], values[..., 0, h:]], dim=-1)


def _with_items(change: Callable[[Item], Function | None]) -> Change:
    """Replaces the functions of items, where `change` gives another."""

    def change_stage(stage: Stage) -> Stage | None:
        changed = [change(item) for item in stage.items]
        if not any(changed):
            return None
        pairs = zip(changed, stage.items, strict=True)
        functions = [new or items_function([item], torch.float32) for new, item in pairs]

        def compute(values: Tensor) -> Tensor:
            for function in functions:
                values = function(values)
            return values

        return replace(stage, functions=(compute,))

    return change_stage


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
