"""Pictures of results as SVG. Importing this package registers one with `draw` for each type of result that has one."""

from kanmodel.show import backtest, edge, explanation, importance, network, series, what_if

__all__ = ["backtest", "edge", "explanation", "importance", "network", "series", "what_if"]
