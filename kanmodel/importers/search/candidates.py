"""The search for the candidates of a file that give the known predictions, and which of them are the same function.

Candidates are screened on a few windows in float32, which rules out nearly all. The options of a choice are stacked
along a leading axis, so that common prefixes are computed once; a stack above a memory limit is split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise, product
from time import monotonic

import numpy as np
import torch
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.errors import CheckpointError
from kanmodel.importers.layers.submodules import AnySubmodule, Chosen, activation_slot, number_between
from kanmodel.importers.search.assembly import READ_OUT, Function, activation, part_function
from kanmodel.importers.search.samples import TINY, Comparison, Samples
from kanmodel.importers.search.structure import INPUTS, OUTPUT, PREDICTIONS, READOUT, Candidate, SearchSpace, Structure

ACTIVATIONS = ("relu", "tanh", "silu", "gelu", "elu", "sigmoid", "leaky_relu", "softplus")
RARE = ("selu", "mish", "hardswish", "relu6", "softsign", "leaky_relu(0.1)", "leaky_relu(0.2)", "gelu_tanh")
MAX_VALUES = 1 << 20  # values of one stack
N_SCREENED = 8  # windows of the screening pass
SCREEN_SLACK = 1e-3  # standard deviations, or relative to a constant output: more than the error of float32
MAX_CANDIDATES = 1 << 22  # of more than these, only those with one activation between parts are tried
N_CLOSE = 64  # nearest candidates compared although the screen rejects them: float32 fails for ill-conditioned chains
MAX_SECONDS = 20.0
MAX_SURVIVORS = 1000  # survivors of the screen that are compared on all windows, simplest first
STRETCHES = (1.0, 3.0, 10.0)  # how far from the mean two functions are compared
N_MIXED = 256  # mixed probes for each stretch
OPEN = {  # choices that a file leaves open, mostly by the key of a manifest that states them
    READOUT: "readout: what the head reads of the steps, the last or their mean",
    "base": "base_activation: the activation added to the basis, silu by default, or pykan_config",
    "library": "library: the keys fit fast-kan and FasterKAN",
    "denominator": "denominator: the divisor of FasterKAN up to 14 May 2024, 0.33 by default",
    "mult_arity": "mult_arity: the number of factors of its product nodes, 2 by pykan's default",
    "function": "a check, which determines the function of its edges",
    "parameter": "a check, which determines the parameter of its polynomials",
    INPUTS: "space: whether reference and check are scaled or original",
    "inv_denominator": "what its inv_denominator does",
    "waves": "whether cosines or sines come first",
    "hats": "the sign of its wavelets",
    "weight1": "whether its weight1 is used",
}
NEEDED = (READOUT, "base", "library", "denominator", "mult_arity", "function", "parameter", INPUTS)  # without a check
INSTEAD = (
    "give the scaling if the model has one, and if more than a chain of its layers is computed, such as a residual "
    "connection or windows across the batch (batch_first), give the module to from_torch or a file of torch.export.save"
)

Progress = Callable[[int, int], None]  # of candidates tried, and of all


@dataclass(frozen=True)
class Match:
    """A function that gives the predictions, and how it differs from the simplest that does, as far as it does."""

    candidate: Candidate  # the simplest that computes it
    comparison: Comparison | None  # its largest difference from the predictions; None without a check
    same: tuple[Candidate, ...] = ()  # other candidates that compute it
    window: int | None = None  # index of the reference window where they differ most, if by more than is allowed
    difference: float = 0.0  # there, in standard deviations of the output
    stretch: float | None = None  # the first of `STRETCHES` at which the two differ by more than the check allows


@dataclass(frozen=True)
class Result:
    """The result of a search."""

    matches: tuple[Match, ...]  # functions that give the predictions, the simplest first
    compared: Mapping[Candidate, Comparison] = field(default_factory=dict)  # with the predictions, on all windows
    tried: int = 0  # number of candidates evaluated, of `total`
    total: int = 1
    left_out: int = 0  # candidates that may give the predictions too, but were not compared on all windows

    @property
    def found(self) -> Candidate:
        """The simplest candidate that gives the predictions."""
        return self.matches[0].candidate

    @property
    def comparison(self) -> Comparison | None:
        """Its largest difference from the predictions; None without a check."""
        return self.matches[0].comparison

    @property
    def undecided(self) -> tuple[Match, ...]:
        """Other functions that fit as well as the first, and that windows exist to distinguish from it."""
        return self.matches[1:]

    def describe_undecided(self) -> tuple[str, ...]:
        """The undecided functions, and the windows that would distinguish them from the first."""
        return tuple(map(self._describe_apart, self.undecided))

    def _describe_apart(self, match: Match) -> str:
        described, spread = match.candidate.describe(), f"{match.stretch:g} times as far from their mean"
        if match.candidate.differs_from(self.found) == [OUTPUT]:
            return f"{described}, which only predictions of another sign or size would tell, as for values {spread}"
        return f"{described}, which windows with values {'mixed anew' if match.stretch == 1 else spread} would tell"

    def refuse_ambiguous(self, samples: Samples, strict: bool) -> None:
        """Raises `CheckpointError` if several functions fit that differ on a known window, or, if strict, anywhere."""
        first = self.found.describe()
        they = f"functions that all give {samples.predictions_name}: "
        ask = "to the check, or say in the manifest which it is"
        if strict and (self.undecided or self.left_out):
            others = "; ".join(self.describe_undecided()[:5]) or "and more"
            n_functions = len(self.undecided) + 1 + self.left_out
            raise CheckpointError(f"can be read as {n_functions} {they}{first}; {others}: add such windows {ask}")
        match = next((match for match in self.matches if match.window is not None), None)
        if match is not None:
            fitting, other = "; ".join(m.candidate.describe() for m in self.matches[:5]), match.candidate.describe()
            known = f"window {match.window} of {samples.reference_name}"
            raise CheckpointError(
                f"can be read as {len(self.matches)} {they}{fitting}; the first and [{other}] differ by "
                f"{match.difference:.2g} standard deviations at {known}: add the model's prediction for it {ask}"
            )

    def describe_mismatch(self, samples: Samples) -> str:
        """Why no candidate gives the predictions, starting with a verb, and what to give instead."""
        name = samples.predictions_name
        if np.isin(samples.predictions, (0.0, 1.0)).all():
            computed = "as labels do: give what the model computes, such as probabilities"
            return f"does not compute {name}, which holds only 0 and 1, {computed}"
        nearest, off = min(self.compared.items(), key=lambda pair: pair[1].relative)
        return (
            f"does not compute {name}: the largest difference is {off.absolute:.3g}, at window {off.window}, output "
            f"{samples.shapes.outputs[off.output]} ({off.computed:.7g} in place of {off.expected:.7g}), which is "
            f"{off.describe_relative()}, and "
            f"{samples.bounds.allowed[off.output] / (samples.bounds.unit[off.output] or 1):.2g} is allowed "
            f"({self.tried:,} of {self.total:,} candidates tried, the nearest: "
            f"{nearest.describe() or 'the only one'}): {INSTEAD}"
        )


def find_candidate(structure: Structure, samples: Samples, progress: Progress | None = None) -> Result:
    """Searches the candidates that give the predictions, with more and more activations; else takes the usual one.

    If the user states how the model is put together, candidates without further activations are tried first. Raises
    `CheckpointError` if the parts fit together in no order, or there is no check and the file leaves something open.
    """
    stated, shapes, usual = structure.stated, samples.shapes, (*ACTIVATIONS, *structure.mentioned)
    if not samples.has_check:
        return _assume(structure, structure.spaces(shapes, usual))
    says_how = stated.readout is not None or stated.base_activation is not None or stated.pykan_config is not None
    results: list[Result] = []
    for activations in ([()] if says_how else []) + [usual, (*usual, *RARE)]:
        results.append(search(structure.spaces(shapes, activations), samples, progress))
        if results[-1].matches:
            return results[-1]
        if results[-1].tried < results[-1].total:
            break  # more activations would be tried still less completely
    return replace(results[0], tried=results[-1].tried, total=results[-1].total)


def _assume(structure: Structure, spaces: Sequence[SearchSpace]) -> Result:
    """The usual candidate, for an import without a check."""
    space, *others = spaces
    if structure.doubt:
        raise CheckpointError(structure.doubt)
    if others:
        raise CheckpointError(
            "has parts that fit together in several orders, and only a check can determine which: give one"
        )
    left_open = [name for name, options in space.choices.items() if len(options) > 1]
    needed = [name for name in left_open if name in NEEDED and (name != READOUT or space.per_step)]
    if needed:
        raise CheckpointError(f"has no check to be compared with, so give {OPEN[needed[0]]}")
    for before, part in pairwise(space.head):
        left_out, is_open = number_between(before.place, part.place), activation_slot(part.place) in left_open
        if left_out is not None and is_open and part.place not in structure.stated.activations:
            problem = "so what stands there between its layers is unknown: give a check, or activations"
            raise CheckpointError(f"has no {left_out}, {problem}")
    return Result((Match(space.candidate({}), None),))


def search(spaces: Sequence[SearchSpace], samples: Samples, progress: Progress | None = None) -> Result:
    """Screens every candidate of some spaces, and compares those that fit on all windows."""
    total, deadline = sum(space.n_candidates for space in spaces), monotonic() + MAX_SECONDS
    if total > MAX_CANDIDATES:
        spaces = [smaller for space in spaces for smaller in space.with_one_activation()]
    order = np.argsort(samples.predictions[:, 0], kind="stable")
    # the windows with the smallest, the largest and evenly ranked predictions
    ranks = np.unique(np.linspace(0, len(order) - 1, min(N_SCREENED, len(order))).round().astype(int))
    windows, tried, screened = order[ranks], 0, list[tuple[float, Candidate]]()
    pieces = ((space, *piece) for space in spaces for piece in _screen(space, samples, windows))
    with torch.inference_mode():
        for space, distances, numbers in pieces:
            tried += len(distances)
            kept = distances.argsort(stable=True)[: max(N_CLOSE, int((distances <= 1).sum()))]
            every = zip(distances[kept].tolist(), numbers[kept].tolist(), strict=True)
            for distance, each in every:
                options = zip(space.choices.values(), each, strict=True)
                screened.append((distance, Candidate(space, tuple(names[n] for names, n in options))))
            screened.sort(key=lambda pair: pair[0])
            del screened[max(N_CLOSE, sum(distance <= 1 for distance, _ in screened)) :]
            if progress:
                progress(tried, total)
            if monotonic() > deadline:
                break
    survivors = sorted((c for distance, c in screened if distance <= 1), key=lambda candidate: candidate.departures)
    nearest = [candidate for _, candidate in screened[:N_CLOSE]]
    outputs = ((c, samples.predict(c, samples.inputs)) for c in dict.fromkeys([*survivors[:MAX_SURVIVORS], *nearest]))
    compared = {c: samples.bounds.compare(samples.predictions, own) for c, own in outputs}
    matches = _group({c: comparison for c, comparison in compared.items() if comparison.matches}, samples)
    return Result(matches, compared, tried, total, len(survivors[MAX_SURVIVORS:]))


def _screen(space: SearchSpace, samples: Samples, windows: Array) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the distances of all candidates, (n,), and the numbers of their options, (n, n_choices), in pieces.

    A distance is the largest difference from the predictions for some windows, relative to what the screen lets pass.
    """
    bounds, wanted = samples.bounds, torch.from_numpy(samples.predictions[windows])
    slack = torch.from_numpy(np.maximum(bounds.allowed + SCREEN_SLACK * bounds.unit, TINY))
    for kinds in product(*(range(len(options)) for options in space.kinds.values())):
        chosen = {name: options[n] for (name, options), n in zip(space.kinds.items(), kinds, strict=True)}
        stages = _stages(space, chosen, samples, windows)
        for outputs, numbers in _walk(stages, torch.zeros(1), torch.tensor([kinds], dtype=torch.int16)):
            distances = ((outputs - wanted).abs() / slack).amax(dim=(1, 2))
            yield distances.nan_to_num(torch.inf, torch.inf), numbers


