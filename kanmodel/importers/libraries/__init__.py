"""Adapters of forecasting libraries: from their fitted objects, and what they save, to checked models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from kanmodel.errors import CheckpointError, UnknownNameError
from kanmodel.forecaster import Forecaster


def import_library(name: str) -> ModuleType:
    """Imports a library that is asked for its own forecasts; raises `CheckpointError` if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("_", "-")
        problem = f"{package} must be installed to read what it has fitted: pip install {package} ({error})"
        raise CheckpointError(problem) from error


def describe(
    found: Forecaster,
    package: str,
    kind: str,
    units: Mapping[str, str] | None = None,
    times: tuple[str, ...] | None = None,
) -> Forecaster:
    """A model with the units of its columns, the times of its windows, and the kind of model of a package it was."""
    config, units = found.config, units or {}
    features = tuple(replace(each, unit=units.get(each.name)) for each in config.features)
    targets = tuple(replace(each, unit=units.get(each.name.partition("@")[0])) for each in config.targets)
    names = {*config.feature_names, *(each.name.partition("@")[0] for each in targets)}
    for name in units:
        if name not in names:
            raise UnknownNameError(f"units has no column {name!r}; there are {', '.join(config.feature_names)}")
    library = f"{package} {version(package)} {kind}, {found.provenance.library}"
    return replace(
        found.with_config(replace(config, features=features, targets=targets)),
        reference=replace(found.reference, times=times),
        provenance=replace(found.provenance, source=f"from_{package.replace('-', '_')}", library=library),
    )
