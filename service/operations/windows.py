"""The windows of a request, and warnings of their values outside the training range."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kanmodel.arrays import Array
from kanmodel.model import Model
from kanmodel.monitoring.trust import WindowTrust
from service.answers.forms import Answered, describe_one
from service.answers.windows import DataWarning, OfWindows
from service.models.registry import ROUNDING, Served
from service.wire.windows import Given, refuse_infinite_values

MAX_WARNINGS = 100


def describe_trust(model: Model, windows: Array) -> list[Answered[WindowTrust]]:
    """How far the forecasts of windows (n, lookback, n_features), original units, can be relied on."""
    return [describe_one(one) for one in model.trust(windows)]


@dataclass(frozen=True)
class CheckedWindows:
    """The windows of a request, and their values outside the training range."""

    given: Given
    listed: Sequence[DataWarning] = ()  # the first `MAX_WARNINGS`
    counts: Mapping[str, int] = field(default_factory=dict)  # by feature, the number of instances with such a value

    @property
    def windows(self) -> Array:
        """(n, lookback, n_features), original units."""
        return self.given.windows

    def describe(self) -> OfWindows:
        """The members of an answer."""
        new = warn_of_new(self.given.new_series, self.given.series or ())
        warnings = [*new, *self._describe_filled(), *self.listed]
        described: OfWindows = {"warnings": warnings[:MAX_WARNINGS]}
        if self.given.times is not None:
            described["times"] = [*self.given.times]
        if self.given.series is not None:
            described["series"] = [*self.given.series]
        if self.given.n_left_out:
            described["windows_omitted"] = self.given.n_left_out
        n_filled = int(sum(map(np.count_nonzero, self.given.filled.values())))
        if omitted := len(new) + sum(self.counts.values()) + n_filled - len(described["warnings"]):
            described["warnings_omitted"] = omitted
        return described

    def _describe_filled(self) -> Iterator[DataWarning]:
        """The first warnings of filled cells, by instance."""
        names, counts = [*self.given.filled], [*self.given.filled.values()]
        for instance, column in np.argwhere(np.array(counts).T)[:MAX_WARNINGS].tolist() if counts else ():
            n, name = int(counts[column][instance]), names[column]
            message = f"{n} {'cell' if n == 1 else 'cells'} of {name} without a value were filled"
            yield {"code": "filled", "instance": instance, "column": name, "count": n, "message": message}


def warn_of_new(names: Sequence[str], series: Sequence[str]) -> list[DataWarning]:
    """A warning of each of the names, which training did not have; `series` are those of the instances."""
    first = {name: instance for instance, name in reversed([*enumerate(series)])} if names else {}
    message = "was not in the training: forecasts of it rest on what the others have in common"
    return [
        {"code": "new_series", "instance": first[name], "series": name, "message": f"{name} {message}"}
        for name in names
    ]


def check_values(given: Given, served: Served) -> CheckedWindows:
    """Warns of values outside the training range, and of filled cells.

    Raises `DataError`, which names each value that is not finite after scaling.
    """
    (low, high), values = served.usual_values, given.values
    if values.ndim == 2:  # rows
        low, high = low[0], high[0]
    if ((values >= low) & (values <= high)).all():  # most requests pass this single check
        return CheckedWindows(given)
    refuse_infinite_values(given, served.model)
    return warn_of_range(served.model, given)


def warn_of_range(model: Model, given: Given) -> CheckedWindows:
    """The most extreme value per instance and feature."""
    windows, (low, high) = given.windows, model.feature_range
    beyond = np.maximum(low - windows, windows - high)  # (n, lookback, n_features), positive outside
    beyond -= ROUNDING * model.scaling.feature_scale
    is_outside = beyond.max(axis=1) > 0  # (n, n_features)
    if not is_outside.any():
        return CheckedWindows(given)
    steps, features, listed = beyond.argmax(axis=1), model.config.features, list[DataWarning]()
    for instance, number in np.argwhere(is_outside)[:MAX_WARNINGS].tolist():
        feature, step = features[number], int(steps[instance, number])
        value = float(windows[instance, step, number])
        listed.append(
            {
                "code": "outside_training_range",
                "instance": instance,
                "feature": feature.name,
                "step": step - windows.shape[1] + 1,
                "value": value,
                "min": feature.min,
                "max": feature.max,
                "message": f"{value:.6g} is outside the training range [{low[number]:.6g}, {high[number]:.6g}]",
            }
        )
    counts = zip(model.config.feature_names, is_outside.sum(axis=0).tolist(), strict=True)
    return CheckedWindows(given, listed, {name: n for name, n in counts if n})
