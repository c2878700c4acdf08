"""The benchmark of lags: what counts as found, and that lags of a model that reads known steps are."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import make_chain

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks" / "faithfulness"))

import lags

from kanmodel import Model
from kanmodel.network.config import ModelConfig, plain_layers
from kanmodel.tables.columns import Feature, Target


def test_recall_counts_planted_pairs_among_the_highest_scores():
    """Of two planted pairs one is among the two highest scores."""
    scores = np.array([[0.1, 0.9, 0.0], [0.5, 0.2, 0.0]])
    assert lags.recall(scores, ((0, 1), (1, 0))) == 1
    assert lags.recall(scores, ((0, 1), (1, 1))) == 0.5
    assert lags.recall(scores, ((0, 2),)) == 0


@pytest.mark.parametrize("planted", [((0, 3), (1, 0), (1, 1), (1, 2)), ((5, 9),)])
def test_each_method_finds_the_steps_that_a_model_reads(planted):
    """On a model with weights for the planted pairs alone, each method has the recall 1, and so have the runs."""
    features = tuple(Feature(f"x{number}") for number in range(lags.N_FEATURES))
    n_inputs = lags.N_FEATURES * lags.LOOKBACK
    head = plain_layers([n_inputs, 1])
    config = ModelConfig(features, (Target("y"),), lags.LOOKBACK, 1, head, readout="flatten", dtype="float64")
    loaded = make_chain(config, seed=1, n_reference=60)
    with torch.no_grad():
        loaded.network.head[0].mask[:] = 0
        for feature, lag in planted:
            loaded.network.head[0].mask[0, (lags.LOOKBACK - 1 - lag) * lags.N_FEATURES + feature] = 1
    targets = replace(loaded).scaling.outputs_to_original(replace(loaded).reference_outputs)
    model = Model.of(replace(loaded, reference=replace(loaded.reference, targets=targets)))
    for scores in (
        lags.read_lags(model),
        lags.explain_steps(model),
        lags.gradient_times_input(model),
        lags.permute_steps(model, np.random.default_rng(0)),
    ):
        assert lags.recall(scores, planted) == 1
    assert lags.judge_runs(model, planted)[0] == 1
