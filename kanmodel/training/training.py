"""`fit` and `fine_tune`: train a model on a table, with test metrics of the model and of simple forecasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.errors import ConfigError, DataError, check_magnitude
from kanmodel.forecaster import Forecaster, Provenance, Reference
from kanmodel.network.bases import BSpline
from kanmodel.network.config import ModelConfig, RecurrentConfig, plain_layers, resolve_groups
from kanmodel.network.conformal import calibrate, count_needed
from kanmodel.network.intervals import Calibration, Intervals, Kind, forecasts_of
from kanmodel.network.network import Network
from kanmodel.tables.columns import Feature, Target
from kanmodel.tables.encoding import Rows
from kanmodel.tables.roles import PARTS, TrainingTable
from kanmodel.tables.samples import Parts, Samples, covered_rows, split_samples
from kanmodel.tables.skill import Moments, Simple, find_positions, ridge
from kanmodel.tables.statistics.choose import choose_evenly
from kanmodel.tables.statistics.errors import average_by_series, find_period, find_season, measure_intervals, r2_scores
from kanmodel.tables.windows import actual_outputs
from kanmodel.text import list_some
from kanmodel.training import baselines
from kanmodel.training.assembly import LinearSamples, RelativeSamples, assemble, find_without_level
from kanmodel.training.baselines import Forecast, LinearPath
from kanmodel.training.grids import refine_grids, refuse_without_knots
from kanmodel.training.increments import fit_increments, refuse_increments
from kanmodel.training.optimization import (
    DEFAULTS,
    GRID_ROWS,
    Progress,
    SquaredError,
    TrainingOptions,
    descend,
    leave_out,
    update_grids,
)
from kanmodel.training.screening import MOST_COLUMNS, screen

LIGHT = 0.1  # of the sparsity penalty, beside a linear path: what is left to learn is small beside it

Report = Callable[[Progress], None]
Announce = Callable[[str], None]


def fit(
    table: TrainingTable,
    options: TrainingOptions = DEFAULTS,
    report: Report = lambda progress: None,
    announce: Announce = lambda sentence: None,
) -> Forecaster:
    """Trains a forecaster, measures it on the test part, and stores reference windows of the validation part.

    The weights are those of the epoch with the lowest validation error. Columns that a wide table can do without are
    left out first (`screening`), and a network that is worse than a ridge regression on the validation part is trained
    once more beside a linear path (`baselines`); the better of the two is kept. `announce` is called with sentences
    about what is left out, and where the model is constant or not better than a simple forecast.

    The metrics are ``test_r2`` (see `r2_scores`) and ``test_mae`` (original units; means over the outputs), and on the
    same windows ``…_r2`` and ``…_mae`` of ``ridge``, unless windows have more than 2,048 values, of ``lightgbm`` where
    it is installed and quick, and, if the table has the values that they repeat, of ``persistence`` and
    ``seasonal_naive`` (of a series younger than a season, persistence), with the steps of its ``season``.
    ``left_out_windows`` counts windows left out for missing values.

    Intervals are trained after the forecasts, which they do not change, and calibrated on the calibration part, on
    which no weight, scale or reference window depends. Their metrics are, of each level p, ``test_coverage p``, the
    share of actual values inside, and ``test_winkler p``, the mean interval score (Gneiting and Raftery 2007, eq. 43),
    original units; means over the outputs.

    Raises:
        DataError: too few rows, a target constant in training or an output constant in the test part, or no epochs.
        ConfigError: an architecture that cannot exist, or cannot have intervals.
        NonFiniteError: the training diverged.
    """
    resolve_groups(table.groups, table.feature_names)
    if options.epochs < 1:
        raise DataError(f"epochs must be at least 1 for a new model, but is {options.epochs}")
    if table.spec.encoding.later and options.lookback < options.horizon:
        message = f"{options.horizon}, as a window has what is known at each step that is forecast"
        raise DataError(f"lookback must be at least the horizon, {message}, but is {options.lookback}")
    data = TrainingData(table, options, options.intervals)
    if data.parts.left_out:
        announce(data.parts.left_out)
    if options.intervals:
        refuse_increments(data.config)
    samples = data.samples
    has_levels = data.config.series is not None and find_without_level(data.config) is None
    if options.scaling == "series" or (options.scaling is None and has_levels):
        samples = RelativeSamples.of_samples(samples, data.config, data.parts.train)
    left_out = _screen(data, samples, options, report, announce)
    trained = _Trained(data.make_network(options, left_out), samples)
    descend(SquaredError(trained.network), samples, data.parts, options, report)
    if options.linear:
        trained = _add_path(trained, data, options, left_out, report, announce)
    provenance = Provenance.now("train", True, fitted=data.fitted)
    model = Forecaster(trained.assembled, data.reference, {}, provenance)
    if options.intervals:
        nodes = fit_increments(trained.network, options.intervals, trained.samples, data.parts, options, report)
        model = data.calibrate(model, options.intervals, "nodes", assemble(nodes, trained.samples))
    model = data.measure(model)
    for sentence in baselines.find_weaknesses(model.metrics, model.skill, table):
        announce(sentence)
    return model


@dataclass(frozen=True)
class FineTuning:
    """A model before and after fine-tuning, with reference windows and metrics of the same table."""

    before: Forecaster
    after: Forecaster


def fine_tune(
    model: Forecaster,
    table: TrainingTable,
    options: TrainingOptions = DEFAULTS,
    report: Report = lambda progress: None,
    move_grids: bool = False,
    grid_size: int | None = None,
) -> FineTuning:
    """Continues training a model, as `kanmodel.fine_tune` describes; options of the architecture are ignored.

    Intervals are calibrated on this table; their nodes are trained anew after the forecasts, but not with 0 epochs. Of
    a graph, a network with a linear path or scaled by series, intervals have a constant width then.

    Raises:
        DataError: other columns or `ahead` than the model's, too few rows, or an output constant in the test part.
        ConfigError: `move_grids` or `grid_size` for a model without B-splines, or a grid that is not finer.
        NonFiniteError: the training diverged.
    """
    config = model.config
    if table.spec.ahead != config.ahead:
        raise DataError(f"the table's targets are {table.spec.ahead} rows ahead, but the model's are {config.ahead}")
    for kind, wanted, found in (
        ("features", config.feature_names, table.feature_names),
        ("targets", tuple(target.name for target in config.targets), table.target_names),
    ):
        if found != wanted:
            raise DataError(f"the table's {kind} are {', '.join(found)}, but the model's are {', '.join(wanted)}")
    if move_grids:
        refuse_without_knots(config)
    options = replace(options, lookback=config.lookback, horizon=config.horizon)
    data = TrainingData(table, options, model.levels, config)

    def copy(network: Network) -> Network:
        return deepcopy(network) if grid_size is None else refine_grids(network, grid_size)

    network, train = copy(model.network), data.parts.train
    before = data.measure(replace(model, reference=data.reference))
    windows = data.samples.windows(train[choose_evenly(len(train), GRID_ROWS)])
    if move_grids:
        update_grids(network, windows)
    objective = SquaredError(network.train().requires_grad_(True))
    descend(objective, data.samples, data.parts, options, report, start="penalised")
    if move_grids and options.epochs:
        update_grids(network, windows)
    tuned = Forecaster(network, data.reference, {}, Provenance.now("train", True, model, data.fitted))
    if model.intervals is not None:
        how, nodes = model.intervals.kind, model.intervals.network
        if nodes is not None and options.epochs and config.graph:  # their nodes were trained beside a chain
            how, nodes = "constant", None
        elif nodes is not None and options.epochs:
            nodes = fit_increments(network, model.levels, data.samples, data.parts, options, report)
        elif nodes is not None:
            nodes = copy(nodes)
            if move_grids:
                update_grids(nodes, windows)
        tuned = data.calibrate(tuned, model.levels, how, nodes)
    return FineTuning(before, data.measure(tuned))


class TrainingData:
    """A table that is split into parts, in the units of a model: a trained one's config, or a new one by the options.

    `levels` are those of its intervals. Raises DataError for too few rows, or an output that is constant in the test
    part, so that its R2 is not defined.
    """

    def __init__(
        self, table: TrainingTable, options: TrainingOptions, levels: Sequence[float], config: ModelConfig | None = None
    ) -> None:
        share, blocks, self.table = options.validation_share, options.validation_blocks, table
        n_calibration = count_needed(levels[-1]) if levels else 0
        self.parts = split_samples(table, options.lookback, options.horizon, share, blocks, n_calibration)
        self.windows, self.config = self.parts.windows, config or _configure(table, options, self.parts)
        self.samples, self.actual = Samples.of(self.windows, self.config.scaling), actual_outputs(self.windows)
        for name, column in zip(self.config.outputs, self.actual[self.parts.test].T, strict=True):
            if np.ptp(column) == 0:
                raise DataError(f"output {name} is {column[0]} in every test window, so its R2 is not defined")
        validation = self.parts.validation
        chosen = validation[choose_evenly(len(validation), options.reference_windows)]  # in order of time
        of, windows = self.windows.choose(chosen), self.samples.windows(chosen)
        self.reference = Reference(windows, self.config, self.actual[chosen], of.times, of.series)
        self.fitted = self.windows.span(self.parts.train)

    @cached_property
    def moments(self) -> Moments | None:
        """Those of the training windows, model units."""
        return baselines.measure_moments(self.samples, self.parts.train)

    @cached_property
    def ridge(self) -> Forecast | None:
        """The ridge regression, model units; None without moments."""
        flat = partial(baselines.flatten, self.samples)
        return None if self.moments is None else ridge(self.moments, flat, self.parts.validation)

    def make_network(self, options: TrainingOptions, left_out: Sequence[int] = ()) -> Network:
        """A new network, without an effect of the features that are left out, by their numbers."""
        network = Network(self.config, torch.Generator().manual_seed(options.seed))
        leave_out(network, left_out)
        return network

    def calibrate(self, model: Forecaster, levels: Sequence[float], kind: Kind, nodes: Network | None) -> Forecaster:
        """The model with intervals of these nodes, calibrated on the calibration part; raises as `calibrate`."""
        numbers, chosen, scaling = self.parts.calibration, list(forecasts_of(self.config)), self.config.scaling
        windows, ones = self.samples.windows(numbers), np.ones((len(levels), len(chosen)))
        outputs = model.frozen.forward(windows).double()
        targets = (self.actual[numbers] - scaling.output_mean) / scaling.output_scale
        first, last = self.windows.choose(numbers[[0, -1]]).times or (None, None)
        plain = Intervals(tuple(levels), kind, ones, ones, Calibration(len(numbers), first, last), nodes)
        increments = plain.increments(self.config, outputs, windows)
        below, above = calibrate(levels, (targets - outputs.numpy())[:, chosen], *increments)
        return replace(model, intervals=replace(plain, below=below, above=above))

    def measure(self, model: Forecaster) -> Forecaster:
        """The model with its errors on the test part, and those of the baselines."""
        outputs, targets = self.config.outputs, self.actual[self.parts.test]
        windows = self.samples.windows(self.parts.test)
        with torch.no_grad():
            nodes = model.network(windows)
        forecasts = model.scaling.outputs_to_original(nodes)
        r2, mae = r2_scores(targets, forecasts, self._series), np.abs(targets - forecasts).mean(axis=0)
        metrics = {"test_r2": float(r2.mean()), "test_mae": float(mae.mean())}
        around = [of - average_by_series(of, self._series, self._series) for of in (forecasts, targets)]
        metrics["test_spread"] = float((around[0].std(axis=0) / around[1].std(axis=0)).mean())
        for number, name in enumerate(outputs if len(outputs) > 1 else ()):
            metrics |= {f"test_r2 {name}": float(r2[number]), f"test_mae {name}": float(mae[number])}
        if model.intervals is not None:
            chosen = list(forecasts_of(self.config))
            distances = model.intervals.distances(*model.intervals.increments(self.config, nodes, windows))
            below, above = (each * model.scaling.output_scale[chosen] for each in distances)
            names = [outputs[output] for output in chosen]
            metrics |= _measure_intervals(names, model.levels, (targets - forecasts)[:, chosen], below, above)
        test, spec = self.parts.test, self.windows.table.spec
        positions = find_positions(spec, self.windows.choose(test).times, len(test))
        skill = model.judge(forecasts, targets, self._simple, positions, "test")
        return replace(model, metrics=metrics | self._of_baselines, tested=skill)

    @property
    def _codes(self) -> Rows:
        """The number of the series of each window, (n_windows,)."""
        return self.windows.table.codes[self.windows.ends]

    @cached_property
    def _series(self) -> Rows:
        """The number of the series of each window of the test part, (n,); one where no series has two values."""
        series, targets = self._codes[self.parts.test], self.actual[self.parts.test]
        _, first, at = np.unique(series, return_index=True, return_inverse=True)
        return series if (targets != targets[first[at]]).any(axis=0).all() else np.zeros_like(series)

    @cached_property
    def _simple(self) -> dict[Simple, Array]:
        """Forecasts of the test part that are no model's, (n, n_outputs), original units; NaN where there are none."""
        test, season = self.windows.choose(self.parts.test), self._season
        forecasts: dict[Simple, Array] = {("persistence", None): baselines.persistence(self.table, test)}
        if season:
            forecasts["seasonal naive", season] = baselines.seasonal_naive(self.table, test, season)
        if self.ridge is not None:
            forecasts["ridge", None] = self._to_original(self.ridge)
        train = self.parts.train
        averages = average_by_series(self.actual[train], self._codes[train], self._codes[self.parts.test])
        return forecasts | {("average", None): averages}

    def _to_original(self, forecast: Forecast) -> Array:
        """Forecasts of the test part, original units."""
        return forecast(self.parts.test) * self.config.scaling.output_scale + self.config.scaling.output_mean

    @cached_property
    def _of_baselines(self) -> dict[str, float]:
        """Errors of the baselines on the test part, the number of windows of each part, and of those left out."""
        parts, targets, metrics = self.parts, self.actual[self.parts.test], dict[str, float]()
        forecasts = {name.replace(" ", "_"): of for (name, _), of in self._simple.items() if name != "average"}
        if (trees := baselines.boosted_trees(self.samples, parts.train, parts.validation)) is not None:
            forecasts["lightgbm"] = self._to_original(trees)
        for name, forecast in forecasts.items():
            if not np.isnan(forecast).any():
                metrics[f"{name}_r2"] = float(r2_scores(targets, forecast, self._series).mean())
                metrics[f"{name}_mae"] = float(np.abs(forecast - targets).mean())
        if self._season and "seasonal_naive_r2" in metrics:
            metrics["season"] = float(self._season)
        names = (*PARTS, "calibration") if len(parts.calibration) else PARTS
        metrics |= {f"{part}_windows": float(len(getattr(parts, part))) for part in names}
        if parts.windows.missing.windows:
            metrics["left_out_windows"] = float(parts.windows.missing.windows)
            metrics |= {f"left_out_windows {name}": float(count) for name, count in parts.windows.missing.worst.items()}
        return metrics

    @cached_property
    def _season(self) -> int | None:
        """Steps of the season that has the lowest error before the test part; None if there is none."""
        time, targets = self.table.spec.time, self.table.table.targets
        seasons = time.seasons if time is not None else {}
        if not seasons:
            longest = np.bincount(self.table.table.codes[~np.isnan(targets[:, 0])]).argmax()
            period = find_period(targets[self.table.table.codes == longest, 0])
            seasons = {} if period is None else {"period": period}
        held = self.windows.choose(self.parts.validation)
        actual, scale = self.actual[self.parts.validation], self.config.scaling.output_scale

        def measure(steps: int) -> float:
            return float(np.abs((baselines.seasonal_naive(self.table, held, steps) - actual) / scale).mean())

        found = find_season(seasons, measure)
        return None if found is None else found[1]


