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
    from kanmodel.explain.ablation import Ablation
    from kanmodel.explain.attribution import Explanation
    from kanmodel.explain.comparison import Comparisons
    from kanmodel.explain.counterfactual import Counterfactual, Counterfactuals
    from kanmodel.explain.curves import Edge
    from kanmodel.explain.formula import Formulas
    from kanmodel.explain.importance import Importance
    from kanmodel.explain.model_comparison import ModelComparison
    from kanmodel.explain.report import Report
    from kanmodel.explain.topology import Topology
    from kanmodel.explain.what_if import Curve, WhatIf
    from kanmodel.model import Model
    from kanmodel.origins import fine_tune, from_file, from_torch, load, train

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
    "Ablation": "explain.ablation",
    "Comparisons": "explain.comparison",
    **dict.fromkeys(("Counterfactual", "Counterfactuals"), "explain.counterfactual"),
    "Edge": "explain.curves",
    "Explanation": "explain.attribution",
    "Formulas": "explain.formula",
    "Importance": "explain.importance",
    "ModelComparison": "explain.model_comparison",
    "Report": "explain.report",
    "Topology": "explain.topology",
    **dict.fromkeys(("Curve", "WhatIf"), "explain.what_if"),
    "Model": "model",
    **dict.fromkeys(("fine_tune", "from_file", "from_torch", "load", "train"), "origins"),
}  # others are errors


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'kanmodel' has no attribute {name!r}")
    return getattr(import_module(f"kanmodel.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
