"""The columns that a forecaster reads and predicts, and their scaling.

Model units are (value - mean) / std of the training rows; a constant column has std 0 and is divided by 1.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.errors import ConfigError, Magnitude, Spread, check_config, check_text, quote

QUANTILE = re.compile(r"(.*)(?<!:lower|:upper|:width|:below|:above)(@0\.\d+)")  # of a target that is a quantile
_MARKUP = frozenset("`*_<>[]|\\")  # of Markdown and HTML


def check_title(title: object, place: str) -> None:
    """Raises `ConfigError` unless a title is printable text without the signs of markup, as it stands in prose."""
    check_text(title, place)
    if not str(title).strip() or not _MARKUP.isdisjoint(str(title)):
        raise ConfigError(f"{place} must be words without any of {' '.join(sorted(_MARKUP))}, but is {quote(title)}")


@dataclass(frozen=True)
class Column:
    """One column of a table, with its scaling.

    Attributes:
        name: the column's name.
        unit: its unit; None if unknown.
        mean: mean over the training rows, original units.
        std: standard deviation over the training rows, original units; 0 for a constant column.
        title: what it is in the words of its readers, a noun phrase such as ``change of temperature in six hours``, if
            it has more than its name.
    """

    name: str
    unit: str | None = None
    mean: Magnitude = 0.0
    std: Spread = 1.0
    title: Annotated[str, check_title] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_config(self)


@dataclass(frozen=True)
class Target(Column):
    """One forecast column, or one class.

    Attributes:
        parameter: whether it is a parameter of the forecast's distribution, such as ``load:scale``, of which there are
            no actual values.
    """

    parameter: bool = field(default=False, kw_only=True)


def column_of(target: str, names: Container[str]) -> str:
    """The column of a target's actual values; a quantile without its own has that of what it is a quantile of."""
    found = QUANTILE.fullmatch(target)
    return found[1] if found and target not in names else target


@dataclass(frozen=True)
class Feature(Column):
    """One input column, with statistics of its training values, in its own unit.

    Attributes:
        min: smallest training value, original units; None if unknown.
        max: largest training value, original units; None if unknown.
        integer: whether its values are whole numbers, which a counterfactual keeps whole.
        fixed: whether nobody can change it, like the calendar; a counterfactual leaves it unchanged.
        mask: the feature that is 1 where this one has a value and 0 where it is missing, if the model reads one.
        fill: what stands for a missing value then, as in training, original units.
    """

    min: Magnitude | None = None
    max: Magnitude | None = None
    integer: bool = field(default=False, kw_only=True)
    fixed: bool = field(default=False, kw_only=True)
    mask: str | None = field(default=None, kw_only=True)
    fill: Magnitude = field(default=0.0, kw_only=True)

    @property
    def is_binary(self) -> bool:
        """Whether its values are 0 and 1 alone, as those of yes and no."""
        return self.integer and (self.min, self.max) == (0, 1)


@dataclass(frozen=True)
class Scaling:
    """The affine maps between model units and original units, float64."""

    feature_mean: Array  # (n_features,)
    feature_scale: Array  # (n_features,), not 0
    output_mean: Array  # (n_outputs,)
    output_scale: Array  # (n_outputs,), not 0
    dtype: torch.dtype  # type of values in model units
    feature_limit: Array = field(init=False)  # magnitude up to which values are finite in model units, (n_features,)

    def __post_init__(self) -> None:
        largest = torch.finfo(self.dtype).max / 2
        limit = np.minimum(largest, largest * np.minimum(self.feature_scale, 1) - np.abs(self.feature_mean))
        object.__setattr__(self, "feature_limit", limit)

    @classmethod
    def of(cls, features: Sequence[Column], outputs: Sequence[Column], dtype: str) -> Scaling:
        """The scaling of columns; `dtype` is the name of a torch dtype."""
        mean, output_mean = (np.array([c.mean for c in columns], np.float64) for columns in (features, outputs))
        std, output_std = (np.array([c.std for c in columns], np.float64) for columns in (features, outputs))
        scale, output_scale = (np.where(each > 0, each, 1.0) for each in (std, output_std))
        return cls(mean, scale, output_mean, output_scale, getattr(torch, dtype))

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

    def outputs_to_original(self, outputs: Tensor) -> Array:
        """(..., n_outputs) in model units -> the same shape in original units."""
        with np.errstate(over="ignore"):
            original: Array = outputs.double().numpy() * self.output_scale + self.output_mean
        return original
