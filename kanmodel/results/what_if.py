"""`WhatIf`: response curves, the forecasts of a window over the values or shifts of one feature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from kanmodel import html
from kanmodel.explain.alternatives.responses import Response
from kanmodel.network.config import ModelConfig
from kanmodel.results.result import Result
from kanmodel.scaling import Array
from kanmodel.text import with_unit, write_table


@dataclass(frozen=True, eq=False)
class Curve:
    """Forecasts of one window over the values or shifts of one feature.

    Attributes:
        feature: its name.
        unit: its unit; None if unknown.
        kind: ``shift``, values that are added to the feature; ``value``, values that replace it.
        values: (points,), in the feature's unit.
        predictions: (points, n_outputs), original units, as returned by `Model.predict` for the changed windows.
        outside_training_range: whether a changed value is outside the training range, (points,).
    """

    feature: str
    unit: str | None
    kind: Literal["shift", "value"]
    values: Array
    predictions: Array
    outside_training_range: NDArray[Any]


@dataclass(frozen=True, repr=False, eq=False)
class WhatIf(Result):
    """Response curves for each window and feature.

    Attributes:
        outputs: names of the outputs.
        curves: by window, then by feature in the requested order.
    """

    outputs: tuple[str, ...]
    curves: tuple[tuple[Curve, ...], ...]

    @classmethod
    def of(cls, config: ModelConfig, responses: Sequence[Sequence[Response]]) -> WhatIf:
        """The responses by name."""
        return cls(config.outputs, tuple(tuple(_name(config, one) for one in of_window) for of_window in responses))

    def __len__(self) -> int:
        return len(self.curves)

    def __iter__(self) -> Iterator[tuple[Curve, ...]]:
        return iter(self.curves)

    def __getitem__(self, window: int) -> tuple[Curve, ...]:
        return self.curves[window]

    def table(self) -> list[dict[str, Any]]:
        """A row for each window, feature and value, with a column for each output."""
        return [
            {
                "window": window,
                "feature": curve.feature,
                curve.kind: value,
                "outside_training_range": outside,
                **dict(zip(self.outputs, predictions, strict=True)),
            }
            for window, curves in enumerate(self.curves)
            for curve in curves
            for value, outside, predictions in zip(
                curve.values.tolist(),
                curve.outside_training_range.tolist(),
                curve.predictions.tolist(),
                strict=True,
            )
        ]

    def _summary(self) -> list[dict[str, Any]]:
        """A row for each curve and output, with its range."""
        return [
            {
                "window": window,
                "feature": with_unit(curve.feature, curve.unit),
                "kind": curve.kind,
                "from": float(curve.values[0]),
                "to": float(curve.values[-1]),
                "output": output,
                "prediction_from": float(predictions[0]),
                "prediction_to": float(predictions[-1]),
                "lowest": float(predictions.min()),
                "highest": float(predictions.max()),
            }
            for window, curves in enumerate(self.curves)
            for curve in curves
            for output, predictions in zip(self.outputs, curve.predictions.T, strict=True)
        ]

    def _title(self) -> str:
        return "What if"

    def _details(self) -> str:
        summary, rows = self._summary(), self.table()
        return (
            html.write_heading(self._title())
            + html.write_table(summary, list(summary[0]))
            + html.fold("Every value", html.write_table(rows, list(rows[0])))
        )

    def __repr__(self) -> str:
        summary = self._summary()
        return f"{self._title()}\n{write_table(summary, list(summary[0]))}"


def _name(config: ModelConfig, response: Response) -> Curve:
    feature = config.features[response.feature]
    return Curve(
        feature.name,
        feature.unit,
        response.kind,
        response.values,
        response.predictions,
        response.outside_training_range,
    )
