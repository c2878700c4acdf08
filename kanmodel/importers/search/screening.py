"""The screening pass of a search: evaluates all readings on a few windows in float32, which rules out nearly all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.importers.search.evidence import Evidence
from kanmodel.importers.search.space import INPUTS, PREDICTIONS, Reading, Space
from kanmodel.importers.search.walk import Variants, stages_of, walk

N_SCREENED = 8  # windows of the screening pass
SCREEN_SLACK = 1e-3  # standard deviations, or relative to a constant output: more than the error of float32
MAX_READINGS = 1 << 22  # evaluated in one search
N_CLOSE = 64  # nearest readings compared although the screen rejects them: float32 fails for ill-conditioned chains

Progress = Callable[[int, int], None]  # of readings tried, and of all


@dataclass
class Screen:
    """The result of the screening pass.

    Attributes:
        survivors: departures, distance in units of the allowed one, and reading of each that may be right.
        nearest: distance and reading of the nearest ones, right or not.
        tried: number of readings evaluated.
    """

    survivors: list[tuple[int, float, Reading]] = field(default_factory=list)
    nearest: list[tuple[float, Reading]] = field(default_factory=list)
    tried: int = 0

    def take(self, space: Space, variants: Variants, distances: Tensor, allowed: Tensor, least: int) -> None:
        """Adds those variants that may be right and have at least `least` departures.

        Args:
            space: their space.
            variants: evaluated to the end.
            distances: of each, in units of the allowed one; inf if not finite.
            allowed: which may be right.
            least: fewest departures; simpler variants were added before.
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


def choose_windows(evidence: Evidence) -> NDArray[np.intp]:
    """Indices of a few informative windows: with the smallest, the largest and evenly ranked predictions."""
    order = np.argsort(evidence.expected[:, 0], kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, min(N_SCREENED, len(order))).round().astype(int))
    chosen: NDArray[np.intp] = order[ranks]
    return chosen


def screen_all(
    screen: Screen,
    spaces: Sequence[Space],
    evidence: Evidence,
    windows: NDArray[np.intp],
    departures: tuple[int, int],
    deadline: float,
    progress: Progress = lambda tried, total: None,
    total: int = 0,
) -> bool:
    """Evaluates all readings with a range of departures on some windows; False if it stopped at the limit."""
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
    """Predictions, allowed differences and those of the screen, in model units, by the units they are given in."""
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
