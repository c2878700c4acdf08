"""Prints the table of changes: `python tests/benchmarks/faithfulness/changes.py`; it needs no idle machine.

A change is a function of the rows of both windows, G(rows) = F(newer window) - F(earlier window), so the measures of
`run.py` apply to it as they are: a removed point takes its mean in both windows. Methods give a score for each of these
rows and features:

- `Model.changes`;
- Integrated Gradients of G with 50 steps, by Captum;
- Shifted Window Integrated Gradients (SWING; Kim et al. 2025, Delta-XAI, arXiv 2511.23036), after the description in
  its abstract: gradients of F along the windows between the earlier and the newer one, a straight line from each to the
  next. Its point (step, feature) stands for another row in each window; the score is given to that of the newer one;
- DeltaSHAP (Kim et al. 2025, arXiv 2507.02342), after its code: Shapley values, 25 permutations, of the features of
  the new rows, which before hold the last known row, scaled so that they sum to the change;
- the gradient of G times the distance from the mean; random scores.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
import torch
from captum.attr import IntegratedGradients, ShapleyValueSampling
from data import Process, make_processes
from measures import completeness_error, cumulative_difference, cumulative_preservation, deletion, insertion
from methods import SHAPLEY_SAMPLES, Array, Subject
from numpy.lib.stride_tricks import sliding_window_view
from run import BETTER, SHARE, Figures, print_measures, train
from torch import Tensor

from kanmodel import Model

STEPS = 50  # of each path
AGO = (1, 6)


def main() -> None:
    """Trains, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=128, help="of each model")
    parser.add_argument("--models", type=int, default=5, help="how many of the five, in the order of the table")
    parser.add_argument("--seed", type=int, default=0, help="of data, training and methods")
    chosen = parser.parse_args()
    figures: dict[int, dict[str, Figures]] = {ago: defaultdict(Figures) for ago in AGO}
    for process in make_processes(chosen.seed)[: chosen.models]:
        model = train(process, chosen.seed)
        for ago, found in figures.items():
            rows = choose_rows(process, model, ago, chosen.windows)
            print(f"{process.name}: {len(rows)} changes since {ago} steps before", flush=True)
            measure(model, rows, ago, chosen.seed, found)
    for ago, found in figures.items():
        print(f"\nSince {ago} steps before:")
        print_measures(found, "changes")


def choose_rows(process: Process, model: Model, ago: int, n: int) -> Array:
    """Evenly spaced rows of two windows, (n, lookback + ago, n_features), model units, new or test rows."""
    columns = {name: np.asarray(process.frame[name]) for name in process.frame}
    values = np.stack([columns[feature.name] for feature in model.features], axis=1).astype(float)
    spans = sliding_window_view(values, model.lookback + ago, axis=0).swapaxes(1, 2)
    is_whole = np.ones(len(spans), dtype=bool)
    for name in {"split", "segment"} & set(columns):
        parts = sliding_window_view(np.unique(columns[name], return_inverse=True)[1], model.lookback + ago)
        is_whole &= (parts == parts[:, :1]).all(axis=1)
    if "split" in columns:
        is_whole &= columns["split"][: len(spans)] == "test"
    else:
        is_whole[: int(0.85 * len(spans))] = False
    places = np.flatnonzero(is_whole)
    chosen = spans[places[np.linspace(0, len(places) - 1, min(n, len(places))).astype(int)]]
    scaled = (chosen - model.scaling.feature_mean) / model.scaling.feature_scale
    return scaled.astype(model.reference.scaled.numpy().dtype)


def measure(model: Model, rows: Array, ago: int, seed: int, figures: Mapping[str, Figures]) -> None:
    """Adds the measures of every method on the changes of one model."""
    subject = Subject(model)
    mean = np.repeat(subject.start[:1], rows.shape[1], axis=0)

    def change(some: Array) -> Array:
        return subject.forecast(some[:, ago:].copy()) - subject.forecast(some[:, : model.lookback].copy())

    for name, attribute in make_methods(subject, ago, mean, seed).items():
        on = (change, rows, mean, attribute(rows))
        by_window = {
            "CPD": cumulative_difference(*on, SHARE),
            "CPP": cumulative_preservation(*on, SHARE),
            "deletion": deletion(*on),
            "insertion": insertion(*on),
        }
        if name != "random":
            by_window["completeness error"] = completeness_error(*on)
        for of_measure in BETTER.keys() & by_window.keys():
            figures[name].by_window.setdefault(of_measure, []).append(by_window[of_measure])


def make_methods(subject: Subject, ago: int, mean: Array, seed: int) -> Mapping[str, Callable[[Array], Array]]:
    """Every method, by its name in the table: rows (n, lookback + ago, n_features) -> scores of that shape."""
    model, random, baseline = subject.model, np.random.default_rng(seed), torch.from_numpy(mean)[None]
    lookback, std = model.lookback, float(model.output_std[0])
    torch.manual_seed(seed)

    def change(rows: Tensor) -> Tensor:
        return subject.differentiable(rows[:, ago:]) - subject.differentiable(rows[:, :lookback])

    def ledger(rows: Array) -> Array:
        spans = [subject.to_original(sliding_window_view(of, lookback, axis=0).swapaxes(1, 2).copy()) for of in rows]
        return np.concatenate([model.changes(windows, ago=ago).contributions for windows in spans]) / std

    def gradients(rows: Array) -> Array:
        found = IntegratedGradients(change).attribute(torch.from_numpy(rows), baseline, n_steps=STEPS)
        return found.detach().double().numpy()

    def swing(rows: Array) -> Array:
        total = np.zeros_like(rows, dtype=float)
        for step in range(ago):
            earlier, later = (torch.from_numpy(rows[:, at : at + lookback].copy()) for at in (step, step + 1))
            found = IntegratedGradients(subject.differentiable).attribute(later, earlier, n_steps=STEPS)
            total[:, ago:] += found.detach().double().numpy()
        return total

    def delta_shap(rows: Array) -> Array:
        newer, total = torch.from_numpy(rows[:, ago:].copy()), np.zeros_like(rows, dtype=float)
        n_new, n_features = min(ago, lookback), rows.shape[2]
        known = newer.clone()
        known[:, lookback - n_new :] = torch.from_numpy(rows[:, lookback - 1 : lookback].copy())
        mask = torch.arange(n_features).expand(lookback, n_features).contiguous()[None]
        sampling = ShapleyValueSampling(subject.differentiable)
        with torch.no_grad():
            found = sampling.attribute(newer, known, feature_mask=mask, n_samples=SHAPLEY_SAMPLES)
            scale = change(torch.from_numpy(rows)) / found[:, -1].sum(dim=1)
        total[:, -n_new:] = (found[:, -n_new:] * scale[:, None, None] / n_new).double().numpy()
        return total

    def times_gradient(rows: Array) -> Array:
        at = torch.from_numpy(rows).requires_grad_()
        (found,) = torch.autograd.grad(change(at).sum(), at)
        return (found * (at.detach() - baseline)).double().numpy()

    return {
        "ledger": ledger,
        f"Integrated Gradients of the change, {STEPS} steps": gradients,
        "SWING": swing,
        "DeltaSHAP": delta_shap,
        "gradient times distance": times_gradient,
        "random": lambda rows: random.normal(size=rows.shape),
    }


if __name__ == "__main__":
    main()
