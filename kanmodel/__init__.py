"""The model core of Kanscope: LSTM+KAN forecasters and their explanations, without HTTP.

    model = kanmodel.load("weather.safetensors")
    model.explain(windows)

`kanmodel/README.md` has more. Names are imported lazily, so that one module of the core can be imported without the
others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kanmodel.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        ExportError,
        InsufficientReferenceError,
        KanscopeError,
        NonFiniteError,
        UnknownNameError,
        UnreadableModelError,
    )
    from kanmodel.learning import fine_tune, train
    from kanmodel.loading import from_file, from_torch, load
    from kanmodel.model import Model
    from kanmodel.results import (
        Ablation,
        Comparisons,
        Counterfactual,
        Counterfactuals,
        Curve,
        Edge,
        Explanation,
        Formulas,
        Importance,
        ModelComparison,
        Report,
        Topology,
        WhatIf,
    )

__all__ = [
    "Ablation",
    "CheckpointError",
    "Comparisons",
    "ConfigError",
    "Counterfactual",
    "Counterfactuals",
    "Curve",
    "DataError",
    "Edge",
    "Explanation",
    "ExportError",
    "Formulas",
    "Importance",
    "InsufficientReferenceError",
    "KanscopeError",
    "Model",
    "ModelComparison",
    "NonFiniteError",
    "Report",
    "Topology",
    "UnknownNameError",
    "UnreadableModelError",
    "WhatIf",
    "fine_tune",
    "from_file",
    "from_torch",
    "load",
    "train",
]

_HOMES = {
    "Model": "model",
    **dict.fromkeys(("fine_tune", "train"), "learning"),
    **dict.fromkeys(("from_file", "from_torch", "load"), "loading"),
    **dict.fromkeys(
        (
            "Ablation",
            "Comparisons",
            "Counterfactual",
            "Counterfactuals",
            "Curve",
            "Edge",
            "Explanation",
            "Formulas",
            "Importance",
            "ModelComparison",
            "Report",
            "Topology",
            "WhatIf",
        ),
        "results",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'kanmodel' has no attribute {name!r}")
    return getattr(import_module(f"kanmodel.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
