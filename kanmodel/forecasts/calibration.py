"""The factors of intervals from outcomes: calibrated on windows that nothing was fitted on, or adapted as they come.

Adaptation is quantile tracking (Angelopoulos et al. 2023, arXiv 2307.16895, section 2.2) of the logarithm of a factor,
for each level, side and output alone: after each outcome, that is an actual value that is known now,

    log f <- log f + rate (m - q),   m = 1 if it lies beyond the bound that the factor gives its forecast, or else 0

which is at rest where a share of q = (1 - p) / 2 lies beyond. A factor stays positive, so bounds never cross, and as it
is where its increment is 0. An outcome of an output that is h rows ahead is known h rows later.

One rate is too slow where the scale of errors jumps, or too restless where it does not. So the moving average of m - q
is kept, and the rate rises with the square of its distance from 0, up to tenfold, where that is more than chance brings
about: 1.5 standard deviations of the average of outcomes of which those h rows apart or less go together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kanmodel.arrays import Array
from kanmodel.computing import pause
from kanmodel.errors import DataError, check_fields, check_lowest
from kanmodel.forecaster import Forecaster
from kanmodel.network.conformal import calibrate
from kanmodel.network.intervals import (
    LEVEL_DIGITS,
    Calibration,
    Intervals,
    Kind,
    forecasts_of,
    is_level,
    quantile_levels,
)
from kanmodel.tables.table import CellNames, Gaps, Selection
from kanmodel.tables.windows import actual_outputs, read_numbers, read_table, read_windows

LEVELS = (0.8, 0.95)  # where neither the caller nor the model has others
RATE = 0.03  # of adaptation; faster follows closer, but where outcomes come a day later, it covers too few of 95 %
FASTEST, USUAL = 10.0, 1.5  # multiple of the rate, and the standard deviations of the average from which it rises
MEMORY = 80  # outcomes that the average remembers, and 2 more for each row of the delay
NEGLIGIBLE = 1e-9  # increment, model units, up to which no factor moves the bound
LOWEST = 0.01  # of a factor, as a share of the first that it had; of one that was 0, of 1 in model units
PAUSE = 4096  # rows between two pauses


def calibrate_intervals(
    model: Forecaster,
    windows: Iterable[Array],
    actual: Array,
    levels: Sequence[float] | float | None,
    times: Sequence[str] | None,
) -> Forecaster:
    """The model with intervals that are calibrated on what `read_pairs` returns; it is not saved yet.

    By default `levels` are those of the model's network of increments, of its quantiles, or `LEVELS`. The network is
    kept if it has these levels.

    Raises:
        DataError: levels that are not between 0 and 1, too few actual values, a classifier, or quantiles alone.
    """
    config = model.config
    if config.is_classifier:
        raise DataError("a classifier forecasts probabilities, of which there are no intervals")
    if not forecasts_of(config):
        raise DataError("intervals are of forecasts, but all targets are quantiles, and none of them is a median")
    network = None if model.intervals is None else model.intervals.network
    own, quantiles = model.levels if network else (), quantile_levels(config)
    chosen = own or quantiles or LEVELS
    if levels is not None:
        chosen = tuple(sorted(set(np.asarray(levels, dtype=np.float64).reshape(-1).tolist())))
        if not chosen or not all(map(is_level, chosen)):
            wanted = f"levels between 0 and 1, of at most {LEVEL_DIGITS} decimals, such as 0.8"
            raise DataError.at("intervals", f"must be {wanted}, but has {[*chosen]}")
    kind: Kind = "nodes" if chosen == own else "quantiles" if set(chosen) <= set(quantiles) else "constant"
    network, kept = network if kind == "nodes" else None, list(forecasts_of(config))
    ones = np.ones((len(chosen), len(kept)))
    raw = replace(model, intervals=Intervals(chosen, kind, ones, ones, Calibration(0), network), sha256="")
    predictions, below, above = predict_parts(raw, windows)
    residuals = (actual - predictions[:, kept]) / config.scaling.output_scale[kept]
    found = Calibration(len(actual), *((times[0], times[-1]) if times else ()))
    return replace(raw, intervals=Intervals(chosen, kind, *calibrate(chosen, residuals, below, above), found, network))


def predict_parts(model: Forecaster, windows: Iterable[Array]) -> tuple[Array, Array, Array]:
    """`Forecaster.predict_increments` of parts of the windows, so that only one at a time has to be in memory."""
    predictions, below, above = zip(*map(model.predict_increments, windows), strict=True)
    return np.concatenate(predictions), np.concatenate(below, axis=1), np.concatenate(above, axis=1)


def read_pairs(
    model: Forecaster, windows: Any, targets: Any, chosen: Selection, gaps: Gaps, cell_names: CellNames | None = None
) -> tuple[Iterable[Array], Array, tuple[str, ...] | None]:
    """Windows with the actual values of the forecasts that have intervals, as `Model.calibrate` takes them.

    Returns:
        Parts of the windows, (n_part, lookback, n_features), oldest step first; the actual values, (n, n_forecasts),
        NaN where one is unknown; and the time of each window, None if unknown. All in original units.

    Raises:
        DataError: the windows or the targets do not fit, or there are no targets.
    """
    config, kept, path = model.config, list(forecasts_of(model.config)), "targets"
    if windows is not None and targets is None:
        first = config.target_of(kept[0]).name
        cell_names = cell_names or CellNames.of("windows", config.table)
        read = read_table(config.table, windows, cell_names, chosen, gaps, first)
        return read.parts(), actual_outputs(read)[:, kept], read.times
    for name, wanted in (("last", chosen.last), ("series", chosen.series)):
        if wanted is not None:
            raise DataError.at(name, "is of a data frame, but the windows are no frame")
    if targets is None:
        known = model.reference
        if known.targets is None:
            raise DataError.at(path, "of the reference windows are unknown: give a table, or windows with targets")
        return [known.windows], known.targets[:, kept], known.times
    if windows is None:
        raise DataError.at(path, "is given without windows")
    given, actual = read_windows(config.table, windows)[0], read_numbers(targets, path)
    actual = actual[:, None] if actual.ndim == 1 else actual
    widths = sorted({len(kept), len(config.outputs)})
    if actual.shape not in [(len(given), width) for width in widths]:
        shapes = " or ".join(f"{(len(given), width)}" for width in widths)
        raise DataError.at(path, f"must have shape {shapes}, but has {actual.shape}")
    for row, column in np.argwhere(np.isinf(actual)).tolist():
        raise DataError.at(f"{path}[{row}][{column}]", "must be finite, or empty where it is unknown")
    return [given], actual if actual.shape[1] == len(kept) else actual[:, kept], None


@dataclass(frozen=True)
class Adaptation:
    """The factors of the intervals of one target after some outcomes.

    Attributes:
        checkpoint: of the model; None if that was not saved.
        target: name of the target.
        levels: nominal coverages, ascending.
        below, above: factors for each level and each output of the target.
        average_below, average_above: moving averages of m - q, see above, from -1 to 1.
        outcomes: number of actual values that they come from.
        last: time of the newest row of the last window of which an outcome is among them; None without times.
    """

    checkpoint: str | None
    target: str
    levels: Sequence[float]
    below: Sequence[Sequence[float]]
    above: Sequence[Sequence[float]]
    average_below: Sequence[Sequence[float]]
    average_above: Sequence[Sequence[float]]
    outcomes: int = 0
    last: str | None = None

    @classmethod
    def of(cls, model: Forecaster, target: str, place: str = "target") -> Adaptation:
        """The factors that the model has."""
        intervals, columns = model.need_intervals(), columns_of(model, target, place)
        below, above = (each[:, columns].tolist() for each in (intervals.below, intervals.above))
        none = np.zeros_like(below).tolist()
        return cls(model.checkpoint, target, model.levels, below, above, none, none)

    @classmethod
    def read(
        cls, document: Mapping[str, Any], model: Forecaster, target: str | None = None, place: str = "adaptation"
    ) -> Adaptation:
        """The adaptation of a document, as `document` writes it, which errors name `place`.

        Raises:
            DataError: it is of another checkpoint or target, or lacks or has what it should not.
        """
        names = [each.name for each in fields(cls)]
        for name in [name for name in names if name not in document]:
            raise DataError.at(f"{place}.{name}", "is missing")
        for name in [name for name in document if name not in names]:
            raise DataError.at(f"{place}.{name}", f"is unknown; expected {', '.join(names)}")
        found = cls(**document)
        try:
            check_fields(found)
            check_lowest("outcomes", found.outcomes, 0)
        except DataError as error:
            raise DataError(f"{place}.{error}") from None
        if found.checkpoint != model.checkpoint:
            message = f"is {found.checkpoint}, but that of the model {model.checkpoint}"
            raise DataError.at(f"{place}.checkpoint", message)
        known = cls.of(model, found.target if target is None else target, f"{place}.target")
        if found.target != known.target:
            raise DataError.at(f"{place}.target", f"must be {known.target}, but is {found.target}")
        if tuple(found.levels) != known.levels:
            raise DataError.at(f"{place}.levels", f"must be {known.levels}, but is {found.levels}")
        n_levels, n_outputs = np.shape(known.below)
        for name in ("below", "above", "average_below", "average_above"):
            rows, of = getattr(found, name), "factors of at least 0"
            lowest, highest = 0.0, np.inf
            if name.startswith("average"):
                lowest, highest, of = -1.0, 1.0, "numbers from -1 to 1"
            fits = [len(row) for row in rows] == [n_outputs] * n_levels
            if not fits or not all(lowest <= value <= highest for row in rows for value in row):
                message = f"must be {n_levels} rows, one for each level, of {n_outputs} {of}"
                raise DataError.at(f"{place}.{name}", message)
        return found

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"levels": list(self.levels)}

    def apply(self, model: Forecaster) -> Forecaster:
        """The same model, with these factors."""
        intervals, columns = model.need_intervals(), columns_of(model, self.target)
        below, above = intervals.below.copy(), intervals.above.copy()
        below[:, columns], above[:, columns] = self.below, self.above
        return replace(model, intervals=replace(intervals, below=below, above=above))


def columns_of(model: Forecaster, target: str, place: str = "target") -> list[int]:
    """The columns of a target among the forecasts that have intervals.

    Raises:
        DataError: it has none.
    """
    names = [model.config.target_of(output).name for output in forecasts_of(model.config)]
    if target not in names:
        raise DataError.at(place, f"{target} has no intervals, but {', '.join(dict.fromkeys(names))} has")
    return [column for column, name in enumerate(names) if name == target]


def track(
    levels: Sequence[float], rows: NDArray[np.int64], delays: NDArray[np.int64], values: Array, start: Array
) -> tuple[Array, Array]:
    """Adapts factors in the order of time.

    Args:
        levels: nominal coverages, (n_levels,).
        rows: the newest row of each window, (n,), ascending.
        delays: rows after which the actual value of each output is known, (n_outputs,).
        values: for the lower and the upper side, how far the actual value lies beyond the forecast, NaN where it is
            unknown, and the increment of each level, (2, 1 + n_levels, n, n_outputs), model units.
        start: the first factors, and the moving averages, (2, 2, n_levels, n_outputs).

    Returns:
        The factors of each window, (n, 2, n_levels, n_outputs), and the last factors and averages, as `start`.
    """
    rows = rows - rows[0]
    n_rows = int(rows[-1] + delays.max()) + 1
    known = np.full((n_rows, *values.shape[:2], len(delays)), np.nan)  # at each row
    for output, delay in enumerate(delays):
        known[rows + delay, :, :, output] = np.moveaxis(values[..., output], 2, 0)
    share, (factors, average) = (1 - np.array(levels)[:, None]) / 2, start
    lowest = LOWEST * np.where(factors > 0, factors, 1.0)
    weight = 1 / (MEMORY + 2 * delays)
    usual = USUAL * np.sqrt(share * (1 - share) * weight / (2 - weight) * (2 * delays - 1))
    found, are_new = np.empty((n_rows, *factors.shape)), np.isfinite(known[:, 0, 0])
    for row in range(n_rows):
        if row and row % PAUSE == 0:
            pause()
        if are_new[row].any():
            excess, increments = known[row, :, :1], known[row, :, 1:]
            beyond = (excess > np.cumsum(factors * increments, axis=1)) - share
            moves = are_new[row] & (increments > NEGLIGIBLE)
            average = np.where(moves, average + weight * (beyond - average), average)
            rate = RATE * np.clip((average / usual) ** 2, 1, FASTEST)
            factors = np.where(moves, np.maximum(factors * np.exp(rate * beyond), lowest), factors)
        found[row] = factors
    return found[rows], np.stack([factors, average])
