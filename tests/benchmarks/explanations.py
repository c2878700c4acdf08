"""Explanations, effects and Shapley values in process, compared with Captum.

`python tests/benchmarks/explanations.py` prints the rows of three LSTMs over 24, 12 and 14 hours of 20, 13 and 16
features of the bundled weather, of 1 and of 32 windows, with 2 and with 1 thread: ratios of processor time, which a
busy machine does not change much, and of wall time. Integrated Gradients has 50 steps, and covers only inputs. An
effect is `removed` and `alone`, and FeatureAblation measures one of them: it is called twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import get_args

import numpy as np
import torch
from captum.attr import FeatureAblation, IntegratedGradients, ShapleyValueSampling
from table import Row, print_table
from torch import Tensor

from kanmodel.attribution.baseline import Baseline, baseline_windows, spread_windows
from kanmodel.attribution.effects import each_cell, each_feature, measure_effects, select_cells
from kanmodel.attribution.ledger import LedgerOptions, explain_windows
from kanmodel.attribution.paths.path import Detail
from kanmodel.attribution.shapley import Orders, measure_shapley
from kanmodel.checkpoint import load_checkpoint
from kanmodel.forecaster import Forecaster

STEPS = 50
SAMPLES = 25
AT_ONCE = (1, 16, 32, 64)  # of FeatureAblation, whose best is in the row
EXACT = LedgerOptions(path_nodes=257, halvings=0)
LONE = 1 / 3  # place of the lone window among the reference windows
SMALLER = {"12 x 13": (13, {"lookback": 12, "hidden": 16, "seed": 3}), "14 x 16": (16, {"lookback": 14, "hidden": 24})}


def rows(model: Forecaster, name: str = "24 x 20", rounds: int = 15) -> Iterator[Row]:
    """`explain_windows` and `measure_effects` of 1 and 32 windows, on one thread as questions are."""
    torch.set_num_threads(1)
    every = model.reference.scaled
    start = model.to_model_units(baseline_windows(model, Baseline()))
    captum = IntegratedGradients(lambda x: model.network(x)[:, 0])
    for windows, repeats in ((every[int(LONE * len(every)), None], 6 * rounds), (spread_windows(model, 32), rounds)):
        exact = explain_windows(model, windows.double(), 0, options=EXACT)
        attribute = partial(captum.attribute, windows, start, n_steps=STEPS)
        off = attribute().detach().numpy() * model.scaling.output_scale[0] - exact.steps
        peers = {f"Captum, {STEPS} steps, off by {np.abs(off).max() / exact.tolerance:.2f} tolerances": attribute}
        calls = {}
        for detail in get_args(Detail):
            found = explain_windows(model, windows, 0, detail=detail)
            off = np.abs(found.steps - exact.steps).max() / exact.tolerance
            what = f"{name}: explain ({detail}) {count(windows)}, {found.path_nodes.mean():.0f} nodes, off by {off:.2f}"
            calls[what] = partial(explain_windows, model, windows, 0, detail=detail)
        yield from beside_best(calls, peers, repeats)
        yield from ablations(model, name, windows, start, rounds)
    yield from shapley(model, name, windows, start)


def ablations(model: Forecaster, name: str, windows: Tensor, start: Tensor, rounds: int) -> Iterator[Row]:
    """Effects of all features, and of all cells, against a baseline."""
    captum, starts = FeatureAblation(lambda x: model.network(x)[:, 0]), start.expand_as(windows).contiguous()
    features = torch.arange(windows.shape[2]).expand(1, *windows.shape[1:])

    def both(**options: object) -> None:
        captum.attribute(windows, starts, **options)
        captum.attribute(starts, windows, **options)

    for what, parts, mask in (
        ("features", each_feature(model.config), features),
        ("cells", each_cell(model.config), None),
    ):
        if what == "cells" and len(windows) > 1:
            rounds = 3
        peers = {
            f"Captum's FeatureAblation, twice, {n} at once": partial(both, feature_mask=mask, perturbations_per_eval=n)
            for n in AT_ONCE
        }
        what = f"{name}: effects (removed and alone) of {len(parts)} {what}, {count(windows)}"
        yield from beside_best({what: partial(measure_effects, model, windows, 0, Baseline(), parts)}, peers, rounds)


def shapley(model: Forecaster, name: str, windows: Tensor, start: Tensor) -> Iterator[Row]:
    """Shapley values of ten groups of features, from all coalitions, beside Captum's sampling of 25 permutations."""
    groups = np.array_split(np.arange(windows.shape[2]), 10)
    parts = select_cells(model.config, [members.tolist() for members in groups])
    mask = torch.from_numpy(np.repeat(np.arange(10), [len(members) for members in groups]))
    captum, mask = (
        ShapleyValueSampling(lambda x: model.network(x)[:, 0]),
        mask.expand(1, *windows.shape[1:]).contiguous(),
    )

    def sample(n: int) -> None:
        with torch.no_grad():
            captum.attribute(windows, start, feature_mask=mask, n_samples=SAMPLES, perturbations_per_eval=n)

    what = f"{name}: Shapley values of 10 groups, exact, {count(windows)}"
    ours = {what: partial(measure_shapley, model, windows, 0, Baseline(), parts, Orders())}
    for n in (1, 10):
        peers = {f"Captum's Shapley value sampling, {SAMPLES} permutations, {n} at once": partial(sample, n)}
        yield from beside_best(ours, peers, 3)


def count(windows: Tensor) -> str:
    """The number of windows in words."""
    return f"{len(windows)} window{'s' if len(windows) > 1 else ''}"


def beside_best(
    calls: Mapping[str, Callable[[], object]], peers: Mapping[str, Callable[[], object]], rounds: int
) -> Iterator[Row]:
    """Rows of median processor times, each beside the fastest peer, all in turn."""
    every = [*calls.values(), *peers.values()]
    for call in every:
        call()
    seconds = np.empty((2, rounds, len(every)))  # of the processor, and of the clock
    for number in range(rounds):
        for place, call in enumerate(every):
            before = process_time(), perf_counter()
            call()
            seconds[:, number, place] = process_time() - before[0], perf_counter() - before[1]
    processor, wall = np.median(seconds, axis=1)
    best = len(calls) + int(processor[len(calls) :].argmin())
    name = [*calls, *peers][best]
    for place, what in enumerate(calls):
        ratio = f"{processor[best] / processor[place]:.1f}x, wall {wall[best] / wall[place]:.1f}x"
        yield Row(what, f"{processor[place] * 1e3:.2f} ms", f"{name}: {processor[best] * 1e3:.2f} ms", ratio)


def make_models() -> Iterator[tuple[str, Forecaster]]:
    """The bundled model, and two on fewer of its features."""
    sys.path.insert(0, str(Path(__file__).parent / "faithfulness"))
    from nodes import make_weather

    from service.models.repository import BUNDLED

    yield "24 x 20", load_checkpoint(BUNDLED / "nyc-weather.safetensors")
    for name, (n_features, options) in SMALLER.items():
        yield name, make_weather(n_features, **options)


if __name__ == "__main__":
    print_table(row for name, model in make_models() for row in rows(model, name))
