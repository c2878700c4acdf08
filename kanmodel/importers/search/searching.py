"""``search``: the reading of a file whose predictions are those that the model gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.importers.assembly import assemble
from kanmodel.importers.comparison import Bounds, Comparison
from kanmodel.importers.search.space import INPUTS, PREDICTIONS, Reading, Space
from kanmodel.importers.search.walk import Variants, stages_of, walk
from kanmodel.network.chain import Network
from kanmodel.network.config import ModelConfig
from kanmodel.scaling import Array, Scaling

N_SCREENED = 8  # windows on which all readings are compared first
SCREEN_SLACK = 1e-3  # standard deviations, or of a magnitude that does not vary: more than float32 can be off
MAX_READINGS = 1 << 22  # computed in one search
MAX_SECONDS = 20.0
MAX_SURVIVORS = 1000  # of the screen that are compared on all windows, simplest first
N_CLOSE = 64  # compared too although the screen says no: where a chain is ill-conditioned, float32 is off by more
N_NEAREST = 5
SAME = 1e-10  # of the spread: two readings that differ less on all probes are one function
STRETCHES = (1.0, 3.0, 10.0)  # how far from the mean two functions are compared
N_MIXED = 256  # probes of each stretch that no window is
FIRST_ROUND = 3  # departures, where the space is too large to be tried at once

Progress = Callable[[int, int], None]  # of readings tried, and of all


@dataclass(frozen=True)
class Evidence:
    """What a reading has to explain.

    Attributes:
        windows: inputs of the check as they are given, (n, lookback, n_features).
        expected: the model's own predictions for them as they are given, (n, n_outputs).
        reference: further windows without predictions, (n, lookback, n_features).
        shapes: features and targets with their scaling, lookback and horizon; a network of one Linear layer beside.
        tolerance: in standard deviations of each output.
    """

    windows: Array
    expected: Array
    reference: Array
    shapes: ModelConfig
    tolerance: float
    bounds: Bounds = field(init=False)
    scaling: Scaling = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounds", Bounds.of(self.expected, self.tolerance))
        object.__setattr__(self, "scaling", Scaling.of(self.shapes))

    def to_model(self, windows: Array, units: str) -> Tensor:
        """Windows in model units, float64, of those in some units."""
        if units == "original":
            windows = (windows - self.scaling.feature_mean) / self.scaling.feature_scale
        return torch.from_numpy(np.ascontiguousarray(windows))

    def from_model(self, outputs: Tensor, units: str) -> Array:
        """Outputs in some units of those in model units."""
        found: Array = outputs.double().numpy()
        return found * self.scaling.output_scale + self.scaling.output_mean if units == "original" else found

    def build(self, reading: Reading, dtype: torch.dtype | None = None) -> Network:
        """The network of a reading, in the type of its weights or another."""
        chain = reading.chain()
        return assemble(chain, self.shapes, dtype or chain.dtype)

    def predict(self, network: Network, reading: Reading, windows: Array) -> Array:
        """What a network computes, in the units of the predictions."""
        chosen = reading.chosen
        x = self.to_model(windows, chosen[INPUTS]).to(getattr(torch, network.config.dtype))
        with torch.inference_mode():
            return self.from_model(network(x), chosen[PREDICTIONS])


@dataclass(frozen=True)
class Match:
    """A reading that gives the predictions.

    Attributes:
        reading: the simplest of those that are this function.
        comparison: where it differs most from the predictions.
        same: other readings that are the same function.
        probed: what it gives for each of the probes, (n_probes, n_outputs).
    """

    reading: Reading
    comparison: Comparison
    same: tuple[Reading, ...]
    probed: Array


@dataclass(frozen=True)
class Apart:
    """Where two functions that both give the predictions differ.

    Attributes:
        window: number of the reference window, which has no prediction, where they differ most.
        difference: there, in standard deviations of the output.
        material: whether it is more than the check allows.
        stretch: how many times as far from the mean as those given windows have to lie for the two to differ by more
            than the check allows; None where they do not at any of `STRETCHES`.
    """

    window: int
    difference: float
    material: bool
    stretch: float | None


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        matches: functions that give the predictions, the simplest first.
        apart: how far each of them is from the first; for the first 0.
        nearest: of all readings, those that come nearest on a few windows.
        tried: how many readings were computed.
        total: how many there are.
        left_out: how many of those tried may give the predictions too, but were not compared on all windows.
    """

    matches: tuple[Match, ...]
    apart: tuple[Apart, ...]
    nearest: tuple[Reading, ...]
    tried: int
    total: int
    left_out: int = 0


