"""`fit` and `fine_tune`: train a model on a table, with test metrics of the model and of baselines."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch

from kanmodel.checkpoint import LoadedModel, Provenance, Reference
from kanmodel.data import Array, Feature, Target, TimeColumn
from kanmodel.errors import ConfigError, DataError
from kanmodel.network.bases import BSpline
from kanmodel.network.chain import Network
from kanmodel.network.config import Layers, ModelConfig, RecurrentConfig, plain_layers
from kanmodel.training import baselines
from kanmodel.training.grids import refine_grids, refuse_without_knots
from kanmodel.training.optimization import DEFAULTS, GRID_ROWS, Progress, TrainingOptions, Width, descend, update_grids
from kanmodel.training.samples import PARTS, Ends, Parts, Samples, TrainingTable, covered_rows, split_samples


def fit(
    table: TrainingTable,
    options: TrainingOptions = DEFAULTS,
    report: Callable[[Progress], None] = lambda progress: None,
) -> LoadedModel:
    """Trains a forecaster, measures it on the test part, and stores reference windows of the validation part.

    The weights are those of the epoch with the lowest validation error. The metrics are ``test_r2`` and ``test_mae``
    (original units; means over the outputs), and on the same windows ``ridge_r2`` and, if the table has the values
    that they repeat, ``persistence_r2``, ``persistence_day_r2`` and ``persistence_week_r2``. ``left_out_windows``
    counts windows left out for missing values, in total and by column.

    Args:
        table: the rows.
        options: architecture and training.
        report: called after every epoch.

    Raises:
        DataError: too few rows, a target that is constant in training or an output that is constant in the test part,
            or no epochs.
        ConfigError: an architecture that cannot exist.
        NonFiniteError: the training diverged.
    """
    if options.epochs < 1:
        raise DataError(f"epochs must be at least 1 for a new model, but is {options.epochs}")
    parts = _split(table, options)
    config = _configure(table, options, parts)
    _refuse_constant_outputs(config, table, parts)
    samples = Samples.of(table, config.scaling, options.lookback, options.horizon)
    network = Network(config, torch.Generator().manual_seed(options.seed))
    descend(network, samples, parts, options, report)
    provenance = Provenance.now("train", verified=True)
    model = LoadedModel(network, _reference(table, samples, parts, options), {}, provenance)
    metrics = _measure(model, table, samples, parts) | _measure_baselines(model, table, samples, parts)
    return replace(model, metrics=metrics)


@dataclass(frozen=True)
class FineTuning:
    """A model before and after fine-tuning, with reference windows and metrics of the same table.

    Attributes:
        before: the model with the old weights.
        after: the model with the new weights.
    """

    before: LoadedModel
    after: LoadedModel


def fine_tune(
    model: LoadedModel,
    table: TrainingTable,
    options: TrainingOptions = DEFAULTS,
    report: Callable[[Progress], None] = lambda progress: None,
    move_grids: bool = False,
    grid_size: int | None = None,
) -> FineTuning:
    """Continues training a model, for sparser edges or finer functions.

    Units, scaling and masked edges do not change, nor does the architecture except for `grid_size`. The weights are
    those of the epoch with the lowest validation error plus penalty, including the start; with 0 epochs the model is
    only measured.

    Args:
        model: the model to start from; it is not changed.
        table: rows with the model's features and targets.
        options: training options; those of the architecture are ignored.
        report: called after every epoch.
        move_grids: whether all knots are moved to the data before the first epoch, and again after the last, because
            the inputs of the inner layers have changed by then.
        grid_size: intervals of a finer grid for every B-spline, set first, see `refine_grids`; None to keep the grids.

    Raises:
        DataError: other columns than the model's or another `ahead`, too few rows, or an output that is constant in
            the test part.
        ConfigError: `move_grids` or `grid_size` for a model without B-splines, or a grid that is not finer.
        NonFiniteError: the training diverged.
    """
    config = model.config
    _refuse_other_columns(config, table)
    if move_grids:
        refuse_without_knots(config)
    options = replace(options, lookback=config.lookback, horizon=config.horizon)
    parts = _split(table, options)
    _refuse_constant_outputs(config, table, parts)
    samples = Samples.of(table, model.scaling, config.lookback, config.horizon)
    network = deepcopy(model.network) if grid_size is None else refine_grids(model.network, grid_size)
    before = replace(model, reference=_reference(table, samples, parts, options))
    baseline_metrics = _measure_baselines(before, table, samples, parts)
    before = replace(before, metrics=_measure(before, table, samples, parts) | baseline_metrics)
    rows = np.linspace(0, len(parts.train) - 1, min(GRID_ROWS, len(parts.train))).round().astype(int)
    windows = samples.windows(parts.train[rows])
    if move_grids:
        update_grids(network, windows)
    descend(network.train().requires_grad_(True), samples, parts, options, report, trained=True)
    if move_grids and options.epochs:
        update_grids(network, windows)
    after = LoadedModel(network, before.reference, {}, Provenance.now("train", verified=True, parent=model))
    after = replace(after, metrics=_measure(after, table, samples, parts) | baseline_metrics)
    return FineTuning(before, after)


def _split(table: TrainingTable, options: TrainingOptions) -> Parts:
    blocks = options.validation_blocks
    return split_samples(table, options.lookback, options.horizon, options.validation_share, blocks)


def _refuse_constant_outputs(config: ModelConfig, table: TrainingTable, parts: Parts) -> None:
    """Raises before training if R2 is not defined on the test part."""
    targets = _targets(table, parts.test, config.horizon)
    for name, column in zip(config.outputs, targets.T, strict=True):
        if np.ptp(column) == 0:
            raise DataError(f"output {name} is {column[0]} in every test window, so its R2 is not defined")


def _refuse_other_columns(config: ModelConfig, table: TrainingTable) -> None:
    targets = tuple(target.name for target in config.targets)
    if table.ahead != config.ahead:
        raise DataError(f"the table's targets are {table.ahead} rows ahead, but the model's are {config.ahead}")
    for kind, wanted, found in (
        ("features", config.feature_names, table.feature_names),
        ("targets", targets, table.target_names),
    ):
        if found != wanted:
            raise DataError(f"the table's {kind} are {', '.join(found)}, but the model's are {', '.join(wanted)}")


def _configure(table: TrainingTable, options: TrainingOptions, parts: Parts) -> ModelConfig:
    """The architecture, with units, and with the scaling of the rows in training windows."""
    rows = table.features[covered_rows(parts.train, 1 - options.lookback, 0)]
    targets = table.targets[covered_rows(parts.train, table.ahead, table.ahead + options.horizon - 1)]
    for name, column in zip(table.target_names, targets.T, strict=True):
        if np.ptp(column) == 0:
            raise DataError(f"target {name} is {column[0]} in every training row, so there is nothing to forecast")
    n_outputs = len(table.target_names) * options.horizon
    recurrent = None
    if not options.hidden and options.lookback != 1:
        raise ConfigError(f"a KAN alone reads one step, so lookback must be 1 for hidden 0, but is {options.lookback}")
    if options.hidden:
        recurrent = RecurrentConfig(options.cell, options.hidden, options.num_layers, options.bidirectional)
    clock = table.clock
    n_units = recurrent.n_units if recurrent else len(table.feature_names)
    return ModelConfig(
        features=tuple(
            Feature(
                name,
                table.units.get(name),
                *(float(f(column)) for f in (np.mean, _std, np.min, np.max)),
                integer=name in table.integer,
                fixed=name in table.fixed,
            )
            for name, column in zip(table.feature_names, rows.T, strict=True)
        ),
        targets=tuple(
            Target(name, table.units.get(name), float(np.mean(column)), _std(column))
            for name, column in zip(table.target_names, targets.T, strict=True)
        ),
        lookback=options.lookback,
        horizon=options.horizon,
        head=_layers(options.width or (n_units, 5, n_outputs), options),
        recurrent=recurrent,
        front=_layers(options.front, options) if options.front else (),
        ahead=table.ahead,
        groups={name: tuple(members) for name, members in table.groups.items()},
        time=TimeColumn(clock.name, clock.step, clock.max_step, clock.dated) if clock and clock.step else None,
    )


def _std(column: Array) -> float:
    """Standard deviation; exactly 0 for a constant column, whose mean may have a rounding error."""
    return float(np.std(column)) if np.ptp(column) else 0.0


def _layers(width: Width, options: TrainingOptions) -> Layers:
    return plain_layers(width, BSpline(options.grid, options.order))


def _reference(table: TrainingTable, samples: Samples, parts: Parts, options: TrainingOptions) -> Reference:
    """Evenly chosen windows of the validation part, in time order."""
    count = min(options.reference_windows, len(parts.validation))
    ends = parts.validation[np.linspace(0, len(parts.validation) - 1, count).round().astype(int)]
    return Reference(
        samples.windows(ends),
        _targets(table, ends, options.horizon),
        tuple(table.times[end] for end in ends) if table.times is not None else None,
    )


def _targets(table: TrainingTable, ends: Ends, horizon: int) -> Array:
    """(len(ends), horizon * n_targets), original units, steps outermost."""
    targets: Array = table.targets[ends[:, None] + table.ahead + np.arange(horizon)].reshape(len(ends), -1)
    return targets


def _measure(model: LoadedModel, table: TrainingTable, samples: Samples, parts: Parts) -> dict[str, float]:
    """Errors on the test part."""
    config = model.config
    targets = _targets(table, parts.test, config.horizon)
    with torch.no_grad():
        forecasts = model.scaling.outputs_to_original(model.network(samples.windows(parts.test)))
    r2 = baselines.r2_scores(targets, forecasts)
    mae = np.abs(targets - forecasts).mean(axis=0)
    metrics = {"test_r2": r2.mean(), "test_mae": mae.mean()}
    if len(config.outputs) > 1:
        for output, name in enumerate(config.outputs):
            metrics |= {f"test_r2 {name}": r2[output], f"test_mae {name}": mae[output]}
    return {name: float(value) for name, value in metrics.items()}


def _measure_baselines(model: LoadedModel, table: TrainingTable, samples: Samples, parts: Parts) -> dict[str, float]:
    """Errors of the baselines on the test part, the number of windows of each part, and of those left out."""
    horizon = model.config.horizon
    targets = _targets(table, parts.test, horizon)
    forecasts = {"persistence": baselines.persistence(table, parts.test, horizon)}
    for season, period in baselines.SEASONS.items():
        forecasts[f"persistence_{season}"] = baselines.seasonal_persistence(table, parts.test, horizon, period)
    ridge = baselines.ridge(samples, parts.train, parts.validation, parts.test)
    forecasts["ridge"] = ridge * model.scaling.output_scale + model.scaling.output_mean
    metrics = {
        f"{name}_r2": float(baselines.r2_scores(targets, forecast).mean())
        for name, forecast in forecasts.items()
        if forecast is not None
    }
    metrics |= {f"{part}_windows": float(len(getattr(parts, part))) for part in PARTS}
    if parts.missing.windows:
        metrics["left_out_windows"] = float(parts.missing.windows)
        metrics |= {f"left_out_windows {name}": float(count) for name, count in parts.missing.worst.items()}
    return metrics
