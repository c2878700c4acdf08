"""The model core of Kanscope: LSTM+KAN forecasters and their explanations, without HTTP.

    model = kanmodel.load("weather.safetensors")
    model.explain(windows)

`kanmodel/README.md` goes on. What stands here is imported when it is first used, so that one module of the core can be
imported without the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kanmodel.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        InsufficientReferenceError,
        KanscopeError,
        NonFiniteError,
        UnknownNameError,
        UnreadableModelError,
    )
    from kanmodel.learning import fine_tune, train
    from kanmodel.model import Model, from_file, from_torch, load
    from kanmodel.results import Edge, Explanation, Formula, Importance, Report, Topology

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Edge",
    "Explanation",
    "Formula",
    "Importance",
    "InsufficientReferenceError",
    "KanscopeError",
    "Model",
    "NonFiniteError",
    "Report",
    "Topology",
    "UnknownNameError",
    "UnreadableModelError",
    "fine_tune",
    "from_file",
    "from_torch",
    "load",
    "train",
]

_OF_LEARNING = ("fine_tune", "train")
_OF_MODEL = ("Model", "from_file", "from_torch", "load")
_OF_RESULTS = ("Edge", "Explanation", "Formula", "Importance", "Report", "Topology")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'kanmodel' has no attribute {name!r}")
    homes = {"learning": _OF_LEARNING, "model": _OF_MODEL, "results": _OF_RESULTS}
    home = next((home for home, names in homes.items() if name in names), "errors")
    return getattr(import_module(f"kanmodel.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
