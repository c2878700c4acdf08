"""Why two forecasts differ: what the data changed, and what the model changed.

The forecast F(x) of one model beside the forecast G(y) of another, for a window each. Changing the window first and the
model first give two answers; their mean is the only division in two that depends on neither the order nor on which side
is called the first (Shapley 1953, for two players):

    data     ((F(x) - F(y)) + (G(x) - G(y))) / 2
    model    ((F(x) - G(x)) + (F(y) - G(y))) / 2

The data part is divided among features by each model's ledger from y to x. The model part is divided by the difference
of the two models' ledgers from one baseline b that they share, and what is left is how they differ there, F(b) - G(b).
Everything sums to F(x) - G(y), up to the residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

import numpy as np

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import DataError
from kanmodel.explain.paths.baseline import Baseline
from kanmodel.explain.paths.ledger import Ledger, LedgerOptions, explain_windows
from kanmodel.pausing import Pause, go_on
from kanmodel.scaling import Array


@dataclass(frozen=True)
class Comparison:
    """The difference of two forecasts of one output, divided; everything in the target's unit.

    Attributes:
        output: name of the output.
        prediction: F(x), of the model that is asked.
        against_prediction: G(y), of the other.
        data: what each feature contributes since the windows differ, (n_features,).
        model: what each feature contributes since the models differ, (n_features,).
        baseline_shift: F(b) - G(b), what the models differ by where no feature differs from the baseline.
        data_total: the data part.
        model_total: the model part.
        residual: how far the contributions may be from these totals: the residuals of the ledgers, added up.
        error: the largest estimated error of a contribution, added up likewise.
        tolerance: the larger one of the two models' ledgers.
        converged: whether every ledger is.
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
        """F(x) - G(y)."""
        return self.prediction - self.against_prediction


def compare_forecasts(
    model: LoadedModel,
    window: Array,
    against: LoadedModel,
    against_window: Array,
    output: int,
    options: LedgerOptions | None = None,
    pause: Pause = go_on,
) -> Comparison:
    """Divides the difference of two forecasts.

    Exactly antisymmetric: with both sides exchanged every number has the other sign and the same magnitude. Of a
    forecast and itself all are 0.

    Args:
        model: the model that is asked.
        window: its window, (lookback, n_features), original units, oldest step first.
        against: the model it is compared with; the same features, lookback and output, in the same units.
        against_window: the window of that.
        output: number of the output in `model`.
        options: tolerance and path nodes of each ledger.
        pause: called between the ledgers.

    Raises:
        DataError: the models do not read the same windows, or forecast the same output; or a window does not fit.
        NonFiniteError: a prediction is not finite.
    """
    theirs = match_outputs(model, against, output)
    # Paths lead from the lesser window to the greater in both directions, so that rounding is the same.
    low, high = sorted((window, against_window), key=lambda values: values.tobytes())
    forward = 1.0 if high is window else -1.0

    def explain(windows: Array, baseline: Array) -> tuple[Ledger, Ledger]:
        start = Baseline("instance", instance=baseline)
        mine = explain_windows(model, model.to_model_units(windows), output, start, options)
        pause()
        if against is model:
            return mine, mine
        return mine, explain_windows(against, against.to_model_units(windows), theirs, start, options)

    both = np.stack([low, high])
    of_data = explain(both[1:], low)
    shared = np.broadcast_to((model.reference_mean + against.reference_mean) / 2, low.shape)
    of_model = explain(both, shared)
    f_low, f_high = (float(model.predict(window[None])[0, output]) for window in both)  # each alone: equal ones agree
    g_low, g_high = (float(against.predict(window[None])[0, theirs]) for window in both)
    apart = of_model[0].features - of_model[1].features  # (2, n_features)
    ledgers = (*of_data, *of_model)
    return Comparison(
        output=model.config.outputs[output],
        prediction=f_high if high is window else f_low,
        against_prediction=g_low if high is window else g_high,
        data=forward * (of_data[0].features[0] + of_data[1].features[0]) / 2 + 0.0,  # which makes 0 of -0
        model=(apart[0] + apart[1]) / 2,
        baseline_shift=of_model[0].baseline_prediction - of_model[1].baseline_prediction,
        data_total=forward * ((f_high - f_low) + (g_high - g_low)) / 2 + 0.0,
        model_total=((f_high - g_high) + (f_low - g_low)) / 2,
        residual=fsum(value for ledger in ledgers for value in ledger.residual) / 2,
        error=fsum(value for ledger in ledgers for value in ledger.error) / 2,
        tolerance=max(ledger.tolerance for ledger in ledgers),
        converged=all(ledger.converged.all() for ledger in ledgers),
    )


def match_outputs(model: LoadedModel, against: LoadedModel, output: int) -> int:
    """The number, in the other model, of the output that has the same name.

    Raises:
        DataError: the models differ in their features, their lookback, or the unit of the output, or there is none.
    """
    mine, theirs = model.config, against.config
    name = mine.outputs[output]
    for what, one, other in (
        (
            "features",
            [f"{f.name} ({f.unit})" for f in mine.features],
            [f"{f.name} ({f.unit})" for f in theirs.features],
        ),
        ("lookback", mine.lookback, theirs.lookback),
    ):
        if one != other:
            raise DataError.at("against", f"must have the same {what}, {one}, but has {other}")
    if name not in theirs.outputs:
        raise DataError.at("against", f"has no output {name!r}, but {', '.join(theirs.outputs)}")
    number = theirs.outputs.index(name)
    unit, other_unit = mine.target_of(output).unit, theirs.target_of(number).unit
    if unit != other_unit:
        raise DataError.at("against", f"must forecast {name} in {unit}, but does in {other_unit}")
    return number
