"""Why an import is refused: no reading gives the predictions, or several different functions do.

If none does, computations that no reading expresses are tried; one that gives the predictions is the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.assembly import Function, items_function, make_layer
from kanmodel.importers.parts import AnyPart, Item, Layer, Norm
from kanmodel.importers.samples import Samples
from kanmodel.importers.search import TINY, Numbers, Result, Stage, Variants, choose_windows, stages_of, walk
from kanmodel.importers.structure import INPUTS, PREDICTIONS, READOUT, UNIT_WORDS, Reading, Space
from kanmodel.network.bases import BSpline, Chebyshev

FAR = 5.0  # distance, in standard deviations, of windows that are certainly not in the same units
MAX_DEPARTURES = 2  # choices that differ from the usual reading, besides the unsupported computation
MAX_WINDOWS = 512  # windows tried as one batch
MAX_SECONDS = 15.0


def refuse_mixed_units(samples: Samples, found: Reading) -> None:
    """Raises `CheckpointError` if the reference windows are not in the units of the check's windows.

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
        raise CheckpointError(
            f"was found by windows of the check that are {UNIT_WORDS[units]}, but {samples.reference_name} seems to be "
            f"{UNIT_WORDS[other]}: give both in the same units"
        )


def refuse_ambiguous(samples: Samples, result: Result, strict: bool) -> None:
    """Raises `CheckpointError` if several functions fit that differ on a known window, or, if strict, anywhere."""
    first = result.found.describe()
    they = f"functions that all give {samples.predictions_name}: "
    ask = "to the check, or say in the manifest which it is"
    if strict and (result.undecided or result.left_out):
        others = "; ".join(result.describe_undecided()[:5]) or "and more"
        n_functions = len(result.undecided) + 1 + result.left_out
        raise CheckpointError(f"can be read as {n_functions} {they}{first}; {others}: add such windows {ask}")
    match = next((match for match in result.matches if match.is_material), None)
    if match is not None:
        fitting, other = "; ".join(m.reading.describe() for m in result.matches[:5]), match.reading.describe()
        known = f"window {match.window} of {samples.reference_name}"
        raise CheckpointError(
            f"can be read as {len(result.matches)} {they}{fitting}; the first and [{other}] differ by "
            f"{match.difference:.2g} standard deviations at {known}: add the model's prediction for it {ask}"
        )


def describe_mismatch(samples: Samples, spaces: list[Space], result: Result) -> str:
    """Why no reading gives the predictions, starting with a verb: what would explain it, or the nearest reading."""
    if np.isin(samples.predictions, (0.0, 1.0)).all():
        return (
            f"does not compute {samples.predictions_name}, which holds only 0 and 1, as labels do: give what the "
            "model computes, such as probabilities"
        )
    reason = _explain_failure(list(dict.fromkeys([*(r.space for r in result.nearest), *spaces])), samples)
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
        f"{off.window}, output {samples.shapes.outputs[off.output]} ({wrong}), which is {off.describe_relative()}, and "
        f"{samples.bounds.allowed[off.output] / (samples.bounds.unit[off.output] or 1):.2g} is allowed ({tried})"
    )


class Unsupported(NamedTuple):
    """A computation that no reading can express: the functions that it has in place of a stage's, or None."""

    reason: str  # continues "only if" in the error message
    change: Callable[[Stage], tuple[Function, ...] | None]
    of_batch: bool = False  # whether a window's forecast depends on the others in its batch


def _explain_failure(spaces: list[Space], samples: Samples) -> str | None:
    """The reason of the first unsupported computation that reproduces the predictions; None if none is found."""
    if not samples.bounds.varies.all():
        return None
    deadline = monotonic() + MAX_SECONDS
    few, batch = choose_windows(samples), np.arange(min(len(samples.inputs), MAX_WINDOWS))
    with torch.inference_mode():
        for space in spaces:
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
                        changed = [(stage, unsupported.change(stage)) for stage in stages]
                        replaced = [replace(stage, functions=new) if new else stage for stage, new in changed]
                        if replaced == stages or not _gives(replaced, first, space, samples, windows):
                            break
                    else:
                        return unsupported.reason
    return None


def _gives(stages: list[Stage], first: Variants, space: Space, samples: Samples, windows: Numbers) -> bool:
    """Whether any of these readings gives the predictions."""
    for variants in walk(stages, first, MAX_DEPARTURES):
        for units in space.choices[PREDICTIONS]:
            differences = np.abs(samples.from_model(variants.values, units) - samples.predictions[windows])
            excess = np.nan_to_num(differences / np.maximum(samples.bounds.allowed, TINY), nan=np.inf)
            if bool((excess.max(axis=(1, 2)) <= 1).any()):
                return True
    return False


