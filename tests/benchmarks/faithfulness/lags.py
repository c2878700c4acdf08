"""Prints how many planted lags are found: `python tests/benchmarks/faithfulness/lags.py`; for a quick run `--seeds 1`.

In each series the target reads a few features, each at known lags; all others are decoys. Of K planted pairs of feature
and lag, recall is the share that is among the K highest scores of all lookback x features pairs.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from methods import Array, Subject

import kanmodel
from kanmodel import Model

N_ROWS, N_FEATURES, LOOKBACK = 4000, 6, 10
PERSISTENCE = 0.5  # of the features, each an AR(1), whose neighbouring steps so resemble each other
NOISE = 0.1
PERMUTATIONS = 5
LEARNING = {"hidden": 16, "batch": 64, "epochs": 40, "lamb": 0.0, "noise": 0.0, "progress": False}

Lagged = Callable[[int, int], Array]  # feature, lag -> its values, (n,)


@dataclass(frozen=True)
class Task:
    """A target and the (feature, lag) pairs that it reads; lag 0 is the window's newest step."""

    target: Callable[[Lagged], Array]
    planted: tuple[tuple[int, int], ...]


TASKS: Mapping[str, Task] = {
    "sum": Task(lambda x: 2 * x(0, 3) + x(1, 0) + x(1, 1) + x(1, 2), ((0, 3), (1, 0), (1, 1), (1, 2))),
    "curves": Task(
        lambda x: np.sin(2 * x(0, 3)) + x(1, 0) ** 2 - x(1, 2) ** 2 + np.tanh(2 * x(2, 6)),
        ((0, 3), (1, 0), (1, 2), (2, 6)),
    ),
    "product": Task(lambda x: x(0, 1) * x(2, 4) + x(1, 0), ((0, 1), (2, 4), (1, 0))),
    "switch": Task(lambda x: np.where(x(2, 0) > 0, x(0, 2), -x(1, 5)), ((2, 0), (0, 2), (1, 5))),
}


def train(task: Task, seed: int) -> Model:
    """A model of a series of a task."""
    generator = np.random.default_rng(seed)
    series = generator.normal(size=(N_ROWS, N_FEATURES))
    for row in range(1, N_ROWS):
        series[row] = PERSISTENCE * series[row - 1] + np.sqrt(1 - PERSISTENCE**2) * series[row]
    target = task.target(lambda feature, lag: np.roll(series[:, feature], lag))
    target = target + NOISE * target.std() * generator.normal(size=N_ROWS)
    frame = {f"x{number}": values for number, values in enumerate(series.T)} | {"y": target}
    frame = {name: values[LOOKBACK:] for name, values in frame.items()}  # np.roll has wrapped the first rows
    return kanmodel.train(frame, target="y", lookback=LOOKBACK, seed=seed, **LEARNING)


def read_lags(model: Model) -> Array:
    """The lags of the forecast's profile, (n_features, lookback)."""
    found = np.zeros((N_FEATURES, LOOKBACK))
    node = next(node for node in model.topology().nodes if node.kind == "output")
    for name, lags in node.lags.items():
        found[int(name[1:])] = lags.shares
    return found


def explain_steps(model: Model) -> Array:
    """The mean |contribution| to the forecast over the reference windows, which lags divide the shares by."""
    contributions = model.explain(model.scaling.features_to_original(model.reference.scaled))
    return np.abs(contributions.steps).mean(axis=0)[::-1].T


def gradient_times_input(model: Model) -> Array:
    """Mean magnitude over the reference windows, inputs in model units, whose training mean is 0."""
    points = model.reference.scaled.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Subject(model).differentiable(points).sum(), points)
    return (gradient * points).detach().abs().mean(dim=0).flip(0).T.numpy()


def permute_steps(model: Model, generator: np.random.Generator) -> Array:
    """Growth of the mean absolute error as a feature at one step is permuted among the reference windows."""
    loaded, windows = model, model.reference.scaled.numpy()

    def error(changed: Array) -> float:
        forecasts = loaded.scaling.outputs_to_original(loaded.frozen.forward(torch.from_numpy(changed)))
        return float(np.abs(forecasts[:, 0] - loaded.reference.targets[:, 0]).mean())

    found, whole = np.zeros((N_FEATURES, LOOKBACK)), error(windows)
    for feature, lag in np.ndindex(found.shape):
        for _ in range(PERMUTATIONS):
            changed = windows.copy()
            changed[:, -1 - lag, feature] = generator.permutation(windows[:, -1 - lag, feature])
            found[feature, lag] += (error(changed) - whole) / PERMUTATIONS
    return found


def recall(scores: Array, planted: tuple[tuple[int, int], ...]) -> float:
    """The share of the planted pairs that is among as many highest scores."""
    highest = np.argsort(-scores, axis=None, kind="stable")[: len(planted)]
    found = set(zip(*np.unravel_index(highest, scores.shape), strict=True))
    return len(found & set(planted)) / len(planted)


def judge_runs(model: Model, planted: tuple[tuple[int, int], ...]) -> tuple[float, float]:
    """Recall and precision of the runs in words, of the features with the largest shares, as many as are planted."""
    node = next(node for node in model.topology().nodes if node.kind == "output")
    named = list(node.lags.items())[: len({feature for feature, _ in planted})]
    said = {(int(name[1:]), lag) for name, of in named for lag in range(of.newest, of.oldest + 1)}
    found = len(said & set(planted))
    return found / len(planted), found / len(said)


def main() -> None:
    """Trains, judges and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="series and models of each task")
    chosen = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, task in TASKS.items():
        for seed in range(chosen.seeds):
            model = train(task, seed)
            scores = {
                "lags": read_lags(model),
                "contributions by step": explain_steps(model),
                "gradient x input": gradient_times_input(model),
                "permutation by step": permute_steps(model, np.random.default_rng(seed)),
            }
            for method, of in scores.items():
                found[method][name].append(recall(of, task.planted))
            found["by chance"][name].append(len(task.planted) / (N_FEATURES * LOOKBACK))
            runs = judge_runs(model, task.planted)
            for row, value in zip(("runs in words, recall", "runs in words, precision"), runs, strict=True):
                found[row][name].append(value)
            found["test R2 of the models"][name].append(model.metrics["test_r2"])
    print(f"\n| recall of planted lags, {chosen.seeds} models each | {' | '.join([*TASKS, 'all'])} |")
    print(f"|---|{'---|' * (len(TASKS) + 1)}")
    for method, by_task in found.items():
        means = [fmean(values) for values in by_task.values()]
        print(f"| {method} | {' | '.join(f'{value:.2f}' for value in [*means, fmean(means)])} |")


if __name__ == "__main__":
    main()
