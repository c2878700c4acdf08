"""Pictures of results as SVG. Importing this package registers one with `draw` for each type of result that has one."""

from kanmodel.show import alternatives, backtest, bars, drift, edge, explanation, flow, network, report  # noqa: F401
