"""The search for the readings of a file that give the known predictions, and which of them are the same function.

Readings are screened on a few windows in float32, which rules out nearly all. The options of a choice are stacked along
a leading axis of variants, so that common prefixes are computed once; a stack above a memory limit is split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.errors import CheckpointError
from kanmodel.importers.assembly import READ_OUT, Function, activation, items_function, recurrent_function
from kanmodel.importers.parts import AnyPart, Item, RecurrentPart, activation_slot, number_between
from kanmodel.importers.samples import Comparison, Samples
from kanmodel.importers.structure import INPUTS, OUTPUT, PREDICTIONS, RARE, READOUT, Reading, Space, Structure

MAX_VALUES = 1 << 20  # values of one stack
N_SCREENED = 8  # windows of the screening pass
SCREEN_SLACK = 1e-3  # standard deviations, or relative to a constant output: more than the error of float32
MAX_READINGS = 1 << 22  # evaluated in one search
N_CLOSE = 64  # nearest readings compared although the screen rejects them: float32 fails for ill-conditioned chains
MAX_SECONDS = 20.0
MAX_SURVIVORS = 1000  # survivors of the screen that are compared on all windows, simplest first
N_NEAREST = 5
FIRST_ROUND = 3  # most departures of the first round, if the space is too large to evaluate at once
SAME = 1e-10  # of the spread: readings that differ less on all probes are the same function
STRETCHES = (1.0, 3.0, 10.0)  # how far from the mean two functions are compared
N_MIXED = 256  # mixed probes for each stretch
TINY = float(np.finfo(float).tiny)
NEEDED = {
    READOUT: "the weights do not determine what the head reads of the steps: give readout, last or mean",
    "base": "its base function is not known: give base_activation, silu by default, or pykan_config",
    "library": "its keys fit fast-kan and FasterKAN: give library in the manifest",
    "denominator": "FasterKAN up to 14 May 2024 divides by a denominator that is not in the file: give it (0.33 by "
    "default)",
    "mult_arity": "the number of factors of its product nodes is not known: give mult_arity (pykan's default is 2)",
    "function": "its functions are not known: give a check",
    "parameter": "the parameter of its polynomials is not known: give a check",
    INPUTS: "{} lacks space: whether reference and check are scaled or original",
}  # choices that must be stated where there is no check

Numbers = NDArray[np.intp]  # of windows
Progress = Callable[[int, int], None]  # of readings tried, and of all


@dataclass(frozen=True)
class Match:
    """A function that gives the predictions, all readings that compute it, and how it differs from the first match.

    The difference is given where it is largest on a reference window without a prediction.
    """

    reading: Reading  # the simplest
    comparison: Comparison | None  # its largest difference from the predictions; None without a check
    probed: Array  # its outputs for the probes, (n_probes, n_outputs)
    same: tuple[Reading, ...] = ()  # other readings of the same function
    window: int = 0  # index of that window
    difference: float = 0.0  # in standard deviations of the output
    is_material: bool = False  # whether it is more than the check allows
    stretch: float | None = None  # the first of `STRETCHES` at which the two differ by more than the check allows


@dataclass(frozen=True)
class Result:
    """The result of a search."""

    matches: tuple[Match, ...]  # functions that give the predictions, the simplest first
    nearest: tuple[Reading, ...] = ()  # the readings nearest to the predictions on a few windows
    tried: int = 0  # number of readings evaluated, of `total`
    total: int = 1
    left_out: int = 0  # readings that may give the predictions too, but were not compared on all windows

    @property
    def found(self) -> Reading:
        """The simplest reading that gives the predictions."""
        return self.matches[0].reading

    @property
    def comparison(self) -> Comparison | None:
        """Its largest difference from the predictions; None without a check."""
        return self.matches[0].comparison

    @property
    def undecided(self) -> list[Match]:
        """Other functions that fit as well as the first, and that windows exist to distinguish from it."""
        return [match for match in self.matches if match.stretch is not None]

    def describe_undecided(self) -> tuple[str, ...]:
        """The undecided functions, and the windows that would distinguish them from the first."""
        return tuple(map(self._describe_apart, self.undecided))

    def _describe_apart(self, match: Match) -> str:
        described, spread = match.reading.describe(), f"{match.stretch:g} times as far from their mean"
        if set(match.reading.differs_from(self.found)) == {OUTPUT}:
            return f"{described}, which only predictions of another sign or size would tell, as for values {spread}"
        return f"{described}, which windows with values {'mixed anew' if match.stretch == 1 else spread} would tell"


def find_reading(structure: Structure, samples: Samples, progress: Progress | None = None) -> Result:
    """Searches the readings that give the predictions, in growing spaces; without a check, takes the usual one.

    If the user states how the model is put together, readings without further activations are tried first. Raises
    `CheckpointError` if the parts fit together in no order, or there is no check and the file leaves something open.
    """
    known = structure.constraints
    if not samples.has_check:
        return _assume(structure, samples)
    stated = structure.stated
    says_how = stated.readout is not None or stated.base_activation is not None or stated.pykan_config is not None
    usual = [replace(known, plain=True), known] if says_how else [known]
    results: list[Result] = []
    for constraints in (*usual, replace(known, more=(*known.more, *RARE))):
        if results and results[-1].tried < results[-1].total:
            break  # this space was not searched completely, so a larger one would not be either
        results.append(search(replace(structure, constraints=constraints).spaces(samples.shapes), samples, progress))
        if results[-1].matches:
            return results[-1]
    every = results[len(usual) - 1]
    return replace(results[0], tried=every.tried, total=every.total)


def _assume(structure: Structure, samples: Samples) -> Result:
    """The usual reading, for an import without a check."""
    space, *others = structure.spaces(samples.shapes)
    if structure.doubt:
        raise CheckpointError(structure.doubt)
    if others:
        problem = "has parts that fit together in several orders, and only a check can determine which: give one"
        raise CheckpointError(problem)
    left_open = {name for name, options in space.choices.items() if len(options) > 1}
    for name in space.choices:
        if name in left_open and name in NEEDED and (name != READOUT or space.order.per_step):
            needed = NEEDED[name].format(structure.stated.place)
            raise CheckpointError(f"has no check to be compared with, and {needed}")
    for before, part in pairwise(space.order.head):
        left_out, is_open = number_between(before.place, part.place), activation_slot(part.place) in left_open
        if left_out is not None and is_open and part.place not in structure.stated.activations:
            problem = "so what stands there between its layers is unknown: give a check, or activations"
            raise CheckpointError(f"has no {left_out}, {problem}")
    return Result((Match(space.read({}), None, samples.predictions),))


def search(spaces: Sequence[Space], samples: Samples, progress: Progress | None = None) -> Result:
    """Evaluates every reading of some spaces, or the simplest ones up to a limit, and compares those that fit."""
    total = sum(space.n_readings for space in spaces)
    screen, deepest = Screen(samples, monotonic() + MAX_SECONDS), max(len(space.choices) for space in spaces)
    rounds, likely = [deepest], list[Reading]()
    if total > MAX_READINGS:
        rounds = [*range(FIRST_ROUND, deepest + 1)]
        for space in spaces:  # readings with the same activation nearly everywhere, for any number of layers
            for reordered in space.with_one_activation():
                partial = replace(screen, survivors=[], nearest=[], tried=0)
                partial.evaluate([reordered], 0, FIRST_ROUND)
                likely += [space.read(reading.chosen) for reading in partial.simplest(20)]
    least = 0
    for most in rounds:
        if not screen.evaluate(spaces, least, most, progress and (lambda tried: progress(tried, total))):
            break
        least = most + 1
    survivors, closest = screen.simplest(MAX_SURVIVORS), [reading for _, reading in screen.nearest]
    likely = list(dict.fromkeys([*survivors, *likely, *closest]))
    found = sorted((r for r in likely if samples.compare(r).matches), key=lambda reading: reading.departures)
    if screen.tried < total:
        close = dict.fromkeys(near for reading in found[:N_NEAREST] for near in reading.changed_once())
        found += [reading for reading in close if reading not in likely and samples.compare(reading).matches]
    nearest = dict.fromkeys([*likely[:N_NEAREST], *closest[:N_NEAREST]])
    left_out = len(screen.survivors) - len(survivors)
    return Result(_group(found, samples), tuple(nearest), screen.tried, total, left_out)


def _group(found: Sequence[Reading], samples: Samples) -> tuple[Match, ...]:
    """Groups readings by function, the simplest first."""
    probes = _make_probes(np.concatenate([samples.inputs, samples.reference]))
    matches: list[Match] = []
    for reading in sorted(found, key=lambda reading: reading.departures):
        outputs = samples.predict(reading, probes, torch.float64)
        for number, match in enumerate(matches):
            if _are_same(match.probed, outputs, samples.bounds.unit):
                matches[number] = replace(match, same=(*match.same, reading))
                break
        else:
            matches.append(Match(reading, samples.compare(reading), outputs))
    return tuple([*matches[:1], *(_compare(match, matches[0], samples) for match in matches[1:])])


def _compare(match: Match, first: Match, samples: Samples) -> Match:
    """A match with its difference from the first one on the probes."""
    differences = np.abs(first.probed - match.probed)
    excess = np.nan_to_num(differences / np.maximum(samples.bounds.allowed, TINY), nan=np.inf).max(axis=1)
    far = (excess > 1).reshape(len(STRETCHES), -1).any(axis=1)
    n_checked = len(samples.inputs)
    window = int(excess[n_checked : n_checked + len(samples.reference)].argmax())
    place = n_checked + window
    difference = float((differences[place] / np.maximum(samples.bounds.unit, TINY)).max())
    stretch, is_material = STRETCHES[int(far.argmax())] if far.any() else None, bool(excess[place] > 1)
    return replace(match, window=window, difference=difference, is_material=is_material, stretch=stretch)


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


def _are_same(one: Array, other: Array, unit: Array) -> bool:
    with np.errstate(invalid="ignore"):
        equal = np.abs(one - other) <= SAME * np.maximum(np.maximum(unit, np.abs(one)), TINY)
    return bool((equal | (~np.isfinite(one) & ~np.isfinite(other))).all())


@dataclass(frozen=True)
class Stage:
    """A step of the evaluation: the functions of a choice's options, or one that computes a part with its items."""

    choice: int | None
    functions: tuple[Function, ...]
    part: AnyPart | None = None
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Variants:
    """Intermediate values of several readings."""

    values: Tensor  # (n_variants, n_windows, ...)
    numbers: Tensor  # (n_variants, n_choices), indices of the options chosen so far; 0 for later choices
    departures: Tensor  # (n_variants,), how many of them are not 0

    def __getitem__(self, part: slice | Tensor) -> Variants:
        return Variants(self.values[part], self.numbers[part], self.departures[part])

    def choose(self, choice: int | None, option: int, function: Function, most: int) -> Variants:
        """Those with an option of the next choice that have at most `most` departures; the values by `function`."""
        kept = self[self.departures < most] if option else self
        numbers = kept.numbers.clone()
        if choice is not None:
            numbers[:, choice] = option
        values = function(kept.values) if len(numbers) else kept.values
        return Variants(values, numbers, kept.departures + (option > 0))


