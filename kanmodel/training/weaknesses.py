"""What a forecaster of some metrics must be warned of: it is constant, or a simple forecast is as good."""

from __future__ import annotations

from collections.abc import Mapping

from kanmodel.tables.roles import TrainingTable
from kanmodel.text import write_figure

LEAST_SPREAD = 0.1  # of forecasts, in standard deviations of what came, below which they are called constant
TOLERANCE = 1.03  # times the error of a ridge regression


def find_weaknesses(metrics: Mapping[str, float], table: TrainingTable) -> list[str]:
    """Sentences with figures of the test part, see `kanmodel.training.training.fit`; none if there is no reason."""
    found = list[str]()
    if not table.spec.ahead and not table.last_value:
        found.append(
            "ahead is 0, so the target's value in each row is forecast from that very row: give ahead, unless the "
            "column is shifted already; then last_value says what is known of it"
        )
    if metrics["test_spread"] < LEAST_SPREAD:
        found.append(
            "the forecasts are nearly constant: on the test part their standard deviation is "
            f"{metrics['test_spread']:.2g} of that of the actual values"
        )
    season = f"the seasonal naive forecast, of {metrics.get('season', 0):.0f} steps before,"
    simple = {"persistence": ("repeating the last value", 1.0), "seasonal_naive": (season, 1.0)}
    for name, (called, tolerance) in (simple | {"ridge": ("a ridge regression", TOLERANCE)}).items():
        if metrics["test_mae"] >= tolerance * metrics.get(f"{name}_mae", float("inf")):
            figures = " beside ".join(write_figure(metrics[key]) for key in (f"{name}_mae", "test_mae"))
            found.append(f"{called} is better on the test part: mean absolute error {figures} of the model")
    return found
