"""The model core of Kanscope: LSTM+KAN forecasters and their explanations, without HTTP.

    model = kanmodel.load("weather.safetensors")
    model.explain(windows)

Names are imported lazily, so that one module of the core can be imported without the others; `__init__.pyi` has them
for type checkers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {  # by module
    "errors": "CheckpointError ConfigError DataError ExportError InsufficientReferenceError "
    "KanscopeError NonFiniteError UnknownNameError UnreadableModelError",
    "structure.ablation": "Ablation",
    "structure.attention": "Attention AttentionWeights",
    "attribution.explanation": "Explanation",
    "forecasts.backtest": "Backtest",
    "forecasts.forecasts": "Forecasts",
    "attribution.comparison": "Comparisons",
    "alternatives.counterfactual": "Counterfactual Counterfactuals",
    "structure.curves": "Edge",
    "monitoring.drift": "Drift",
    "attribution.explanations": "Explanations",
    "formula.formula": "Formulas",
    "structure.importance": "Importance",
    "attribution.changes": "Changes",
    "structure.model_comparison": "ModelComparison",
    "report.faithfulness": "Agreement Faithfulness",
    "report.report": "Report",
    "structure.pruning": "FidelityPoint",
    "structure.topology": "Topology",
    "monitoring.trust": "Trust WindowTrust",
    "alternatives.what_if": "Curve WhatIf",
    "model": "Model",
    "importers.from_file": "from_file",
    "importers.from_torch": "from_torch",
    "importers.libraries.darts": "from_darts",
    "importers.libraries.gluonts": "from_gluonts",
    "importers.libraries.neuralforecast": "from_neuralforecast",
    "importers.libraries.pytorch_forecasting": "from_pytorch_forecasting",
    "importers.libraries.sktime": "from_sktime",
    "origins": "fine_tune from_pretrained load prepare train",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kanmodel' has no attribute {name!r}")
    return getattr(import_module(f"kanmodel.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
