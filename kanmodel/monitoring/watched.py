"""`Watched`: what a tally is of, and the tallies of two stretches of time, forecast and explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import Baseline
from kanmodel.attribution.ledger import LedgerOptions, explain_windows, find_incomplete, sum_groups
from kanmodel.computing import slices
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import resolve_groups
from kanmodel.network.intervals import forecasts_of
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.tables.statistics.differences import MIN_BLOCKS
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
class Watched:
    """What is watched of a model: the names of a tally's columns.

    Attributes:
        output, unit: of the forecasts; None for an unknown unit.
        features, units: of the inputs, likewise.
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
    def of(cls, model: Forecaster, output: int) -> Watched:
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
            levels=model.levels if model.intervals is not None and output in forecasts_of(config) else (),
        )


def block_size(n_reference: int, n_current: int, n_features: int) -> int:
    """Windows of a block of the reference: few enough blocks for the memory, and many as long as the current side."""
    affordable = max(MIN_BLOCKS, TALLY_BYTES // (16 * N_BINS * (n_features + 1)))
    usual = -(-n_reference // min(N_BLOCKS, affordable))
    return max(1, min(usual, n_current // N_CURRENT), -(-n_reference // affordable))


def forecast_stretch(model: Forecaster, output: int, side: Windows) -> tuple[Array, Array, Array]:
    """Forecasts and errors, (n,), and whether intervals hold the actual values, (n, n_levels); NaN where unknown."""
    kept, forecasts, bounds = forecasts_of(model.config), list[Array](), list[Array]()
    is_bounded = model.intervals is not None and output in kept
    for windows in side.parts():
        if is_bounded:
            predictions, *ends = model.predict_bounds(windows)
            bounds.append(np.stack(ends)[:, :, :, kept.index(output)])  # (2, n_levels, n)
        else:
            predictions = model.predict(windows)
        forecasts.append(predictions[:, output])
    forecast, actual = np.concatenate(forecasts), find_actual(model, output, side)
    lower, upper = np.concatenate(bounds, axis=2) if is_bounded else np.empty((2, 0, len(actual)))
    return forecast, forecast - actual, covered(lower, upper, actual).T


def find_actual(model: Forecaster, output: int, side: Windows) -> Array:
    """What came of an output, (n,), NaN where it is unknown, as of a bound or a width."""
    step, target = divmod(output, len(model.config.targets))
    names = side.table.spec.targets
    name = model.config.targets[target].name
    unknown = np.full(len(side), np.nan)
    return side.actual(names.index(name))[:, step] if name in names and step < side.horizon else unknown


def explain_stretch(
    model: Forecaster, output: int, side: Windows, most: int, members: Sequence[Sequence[int]], baseline: Baseline
) -> tuple[Array, int]:
    """Contributions of at most so many windows, chosen evenly, (n, n_names), and how many have not converged.

    NaN for others, and where the contributions miss more than what they explain, as of values too far out.
    """
    contributions, unconverged = np.full((len(side), len(members)), np.nan), 0
    chosen = choose_evenly(len(side), most)
    for start in slices(range(0, len(chosen), CHUNK)):
        rows = chosen[start : start + CHUNK]
        windows = model.to_model_units(side.take(rows))
        found = explain_windows(model, windows, output, baseline, LedgerOptions(TOLERANCE), "features")
        contributions[rows] = sum_groups(found.contributions, members)
        contributions[rows[find_incomplete(found, float(model.output_std[output]))]] = np.nan
        unconverged += int((~found.converged).sum())
    return contributions, unconverged


def count_stretch(
    side: Windows, size: int, bins: Bins, forecasts: tuple[Array, Array, Array], contributions: Array
) -> Tally:
    """The tally of forecasts with their contributions, as the two above return them, in blocks of about `size`."""
    n = len(side)
    n_blocks = max(1, round(n / size))
    forecast, errors, inside = forecasts
    counted = side.newest, forecast, contributions, errors, inside
    return Tally.of(bins, *counted, np.arange(n) * n_blocks // n, n_blocks)
