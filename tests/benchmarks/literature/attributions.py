"""Prints attributions on the literature's sets: `python tests/benchmarks/literature/attributions.py`, in half an hour.

`--sets HMM,SeqComb-MV` chooses some. For a quick run: `--folds 1 --windows 2 --epochs 1`.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import process_time

import numpy as np
import torch
from scipy.stats import t as student_t
from scoring import Method, Subject, make_methods
from sets import N_CLASSES, SEQUENCES, STATES, Array, Random, Series, acting_in_arma, arma
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1] / "faithfulness"))

from measures import cumulative_difference, cumulative_preservation, precision_and_recall

import kanmodel

LOOKBACK = 20  # steps that a network for states reads
EVERY = 10  # steps between those of a series that are explained
TRAIN_SERIES, TEST_SERIES, BATCH = 1600, 200, 64
LONGER = {"FreqShapes": 4}  # times the epochs: with 15, two of five networks do not learn its periods
SHARE = 0.1  # share of the points that CPD and CPP remove
RARE = {"Rare-Feature": "features", "Rare-Time": "times"}
ALL = ("HMM", *RARE, "SeqComb-MV", "Switch-Feature", "SeqComb-UV", "FreqShapes", "LowVar")
GRADIENTS, GAIN = "Integrated Gradients, 50 steps", "AUPRC beyond IG"
TINT, TIMEX = "time_interpret, arXiv 2306.05552", "TimeX, arXiv 2306.02109"
# By set and method, AUPRC, AUP and AUR; None where this project has no published figure at hand.
PUBLISHED: dict[str, dict[str, tuple[float | None, float | None, float | None]]] = {
    "HMM": {
        f"Integrated Gradients ({TINT})": (0.867, 0.895, 0.451),
        f"DeepLift ({TINT})": (0.872, 0.900, 0.453),
        f"LIME ({TINT})": (0.868, 0.911, 0.441),
        f"Dynamask ({TINT})": (0.776, 0.798, 0.851),
        f"bayes mask ({TINT})": (0.865, 0.877, 0.741),
    },
    "Rare-Feature": {
        f"Integrated Gradients ({TINT})": (None, 1.0, 0.136),
        f"bayes mask ({TINT})": (None, 0.988, 0.962),
    },
} | {
    name: {f"TimeX ({TIMEX})": (timex, None, None), f"Integrated Gradients ({TIMEX})": (gradients, None, None)}
    for name, timex, gradients in (
        ("FreqShapes", 0.832, 0.752),
        ("SeqComb-UV", 0.712, 0.576),
        ("SeqComb-MV", 0.688, 0.330),
        ("LowVar", 0.867, 0.869),
    )
}
BETTER = {
    "AUPRC": "more",
    GAIN: "more",
    "AUPRC, signed": "more",
    "AUP": "more",
    "AUR": "more",
    "CPD": "more",
    "CPP": "less",
}
SECONDS = "ms per window"

Figures = Mapping[str, Mapping[str, list[float]]]
"""By method and column, a figure for each fold."""


class Classifier(nn.Module):
    """A GRU, the largest of its states, and two layers: the class of a whole window. TimeX has transformers."""

    def __init__(self, n_features: int, hidden: int = 16) -> None:
        super().__init__()
        self.rnn = nn.GRU(n_features, hidden, batch_first=True)
        self.head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, N_CLASSES))

    def forward(self, windows: Tensor) -> Tensor:
        return self.head(self.rnn(windows)[0].amax(1))


class StateClassifier(nn.Module):
    """The network of time_interpret's HMM and ContraLSP's Switch-Feature, with 32 units for their 200."""

    def __init__(self, n_features: int, hidden: int = 32) -> None:
        super().__init__()
        self.rnn = nn.GRU(n_features, hidden, batch_first=True)
        self.regressor = nn.Sequential(nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, 2))

    def forward(self, windows: Tensor) -> Tensor:
        return self.regressor(self.rnn(windows)[1][-1])


class Squares(nn.Module):
    """The white box of Arma, Rare-Feature and Rare-Time: the sum of the squares of some points."""

    def __init__(self, acting: Array) -> None:
        super().__init__()
        self.register_buffer("acting", torch.from_numpy(acting).float())

    def forward(self, windows: Tensor) -> Tensor:
        return (windows * self.acting).square().sum((1, 2))[:, None]


def main() -> None:
    """Trains, explains, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=lambda text: text.split(","), default=ALL, help=", ".join(ALL))
    parser.add_argument("--folds", type=int, default=5, help="networks of each set, each with data of its own")
    parser.add_argument("--first", type=int, default=0, help="number of the first fold, which is its seed")
    parser.add_argument("--windows", type=int, default=4, help="explained in each fold: windows, or series of states")
    parser.add_argument("--epochs", type=int, default=15, help="of training, of FreqShapes four times as many")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for name in chosen.sets:
        figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        accuracies = []
        for fold in range(chosen.first, chosen.first + chosen.folds):
            subject, acting, accuracy = prepare(name, fold, chosen.windows, chosen.epochs * LONGER.get(name, 1))
            for of_method, scores, seconds in score_all(subject, make_methods(fold)):
                found = measure(subject, scores, acting, pooled=name not in SEQUENCES)
                for column, value in (found | {SECONDS: 1e3 * seconds / len(subject.windows)}).items():
                    figures[of_method][column].append(value)
            for found in figures.values():
                found[GAIN].append(found["AUPRC"][-1] - figures[GRADIENTS]["AUPRC"][-1])
            accuracies.append(accuracy)
        print_table(name, figures, accuracies, len(subject.windows))