def walk(stages: Sequence[Stage], variants: Variants, most: int) -> Iterator[Variants]:
    """Yields the values of all readings with at most `most` departures, in pieces."""
    for number, stage in enumerate(stages):
        n_variants = len(variants.numbers)
        if n_variants > 1 and variants.values.numel() * len(stage.functions) > MAX_VALUES:
            for half in (slice(0, n_variants // 2), slice(n_variants // 2, None)):
                yield from walk(stages[number:], variants[half], most)
            return
        chosen = (variants.choose(stage.choice, n, function, most) for n, function in enumerate(stage.functions))
        found = [some for some in chosen if len(some.numbers)]
        variants = Variants(*(torch.cat([getattr(v, name) for v in found]) for name in vars(variants)))
    yield variants


def stages_of(space: Space, kinds: Sequence[int], samples: Samples, windows: Numbers) -> tuple[list[Stage], Variants]:
    """The stages that evaluate a space's readings with given options of its kinds, up to the choice of `PREDICTIONS`.

    They start with some of the windows, in float32.
    """
    chosen = {name: options[number] for (name, options), number in zip(space.kinds.items(), kinds, strict=True)}
    start = torch.zeros(1, len(space.choices), dtype=torch.int16)
    start[0, : len(kinds)] = torch.tensor(kinds, dtype=torch.int16)
    x, units = samples.inputs[windows], space.choices[INPUTS]
    inputs = {unit: samples.to_model(x, unit).float().unsqueeze(0) for unit in units}
    first = Variants(inputs[units[0]], start, torch.tensor([sum(map(bool, kinds))]))

    def at(name: str, function: Callable[[str], Function]) -> Stage:
        return Stage(space.index[name], tuple(map(function, space.choices[name])))

    def through(part: AnyPart) -> Iterator[Stage]:
        if (slot := activation_slot(part.place)) in space.index:
            yield at(slot, activation)
        if isinstance(part, RecurrentPart):
            yield Stage(None, (recurrent_function(part, torch.float32),), part)
        else:
            items = part.items(chosen)
            yield Stage(None, (items_function(items, torch.float32),), part, items)

    both = space.order.per_step, space.order.head
    front, head = ([stage for part in parts for stage in through(part)] for parts in both)
    start_at, read_out = at(INPUTS, lambda units: lambda values: inputs[units]), at(READOUT, READ_OUT.__getitem__)
    return [start_at, *front, read_out, *head, at(OUTPUT, activation)], first


def choose_windows(samples: Samples) -> Numbers:
    """Indices of a few informative windows: with the smallest, the largest and evenly ranked predictions."""
    order = np.argsort(samples.predictions[:, 0], kind="stable")
    ranks = np.linspace(0, len(order) - 1, min(N_SCREENED, len(order))).round().astype(int)
    return np.take(order, np.unique(ranks))


@dataclass
class Screen:
    """The screening pass: readings on a few windows in float32."""

    samples: Samples
    deadline: float  # time at which it stops
    survivors: list[tuple[int, float, Reading]] = field(default_factory=list)  # that may be right: departures, distance
    nearest: list[tuple[float, Reading]] = field(default_factory=list)  # right or not; distance in the allowed one
    tried: int = 0  # number of readings evaluated

    def simplest(self, most: int) -> list[Reading]:
        """The survivors with the fewest departures, the nearest of them first."""
        return [reading for *_, reading in sorted(self.survivors, key=lambda survivor: survivor[:2])[:most]]

    def evaluate(
        self, spaces: Sequence[Space], least: int, most: int, progress: Callable[[int], None] | None = None
    ) -> bool:
        """Evaluates all readings with `least` to `most` departures; False if it stopped at the limit."""
        windows = choose_windows(self.samples)
        with torch.inference_mode():
            for space in spaces:
                expected = [self._expect(units, windows) for units in space.choices[PREDICTIONS]]
                for kinds in space.each_kind():
                    if sum(map(bool, kinds)) > most:
                        continue
                    stages, first = stages_of(space, kinds, self.samples, windows)
                    for variants in walk(stages, first, most):
                        for number, (wanted, allowed, slack) in enumerate(expected):
                            last = variants.choose(space.index[PREDICTIONS], number, lambda values: values, most)
                            if len(last.numbers):
                                differences = (last.values - wanted).abs().nan_to_num(torch.inf, torch.inf)
                                may_be = (differences <= slack).all(dim=2).all(dim=1)
                                self._take(space, last, (differences / allowed).amax(dim=(1, 2)), may_be, least)
                        if progress:
                            progress(self.tried)
                        if self.tried > MAX_READINGS or monotonic() > self.deadline:
                            return False
        return True

    def _take(self, space: Space, variants: Variants, distances: Tensor, may_be: Tensor, least: int) -> None:
        """Adds those variants that may be right and have `least` departures or more; simpler ones were added before.

        The distances are in units of the allowed one, (n_variants,); inf if not finite.
        """
        new = variants.departures >= least
        self.tried += int(new.sum())
        for place in (may_be & new).nonzero().flatten().tolist():
            reading = Reading(space, tuple(variants.numbers[place].tolist()))
            self.survivors.append((reading.departures, float(distances[place]), reading))
        best = torch.where(new, distances, torch.inf).topk(min(N_CLOSE, len(distances)), largest=False)
        worst = self.nearest[-1][0] if len(self.nearest) == N_CLOSE else torch.inf
        for distance, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if distance < worst:
                self.nearest.append((distance, Reading(space, tuple(variants.numbers[place].tolist()))))
        self.nearest = sorted(self.nearest, key=lambda entry: entry[0])[:N_CLOSE]

    def _expect(self, units: str, windows: Numbers) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions in given units, allowed differences and those of the screen, all in model units."""
        bounds, scaling, tiny = self.samples.bounds, self.samples.scaling, np.finfo(np.float32).tiny
        wanted, scale = self.samples.predictions[windows], np.ones_like(scaling.output_scale)
        if units == "original":
            wanted, scale = (wanted - scaling.output_mean) / scaling.output_scale, scaling.output_scale
        slack = bounds.allowed + SCREEN_SLACK * bounds.unit
        allowed, most = (torch.from_numpy(np.maximum(x / scale, tiny)).float() for x in (bounds.allowed, slack))
        return torch.from_numpy(wanted).float(), allowed, most
