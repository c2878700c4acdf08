"""The evidence of a search: windows, and the original model's predictions for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kanmodel.importers.assembly import assemble
from kanmodel.importers.comparison import Bounds
from kanmodel.importers.search.space import INPUTS, PREDICTIONS, Reading
from kanmodel.network.chain import Network
from kanmodel.network.config import ModelConfig
from kanmodel.scaling import Array, Scaling


@dataclass(frozen=True)
class Evidence:
    """Inputs and predictions that a reading must reproduce.

    Attributes:
        windows: inputs of the check, as given, (n, lookback, n_features).
        expected: the original model's predictions for them, as given, (n, n_outputs).
        reference: further windows without predictions, (n, lookback, n_features).
        shapes: features and targets with their scaling, lookback and horizon; its layer is a placeholder.
        tolerance: in standard deviations of each output.
    """

    windows: Array
    expected: Array
    reference: Array
    shapes: ModelConfig
    tolerance: float

    @cached_property
    def bounds(self) -> Bounds:
        """The allowed differences."""
        return Bounds.of(self.expected, self.tolerance)

    @cached_property
    def scaling(self) -> Scaling:
        """Original units <-> model units."""
        return Scaling.of(self.shapes)

    def to_model(self, windows: Array, units: str) -> Tensor:
        """Converts windows to model units, float64."""
        if units == "original":
            windows = (windows - self.scaling.feature_mean) / self.scaling.feature_scale
        return torch.from_numpy(np.ascontiguousarray(windows))

    def from_model(self, outputs: Tensor, units: str) -> Array:
        """Converts outputs from model units."""
        found: Array = outputs.double().numpy()
        return found * self.scaling.output_scale + self.scaling.output_mean if units == "original" else found

    def build(self, reading: Reading, dtype: torch.dtype | None = None) -> Network:
        """Builds the network of a reading, in the dtype of its weights or another."""
        chain = reading.chain()
        return assemble(chain, self.shapes, dtype or chain.dtype)

    def predict(self, network: Network, reading: Reading, windows: Array) -> Array:
        """Predictions of a network, in the units of the known predictions."""
        chosen = reading.chosen
        x = self.to_model(windows, chosen[INPUTS]).to(getattr(torch, network.config.dtype))
        with torch.inference_mode():
            return self.from_model(network(x), chosen[PREDICTIONS])
