"""Edges and frequencies beside the literature: `python tests/benchmarks/literature/edges.py`; quick: `--seeds 1`.

Three tables. Pruning under a shift: ShapKAN (2025, arXiv 2510.01663) removes what has the least Shapley values, which
should survive data that is shifted; the R2 that is kept against the full model at the same number of edges, on the
reference windows and on shifted ones. Frequencies: FreqLens (2026, arXiv 2602.08768) attributes to frequencies; a
ledger in the Fourier basis of each feature's steps is an exact change of basis of the ledger by step, since both are
(x - x0) times the mean gradient on the path. Lags of edges, as Temporal Functional Circuits (2026, arXiv 2605.05685)
have them, are in `faithfulness/lags.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path += [str(Path(__file__).parents[1] / "faithfulness"), str(Path(__file__).parents[1])]  # the other benchmarks

from data import make_processes
from gradients import mean_gradient
from methods import OUTPUT, Array, Subject
from run import train

import kanmodel
from kanmodel import Model, load
from kanmodel.network.connections import Kept
from kanmodel.structure.pruning import (
    MaskedForward,
    Pruning,
    PruningRule,
    count_kept,
    prune_by_rule,
    prune_network,
    r2,
    score_network,
)
from kanmodel.structure.scores import Scores
from service.models.repository import BUNDLED

FIDELITY = 0.95
ORDERS = 24  # random orders of the edges from which Shapley values are sampled
SHIFTS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as they are": lambda windows: windows,
    "+ 0.5": lambda windows: windows + 0.5,
    "+ 1": lambda windows: windows + 1,
    "x 1.5": lambda windows: 1.5 * windows,
}
LOOKBACK, N_ROWS, N_FEATURES = 24, 6000, 3
PERIODS, PERSISTENCE = (4, 6, 12), 0.99  # of the sines, and of their amplitudes
LEARNING = {"hidden": 24, "batch": 64, "epochs": 40, "lamb": 0.0, "noise": 0.0, "progress": False}
AT_ONCE = 64  # windows whose paths are evaluated together


def prune(seeds: int) -> Iterator[tuple[str, str, int, int, list[float]]]:
    """Model, method, edges kept, edges in all, and the R2 under each shift."""
    makers = [("bundled", lambda _: load(BUNDLED / "nyc-weather.safetensors"))]
    for process in make_processes(0)[:3]:
        makers.append((process.name, lambda seed, process=process: train(process, seed)))
    for name, make in makers:
        found: dict[str, list[list[float]]] = defaultdict(list)
        sizes = []
        for seed in range(seeds if name != "bundled" else 1):
            model = make(seed)
            masked, importance = MaskedForward(model), model.importance()
            pruning = prune_by_rule(model, importance, PruningRule(fidelity=FIDELITY))
            n_kept = count_kept(pruning.edges)
            sizes.append((n_kept, count_kept(masked.live)))
            scores = {"Shapley values": shapley_of_edges(masked, seed), "at random": random_scores(masked.live, seed)}
            scores["pykan's magnitude"], _ = score_network(model, importance, masked.full, "forward_u")
            found[f"fidelity {FIDELITY}"].append(under_shifts(model, pruning))
            for method, of in scores.items():
                kept = strongest(of, masked.live, n_kept)
                found[method].append(under_shifts(model, replace(pruning, edges=kept)))
        n_kept, n_all = np.mean(sizes, axis=0).round().astype(int)
        for method, rows in found.items():
            yield name, method, n_kept, n_all, np.mean(rows, axis=0).tolist()


def under_shifts(model: Model, pruning: Pruning) -> list[float]:
    """R2 of a pruned network against the full one on shifted reference windows, model units."""
    pruned, windows = prune_network(model, pruning), model.reference.scaled
    with torch.no_grad():
        return [
            r2(model.network(shift(windows))[:, OUTPUT].double(), pruned(shift(windows))[:, OUTPUT].double())
            for shift in SHIFTS.values()
        ]


def shapley_of_edges(masked: MaskedForward, seed: int) -> Scores:
    """Shapley values of edges in the R2 that they keep, by sampled orders (Castro et al. 2009)."""
    generator = np.random.default_rng(seed)
    edges = [(key, j, i) for key, live in masked.live.items() for j, i in live.nonzero().tolist()]
    values = {key: torch.zeros(live.shape) for key, live in masked.live.items()}
    full = masked.full.outputs[:, OUTPUT].double()
    for _ in range(ORDERS):
        kept = {key: torch.zeros_like(live) for key, live in masked.live.items()}
        before = worth(full, masked, kept)
        for number in generator.permutation(len(edges)):
            key, j, i = edges[number]
            kept[key][j, i] = True
            after = worth(full, masked, kept)
            values[key][j, i] += (after - before) / ORDERS
            before = after
    return values


def worth(full: torch.Tensor, masked: MaskedForward, kept: Kept) -> float:
    """R2 with the kept edges, no lower than -1: a single large error would outweigh all others."""
    return max(r2(full, masked.outputs(kept)[:, OUTPUT].double()), -1.0)


def random_scores(live: Kept, seed: int) -> Scores:
    """Scores without meaning."""
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.rand(edges.shape, generator=generator) for key, edges in live.items()}


def strongest(scores: Scores, live: Kept, n: int) -> Kept:
    """The n live edges with the highest scores, and those that equal the last of them."""
    every = torch.cat([scores[key][live[key]] for key in live])
    least = every.sort(descending=True).values[n - 1]
    return {key: live[key] & (scores[key] >= least) for key in live}


def make_periodic(seed: int, task: str) -> tuple[Mapping[str, Array], int, int]:
    """A series whose target reads one feature at one period only, with the feature and the period.

    Each feature has sines of all periods whose amplitudes wander, and noise. The target is the newest value of the
    component with the planted period ("component"), or its square ("square"), whose mean gradient at zero is none.
    """
    generator = np.random.default_rng(seed)
    feature, period = int(generator.integers(N_FEATURES)), int(generator.choice(PERIODS))
    rows, series, target = np.arange(N_ROWS), np.zeros((N_ROWS, N_FEATURES)), np.zeros(N_ROWS)
    for column in range(N_FEATURES):
        for each in PERIODS:
            parts = generator.normal(size=(2, N_ROWS))
            for row in range(1, N_ROWS):
                parts[:, row] = PERSISTENCE * parts[:, row - 1] + np.sqrt(1 - PERSISTENCE**2) * parts[:, row]
            angle = 2 * np.pi * rows / each
            wave = parts[0] * np.cos(angle) + parts[1] * np.sin(angle)
            series[:, column] += wave
            if (column, each) == (feature, period):
                target = wave if task == "component" else wave**2
        series[:, column] += 0.3 * generator.normal(size=N_ROWS)
    return {f"x{n}": values for n, values in enumerate(series.T)} | {"y": target}, feature, period


def by_frequency(model: Model, windows: Array) -> tuple[Array, Array, float]:
    """Contributions by step and by frequency, (n, lookback, n_features) and (n, lookback // 2 + 1, n_features).

    And by how much their sums differ at most, as a share of the magnitude.
    """
    subject, ends = Subject(model), torch.from_numpy(windows).double()
    mean = torch.cat([mean_gradient(subject, some) for some in ends.split(AT_ONCE)])
    change = ends - torch.from_numpy(subject.start)
    steps = mean * change
    spectrum = torch.fft.rfft(mean, dim=1).conj() * torch.fft.rfft(change, dim=1)  # Parseval
    counted = torch.full((spectrum.shape[1], 1), 2.0)  # each frequency and its negative
    counted[0] = 1
    if windows.shape[1] % 2 == 0:
        counted[-1] = 1
    frequencies = spectrum.real * counted / windows.shape[1]
    off = (frequencies.sum(dim=1) - steps.sum(dim=1)).abs().max() / steps.abs().sum(dim=(1, 2)).max()
    return steps.numpy(), frequencies.numpy(), float(off)


def find_periods(seeds: int) -> Iterator[tuple[str, str, float, float]]:
    """Task, method, and how often feature and period are the first of all; the largest deviation of the sums."""
    for task in ("component", "square"):
        hits: dict[str, list[bool]] = defaultdict(list)
        worst, r2s = 0.0, []
        for seed in range(seeds):
            frame, feature, period = make_periodic(seed, task)
            model = kanmodel.train(dict(frame), target="y", lookback=LOOKBACK, seed=seed, **LEARNING)
            r2s.append(model.metrics["test_r2"])
            windows = model.reference.scaled.numpy()
            steps, frequencies, off = by_frequency(model, windows)
            worst, planted = max(worst, off), (LOOKBACK // period, feature)
            spectrum = np.abs(np.fft.rfft(steps, axis=1)).mean(axis=0)
            inputs = np.abs(np.fft.rfft(windows, axis=1)).mean(axis=0)
            for method, scores in {
                "ledger by frequency": np.abs(frequencies).mean(axis=0),
                "spectrum of the ledger by step": spectrum,
                "spectrum of the inputs": inputs,
            }.items():
                first = np.unravel_index(np.argmax(scores[1:]), scores[1:].shape)  # without the mean of the steps
                hits[method].append((first[0] + 1, first[1]) == planted)
        for method, of in hits.items():
            yield task, method, float(np.mean(of)), worst
        yield task, "test R2 of the models", float(np.mean(r2s)), worst


def main() -> None:
    """Trains, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="models of each task")
    chosen = parser.parse_args()
    print(f"| model | edges chosen by | kept | {' | '.join(f'R2, windows {name}' for name in SHIFTS)} |")
    print(f"|---|---|---|{'---|' * len(SHIFTS)}")
    for name, method, kept, every, values in prune(chosen.seeds):
        print(
            f"| {name} | {method} | {kept} of {every} | {' | '.join(f'{value:.3f}' for value in values)} |", flush=True
        )
    print(f"\n| target | method | planted feature and period first, {chosen.seeds} models | sums differ by |")
    print("|---|---|---|---|")
    for task, method, share, worst in find_periods(chosen.seeds):
        print(f"| {task} | {method} | {share:.2f} | {worst:.0e} |", flush=True)


if __name__ == "__main__":
    main()