def _stages(space: SearchSpace, chosen: Chosen, samples: Samples, windows: Array) -> list[list[Function]]:
    """For each choice but those of libraries, the function of each option: all that is computed up to the next choice.

    The first gives inputs in place of its argument; all but the last, which converts outputs, compute in float32.
    """
    choices = space.choices
    x = [samples.to_model(samples.inputs[windows], units).float()[None] for units in choices[INPUTS]]
    stages: list[list[Function]] = [[partial(lambda inputs, _: inputs, inputs) for inputs in x]]

    def add(parts: Sequence[AnySubmodule]) -> None:
        for part in parts:
            function, slot = part_function(part, chosen, torch.float32), activation_slot(part.place)
            if slot in choices:
                stages.append([_then(activation(option), function) for option in choices[slot]])
            else:
                stages[-1] = [_then(before, function) for before in stages[-1]]

    add(space.per_step)
    stages.append([READ_OUT[readout] for readout in choices[READOUT]])
    add(space.head)
    stages.append([activation(option) for option in choices[OUTPUT]])

    def convert(units: str, outputs: Tensor) -> Tensor:
        return torch.from_numpy(samples.from_model(outputs, units))

    return [*stages, [partial(convert, units) for units in choices[PREDICTIONS]]]


def _then(first: Function, second: Function) -> Function:
    return lambda values: second(first(values))


