"""Standardization: original units <-> model units.

Model units are (value - mean) / std of the training rows. A constant column has std 0 and is divided by 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.network.config import Column, ModelConfig

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """The affine maps between units, float64.

    Attributes:
        feature_mean: (n_features,).
        feature_scale: (n_features,), never 0.
        output_mean: (n_outputs,).
        output_scale: (n_outputs,), never 0.
        dtype: type of values in model units.
        feature_limit: magnitude up to which values are guaranteed to be finite in model units, (n_features,).
    """

    feature_mean: Array
    feature_scale: Array
    output_mean: Array
    output_scale: Array
    dtype: torch.dtype
    feature_limit: Array = field(init=False)

    def __post_init__(self) -> None:
        largest = torch.finfo(self.dtype).max / 2
        limit = np.minimum(largest, largest * np.minimum(self.feature_scale, 1) - np.abs(self.feature_mean))
        object.__setattr__(self, "feature_limit", limit)

    @classmethod
    def of(cls, config: ModelConfig) -> Scaling:
        """The scaling of a config."""
        outputs = [config.target_of(output) for output in range(len(config.outputs))]
        return cls(*_mean_and_scale(config.features), *_mean_and_scale(outputs), dtype=getattr(torch, config.dtype))

    def features_to_model(self, windows: Array) -> Tensor:
        """(..., n_features) in original units -> the same shape in model units."""
        writable = np.require(windows, np.float64, ["C", "W"])  # torch warns of arrays that are read-only
        original = torch.from_numpy(writable)
        mean, scale = torch.from_numpy(self.feature_mean), torch.from_numpy(self.feature_scale)
        return (original - mean).div_(scale).to(self.dtype)  # in place: one large array less, a third of the time

    def features_to_original(self, windows: Tensor) -> Array:
        """(..., n_features) in model units -> the same shape in original units."""
        original: Array = windows.double().numpy() * self.feature_scale + self.feature_mean
        return original

    def outputs_to_model(self, outputs: Array) -> Tensor:
        """(..., n_outputs) in original units -> the same shape in model units."""
        return torch.from_numpy((outputs - self.output_mean) / self.output_scale).to(self.dtype)

    def outputs_to_original(self, outputs: Tensor) -> Array:
        """(..., n_outputs) in model units -> the same shape in original units."""
        with np.errstate(over="ignore"):
            original: Array = outputs.double().numpy() * self.output_scale + self.output_mean
        return original


def read_only(values: Array) -> Array:
    """The same array, which can no longer be changed: several callers share it."""
    values.setflags(write=False)
    return values


def _mean_and_scale(columns: Sequence[Column]) -> tuple[Array, Array]:
    std = np.array([column.std for column in columns], dtype=np.float64)
    return np.array([column.mean for column in columns], dtype=np.float64), np.where(std > 0, std, 1.0)
