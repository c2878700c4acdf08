"""Adapters of forecasting libraries: from their fitted objects, and what they save, to checked models."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from kanmodel.errors import CheckpointError


def import_library(name: str) -> ModuleType:
    """Imports a library that is asked for its own forecasts; raises `CheckpointError` if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0].replace("_", "-")
        problem = f"{package} must be installed to read what it has fitted: pip install {package} ({error})"
        raise CheckpointError(problem) from error