@dataclass(frozen=True)
class _Trained:
    """A chain and the samples that it is trained on."""

    network: Network
    samples: Samples

    @cached_property
    def assembled(self) -> Network:
        """The network of model units, once the chain is trained."""
        return assemble(self.network, self.samples)


def _screen(
    data: TrainingData, samples: Samples, options: TrainingOptions, report: Report, announce: Announce
) -> list[int]:
    """The features of columns that the forecaster can do without, by their numbers."""
    ranges = data.table.spec.encoding.feature_numbers
    names, columns = list(ranges), list(map(list, ranges.values()))
    if not (len(columns) > MOST_COLUMNS if options.screen is None else options.screen):
        return []
    chosen = screen(data.config, columns, samples, data.parts, options, report)
    if isinstance(samples, RelativeSamples):  # which reads the target's past anyway
        chosen = [column for column in chosen if not set(columns[column]) & set(samples.own)]
    if chosen:
        announce(
            f"{len(chosen)} of {len(columns)} columns have no effect on the model, since on windows held out for "
            f"validation a first network is as good with their values shuffled: {list_some([names[c] for c in chosen])}"
        )
    return [feature for column in chosen for feature in columns[column]]


def _add_path(
    alone: _Trained,
    data: TrainingData,
    options: TrainingOptions,
    left_out: Sequence[int],
    report: Report,
    announce: Announce,
) -> _Trained:
    """The network alone, or one beside a linear path, if that is better, and the network alone worse than the ridge."""
    parts, samples = data.parts, alone.samples
    windows, actual = data.samples.windows(parts.validation), data.samples.outputs(parts.validation)

    def measure(forecasts: Tensor) -> float:
        return float((forecasts - actual).square().mean())

    def measure_network(trained: _Trained) -> float:
        with torch.no_grad():
            return measure(trained.assembled(windows))

    if data.ridge is None or data.config.head[-1].mult_arity:
        return alone
    error = measure_network(alone)
    if error <= measure(torch.from_numpy(data.ridge(parts.validation))):
        return alone
    moments = data.moments if samples is data.samples else baselines.measure_moments(samples, parts.train)
    may_read = np.tile(~np.isin(np.arange(len(data.config.features)), left_out), data.config.lookback)
    path = None if moments is None else LinearPath.fit(moments, may_read, samples.targets.dtype)
    if path is None or not len(path.places):
        return alone
    beside = _Trained(data.make_network(options, left_out), LinearSamples.of(samples, path))
    beside.network.stages["head"][-1].silence()  # so that the forecasts start as those of the path
    light = replace(options, lamb=LIGHT * options.lamb)
    descend(SquaredError(beside.network, "path"), beside.samples, parts, light, report, "compared")
    found = measure_network(beside)
    if found >= error:
        return alone
    announce(
        "a linear path is beside the network, which alone is worse than a ridge regression: its mean squared error on "
        f"the validation part is {error:.3g} of the variance, with the path {found:.3g}"
    )
    return beside


