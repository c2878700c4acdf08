"""`Comparisons`: the difference of two forecasts, divided among features, into a data part and a model part.

F(x) is the forecast of one model for a window x, G(y) that of another for a window y. Whether the window or the model
changes first makes a difference, so both parts are means over the two orders, the Shapley value of a game with two
players (Shapley 1953):

    data     ((F(x) - F(y)) + (G(x) - G(y))) / 2
    model    ((F(x) - G(x)) + (F(y) - G(y))) / 2

The data part is divided among features by the mean of both models' ledgers from y to x; the model part by the
difference of their ledgers from a shared baseline b, which leaves the baseline shift F(b) - G(b). Contributions and
baseline shift sum to F(x) - G(y), up to the residual.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import Baseline
from kanmodel.attribution.ledger import Ledger, LedgerOptions, explain_windows
from kanmodel.computing import pause, tracked
from kanmodel.errors import DataError
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import ModelConfig
from kanmodel.result import Table, WindowsResult
from kanmodel.text import list_some, with_unit

_TOTALS = {
    **{"prediction": "prediction", "against": "against_prediction", "difference": "difference", "data": "data_total"},
    **{"model": "model_total", "baseline_shift": "baseline_shift", "converged": "converged"},
}


@dataclass(frozen=True)
class Comparison:
    """The difference of two forecasts of one output, divided: data + model = difference. All in the target's unit.

    Attributes:
        output: name of the output.
        prediction: forecast of the first model, F(x).
        against_prediction: that of the second, G(y).
        data: contribution of each feature to the data part, (n_features,).
        model: the same for the model part.
        baseline_shift: F(b) - G(b), the difference of the models at their common baseline.
        data_total, model_total: the two parts.
        residual: bound on how far the sums are from the totals: half the sum of the ledgers' residuals.
        error: estimated largest error of a contribution: half the sum of the ledgers' errors.
        tolerance: largest accepted residual and error of each ledger, the larger of the two models'.
        converged: whether every ledger has converged.
    """

    output: str
    prediction: float
    against_prediction: float
    data: Array
    model: Array
    baseline_shift: float
    data_total: float
    model_total: float
    residual: float
    error: float
    tolerance: float
    converged: bool

    @property
    def difference(self) -> float:
        """F(x) - G(y), the first forecast minus the second."""
        return self.prediction - self.against_prediction


@dataclass(frozen=True, repr=False, eq=False)
class Comparisons(WindowsResult):
    """The difference of two forecasts for each pair of windows, divided into the parts of data and model."""

    output: str
    unit: str | None  # of the forecasts; None if unknown
    features: tuple[str, ...]  # their names, in the order of the contributions
    comparisons: tuple[Comparison, ...]  # in the order of the windows

    @classmethod
    def of(
        cls,
        model: Forecaster,
        windows: Array,
        against: Forecaster,
        against_windows: Array,
        output: int,
        options: LedgerOptions | None = None,
        **of_windows: Any,
    ) -> Comparisons:
        """Divides the differences of the forecasts of two models for an output, by its number in the first.

        Exchanging the two sides negates contributions, baseline shift and totals to the last bit. Each model has n
        windows, (n, lookback, n_features), original units, oldest step first. `options` are those of each ledger,
        `of_windows` the times and series of the windows.

        Raises:
            DataError: the models differ in their features, lookback or output, or a window does not fit.
            NonFiniteError: a prediction is not finite.
        """
        sides = [(model, output), (against, match_outputs(model, against, output))]
        pairs, config = zip(windows, against_windows, strict=True), model.config
        found = tuple(_compare(sides, x, y, options) for x, y in tracked(pairs))
        names, origin = (config.outputs[output], config.target_of(output).unit), model.origin_against(against)
        return cls(*names, config.feature_names, found, origin=origin, model_inputs=model.inputs, **of_windows)

    def __len__(self) -> int:
        return len(self.comparisons)

    def __iter__(self) -> Iterator[Comparison]:
        return iter(self.comparisons)

    def __getitem__(self, window: int) -> Comparison:
        return self.comparisons[window]

    def table(self) -> list[dict[str, Any]]:
        """A row for each window and feature, the largest contribution first."""
        return [
            {"window": window, "feature": self.features[f], "data": float(one.data[f]), "model": float(one.model[f])}
            for window, one in enumerate(self)
            for f in np.argsort(-np.abs(one.data + one.model), kind="stable").tolist()
        ]

    def _totals(self) -> list[dict[str, Any]]:
        numbered = enumerate(self)
        return [{"window": n} | {name: getattr(one, of) for name, of in _TOTALS.items()} for n, one in numbered]

    def _title(self) -> str:
        return f"Why {with_unit(self.output, self.unit)} differs"

    def _facts(self) -> dict[str, str]:
        if len(self) != 1:
            return {}
        return {name: f"{value:.4g}" for name, value in self._totals()[0].items() if isinstance(value, float)}

    def _tables(self) -> list[Table]:
        several, totals = len(self) > 1, self._totals()
        return [
            Table(totals, ["window", *_TOTALS], in_text=several, in_html=several),
            Table(
                self.model_inputs.merge_rows(self.table(), ["data", "model"]),
                ["window", "feature", "data", "model"][not several :],
                in_text=not several,
            ),
        ]


def match_outputs(model: Forecaster, against: Forecaster, output: int) -> int:
    """The number of the output with the same name in another model.

    Raises:
        DataError: features, lookback or the unit of the output differ, or the other model has no such output.
    """
    mine, theirs, name = model.config, against.config, model.config.outputs[output]
    message = _find_difference(mine, theirs)
    if not message and name not in theirs.outputs:
        message = f"has no output {name!r}; its outputs are {list_some(theirs.outputs)}"
    if message:
        raise DataError.at("against", message)
    number = theirs.outputs.index(name)
    unit, other_unit = (_write_unit(target.unit) for target in (mine.target_of(output), theirs.target_of(number)))
    if unit != other_unit:
        raise DataError.at("against", f"must forecast {name} {unit}, but forecasts it {other_unit}")
    return number


def _find_difference(mine: ModelConfig, theirs: ModelConfig) -> str:
    """The first difference between the inputs of two models; empty if there is none."""
    names, others = mine.feature_names, theirs.feature_names
    missing, further = (list_some([n for n in a if n not in b]) for a, b in ((names, others), (others, names)))
    if missing or further:
        apart = f"reads {further} and not {missing}" if missing else f"also reads {further}"
        return f"must read the same features, but {apart if further else f'does not read {missing}'}"
    if names != others:
        return f"must read the features in the same order, {list_some(names)}, but begins with {list_some(others)}"
    for one, other in zip(mine.features, theirs.features, strict=True):
        if one.unit != other.unit:
            return f"must read {one.name} {_write_unit(one.unit)}, but reads it {_write_unit(other.unit)}"
    if mine.lookback != theirs.lookback:
        return f"must read {mine.lookback} steps, but reads {theirs.lookback}"
    return ""


def _write_unit(unit: str | None) -> str:
    return f"in {unit}" if unit else "without a unit"


def _compare(sides: Sequence[tuple[Forecaster, int]], x: Array, y: Array, options: LedgerOptions | None) -> Comparison:
    """Compares the forecast of window x by the first of two models and outputs with that of y by the second."""
    (model, output), (against, _) = sides
    # Both orders integrate along the same path, from the lesser window to the greater, so that rounding is the same.
    low, high = sorted((x, y), key=lambda values: values.tobytes())
    forward = 1.0 if high is x else -1.0

    def explain(windows: Array, start: Array) -> list[Ledger]:
        ledgers, baseline = list[Ledger](), Baseline("instance", instance=start)
        for side, number in sides[:1] if against is model else sides:
            ledgers.append(explain_windows(side, side.to_model_units(windows), number, baseline, options, "features"))
            pause()
        return [ledgers[0], ledgers[-1]]

    both = np.stack([low, high])
    of_data = explain(both[1:], low)
    of_model = explain(both, np.broadcast_to((model.reference.mean + against.reference.mean) / 2, low.shape))
    # One window per batch, so that equal windows get equal forecasts.
    (f_low, f_high), (g_low, g_high) = (
        [float(side.predict(window[None])[0, number]) for window in both] for side, number in sides
    )
    apart = of_model[0].contributions - of_model[1].contributions  # (2, n_features)
    ledgers = [*of_data, *of_model]
    return Comparison(
        output=model.config.outputs[output],
        prediction=f_high if high is x else f_low,
        against_prediction=g_low if high is x else g_high,
        data=forward * (of_data[0].contributions[0] + of_data[1].contributions[0]) / 2 + 0.0,  # turns -0 into 0
        model=(apart[0] + apart[1]) / 2,
        baseline_shift=of_model[0].baseline_prediction - of_model[1].baseline_prediction,
        data_total=forward * ((f_high - f_low) + (g_high - g_low)) / 2 + 0.0,
        model_total=((f_high - g_high) + (f_low - g_low)) / 2,
        residual=fsum(value for ledger in ledgers for value in ledger.residual) / 2,
        error=fsum(value for ledger in ledgers for value in ledger.error) / 2,
        tolerance=max(ledger.tolerance for ledger in ledgers),
        converged=all(ledger.converged.all() for ledger in ledgers),
    )