@dataclass
class _Screen:
    """Readings that may be right, by a few windows in float32, and those that come nearest."""

    survivors: list[tuple[int, float, Reading]] = field(default_factory=list)
    nearest: list[tuple[float, Reading]] = field(default_factory=list)
    tried: int = 0

    def take(self, space: Space, variants: Variants, distances: Tensor, allowed: Tensor, least: int) -> None:
        """Keeps what may be right of variants with at least so many departures.

        Args:
            space: that they are of.
            variants: computed to the end.
            distances: of each, in what the check allows; inf where it is not finite.
            allowed: which may be right.
            least: departures; simpler ones were taken before.
        """
        new = variants.departures >= least
        self.tried += int(new.sum())
        for place in (allowed & new).nonzero().flatten().tolist():
            reading = Reading(space, tuple(variants.numbers[place].tolist()))
            self.survivors.append((reading.departures, float(distances[place]), reading))
        best = torch.where(new, distances, torch.inf).topk(min(N_CLOSE, len(distances)), largest=False)
        worst = self.nearest[-1][0] if len(self.nearest) == N_CLOSE else torch.inf
        for distance, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            if distance < worst:
                self.nearest.append((distance, Reading(space, tuple(variants.numbers[place].tolist()))))
        self.nearest = sorted(self.nearest, key=lambda entry: entry[0])[:N_CLOSE]


def search(spaces: Sequence[Space], evidence: Evidence, progress: Progress = lambda tried, total: None) -> Result:
    """Tries every reading, or the simplest as far as time allows, and compares those that fit.

    Args:
        spaces: an order of the file's parts each.
        evidence: windows and the predictions for them.
        progress: called now and then.
    """
    total = sum(space.n_readings for space in spaces)
    screen = _Screen()
    windows = choose_windows(evidence)
    deadline = monotonic() + MAX_SECONDS
    deepest = max(len(space.choices) for space in spaces)
    rounds = [deepest] if total <= MAX_READINGS else [*range(FIRST_ROUND, deepest + 1)]
    likely = [] if total <= MAX_READINGS else _with_one_activation(spaces, evidence, windows, deadline)
    least = 0
    for most in rounds:
        complete = _screen_all(screen, spaces, evidence, windows, (least, most), deadline, progress, total)
        if not complete:
            break
        least = most + 1
    survivors = sorted(screen.survivors, key=lambda survivor: survivor[:2])[:MAX_SURVIVORS]
    closest = [reading for _, reading in screen.nearest]
    likely = list(dict.fromkeys([*(reading for *_, reading in survivors), *likely, *closest]))
    found = sorted(_verify(likely, evidence), key=lambda pair: pair[0].departures)
    if screen.tried < total:
        close = dict.fromkeys(reading for match, _ in found[:N_NEAREST] for reading in match.changed_once())
        found += _verify([reading for reading in close if reading not in likely], evidence)
        found.sort(key=lambda pair: pair[0].departures)
    matches = _group(found, evidence)
    apart = tuple(_compare(matches[0], match, evidence) for match in matches)
    nearest = dict.fromkeys([*likely[:N_NEAREST], *closest[:N_NEAREST]])
    left_out = len(screen.survivors) - len(survivors)
    return Result(tuple(matches), apart, tuple(nearest), screen.tried, total, left_out)


def _with_one_activation(
    spaces: Sequence[Space],
    evidence: Evidence,
    windows: NDArray[np.intp],
    deadline: float,
) -> list[Reading]:
    """Readings that may be right among those with one activation nearly everywhere, however many layers there are."""
    found: list[Reading] = []
    for space in spaces:
        for reordered in space.with_one_activation():
            screen = _Screen()
            _screen_all(screen, [reordered], evidence, windows, (0, FIRST_ROUND), deadline)
            found += [reading.within(space) for *_, reading in sorted(screen.survivors, key=lambda s: s[:2])[:20]]
    return found


def _screen_all(
    screen: _Screen,
    spaces: Sequence[Space],
    evidence: Evidence,
    windows: NDArray[np.intp],
    departures: tuple[int, int],
    deadline: float,
    progress: Progress = lambda tried, total: None,
    total: int = 0,
) -> bool:
    """Computes all readings of so many departures on some windows; False where it had to stop."""
    with torch.inference_mode():
        for space in spaces:
            expected, allowed, slack = _expected(space, evidence, windows)
            inputs = [
                evidence.to_model(evidence.windows[windows], units)
                for units in space.choices[space.index[INPUTS]].options
            ]
            for kinds in space.each_kind():
                if sum(map(bool, kinds)) > departures[1]:
                    continue
                stages, first = stages_of(space, kinds, inputs, torch.float32)
                for variants in walk(stages, first, departures[1]):
                    for number, units in enumerate(space.choices[space.index[PREDICTIONS]].options):
                        last = _with_predictions(variants, space.index[PREDICTIONS], number, departures[1])
                        if not len(last.numbers):
                            continue
                        differences = (last.values - expected[units]).abs().nan_to_num(torch.inf, torch.inf)
                        distances = (differences / allowed[units]).amax(dim=(1, 2))
                        may_be = (differences <= slack[units]).all(dim=2).all(dim=1)
                        screen.take(space, last, distances, may_be, departures[0])
                    progress(screen.tried, total)
                    if screen.tried > MAX_READINGS or monotonic() > deadline:
                        return False
    return True


