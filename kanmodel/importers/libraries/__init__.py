"""Readers of forecasting libraries: from their fitted objects, and what they save, to checked models.

What holds for each of them:

- What is traced is all that the library's `predict` does with a window, with its scalers and its module in it.
- Up to 512 windows of the data, evenly chosen, become the reference. On them the library's forecasts and those of the
  network must be the same to 1e-5 of their spread.
- A window has the rows that the library reads before a forecast, oldest first, and the rows of the forecast too if
  there are columns that are known ahead: only these are read there. Of a static column the newest row before the
  forecast is read.
- Outputs are ``{target}+{step}``, or ``{target}+{step}@{quantile}`` of a model of quantiles.
- The first forecast is one step after a window's end, so that tables can be backtested (`ahead` is 1), unless windows
  have rows of the forecast, whose `ahead` is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from inspect import Parameter, signature
from types import ModuleType
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from torch import nn

from kanmodel.errors import CheckpointError, KanscopeError, UnknownNameError, checked
from kanmodel.importers.from_torch import from_torch
from kanmodel.importers.search.samples import N_REFERENCE
from kanmodel.model import Model
from kanmodel.network.config import Groups
from kanmodel.question import Function, put_options
from kanmodel.tables.statistics.choose import choose_evenly


class Options(TypedDict, total=False):
    """What the readers of all libraries take.

    Attributes:
        units: of features and targets, by name.
        groups: as in `from_torch`.
        integer: likewise.
        fixed: likewise.
    """

    units: Mapping[str, str] | None
    groups: Groups | None
    integer: Sequence[str]
    fixed: Sequence[str]


def reader(function: Function) -> Function:
    """A reader, whose arguments are `checked`, and in whose signature the members of `Options` are."""
    of_torch = signature(from_torch).parameters
    units = Parameter("units", Parameter.KEYWORD_ONLY, default=None, annotation="Mapping[str, str] | None")
    return put_options(checked(function), [units, *(of_torch[name] for name in ("groups", "integer", "fixed"))])  # type: ignore[return-value]


def choose(n: int) -> NDArray[np.int64]:
    """Which of n windows become the reference."""
    return choose_evenly(n, N_REFERENCE)


def read_fitted(package: str, model: object, predict: nn.Module, options: Options, **windows: Any) -> Model:
    """Traces what a package's `predict` does with windows, for a model of its; raises as `from_torch`.

    The `windows` are arguments of `from_torch`; `times`, of each one's last row before the forecast, if it has an
    index; and `has_future`, whether they have rows of the forecast.
    """
    given: dict[str, Any] = {**options}
    units, times = given.pop("units", None) or {}, windows.pop("times", None)
    of_steps = {"horizon": int(windows.pop("horizon")), "ahead": 1 - windows.pop("has_future")}  # numpy's in sktime
    found = from_torch(predict, **of_steps, **windows, **given)
    config = found.config
    targets = ["" if each.parameter else each.name.partition("@")[0] for each in config.targets]
    for name in units:
        if name not in (*config.feature_names, *targets):
            raise UnknownNameError(f"units has no column {name!r}; there are {', '.join(config.feature_names)}")
    config = replace(
        config,
        features=tuple(replace(each, unit=units.get(each.name)) for each in config.features),
        targets=tuple(replace(each, unit=units.get(n)) for each, n in zip(config.targets, targets, strict=True)),
    )
    library = f"{package} {version(package)} {type(model).__name__}, {found.provenance.library}"
    return replace(
        found.with_config(config),
        reference=replace(found.reference, times=times),
        provenance=replace(found.provenance, source=f"from_{package.replace('-', '_')}", library=library),
    )


def import_library(name: str) -> ModuleType:
    """Imports a library that is asked for its own forecasts; raises `CheckpointError` if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("_", "-")
        problem = f"{package} must be installed to read what it has fitted: pip install {package} ({error})"
        raise CheckpointError(problem) from error


@contextmanager
def refusing(problem: str) -> Iterator[None]:
    """Raises `CheckpointError` with the first line of whatever a library raises."""
    try:
        yield
    except KanscopeError:
        raise
    except Exception as error:
        raise CheckpointError(f"{problem}: {(str(error).strip() or repr(error)).splitlines()[0]}") from error


def with_quantiles(names: Sequence[str], quantiles: Sequence[float] | None) -> list[str]:
    """Names of the outputs of quantiles, those of each target together; of the targets alone without quantiles."""
    if quantiles is None:
        return [*names]
    return [f"{name}@{quantile:.4g}" for name in names for quantile in quantiles]
