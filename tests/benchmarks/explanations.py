"""Explanations in process, compared with Captum's Integrated Gradients with 50 steps, which covers only inputs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from captum.attr import IntegratedGradients
from table import Row, times_in_turn

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.attribution import explain_windows
from kanmodel.explain.baseline import Baseline, baseline_windows

STEPS = 50


def rows(model: LoadedModel) -> Iterator[Row]:
    """`explain_windows` of 1 and 32 windows, one torch thread."""
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
        ours, *theirs = times_in_turn([partial(explain_windows, model, windows, 0), *peers.values()], rounds)
        name, best = min(zip(peers, theirs, strict=True), key=lambda pair: float(np.median(pair[1])))
        yield Row(
            f"explain (flow) {n} window{'s' if n > 1 else ''} in process, largest residual {residual:.1e} std",
            f"{np.median(ours) * 1e3:.2f} ms",
            f"{name}: {np.median(best) * 1e3:.2f} ms",
            f"{np.median(best) / np.median(ours):.1f}x",
        )
