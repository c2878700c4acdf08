"""Searches small changes of a window that deceive: `python tests/benchmarks/literature/attack.py`.

Each cell may move by 0.1 standard deviations of its feature. Two attacks are searched by projected gradient ascent, on
the features' scores: "hidden" moves the forecast and keeps the explanation, up to 1 % of its magnitude; "forged" moves
the explanation and keeps the forecast, up to 0.01 standard deviations (Ghorbani et al. 2019, arXiv 1710.10547;
Dombrowski et al. 2019, arXiv 1906.07983). Where scores sum to the forecast, a kept explanation bounds a hidden move by
its own change and the residual; `removed` has no such sum.

What the search finds is judged by the method itself, as users call it; a change that breaks its limit there is shrunk
until it holds. For a quick run: `--windows 4 --models 1 --steps 5`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import Tensor

sys.path += [str(Path(__file__).parents[1] / "faithfulness"), str(Path(__file__).parents[1])]  # the other benchmarks

from data import make_processes
from gradients import forecast, mean_gradient
from methods import OUTPUT, Array, Subject
from run import choose_windows, train

from kanmodel import load
from service.models.repository import BUNDLED

REACH = 0.1  # of a cell, in standard deviations of its feature
KEPT_SCORES, KEPT_FORECAST = 0.01, 0.01  # of the explanation's magnitude; in standard deviations of the output
SHRINKS = 20  # halvings of a change that breaks its limit
PENALTY = 10.0
SMALLEST = 1e-4  # move of an explanation, in standard deviations: below it is rounding


@dataclass(frozen=True)
class Method:
    """An explanation by feature, (n, n_features), in standard deviations of the output.

    Attributes:
        name: in the table.
        score: of windows (n, lookback, n_features), model units, with gradients, by which it is attacked.
        judge: the same as users get it, with the largest stated error in tolerances and whether all have converged.
    """

    name: str
    score: Callable[[Tensor], Tensor]
    judge: Callable[[Array], tuple[Array, str]]


def make_methods(subject: Subject) -> Iterator[Method]:
    """Contributions and `removed` of Kanscope, and Captum's Integrated Gradients with 50 steps."""
    model, start = subject.model, torch.from_numpy(subject.start).double()
    std = float(model.output_std[OUTPUT])

    def integrate(windows: Tensor) -> Tensor:
        return (mean_gradient(subject, windows, differentiable=True) * (windows - start)).sum(dim=1)

    def remove(windows: Tensor) -> Tensor:
        cells = torch.eye(windows.shape[2], dtype=torch.bool)[:, None, None, :]
        without = torch.where(cells, start, windows)
        left = forecast(subject, without.flatten(0, 1)).view(windows.shape[2], len(windows))
        return (forecast(subject, windows) - left).T

    def explain(windows: Array) -> tuple[Array, str]:
        found = model.explain(subject.to_original(windows))
        stated = f"{(found.error / found.tolerance).max():.2f}, {'all' if found.converged.all() else 'not all'}"
        return found.contributions / std, stated

    def ablate(windows: Array) -> tuple[Array, str]:
        return model.explain(subject.to_original(windows), effects=True).effects.removed / std, "-"

    gradients = IntegratedGradients(subject.differentiable)

    def captum(windows: Array) -> tuple[Array, str]:
        inputs, baselines = torch.from_numpy(windows).float(), start[None].float()
        found, delta = gradients.attribute(inputs, baselines, n_steps=50, return_convergence_delta=True)
        return found.sum(dim=1).double().numpy(), f"delta {delta.abs().max():.1g}"

    yield Method("contributions", integrate, explain)
    yield Method("`removed`", remove, ablate)
    yield Method("Integrated Gradients, 50 steps", integrate, captum)


def search(subject: Subject, method: Method, windows: Array, hides: bool, steps: int, seed: int) -> Array:
    """The changes that deceive most of all that were tried, within the reach; zeros where none keeps its limit."""
    start = torch.from_numpy(windows).double()
    before, scores = forecast(subject, start).detach(), method.score(start.clone().requires_grad_()).detach()
    magnitude = scores.abs().sum(dim=1)
    noise = np.random.default_rng(seed).uniform(-REACH, REACH, windows.shape)
    change = torch.from_numpy(noise) / 10
    best, worth = torch.zeros_like(change), torch.zeros(len(windows), dtype=torch.float64)
    for step in range(steps):
        change = change.requires_grad_()
        moved = (forecast(subject, start + change) - before).abs() / KEPT_FORECAST
        turned = (method.score(start + change) - scores).abs().sum(dim=1) / magnitude / KEPT_SCORES
        gain, spent = (moved, turned) if hides else (turned, moved)
        better = (spent <= 1) & (gain > worth)
        best[better], worth[better] = change.detach()[better], gain.detach()[better]
        (gradient,) = torch.autograd.grad((gain - PENALTY * (spent - 1).clamp(min=0)).sum(), change)
        rate = REACH / 4 * (1 - step / steps)
        change = (change.detach() + rate * gradient.sign()).clamp(-REACH, REACH)
    return best.numpy()


def judge(
    subject: Subject, method: Method, windows: Array, changes: Array, scores: Array, hides: bool
) -> tuple[Array, Array, str]:
    """How far forecasts and explanations move by the method itself, (n,) each, and what it states of them.

    `scores` are those of the windows without changes; all are in standard deviations of the output.
    """
    before, kept = subject.forecast(windows), KEPT_SCORES * np.abs(scores).sum(axis=1)
    for _ in range(SHRINKS):
        attacked = (windows + changes).astype(windows.dtype)
        found, stated = method.judge(attacked)
        moved, turned = np.abs(subject.forecast(attacked) - before), np.abs(found - scores).sum(axis=1)
        broken = turned > kept if hides else moved > KEPT_FORECAST
        if not broken.any():
            break
        changes = np.where(broken[:, None, None], changes / 2, changes)
    return moved, turned, stated


def main() -> None:
    """Trains, attacks and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=32, help="of each model")
    parser.add_argument("--models", type=int, default=6, help="how many: the bundled one, and those of `run.py`")
    parser.add_argument("--steps", type=int, default=60, help="of each search")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    models = [("bundled", lambda: load(BUNDLED / "nyc-weather.safetensors"))]
    models += [(one.name, lambda one=one: train(one, chosen.seed)) for one in make_processes(chosen.seed)]
    heads = ["model", "attacked", "hidden: forecast moves, median", "most", "most by what the explanation moves"]
    heads += ["forged: explanation moves, median", "most", "stated there: error, converged"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, make in models[: chosen.models]:
        subject = Subject(make())
        windows = choose_windows(subject.model, chosen.windows)
        for method in make_methods(subject):
            cells, texts = [], []
            scores, _ = method.judge(windows)
            for hides in (True, False):
                changes = search(subject, method, windows, hides, chosen.steps, chosen.seed)
                moved, turned, stated = judge(subject, method, windows, changes, scores, hides)
                if hides:
                    ratio = moved / np.maximum(turned, SMALLEST)
                    cells += [f"{np.median(moved):.3f}", f"{moved.max():.3f}", f"{ratio.max():.2f}"]
                else:
                    share = turned / np.abs(scores).sum(axis=1)
                    cells += [f"{np.median(share):.0%}", f"{share.max():.0%}"]
                texts.append(stated)
            print(f"| {' | '.join([name, method.name, *cells, '; '.join(texts)])} |", flush=True)


if __name__ == "__main__":
    main()
