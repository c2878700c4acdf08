"""Tallies of windows: their forecasts, errors and contributions, counted by block in order of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import Baseline
from kanmodel.attribution.ledger import LedgerOptions, explain_windows, sum_groups
from kanmodel.computing import tracked
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import resolve_groups
from kanmodel.network.intervals import forecasts_of
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.tables.statistics.differences import MIN_BLOCKS, known_or_none
from kanmodel.tables.statistics.errors import covered
from kanmodel.tables.statistics.tally import N_BINS, Bins, Tally
from kanmodel.tables.windows import CHUNK, Windows

N_BLOCKS, N_CURRENT = 4000, 24  # most of the reference, and fewest of the current side where it has them
TALLY_BYTES = 1 << 26
# Windows of the reference to explain, and the share of that of the current side, where a window may take 100 times as
# long. Of two planted changes in 100 weeks beside 20,000 hours, 1,024 windows find 0 and 0 at false alarms of 1 %,
# 4,096 find 40 and 0, 8,192 63 and 77 (1.3 s), all 83 and 100; of a month, 256 of its windows 35 and 90, 512 38 and 97.
EXPLAINED, OF_CURRENT = 8192, 32
TOLERANCE = 0.02  # of explanations, standard deviations of the output: their mean is within 0.003


@dataclass(frozen=True)
class TallySchema:
    """The names and units of a tally's columns.

    Attributes:
        output, unit, features, units: of the forecasts and of the inputs; None for an unknown unit.
        names: what a forecast is divided among: outermost groups, and features in none.
        members: numbers of the features of each name.
        levels: of the intervals, ascending; empty if the output has none.
    """

    output: str
    unit: str | None
    features: tuple[str, ...]
    units: tuple[str | None, ...]
    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    levels: tuple[float, ...]

    @classmethod
    def of(cls, model: Forecaster, output: int) -> TallySchema:
        """Of an output, by its number."""
        config = model.config
        grouping = resolve_groups(config.groups, config.feature_names)
        return cls(
            output=config.outputs[output],
            unit=config.target_of(output).unit,
            features=config.feature_names,
            units=tuple(feature.unit for feature in config.features),
            names=grouping.parts,
            members=tuple(grouping.members[number] for number in grouping.whole),
            levels=_levels_of(model, output),
        )

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures of errors: ``mae``, ``bias``, and by level ``coverage@0.8``."""
        return "mae", "bias", *(f"coverage@{level:g}" for level in self.levels)


def _levels_of(model: Forecaster, output: int) -> tuple[float, ...]:
    return model.levels if output in forecasts_of(model.config) else ()


def block_size(n_reference: int, n_current: int, n_features: int) -> int:
    """Windows of a block of the reference: few enough blocks for the memory, and many as long as the current side."""
    affordable = max(MIN_BLOCKS, TALLY_BYTES // (16 * N_BINS * (n_features + 1)))
    usual = -(-n_reference // min(N_BLOCKS, affordable))
    return max(1, min(usual, n_current // N_CURRENT), -(-n_reference // affordable))


@dataclass(frozen=True, eq=False)
class ForecastWindows:
    """Windows in order of time, with the forecasts of one output of a model; NaN where something is unknown.

    Attributes:
        windows: the windows.
        model, output: what forecasts; the number of the output.
        forecasts: (n,), original units.
        errors: forecast minus actual value, (n,); of a bound or a width unknown.
        inside: whether intervals hold the actual values, (n, n_levels).
    """

    windows: Windows
    model: Forecaster
    output: int
    forecasts: Array
    errors: Array
    inside: Array

    @classmethod
    def of(cls, model: Forecaster, output: int, windows: Windows) -> ForecastWindows:
        """Forecasts windows, some at a time."""
        levels, kept = _levels_of(model, output), forecasts_of(model.config)
        forecasts, bounds = list[Array](), [np.empty((2, len(levels), 0))]
        for part in windows.parts():
            if levels:
                predictions, *of_part = model.predict_bounds(part)
                bounds.append(np.stack(of_part)[:, :, :, kept.index(output)])  # (2, n_levels, n)
            else:
                predictions = model.predict(part)
            forecasts.append(predictions[:, output])
        forecast, actual = np.concatenate(forecasts), np.full(len(windows), np.nan)
        step, target = divmod(output, len(model.config.targets))
        name, names = model.config.targets[target].name, windows.table.spec.targets
        if name in names and step < windows.horizon:  # bounds and widths are no target
            actual = windows.actual(names.index(name))[:, step]
        lower, upper = np.concatenate(bounds, axis=2) if levels else np.empty((2, 0, len(actual)))
        return cls(windows, model, output, forecast, forecast - actual, covered(lower, upper, actual).T)

    def tally(
        self,
        schema: TallySchema,
        bins: Bins,
        size: int,
        explained: int,
        baseline: Baseline | None = None,
        by: tuple[Forecaster, int] | None = None,
    ) -> tuple[Tally, int]:
        """The tally in blocks of about `size` windows, and how many explanations have not converged.

        At most so many windows are `explained`, chosen evenly, `by` the model that forecasts or another, with the
        number of its output, from the mean or another `baseline`; those are unknown whose contributions miss more than
        what they explain, and so are intervals of other levels than the schema's.
        """
        n = len(self.windows)
        n_blocks, levels = max(1, round(n / size)), _levels_of(self.model, self.output)
        inside = self.inside if levels == schema.levels else np.full((n, len(schema.levels)), np.nan)
        model, output = by or (self.model, self.output)
        contributions, unconverged = np.full((n, len(schema.members)), np.nan), 0
        chosen = choose_evenly(n, explained)
        for start in tracked(range(0, len(chosen), CHUNK)):
            rows = chosen[start : start + CHUNK]
            given = model.to_model_units(self.windows.take(rows))
            found = explain_windows(model, given, output, baseline or Baseline(), LedgerOptions(TOLERANCE), "features")
            contributions[rows] = sum_groups(found.contributions, schema.members)
            change = np.abs(found.predictions - found.baseline_prediction)
            is_off = found.residual > np.maximum(change, model.output_std[output])  # as of values too far out
            contributions[rows[is_off]] = np.nan
            unconverged += int((~found.converged).sum())
        columns = self.windows.newest, self.forecasts, contributions, self.errors, inside
        return Tally.of(bins, *columns, np.arange(n) * n_blocks // n, n_blocks), unconverged

    def average_by_series(self, values: Array, names: Sequence[str]) -> list[float | None]:
        """The mean of the known ones of values (n,), by the ascending names of series; None of none."""
        labels = np.array(self.windows.series)
        known = np.isin(labels, names) & ~np.isnan(values)
        places = np.searchsorted(names, labels[known])
        sums, n = (np.bincount(places, weights, len(names)) for weights in (values[known], None))
        return [known_or_none(mean) for mean in np.where(n > 0, sums / np.maximum(n, 1), np.nan).tolist()]
