"""Pictures of results as SVG. Importing this package registers one with `draw` for each type of result that has one."""

from kanmodel.show import (
    backtest,
    counterfactual,
    differences,
    drift,
    edge,
    explanation,
    importance,
    network,
    report,
    series,
    what_if,
)

__all__ = [
    "backtest",
    "counterfactual",
    "differences",
    "drift",
    "edge",
    "explanation",
    "importance",
    "network",
    "report",
    "series",
    "what_if",
]
