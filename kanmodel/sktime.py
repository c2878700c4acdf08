"""A model as a forecaster of sktime, for its pipelines, evaluations and ensembles.

    forecaster = kanmodel.sktime.KanscopeForecaster(model).fit(y, X)
    forecaster.predict(fh=[1, 2, 3])

Nothing is trained: `fit` and `update` keep the rows, of which `predict` takes the newest window. Needs the package
sktime, so this module is imported by its name, after ``import kanmodel.sktime``.
"""

from __future__ import annotations

from typing import ClassVar

import pandas as pd
from sktime.datatypes import update_data
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from kanmodel.errors import DataError
from kanmodel.model import Model


class KanscopeForecaster(BaseForecaster):  # type: ignore[misc]
    """Forecasts one target of a model, at the steps that the model forecasts.

    The series `y` stands for the target's column, whatever its name; the columns of `X` are found by their names. A
    model that reads columns known ahead takes their rows of the forecast as `X` of `predict`.

    Args:
        model: whose windows end before the forecast, so that its `ahead` is at least 1.
        target: the one that is forecast; None if there is but one. Of a target with quantiles it is the median.
    """

    _tags: ClassVar = {
        "y_inner_mtype": "pd.Series",
        "X_inner_mtype": "pd.DataFrame",
        "capability:insample": False,
        "capability:missing_values": True,  # what cannot be filled or masked is refused when it is forecast
        "capability:update": True,
        "requires-fh-in-fit": False,
    }

    def __init__(self, model: Model, target: str | None = None) -> None:
        self.model, self.target = model, target
        super().__init__()

    def _fit(self, y: pd.Series, X: pd.DataFrame | None, fh: ForecastingHorizon | None) -> KanscopeForecaster:
        targets = dict.fromkeys(target.name.partition("@")[0] for target in self.model.config.targets)
        name = next(iter(targets)) if self.target is None and len(targets) == 1 else self.target
        if name not in targets:
            raise DataError.at("target", f"must be one of {', '.join(targets)}, but is {name!r}")
        if not self.model.config.ahead:
            raise DataError.at("model", "has windows with rows of the forecast, or a target that was shifted (ahead)")
        self._column, self._name = name, y.name
        self._rows = y.to_frame(name) if X is None else X.assign(**{name: y})
        return self

    def _update(self, y: pd.Series, X: pd.DataFrame | None = None, update_params: bool = True) -> KanscopeForecaster:
        rows = self._rows
        self._fit(y, X, None)
        self._rows = update_data(rows, self._rows)
        return self

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.Series:
        known = self.model.config.table.encoding.later
        rows = self._rows if X is None or not known else pd.concat([self._rows, X[:known]])
        rows = rows.set_axis(rows.index.to_timestamp()) if isinstance(rows.index, pd.PeriodIndex) else rows
        forecasts = dict(zip(self.model.outputs, self.model.predict(rows)[0].tolist(), strict=True))
        found = {
            int(output.partition("@")[0].rpartition("+")[2]): forecast
            for output, forecast in forecasts.items()
            if output.rpartition("+")[0] == self._column and output.partition("@")[2] in ("", "0.5")
        }
        steps = [int(step) for step in fh.to_relative(self.cutoff)]
        if not set(steps) <= set(found):
            wanted = ", ".join(str(step) for step in steps if step not in found)
            raise DataError.at("fh", f"must be of the steps {', '.join(map(str, found))}, but has {wanted}")
        index = fh.to_absolute_index(self.cutoff)
        return pd.Series([found[step] for step in steps], index=index, name=self._name)