def _configure(table: TrainingTable, options: TrainingOptions, parts: Parts) -> ModelConfig:
    """The architecture, with units, and with the scaling of the rows in training windows."""
    windows, spec = parts.windows, table.spec
    rows, reached = windows.rows[covered_rows(windows, parts.train)], np.zeros(len(table.table), dtype=bool)
    for step in range(options.horizon):
        reached[windows.find_rows(step)[parts.train]] = True
    targets = table.table.targets[reached]
    of_features = [*zip(table.feature_names, rows.T, strict=True)]
    of_targets = [*zip(table.target_names, targets.T, strict=True)]
    for name, column in of_features + of_targets:
        check_magnitude(float(np.abs(column).max()), f"column {name}")
    for name, column in of_targets:
        if np.ptp(column) == 0:
            raise DataError(f"target {name} is {column[0]} in every training row, so there is nothing to forecast")
    recurrent, n_units, n_outputs = None, len(table.feature_names), len(table.target_names) * options.horizon
    if options.hidden:
        recurrent = RecurrentConfig(options.cell, options.hidden, options.num_layers, options.bidirectional)
        n_units = recurrent.n_units
    elif options.lookback != 1:
        raise ConfigError(f"a KAN alone reads one step, so lookback must be 1 for hidden 0, but is {options.lookback}")
    basis, features = BSpline(options.grid, options.order), []
    for name, column in of_features:
        figures = [float(f(column)) for f in (np.mean, _std, np.min, np.max)]
        is_binary = np.array_equal(np.unique(column), [0, 1])
        integer, fixed = is_binary or name in table.integer, name in table.fixed
        unit, title = table.units.get(name), table.titles.get(name)
        features.append(Feature(name, unit, *figures, title=title, integer=integer, fixed=fixed))
    return ModelConfig(
        features=tuple(features),
        targets=tuple(
            Target(name, table.units.get(name), float(np.mean(column)), _std(column), title=table.titles.get(name))
            for name, column in of_targets
        ),
        lookback=options.lookback,
        horizon=options.horizon,
        head=plain_layers(options.width or (n_units, max(5, min(n_units, n_outputs // 2)), n_outputs), basis),
        recurrent=recurrent,
        front=plain_layers(options.front, basis) if options.front else (),
        ahead=spec.ahead,
        groups={name: tuple(members) for name, members in table.groups.items()},
        time=spec.time,
        encoding=None if spec.encoding.is_plain else spec.encoding,
        series=spec.series,
    )


def _std(column: Array) -> float:
    """Standard deviation; exactly 0 for a constant column, whose mean may have a rounding error."""
    return float(np.std(column)) if np.ptp(column) else 0.0


def _measure_intervals(
    outputs: Sequence[str], levels: Sequence[float], errors: Array, below: Array, above: Array
) -> dict[str, float]:
    """Coverage and Winkler score of bounds at distances (n_levels, n, n_outputs) from forecasts with some errors."""
    metrics, columns = dict[str, float](), np.broadcast_to(np.arange(len(outputs)), errors.shape)
    by_output = measure_intervals(levels, -below, above, errors, columns, len(outputs))
    for level, *measured in zip(levels, *by_output, strict=True):
        for metric, field in (("coverage", "covered"), ("winkler", "winkler")):
            values = [getattr(each, field) for each in measured]
            metrics[f"test_{metric} {level:g}"] = sum(values) / len(values)
            named = zip(outputs, values, strict=True) if len(outputs) > 1 else ()
            metrics |= {f"test_{metric} {level:g} {name}": value for name, value in named}
    return metrics
