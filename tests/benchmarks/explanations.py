"""Explanations and effects in process, compared with Captum: Integrated Gradients with 50 steps and FeatureAblation.

Integrated Gradients covers only inputs, and FeatureAblation only `removed`: an effect is `removed` and `alone`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from captum.attr import FeatureAblation, IntegratedGradients
from table import Row, times_in_turn
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.attribution import explain_windows
from kanmodel.explain.baseline import Baseline, baseline_windows
from kanmodel.explain.effects import each_cell, each_feature, measure_effects

STEPS = 50
AT_ONCE = (1, 16, 32, 64)  # of FeatureAblation, whose best is in the row


def rows(model: LoadedModel) -> Iterator[Row]:
    """`explain_windows` and `measure_effects` of 1 and 32 windows, one torch thread."""
    torch.set_num_threads(1)
    every = model.reference.windows
    start = model.to_model_units(baseline_windows(model, Baseline()))
    captum = IntegratedGradients(lambda x: model.network(x)[:, 0])
    for n, rounds in ((1, 200), (32, 10)):
        windows = every[torch.linspace(0, len(every) - 1, n).long()]
        residual = float(explain_windows(model, windows, 0).residual.max()) / model.output_std[0]
        attribute = partial(captum.attribute, windows, start, n_steps=STEPS)
        peers = {
            f"Captum, {STEPS} steps": attribute,
            f"Captum, {STEPS} steps, internal_batch_size 512": partial(attribute, internal_batch_size=512),
        }
        what = f"explain (flow) {n} window{'s' if n > 1 else ''} in process, largest residual {residual:.1e} std"
        yield beside_best(what, partial(explain_windows, model, windows, 0), peers, rounds)
        yield from ablations(model, windows, start)


def ablations(model: LoadedModel, windows: Tensor, start: Tensor) -> Iterator[Row]:
    """Effects of all features, and of all cells, against a baseline."""
    captum = FeatureAblation(lambda x: model.network(x)[:, 0])
    features = torch.arange(windows.shape[2]).expand(1, *windows.shape[1:])
    for what, parts, mask in (
        ("features", each_feature(model.config), features),
        ("cells", each_cell(model.config), None),
    ):
        attribute = partial(captum.attribute, windows, start, feature_mask=mask)
        peers = {
            f"Captum's FeatureAblation (removed), {n} at once": partial(attribute, perturbations_per_eval=n)
            for n in AT_ONCE
        }
        name = f"effects (removed and alone) of {len(parts)} {what}, {len(windows)} windows in process"
        yield beside_best(name, partial(measure_effects, model, windows, 0, Baseline(), parts), peers, rounds=10)


def beside_best(what: str, ours: Callable[[], object], peers: Mapping[str, Callable[[], object]], rounds: int) -> Row:
    """A row of median times: ours beside the fastest peer, all in turn."""
    own, *theirs = times_in_turn([ours, *peers.values()], rounds)
    name, best = min(zip(peers, theirs, strict=True), key=lambda pair: float(np.median(pair[1])))
    mine, other = np.median(own), np.median(best)
    return Row(what, f"{mine * 1e3:.2f} ms", f"{name}: {other * 1e3:.2f} ms", f"{other / mine:.1f}x")
