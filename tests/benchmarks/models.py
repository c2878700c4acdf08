"""Untrained models for serving benchmarks: one of realistic size, and three small ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from kanmodel.checkpoint import save_checkpoint
from kanmodel.forecaster import Forecaster, Provenance, Reference
from kanmodel.network.config import ModelConfig, RecurrentConfig, plain_layers
from kanmodel.network.network import Network
from kanmodel.tables.columns import Feature, Target

NAME = "large"
LARGE = "model L"  # in the rows of tables
N_FEATURES, LOOKBACK, HIDDEN = 20, 48, 64
WIDTH = [HIDDEN, 16, 1]
SMALL = (8, 16, 24)  # units of the small models
SPREAD = 5.0  # scale of the splines' coefficients, so that the head is as curved as a trained one


def large_model(seed: int = 0) -> Forecaster:
    """An LSTM of 20 features and 64 units over 48 steps, and a KAN [64, 16, 1] of grid 5 and order 3."""
    return make_model(N_FEATURES, LOOKBACK, WIDTH, seed)


def small_models() -> dict[str, Forecaster]:
    """LSTMs with 8 to 24 units and efficient-kan layers (B-splines of grid 5 and order 3, and SiLU), by name."""
    return {f"small-{units}": make_model(6, 24, [units, units // 2, 1], units) for units in SMALL}


def make_model(n_features: int, lookback: int, width: list[int], seed: int) -> Forecaster:
    """An LSTM and a KAN with random weights."""
    torch.manual_seed(seed)
    config = ModelConfig(
        features=tuple(Feature(f"feature_{number}", None, 0.0, 1.0, -10.0, 10.0) for number in range(n_features)),
        targets=(Target("target", None, 0.0, 1.0),),
        lookback=lookback,
        horizon=1,
        head=plain_layers(width),
        recurrent=RecurrentConfig("lstm", width[0]),
        dtype="float32",
    )
    network = Network(config)
    with torch.no_grad():
        for layer in network.head:
            layer.coef.mul_(SPREAD)
    noise = torch.randn(512, lookback, n_features)
    windows = 0.5 * noise + torch.randn(512, 1, n_features)  # each window has its own level, as real series do
    return Forecaster(network, Reference(windows, network.config), {}, Provenance.now("train", verified=True))


def original_windows(model: Forecaster) -> np.ndarray:
    """The reference windows as clients send them, in original units."""
    return model.scaling.features_to_original(model.reference.scaled).round(6)


def save_large_model(folder: Path) -> Path:
    """Saves it as a checkpoint."""
    path = folder / f"{NAME}.safetensors"
    save_checkpoint(large_model(), path)
    return path