def _walk(stages: Sequence[Sequence[Function]], values: Tensor, numbers: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields what follows from the values of candidates, (n, ...), with the numbers of their options, in pieces."""
    if not stages:
        yield values, numbers
    elif len(values) > 1 and values.numel() * len(stages[0]) > MAX_VALUES:
        for half in zip(values.chunk(2), numbers.chunk(2), strict=True):
            yield from _walk(stages, *half)
    else:
        options = torch.arange(len(stages[0]), dtype=torch.int16).repeat_interleave(len(numbers))
        chosen = torch.cat([numbers.repeat(len(stages[0]), 1), options[:, None]], dim=1)
        yield from _walk(stages[1:], torch.cat([function(values) for function in stages[0]]), chosen)


def _group(fitting: dict[Candidate, Comparison], samples: Samples) -> tuple[Match, ...]:
    """Groups candidates that are the same function on all probes, within what the check allows, the simplest first."""
    probes, bounds = _make_probes(np.concatenate([samples.inputs, samples.reference])), samples.bounds
    functions: list[tuple[Array, list[Candidate]]] = []  # the outputs of each for the probes, and who computes it
    for candidate in sorted(fitting, key=lambda candidate: candidate.departures):
        outputs = samples.predict(candidate, probes, torch.float64)
        same = next((same for known, same in functions if (bounds.excess(outputs, known) <= 1).all()), None)
        if same is None:
            functions.append((outputs, [candidate]))
        else:
            same.append(candidate)
    n_checked, matches = len(samples.inputs), list[Match]()
    for outputs, (simplest, *others) in functions:
        first = functions[0][0]
        excess = bounds.excess(outputs, first).max(axis=1)
        far = (excess > 1).reshape(len(STRETCHES), -1).any(axis=1)
        match = Match(simplest, fitting[simplest], tuple(others), stretch=STRETCHES[far.argmax()] if any(far) else None)
        place = n_checked + int(excess[n_checked : n_checked + len(samples.reference)].argmax())
        if excess[place] > 1:
            difference = float((np.abs(outputs[place] - first[place]) / np.maximum(bounds.unit, TINY)).max())
            match = replace(match, window=place - n_checked, difference=difference)
        matches.append(match)
    return tuple(matches)


def _make_probes(windows: Array) -> Array:
    """Windows on which functions are compared: the given ones and mixtures of their values, near and far from the mean.

    In a mixture each value comes from a random window, so that units reach states that they have for no window.
    """
    random, mean = np.random.default_rng(0), windows.mean(axis=(0, 1))
    mixed = np.take_along_axis(windows, random.integers(len(windows), size=(N_MIXED, *windows.shape[1:])), axis=0)
    # the same at every step, which drives recurrent units to extreme states
    constant = np.broadcast_to(mixed[:, :1], mixed.shape)
    around = np.concatenate([windows, mixed, constant]) - mean
    return np.concatenate([mean + stretch * around for stretch in STRETCHES])