def _with_predictions(variants: Variants, choice: int, number: int, most: int) -> Variants:
    if number:
        variants = variants[variants.departures < most]
    numbers = variants.numbers.clone()
    numbers[:, choice] = number
    return Variants(variants.values, numbers, variants.departures + (number > 0))


def _expected(
    space: Space, evidence: Evidence, windows: NDArray[np.intp]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Predictions, what is allowed, and what passes the screen, in model units, by the units they are given in."""
    expected, allowed, slack = {}, {}, {}
    bounds, scaling = evidence.bounds, evidence.scaling
    for units in space.choices[space.index[PREDICTIONS]].options:
        given = evidence.expected[windows]
        scale = np.ones_like(scaling.output_scale)
        if units == "original":
            given, scale = (given - scaling.output_mean) / scaling.output_scale, scaling.output_scale
        tiny = np.finfo(np.float32).tiny
        expected[units] = torch.from_numpy(given).float()
        allowed[units] = torch.from_numpy(np.maximum(bounds.allowed / scale, tiny)).float()
        slack[units] = torch.from_numpy(np.maximum((bounds.allowed + SCREEN_SLACK * bounds.unit) / scale, tiny)).float()
    return expected, allowed, slack


def choose_windows(evidence: Evidence) -> NDArray[np.intp]:
    """Numbers of a few windows that tell most: those of the smallest, the largest and evenly ranked predictions."""
    order = np.argsort(evidence.expected[:, 0], kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, min(N_SCREENED, len(order))).round().astype(int))
    chosen: NDArray[np.intp] = order[ranks]
    return chosen


def _verify(readings: Sequence[Reading], evidence: Evidence) -> Iterator[tuple[Reading, Comparison]]:
    """Those that give the predictions for all windows."""
    for reading in readings:
        network = evidence.build(reading)
        computed = evidence.predict(network, reading, evidence.windows)
        comparison = evidence.bounds.compare(evidence.expected, computed)
        if comparison.matches:
            yield reading, comparison


def _group(found: Sequence[tuple[Reading, Comparison]], evidence: Evidence) -> list[Match]:
    """Readings that are one function together, the simplest first."""
    probes = _make_probes(np.concatenate([evidence.windows, evidence.reference]))
    matches: list[tuple[Array, Reading, Comparison, list[Reading]]] = []
    for reading, comparison in found:
        outputs = evidence.predict(evidence.build(reading, torch.float64), reading, probes)
        for known, _, _, same in matches:
            if _same(known, outputs, evidence.bounds.unit):
                same.append(reading)
                break
        else:
            matches.append((outputs, reading, comparison, []))
    return [Match(reading, comparison, tuple(same), outputs) for outputs, reading, comparison, same in matches]


def _make_probes(windows: Array) -> Array:
    """Windows on which functions are compared: those given, and mixtures of their values, near and far from the mean.

    In a mixture every value of a window comes from another window, so that units are driven to where no window has
    them. Mixtures are the same in every run.
    """
    random = np.random.default_rng(0)
    mean = windows.mean(axis=(0, 1))
    numbers = random.integers(len(windows), size=(N_MIXED, *windows.shape[1:]))
    mixed = np.take_along_axis(windows, numbers, axis=0)
    constant = np.broadcast_to(mixed[:, :1], mixed.shape)  # the same at every step: recurrent units go far
    around = np.concatenate([windows, mixed, constant]) - mean
    return np.concatenate([mean + stretch * around for stretch in STRETCHES])


def _same(one: Array, other: Array, unit: Array) -> bool:
    with np.errstate(invalid="ignore"):
        equal = np.abs(one - other) <= SAME * np.maximum(np.maximum(unit, np.abs(one)), np.finfo(float).tiny)
    return bool((equal | (~np.isfinite(one) & ~np.isfinite(other))).all())


def _compare(one: Match, other: Match, evidence: Evidence) -> Apart:
    if one is other:
        return Apart(0, 0.0, material=False, stretch=None)
    tiny = np.finfo(float).tiny
    differences = np.abs(one.probed - other.probed)
    excess = np.nan_to_num(differences / np.maximum(evidence.bounds.allowed, tiny), nan=np.inf).max(axis=1)
    far = (excess > 1).reshape(len(STRETCHES), -1).any(axis=1)
    n_checked, n_reference = len(evidence.windows), len(evidence.reference)
    window = int(excess[n_checked : n_checked + n_reference].argmax())
    relative = (differences[n_checked + window] / np.maximum(evidence.bounds.unit, tiny)).max()
    return Apart(
        window,
        float(relative),
        material=bool(excess[n_checked + window] > 1),
        stretch=STRETCHES[int(far.argmax())] if far.any() else None,
    )