def _scaled_outputs(stages: list[Stage], first: Variants, space: Space, samples: Samples, few: Numbers) -> str | None:
    """Fits a factor and an offset per output; None if these do not reproduce the predictions."""
    expected = samples.predictions[few]
    if len(expected) < 4:
        return None
    wanted = expected - expected.mean(axis=0)
    for variants in walk(stages, first, MAX_DEPARTURES):
        for units in space.choices[PREDICTIONS]:
            values = np.nan_to_num(samples.from_model(variants.values, units), posinf=0, neginf=0)
            centred = values - values.mean(axis=1, keepdims=True)
            factors = (centred * wanted).sum(axis=1) / np.maximum((centred**2).sum(axis=1), TINY)  # of each variant
            added = expected.mean(axis=0) - factors * values.mean(axis=1)
            left = np.abs(factors[:, None] * centred - wanted) / np.maximum(samples.bounds.allowed, TINY)
            other = (np.abs(factors - 1) > 1e-3) | (np.abs(added) > 1e-2 * samples.bounds.unit)
            found = np.flatnonzero((left.max(axis=(1, 2)) <= 1) & other.any(axis=1))
            for best in found:
                factor, offset = (", ".join(f"{x:.4g}" for x in values[best][:4]) for values in (factors, added))
                return (
                    f"its outputs are multiplied by {factor} and {offset} is added (by a constant in forward, or by a "
                    "scaling of the targets that is not given: scaling.target_mean and target_std)"
                )
    return None


def _unsupported_computations(space: Space) -> Iterator[Unsupported]:
    """Yields unsupported computations that occur in practice, some of them mistakes."""
    order, recurrent = space.order, space.order.recurrent

    def around(part: AnyPart, wrap: Callable[[Function], Function]) -> Callable[[Stage], tuple[Function, ...] | None]:
        return lambda stage: tuple(map(wrap, stage.functions)) if stage.part is part else None

    if recurrent is not None:
        reason = "its recurrent part runs across the windows of a batch instead of their steps "
        reason += "(batch_first does not fit the layout of the windows)"
        transposed = around(recurrent, lambda f: lambda x: f(x.transpose(1, 2)).transpose(1, 2))
        yield Unsupported(reason, transposed, of_batch=True)
        reversed_steps = around(recurrent, lambda f: lambda x: f(x.flip(-2)))
        yield Unsupported("the steps of its windows are read newest first", reversed_steps)
        if recurrent.config.bidirectional:
            reason = "its head reads the final states of both directions (h_n) instead of the last step"
            h, readout = recurrent.n_out // 2, space.index[READOUT]
            states = (lambda x: torch.cat([x[..., -1, :h], x[..., 0, h:]], dim=-1),)  # of (..., lookback, 2 h)
            yield Unsupported(reason, lambda stage: states if stage.choice == readout else None)
    reason = "its batch norms use the statistics of the batch (the model was not in eval mode)"
    yield Unsupported(reason, partial(_change_items, change=_of_batch), of_batch=True)
    every: list[AnyPart] = [*order.front, *order.head]
    for part in every if recurrent is None else [*every, recurrent]:
        if part.n_in == part.n_out:
            reason = f"a residual connection adds the input of {part.place or 'the KAN'} to its output"
            yield Unsupported(reason, around(part, lambda f: lambda x: x + f(x)))
    yield Unsupported("its splines clip their inputs to the grid", partial(_change_items, change=_clipped))
    for what, squash in SQUASHES.items():
        reason = f"its Chebyshev polynomials are of {what} instead of tanh"
        yield Unsupported(reason, partial(_change_items, change=partial(_squashed, squash=squash)))


def _change_items(stage: Stage, change: Callable[[Item], Function | None]) -> tuple[Function, ...] | None:
    """The function of a stage's items, where `change` gives another for one of them."""
    changed = [change(item) for item in stage.items]
    if not any(changed):
        return None
    pairs = zip(changed, stage.items, strict=True)
    functions = [new or items_function([item], torch.float32) for new, item in pairs]

    def compute(values: Tensor) -> Tensor:
        for function in functions:
            values = function(values)
        return values

    return (compute,)


def _of_batch(item: Item) -> Function | None:
    """A BatchNorm in training mode, of (n_variants, n_windows, n): the windows of each variant are its batch."""
    if not isinstance(item, Norm) or item.statistics is None:
        return None
    mean, std = item.statistics
    weight, bias = (item.weight * std).float(), (item.bias + mean * item.weight).float()

    def compute(values: Tensor) -> Tensor:
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


SQUASHES: dict[str, Function] = {
    "the inputs themselves": lambda x: x,
    "sigmoid": torch.sigmoid,
    "inputs scaled from the smallest to the largest": lambda x: (
        2 * (x - x.amin(-1, keepdim=True)) / (x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)) - 1
    ),
}
