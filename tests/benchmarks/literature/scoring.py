"""Scores of points: of this project's explanations, Captum's and TIMING, and four tries beyond them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from kanmodel import Explanation, Model

sys.path.append(str(Path(__file__).resolve().parents[1] / "faithfulness"))

from methods import TIMING_SAMPLES, attribute_timing, timing_segments

Array = np.ndarray
RUNS = (2, 4, 8, 16)  # steps that are removed together
SHAPLEY_PARTS = 40  # features in segments of steps


@dataclass(frozen=True)
class Subject:
    """Windows and the output of a model that is explained for each.

    Attributes:
        net: the module, which Captum and TIMING differentiate.
        model: read from it, in original units; the baseline is 0.
        windows: (n, lookback, n_features).
        outputs: number of the explained output, (n,).
        newest: whether only the newest row is scored, as for states.
    """

    net: nn.Module
    model: Model
    windows: Array
    outputs: Array
    newest: bool

    def each_output(self, answer: Callable[[Array, int], Array]) -> Array:
        """What is answered for the windows of each explained output, (n, ...)."""
        found: Array | None = None
        for output in np.unique(self.outputs):
            of_output = answer(self.windows[self.outputs == output], int(output))
            found = np.zeros((len(self.windows), *of_output.shape[1:])) if found is None else found
            found[self.outputs == output] = of_output
        return found

    def explain(self, read: Callable[[Explanation], Array], **options: object) -> Array:
        """What `read` takes from the explanations of all windows."""

        def answer(windows: Array, output: int) -> Array:
            return read(self.model.explain(windows, self.model.outputs[output], baseline="zero", **options))

        return self.each_output(answer)

    def forecast(self, windows: Array) -> Array:
        """The explained outputs of changed windows, (..., n, lookback, n_features) -> (..., n)."""
        shape = windows.shape[:-2]
        every = self.model.predict(windows.reshape(-1, *windows.shape[-2:])).reshape(*shape, -1)
        return np.take_along_axis(every, np.broadcast_to(self.outputs[:, None], (*shape, 1)), axis=-1)[..., 0]

    def with_gradient(self, output: int) -> Callable[[Tensor], Tensor]:
        """An output of the module."""
        return lambda windows: self.net(windows)[:, output]


Method = Callable[[Subject], Array]
"""Scores, (n, lookback, n_features), signed."""


def make_methods(seed: int) -> Mapping[str, Method]:
    """Every method, by its name in the table."""
    random = np.random.default_rng(seed)
    steps = {"detail": "steps"}
    return {
        "contributions": lambda on: on.explain(lambda found: found.steps, **steps),
        "`removed`": lambda on: on.explain(lambda found: found.step_effects.removed, effects="steps", **steps),
        "`alone`": lambda on: on.explain(lambda found: found.step_effects.alone, effects="steps", **steps),
        "Shapley": shapley,
        "Integrated Gradients, 50 steps": integrated_gradients,
        "Integrated Gradients, as shares": lambda on: as_shares(on, np.abs(integrated_gradients(on))),
        "TIMING": lambda on: timing(on, random),
        "random": lambda on: random.normal(size=on.windows.shape),
        "try 1: contributions, averaged over runs": average_over_runs,
        "try 2: price of runs": price_runs,
        "try 3: price of runs, removed and alone": lambda on: price_both(on),
        "try 4: shares of contributions and prices": share_contributions_and_prices,
    }


def shapley(on: Subject) -> Array:
    """Shapley values of features in segments, each divided evenly among the segment's points; the newest row alone."""
    lookback, n_features = on.windows.shape[1:]
    length = -(-lookback // max(SHAPLEY_PARTS // n_features, 1))
    firsts = [0, 1] if on.newest else [*range(0, lookback, length)]
    segments = {f"from {age}": (1 - end, -age) for age, end in zip(firsts, [*firsts[1:], lookback], strict=True)}

    def spread(found: Explanation) -> Array:
        scores = np.zeros(found.steps.shape)
        for segment, rows in enumerate(found.segment_rows):
            scores[:, rows] = found.shapley.values[:, None, :, segment] / (rows.stop - rows.start)
        return scores

    return on.explain(spread, method="shapley", segments=segments)


def integrated_gradients(on: Subject) -> Array:
    """Captum's, from a baseline of 0."""

    def answer(windows: Array, output: int) -> Array:
        method, inputs = IntegratedGradients(on.with_gradient(output)), torch.from_numpy(windows)
        return method.attribute(inputs, n_steps=50, internal_batch_size=1024).detach().numpy()

    return on.each_output(answer)


def timing(on: Subject, random: np.random.Generator) -> Array:
    """TIMING with its paper's 50 positions."""
    start = np.zeros(on.windows.shape[1:], np.float32)
    options = (start, random, TIMING_SAMPLES, *timing_segments(*start.shape))
    return on.each_output(lambda windows, output: attribute_timing(on.with_gradient(output), windows, *options))


def average_over_runs(on: Subject) -> Array:
    """Mean magnitude of the contributions in the runs around each point, over all lengths; no further forecast.

    Runs are centred; those of the newest row end there.
    """
    size = np.abs(on.explain(lambda found: found.steps, detail="steps"))
    total = np.zeros(size.shape)
    for length in RUNS:
        behind = length - 1 if on.newest else length // 2
        padded = np.pad(size, ((0, 0), (behind, length - 1 - behind), (0, 0)))
        total += np.lib.stride_tricks.sliding_window_view(padded, length, axis=1).mean(axis=-1)
    return total


def price_runs(on: Subject, alone: bool = False) -> Array:
    """Price per point of the runs that contain each point: the change of the forecast as all of a run go together.

    Runs of one feature of each length start every half length, and those of the newest row end there. The price of a
    run is |F(x) - F(x with the run at 0)| / length; the score of a point is the sum over lengths of the mean over the
    runs that contain it. A price is in the output's unit: what it costs to do without the point and its neighbours.

    Args:
        alone: the price is |F(0 with the run from x) - F(0)| / length.
    """
    _, lookback, n_features = on.windows.shape
    kept, other = (np.zeros_like(on.windows), on.windows) if alone else (on.windows, np.zeros_like(on.windows))
    before, scores = on.forecast(kept), np.zeros(on.windows.shape)
    for length in (each for each in RUNS if each <= lookback):
        last = lookback - length
        firsts = [last] if on.newest else sorted({*range(0, last, length // 2), last})
        prices, counts = np.zeros(on.windows.shape), np.zeros((lookback, 1))
        for first in firsts:
            rows = slice(first, first + length)
            changed = np.repeat(kept[None], n_features, axis=0)
            for feature in range(n_features):
                changed[feature, :, rows, feature] = other[:, rows, feature]
            prices[:, rows] += np.abs(on.forecast(changed) - before).T[:, None] / length
            counts[rows] += 1
        scores += prices / np.maximum(counts, 1)
    return scores


def price_both(on: Subject) -> Array:
    """The prices of runs when they are removed and when they are alone, added."""
    return price_runs(on) + price_runs(on, alone=True)


def share_contributions_and_prices(on: Subject) -> Array:
    """Shares of the geometric mean of a contribution and, twice, of the price of the runs around it.

    A point must contribute by itself and matter with its neighbours.
    """
    contributions = on.explain(lambda found: found.steps, detail="steps")
    return as_shares(on, np.cbrt(price_both(on) ** 2 * np.abs(contributions)))


def as_shares(on: Subject, sizes: Array) -> Array:
    """Sizes divided by their sum over a window, or over its newest row; 0 where nothing has a size.

    Windows whose forecasts differ become comparable, as where points of all windows are ranked together.
    """
    scored = sizes[:, -1:] if on.newest else sizes
    return sizes / (scored.sum(axis=(1, 2), keepdims=True) + np.finfo(float).tiny)