def prepare(name: str, fold: int, n_windows: int, epochs: int) -> tuple[Subject, Array, float]:
    """What is explained, which points act, (n, ...), and the accuracy of the network on data of its own."""
    random = np.random.default_rng((fold, len(name)))
    torch.manual_seed(fold)
    if name in RARE:
        windows, acting = arma(random, n_windows), acting_in_arma(random, RARE[name])
        subject = as_subject(Squares(acting), windows, np.zeros(len(windows), int), newest=False)
        return subject, np.broadcast_to(acting, windows.shape), 1.0
    if name in STATES:
        train, test = STATES[name](random, TRAIN_SERIES // 4), STATES[name](random, n_windows)
        net = fit(StateClassifier(train.values.shape[2]), partial(draw_states, random, train), epochs)
        ends = np.arange(LOOKBACK, test.values.shape[1] + 1, EVERY)
        windows = np.stack([test.values[:, end - LOOKBACK : end] for end in ends], axis=1)
        windows, labels = windows.reshape(-1, *windows.shape[2:]), test.labels[:, ends - 1].reshape(-1)
        predicted = forecast(net, windows).argmax(axis=1)
        return as_subject(net, windows, predicted, newest=True), test.acting[:, ends - 1], np.mean(predicted == labels)
    train, test = SEQUENCES[name](random, TRAIN_SERIES), SEQUENCES[name](random, TEST_SERIES)
    net = fit(Classifier(train.values.shape[2]), partial(draw_windows, random, train), epochs)
    accuracy = np.mean(forecast(net, test.values).argmax(axis=1) == test.labels)
    shown = test[test.labels != 0 if name.startswith("SeqComb") else slice(None)][:n_windows]  # as TimeX
    return as_subject(net, shown.values, shown.labels, newest=False), shown.acting, float(accuracy)


def fit(net: nn.Module, draw: partial[tuple[Array, Array]], epochs: int) -> nn.Module:
    """Trains on batches that are drawn."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    n_steps = epochs * (TRAIN_SERIES // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=n_steps)
    for _ in range(n_steps):
        windows, labels = draw()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.from_numpy(windows)), torch.from_numpy(labels)).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return net.eval()


def draw_windows(random: Random, of: Series) -> tuple[Array, Array]:
    """A batch of whole windows with their classes."""
    rows = random.integers(len(of.values), size=BATCH)
    return of.values[rows], of.labels[rows]


def draw_states(random: Random, of: Series) -> tuple[Array, Array]:
    """A batch of windows from series, with the label of the newest step."""
    rows, ends = random.integers(len(of.values), size=BATCH), random.integers(LOOKBACK, of.values.shape[1], size=BATCH)
    steps = ends[:, None] - np.arange(LOOKBACK)[::-1]
    return of.values[rows[:, None], steps], of.labels[rows, ends]


def forecast(net: nn.Module, windows: Array) -> Array:
    """Outputs of a network, without gradients."""
    with torch.inference_mode():
        return net(torch.from_numpy(windows)).numpy()


def as_subject(net: nn.Module, windows: Array, outputs: Array, newest: bool) -> Subject:
    """The module as a model."""
    features = [f"x{number}" for number in range(windows.shape[2])]
    return Subject(net, kanmodel.from_torch(net.eval(), windows=windows, features=features), windows, outputs, newest)


def score_all(subject: Subject, methods: Mapping[str, Method]) -> list[tuple[str, Array, float]]:
    """Each method with its scores and the processor's seconds."""
    next(iter(methods.values()))(replace(subject, windows=subject.windows[:2], outputs=subject.outputs[:2]))  # warm up
    found = []
    for name, score in methods.items():
        before = process_time()
        scores = score(subject)
        found.append((name, scores, process_time() - before))
    return found


def measure(subject: Subject, scores: Array, acting: Array, pooled: bool) -> dict[str, float]:
    """All columns: over all points together, as time_interpret, or the mean over windows, as TimeX."""
    signed = scores[:, -1].reshape(acting.shape) if subject.newest else scores
    whole = (slice(None),) if pooled else range(len(acting))
    found = {"AUPRC": [], "AUPRC, signed": [], "AUP": [], "AUR": []}
    for each in whole:
        truth = acting[each] if pooled else acting[each][None]
        for column, values in (("AUPRC", np.abs(signed)), ("AUPRC, signed", signed)):
            shown = scale(values[each] if pooled else values[each][None])
            found[column].append(average_precision_score(truth.ravel(), shown.ravel()))
            if column == "AUPRC":
                for name, value in zip(("AUP", "AUR"), precision_and_recall(shown, truth), strict=True):
                    found[name].append(value)
    spread = subject.forecast(subject.windows).std()
    on = (
        lambda windows: subject.forecast(windows) / spread,
        subject.windows,
        np.zeros_like(subject.windows[0]),
        scores,
    )
    found |= {"CPD": cumulative_difference(*on, SHARE), "CPP": cumulative_preservation(*on, SHARE)}
    return {column: float(np.mean(values)) for column, values in found.items()}


def scale(scores: Array) -> Array:
    """Each window's or series' scores from 0 to 1, as time_interpret's."""
    flat = scores.reshape(len(scores), -1)
    flat = flat - flat.min(axis=1, keepdims=True)
    return (flat / (flat.max(axis=1, keepdims=True) + 1e-5)).reshape(scores.shape)


def print_table(name: str, figures: Figures, accuracies: list[float], n_windows: int) -> None:
    """Means over folds with 95 % intervals, and what papers published."""
    print(
        f"\n## {name}\n\n{len(accuracies)} folds of {n_windows} windows; accuracy {np.mean(accuracies):.2f},", end=" "
    )
    print(f"least {min(accuracies):.2f}\n\n| method | from |", end=" ")
    print(" | ".join(f"{column} ({better} is better)" for column, better in BETTER.items()), f"| {SECONDS} |")
    print("|---" * (len(BETTER) + 3) + "|")
    for method, found in figures.items():
        cells = [write(found[column]) for column in BETTER] + [f"{np.mean(found[SECONDS]):.3g}"]
        print(f"| {method} | rerun | {' | '.join(cells)} |")
    for method, values in PUBLISHED.get(name, {}).items():
        known = dict(zip(("AUPRC", "AUP", "AUR"), values, strict=True))
        cells = ["-" if known.get(column) is None else f"{known[column]:.3f}" for column in BETTER]
        print(f"| {method} | published | {' | '.join(cells)} | - |")
    sys.stdout.flush()


def write(values: list[float]) -> str:
    """A mean with half the width of its 95 % interval."""
    n = len(values)
    half = f" ± {student_t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n):.2g}" if n > 1 else ""
    return f"{np.mean(values):.3f}{half}"


if __name__ == "__main__":
    main()
