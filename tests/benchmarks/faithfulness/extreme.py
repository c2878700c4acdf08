"""Looks for windows whose explanation is wrong though it says that it has converged: random jumps, then hill climbing.

`python tests/benchmarks/faithfulness/extreme.py`; to try it out: `--random 64 --climb 2 --steps 5`.

A window is far from the baseline: x0 + s (a - b) for two reference windows a and b and a factor s from 3 to 1,000, even
in its logarithm. Its explanation is compared, entry by entry, with a stricter one; the worst that come of that are
compared with Integrated Gradients of 20,000 steps, which share no code with either. Errors are in tolerances.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch

from kanmodel import Explanation, Model, load
from service.models.repository import BUNDLED

Array = np.ndarray

SMALLEST, LARGEST = 3.0, 1000.0  # factors of a jump
STRICTER = 0.1  # times the tolerance
MISSED = 1.0  # tolerances by which the error of an entry may exceed what its explanation says
IG_STEPS, IG_BATCH = 20_000, 2_000
BATCH = 64


@dataclass(frozen=True)
class Jump:
    """A window far from the baseline.

    Attributes:
        first: number of a reference window.
        second: number of another.
        factor: how many times the way from the second to the first.
        direction: what a climb has added to that way, (lookback, n_features), model units; 0 at first.
    """

    first: int
    second: int
    factor: float
    direction: Array


@dataclass(frozen=True)
class Found:
    """An explanation against a better one.

    Attributes:
        converged: whether it says so.
        error: the largest error of any entry of its steps, in tolerances.
        told: the error that it states, in tolerances.
        jump: what was explained.
    """

    converged: bool
    error: float
    told: float
    jump: Jump


class Search:
    """The bundled model, and windows far from its data.

    Args:
        model: the model.
        seed: of everything random.
    """

    def __init__(self, model: Model, seed: int) -> None:
        self.model, self.generator = model, np.random.default_rng(seed)
        self.reference = model.loaded.reference.windows.double().numpy()
        self.start = model.loaded.to_model_units(model.baseline()).double().numpy()[0]

    def draw(self) -> Jump:
        """A random jump."""
        first, second = self.generator.choice(len(self.reference), 2, replace=False).tolist()
        factor = float(np.exp(self.generator.uniform(np.log(SMALLEST), np.log(LARGEST))))
        return Jump(first, second, factor, np.zeros(self.start.shape))

    def change(self, jump: Jump) -> Jump:
        """A jump nearby: its factor and its direction move a little."""
        factor = float(np.clip(jump.factor * np.exp(self.generator.normal(scale=0.2)), SMALLEST, LARGEST))
        moved = jump.direction + self.generator.normal(scale=0.05, size=self.start.shape)
        return Jump(jump.first, jump.second, factor, moved)

    def build(self, jumps: list[Jump]) -> Array:
        """Their windows, original units."""
        ways = [self.reference[jump.first] - self.reference[jump.second] + jump.direction for jump in jumps]
        scaled = [self.start + jump.factor * way for jump, way in zip(jumps, ways, strict=True)]
        return self.model.scaling.features_to_original(torch.from_numpy(np.array(scaled)))

    def judge(self, jumps: list[Jump]) -> list[Found]:
        """Each explanation against a stricter one; those of which even that has not converged are left out."""
        windows = self.build(jumps)
        found = self.model.explain(windows)
        better = self.model.explain(windows, tolerance=1e-3 * STRICTER, path_nodes=33)
        errors = np.abs(found.steps - better.steps).max(axis=(1, 2)) / found.tolerance
        told = found.error / found.tolerance
        return [
            Found(bool(found.converged[number]), float(errors[number]), float(told[number]), jump)
            for number, jump in enumerate(jumps)
            if better.converged[number]
        ]

    def climb(self, found: Found, steps: int) -> Found:
        """The worst converged explanation that is reached from one by keeping whatever makes it worse."""
        for _ in range(steps):
            tried = [one for one in self.judge([self.change(found.jump) for _ in range(4)]) if one.converged]
            found = max([found, *tried], key=lambda one: one.error)
        return found

    def check(self, found: Found) -> float:
        """The error against Integrated Gradients of 20,000 steps (midpoints) in float64, in tolerances."""
        window = self.build([found.jump])
        explained: Explanation = self.model.explain(window)
        x = self.model.loaded.to_model_units(window).double()[0]
        way, total = x - torch.from_numpy(self.start), torch.zeros_like(x)
        for first in range(0, IG_STEPS, IG_BATCH):
            alpha = (torch.arange(first, first + IG_BATCH, dtype=torch.float64) + 0.5) / IG_STEPS
            points = (torch.from_numpy(self.start) + alpha[:, None, None] * way).requires_grad_()
            outputs = self.model.loaded.frozen_float64.trace(points).outputs[:, 0]
            (gradient,) = torch.autograd.grad(outputs.sum(), points)
            total += gradient.sum(dim=0)
        scale = float(self.model.scaling.output_scale[0])
        exact = (way * total / IG_STEPS).numpy() * scale
        return float(np.abs(explained.steps[0] - exact).max() / explained.tolerance)


def main() -> None:
    """Searches, and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=8000, help="random windows")
    parser.add_argument("--climb", type=int, default=10, help="how many of the worst are climbed from")
    parser.add_argument("--steps", type=int, default=100, help="of each climb, four windows each")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    search = Search(load(BUNDLED / "nyc-weather.safetensors"), chosen.seed)

    judged: list[Found] = []
    for first in range(0, chosen.random, BATCH):
        judged += search.judge([search.draw() for _ in range(min(BATCH, chosen.random - first))])
    converged = [one for one in judged if one.converged]
    print(f"{chosen.random} random windows: {len(judged)} judged, of which {len(converged)} say that they converged")
    for limit in (1, 5, 20):
        print(f"  off by more than {limit} tolerances: {sum(one.error > limit for one in converged)}")
    missed = sum(one.error > one.told + MISSED for one in converged)
    print(f"  off by more than the error that they state and {MISSED:g} tolerance: {missed}")

    worst = sorted(converged, key=lambda one: -one.error)[: chosen.climb]
    climbed = [search.climb(one, chosen.steps) for one in worst]
    print("\n| start | error there | error after the climb | stated | against Integrated Gradients, 20,000 steps |")
    print("|---|---|---|---|---|")
    for one, top in zip(worst, climbed, strict=True):
        place = f"{one.jump.factor:.0f} times window {one.jump.first} - {one.jump.second}"
        print(f"| {place} | {one.error:.2g} | {top.error:.2g} | {top.told:.2g} | {search.check(top):.2g} |", flush=True)


if __name__ == "__main__":
    main()
