"""The forward pass in process: a KAN compared with other libraries, and whole forecasts with the training module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from models import large_model
from table import Row, times_in_turn
from torch import Tensor, nn

from kanmodel.network.bases import BSpline
from kanmodel.network.config import plain_layers
from kanmodel.network.layer import KANLayer
from kanmodel.network.network import FrozenLayers
from kanmodel.onnx import accelerate

try:
    import flashkan
    import inkan
    import kan as pykan
except ImportError:
    pykan = None

WIDTH = [64, 16, 1]
ROUNDS = {1: 300, 32: 200, 512: 40}


def rows() -> Iterator[Row]:
    """KANs on even and on uneven grids, then whole forecasts; one torch thread."""
    torch.set_num_threads(1)
    with torch.inference_mode():
        for grid in ("uniform", "adaptive"):
            yield from kan_rows(grid)
        yield forecast_row()
    yield from prediction_rows()


def kan_rows(grid: str) -> Iterator[Row]:
    """A KAN [64, 16, 1] of grid 5 and order 3, batches of 1, 32 and 512."""
    torch.manual_seed(0)
    layers = [KANLayer(config).eval().requires_grad_(False) for config in plain_layers(WIDTH)]
    if grid == "adaptive":
        reaching = torch.randn(1000, WIDTH[0])
        for layer in layers:
            layer.update_grid(reaching)
            reaching = layer(reaching)
    frozen = FrozenLayers(layers)
    peers: dict[str, Callable[[Tensor], Tensor]] = {"dense basis, as efficient-kan": EfficientKAN(layers)}
    if pykan is not None and grid == "uniform":
        peers["pykan 0.2.8 speed()"] = pykan.KAN(width=[*WIDTH], grid=5, k=3, auto_save=False, seed=0).speed()
        peers["flashkan 0.2, compiled"] = with_weights(layers, flashkan.KANLayer)
        peers["inkan 0.5, compiled"] = with_weights(layers, inkan.KANLayer)
    for batch, rounds in ROUNDS.items():
        x = torch.rand(batch, WIDTH[0]) * 2 - 1
        for name, peer in peers.items():  # pykan's has its own weights
            assert "pykan" in name or torch.allclose(frozen.forward(x), peer(x), atol=1e-5), name
        ours, *theirs = times_in_turn(
            [lambda x=x: frozen.forward(x), *(lambda x=x, peer=peer: peer(x) for peer in peers.values())], rounds
        )
        for (name, _), seconds in zip(peers.items(), theirs, strict=True):
            yield comparison(f"KAN [64, 16, 1], {grid} grid, batch {batch}", ours, name, seconds)


def forecast_row() -> Row:
    """One window through LSTM and KAN."""
    model = large_model()
    window = model.reference.scaled[:1]
    ours, plain = times_in_turn([lambda: model.frozen.forward(window), lambda: model.network(window)], 300)
    return comparison("forward, LSTM 20 to 64 over 48 steps and KAN [64, 16, 1], 1 window", ours, "the module", plain)


def prediction_rows() -> Iterator[Row]:
    """The whole prediction with scaling and checks, in original units: as served, and by torch alone."""
    plain = large_model()
    accelerated = accelerate(plain)
    reference = plain.scaling.features_to_original(plain.reference.scaled)
    for batch in (1, 8, 32):
        windows = reference[:batch]
        ours, torchs = times_in_turn(
            [lambda w=windows: accelerated.predict(w), lambda w=windows: plain.predict(w)], 300
        )
        yield comparison(f"predict, the same model, {batch} windows", ours, "torch", torchs)


def comparison(work: str, ours: np.ndarray, name: str, theirs: np.ndarray) -> Row:
    """Medians and the speedup."""
    median, peer = np.median(ours), np.median(theirs)
    return Row(work, f"{median * 1e6:.0f} µs", f"{name}: {peer * 1e6:.0f} µs", f"{peer / median:.1f}x")


def with_weights(layers: Sequence[KANLayer], kind: type[nn.Module]) -> nn.Module:
    """The same layers in a package with coefficients (n_outputs, n_inputs, n_bases) and a SiLU base."""
    theirs = nn.Sequential(*(kind(*layer.mask.shape[::-1]) for layer in layers)).eval()
    for one, layer in zip(theirs, layers, strict=True):
        one.spline_weight.copy_(layer.weights())
        one.base_weight.copy_(layer.mask * layer.scale_base)
    return theirs


class EfficientKAN:
    """The same layers as in efficient-kan, which is not on PyPI: all basis values, then one matrix product.

    Args:
        layers: the layers with the weights.
    """

    def __init__(self, layers: Sequence[KANLayer]) -> None:
        self._layers = [
            (
                layer.grid,
                layer.weights().flatten(1).contiguous(),
                layer.mask * layer.scale_base,
                cast(BSpline, layer.config.basis).order,
            )
            for layer in layers
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """(batch, n_inputs) -> (batch, n_outputs)."""
        for grid, spline_weight, base_weight, order in self._layers:
            bases = self._basis(x.unsqueeze(-1), grid, order)
            base = nn.functional.linear(nn.functional.silu(x), base_weight)
            x = base + nn.functional.linear(bases.flatten(1), spline_weight)
        return x

    @staticmethod
    def _basis(x: Tensor, grid: Tensor, order: int) -> Tensor:
        bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
        for k in range(1, order + 1):
            rising = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)]) * bases[:, :, :-1]
            falling = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:(-k)]) * bases[:, :, 1:]
            bases = rising + falling
        return bases
