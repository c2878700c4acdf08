"""Training with intervals: forecasts as without, and bounds calibrated on rows on which no weight depends."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from factories import make_rows, with_rows
from thorough import few_of

from kanmodel.errors import ConfigError, DataError
from kanmodel.network.network import Network
from kanmodel.tables.roles import TrainingTable
from kanmodel.tables.samples import Samples, split_samples
from kanmodel.training.grids import refine_model
from kanmodel.training.increments import fit_increments
from kanmodel.training.optimization import SquaredError, TrainingOptions, descend
from kanmodel.training.training import fine_tune, fit

LEVELS = (0.8, 0.95)
QUICK = TrainingOptions(
    lookback=3,
    hidden=4,
    width=(4, 2, 1),
    grid=3,
    epochs=3,
    batch=64,
    linear=False,
    lamb=0.001,
    noise=0.0,
    intervals=LEVELS,
)
ALONE = replace(QUICK, lookback=1, hidden=0, width=(2, 3, 1), epochs=12, batch=128, learning_rate=0.03)
WIDE = replace(QUICK, front=(2, 3), width=(4, (3, 1), 2, 4), horizon=2)  # with a front and a product, of two targets
CALM, WILD = 0.2, 2.0  # standard deviations of the noise


def make_table(
    n_rows: int = 1600, n_targets: int = 1, seed: int = 0, names: tuple[str, ...] = ("y", "z")
) -> TrainingTable:
    """Independent rows whose target has wild noise where the feature ``wild`` is 1, and calm noise elsewhere."""
    rng = np.random.default_rng(seed)
    wild = rng.random(n_rows) < 0.3
    noise = rng.normal(size=(n_rows, n_targets)) * np.where(wild, WILD, CALM)[:, None]
    features = np.column_stack([rng.normal(size=n_rows), wild])
    return make_rows(features, 3 * np.sin(features[:, :1]) + noise, ("a", "wild"), names[:n_targets], np.arange(n_rows))


def split(table: TrainingTable, options: TrainingOptions):
    return split_samples(table, options.lookback, options.horizon, 0.15, 12, 39)


def ends_of(table: TrainingTable, options: TrainingOptions, part: str):
    """The rows at which the windows of a part end."""
    parts = split(table, options)
    return parts.windows.ends[getattr(parts, part)]


@cache
def trained(options):
    table = make_table(6000 if options is ALONE else 1600, 2 if options is WIDE else 1)
    return table, fit(table, options)


@pytest.mark.parametrize("options", few_of([QUICK, WIDE], [QUICK], "trains two models more"))
def test_forecasts_are_those_of_training_without_intervals(options):
    """Weights are bit for bit those of the training of forecasts alone; the network of increments has them all.

    Only the validation blocks are divided: what is trained on, and the scaling, are the same.
    """
    table, model = trained(options)
    parts, without = split(table, options), split_samples(table, options.lookback, options.horizon, 0.15, 12)
    np.testing.assert_array_equal(parts.train, without.train)
    assert sorted([*parts.validation, *parts.calibration]) == without.validation.tolist()
    assert fit(table, replace(options, intervals=(), epochs=1)).config == model.config
    samples = Samples.of(parts.windows, model.scaling)
    alone = Network(model.config, torch.Generator().manual_seed(options.seed))
    descend(SquaredError(alone), samples, parts, options, lambda progress: None)
    state = model.network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in alone.state_dict().items())
    nodes = model.intervals.network
    windows = samples.windows(parts.test)
    steps = nodes(windows).view(len(windows), options.horizon, 5, -1)
    torch.testing.assert_close(steps[:, :, 0].flatten(1), alone(windows), rtol=1e-5, atol=1e-5)
    for layer, joined in zip(alone.head, nodes.head, strict=True):
        assert torch.isin(layer.coef, joined.coef).all()
    for part in ("front", "recurrent"):
        for name, tensor in alone.state_dict().items():
            assert not name.startswith(part) or torch.equal(tensor, nodes.state_dict()[name])


@pytest.mark.parametrize("options", [QUICK, WIDE])
def test_the_calibration_part_changes_nothing_but_the_factors(options):
    """With other features and targets in all its rows, every weight, scale, window and other metric is the same."""
    table, model = trained(options)
    rows = np.unique(ends_of(table, options, "calibration")[:, None] + np.arange(1 - options.lookback, options.horizon))
    features, targets = table.table.numbers.copy(), table.table.targets.copy()
    features[rows] += np.random.default_rng(1).normal(size=features[rows].shape)
    targets[rows] += np.random.default_rng(2).normal(scale=5, size=targets[rows].shape)
    other = fit(with_rows(table, features, targets), options)
    for one, of_other in ((model.network, other.network), (model.intervals.network, other.intervals.network)):
        state = of_other.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())
    assert other.config == model.config
    assert torch.equal(other.reference.scaled, model.reference.scaled)
    np.testing.assert_array_equal(other.reference.targets, model.reference.targets)
    assert other.reference.times == model.reference.times
    for name, value in model.metrics.items():
        assert ("coverage" in name or "winkler" in name) == (other.metrics[name] != value), name
    assert other.intervals.calibration == model.intervals.calibration
    for side in ("below", "above"):
        assert (getattr(other.intervals, side)[0] > getattr(model.intervals, side)[0]).all()


@pytest.mark.thorough("trains for 3 s")
def test_widths_follow_the_noise_and_hold_as_many_values_as_their_level_says():
    """Coverage of independent rows is within four deviations of the level, and wild rows have far wider intervals."""
    table, model = trained(ALONE)
    calibration, test = (ends_of(table, ALONE, part) for part in ("calibration", "test"))
    n, metrics = len(calibration), model.metrics
    assert n == metrics["calibration_windows"] > 300
    for level in LEVELS:
        deviation = np.sqrt(level * (1 - level) * (1 / n + 1 / len(test)))
        assert abs(metrics[f"test_coverage {level:g}"] - level) < 4 * deviation
    _, lower, upper = model.predict_bounds(table.table.numbers[test][:, None])
    width, wild = (upper - lower)[..., 0], table.table.numbers[test, 1] == 1
    assert (width[:, wild].mean(axis=1) > 4 * width[:, ~wild].mean(axis=1)).all()
    found = model.intervals
    assert found.kind == "nodes" and found.levels == LEVELS
    assert (found.below >= 0).all() and (found.above >= 0).all()
    assert (found.below < 2).all() and (found.above < 2).all()  # as trained already
    times = table.table.times(calibration)
    assert (found.calibration.windows, found.calibration.first, found.calibration.last) == (n, times[0], times[-1])


@pytest.mark.parametrize("options", [ALONE, WIDE])
def test_coverage_and_winkler_score_are_those_of_the_test_part(options):
    """They equal the definitions, computed from the bounds of test windows, and are means over the outputs."""
    table, model = trained(options)
    ends = ends_of(table, options, "test")
    windows = table.table.numbers[ends[:, None] + np.arange(1 - options.lookback, 1)]
    actual = table.table.targets[ends[:, None] + np.arange(options.horizon)].reshape(len(ends), -1)
    _, lower, upper = model.predict_bounds(windows)
    outputs = model.config.outputs
    for k, level in enumerate(LEVELS):
        covered = (lower[k] <= actual) & (actual <= upper[k])
        missed = np.maximum(0, np.maximum(lower[k] - actual, actual - upper[k]))
        score = upper[k] - lower[k] + 2 / (1 - level) * missed
        assert model.metrics[f"test_coverage {level:g}"] == pytest.approx(covered.mean(), abs=1e-9)
        assert model.metrics[f"test_winkler {level:g}"] == pytest.approx(score.mean(), rel=1e-5)
        for number, name in enumerate(outputs if len(outputs) > 1 else ()):
            assert model.metrics[f"test_coverage {level:g} {name}"] == pytest.approx(covered[:, number].mean())
            assert model.metrics[f"test_winkler {level:g} {name}"] == pytest.approx(score[:, number].mean(), rel=1e-5)


def test_increments_that_cannot_be_learned_stay_constant():
    """Without epochs that lower the loss, the nodes are constants, whose bounds are quantiles of validation errors."""
    table, model = trained(QUICK)
    parts = split(table, QUICK)
    samples = Samples.of(parts.windows, model.scaling)
    options = replace(QUICK, epochs=0)
    nodes = fit_increments(model.network, (0.5, 0.9), samples, parts, options, lambda progress: None)
    values = nodes(samples.windows(parts.validation))[:, 1:]
    assert (values == values[0]).all()
    increments = torch.nn.functional.softplus(values[0])
    errors = samples.outputs(parts.validation) - model.network(samples.windows(parts.validation))
    for at, level in ((slice(0, 2), 0.5), (slice(0, 4), 0.9)):
        below, above = increments[at][0::2].sum(), increments[at][1::2].sum()
        assert ((errors < -below).float().mean().item()) == pytest.approx((1 - level) / 2, abs=0.01)
        assert ((errors > above).float().mean().item()) == pytest.approx((1 - level) / 2, abs=0.01)


def test_both_stages_report_their_progress():
    """Epochs of the forecasts come first, then those of the intervals."""
    reports = []
    fit(make_table(), replace(QUICK, epochs=2), reports.append)
    stages = [("forecasts", 1), ("forecasts", 2), ("intervals", 1), ("intervals", 2)]
    assert [(report.stage, report.epoch) for report in reports] == stages


@pytest.mark.parametrize("move_grids", [False, True])
@pytest.mark.parametrize("grid_size", [None, 6])
def test_fine_tuning_without_epochs_keeps_the_increments(grid_size, move_grids):
    """On the same table, also on finer or moved grids, bounds are the same up to their fit."""
    table, model = trained(QUICK)
    after = fine_tune(model, table, replace(QUICK, epochs=0), move_grids=move_grids, grid_size=grid_size).after
    rtol = 1e-9 if not (move_grids or grid_size) else 1e-3 if not move_grids else 0.1
    for name, value in model.metrics.items():
        assert after.metrics[name] == pytest.approx(value, rel=rtol, abs=rtol), name
    assert after.levels == LEVELS
    if move_grids or grid_size:
        nodes, windows = after.intervals.network, after.reference.scaled
        torch.testing.assert_close(nodes(windows)[:, :1], after.network(windows), rtol=1e-3, atol=1e-3)


def test_fine_tuning_trains_the_increments_anew():
    """After the forecasts, whose weights the network of increments has; levels stay."""
    table, model = trained(QUICK)
    after = fine_tune(model, table, replace(QUICK, learning_rate=0.003, lamb=0.0)).after
    windows = after.reference.scaled
    assert not torch.equal(after.network(windows), model.network(windows))
    torch.testing.assert_close(after.intervals.network(windows)[:, :1], after.network(windows), rtol=1e-5, atol=1e-5)
    assert after.levels == LEVELS and "test_winkler 0.95" in after.metrics


def test_grid_extension_keeps_intervals_where_forecasts_are_the_same():
    """Finer knots that include the old ones keep all bounds; others that change forecasts lose them."""
    _, model = trained(QUICK)
    refined = refine_model(model, 6)
    assert refined.provenance.verified and refined.intervals is model.intervals
    fitted = refine_model(model, 4)
    assert (fitted.intervals is None) != fitted.provenance.verified


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0.0,), r"intervals must be levels between 0 and 1, .* such as 0\.8, but has 0"),
        ((1.0,), "but has 1"),
        ((80,), "but has 80"),
        ((0.8, 0.9, 0.8), r"intervals has the level 0\.8 more than once"),
        ((0.123456,), r"of at most 4 decimals, .* but has 0\.123456"),
        ((float("nan"),), r"intervals\[0\] must be a finite number"),
    ],
)
def test_levels_that_cannot_be_are_refused(given, message):
    """The error has the level."""
    with pytest.raises(DataError, match=message):
        TrainingOptions(intervals=given)


def test_levels_are_sorted():
    """Ascending, as bounds hold those of lower levels."""
    assert TrainingOptions(intervals=(0.95, 0.5, 0.8)).intervals == (0.5, 0.8, 0.95)


def test_what_cannot_have_intervals_is_refused_before_training():
    """Too few windows for a level, outputs that are products, and targets that are quantiles."""
    table, epochs = make_table(), []
    with pytest.raises(DataError, match=r"calibration part has .* windows of 3 rows, but needs 1999 for the intervals"):
        fit(table, replace(QUICK, intervals=(0.8, 0.999)), epochs.append)
    with pytest.raises(ConfigError, match="last layer of the head has product nodes"):
        fit(table, replace(QUICK, width=(4, 2, (0, 1))), epochs.append)
    named = make_table(n_targets=2, names=("y", "y@0.9"))
    with pytest.raises(ConfigError, match="named as a quantile"):
        fit(named, replace(QUICK, width=(4, 2, 2)), epochs.append)
    assert not epochs
