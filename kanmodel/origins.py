"""Origins of a `Model`: `load` a checkpoint, `train` and `fine_tune`, convert by `from_torch` and other importers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import numpy as np

from kanmodel.checkpoint import load_checkpoint
from kanmodel.computing import Progress, one_thread, reporting
from kanmodel.errors import CheckpointError, ConfigError, UnknownNameError, checked, warn_caller
from kanmodel.hub import download
from kanmodel.model import Model
from kanmodel.network.config import Groups
from kanmodel.prepared import read_prepared, write_prepared
from kanmodel.question import Function, put_options
from kanmodel.tables.encoding import MAX_FILL
from kanmodel.tables.rhythm import MAX_STEP
from kanmodel.tables.roles import Columns, describe_left_out, make_table
from kanmodel.training import training
from kanmodel.training.optimization import ARCHITECTURE, ProgressLine, Report, TrainingOptions

_ENTRY = re.compile(r"^( {8}(?=(\w+):).*\n(?: {12}.*\n)*)", re.MULTILINE)  # of a docstring's section, with its name


def with_options(without: Collection[str] = ()) -> Callable[[Function], Function]:
    """Puts the fields of `TrainingOptions` in place of ``**options``, in the signature and docstring of a function."""

    def put(function: Function) -> Function:
        named = {*signature(function).parameters, *without}
        chosen = [of for of in fields(TrainingOptions) if of.name not in named]
        described = {name: entry for entry, name in _ENTRY.findall(TrainingOptions.__doc__ or "")}
        entries = "".join(described[of.name] for of in chosen)
        function.__doc__ = re.sub(r" {8}\*\*options: .*\n", lambda _: entries, function.__doc__ or "")
        kind = Parameter.KEYWORD_ONLY
        return put_options(
            function, [Parameter(of.name, kind, default=of.default, annotation=of.type) for of in chosen]
        )

    return put


@checked
def load(path: str | Path) -> Model:
    """Loads a checkpoint file, and the results that `prepare` wrote beside it, if they can be used.

    Raises:
        CheckpointError: the checkpoint is missing, truncated or foreign.
    """
    path = Path(path)
    loaded = load_checkpoint(path)
    try:
        return Model.of(loaded, path.stem, prepared=read_prepared(loaded, path))
    except CheckpointError as error:
        return Model.of(loaded, path.stem, unprepared=str(error))


@checked
def from_pretrained(repo_id: str, *, revision: str | None = None) -> Model:
    """Loads a model that `Model.push_to_hub` has uploaded to Hugging Face; its file stays in the cache of that.

    Args:
        repo_id: the repository, ``user/name``.
        revision: a branch, tag or commit; None for ``main``.

    Raises:
        CheckpointError: there is no such checkpoint, or the server cannot be reached.
        ConfigError: the package huggingface_hub is not installed.
    """
    return replace(load(download(repo_id, revision)), name=repo_id.rpartition("/")[2])


@checked
def prepare(path: str | Path, *, progress: Progress = False) -> Model:
    """Computes what takes most of the time of a checkpoint's global results, and writes it beside it.

    `load`, and so the service, reads ``name.results`` beside ``name.safetensors``: importance, topology and edges then
    take milliseconds instead of seconds or minutes, and are the same; see `kanmodel.prepared`. Nothing is computed or
    written if what is there is of this checkpoint and this version of the method.

    Args:
        path: the file of the checkpoint.
        progress: as in `Model.explain`.

    Returns:
        The model, which has them (`Model.prepared`).

    Raises:
        CheckpointError: the checkpoint is missing, truncated or foreign, or its folder cannot be written to.
        NonFiniteError: a result is not finite.
    """
    model = load(path)
    if model.prepared is not None:
        return model
    with one_thread(), reporting(progress):
        write_prepared(model, Path(path))
    return load(path)


@with_options()
@checked
def train(
    frame: Any,
    target: str | Sequence[str],
    *,
    ahead: int = 0,
    features: Sequence[str] | None = None,
    time: str | None = None,
    series: str | Sequence[str] | None = None,
    static: Sequence[str] = (),
    split: str | None = None,
    max_step: float = MAX_STEP,
    zone: str | None = None,
    calendar: bool | Sequence[str] = False,
    holidays: str | None = None,
    known: Sequence[str] = (),
    fill: str | float | None = None,
    max_fill: int = MAX_FILL,
    units: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
    last_value: Mapping[str, str | float] | None = None,
    groups: Groups | None = None,
    integer: Sequence[str] = (),
    fixed: Sequence[str] = (),
    intervals: float | Sequence[float] = (),
    progress: Report = None,
    name: str = "model",
    **options: Any,
) -> Model:
    """Trains an LSTM+KAN forecaster on a table, and compares it with persistence and ridge regression.

    Windows with a missing value or target are left out and counted, and no window spans a gap in time. Warnings state
    before training which columns, windows and rows are left out, and why. How the columns become features is kept in
    the checkpoint (`kanmodel.tables.encoding`), and is what `Model.predict` does with a frame. The figures are in
    `Model.metrics`: ``test_r2``, ``test_mae``, ``persistence_r2``, ``seasonal_naive_r2``, ``ridge_r2`` and more;
    see `kanmodel.training.training.fit`.

    Args:
        frame: a data frame (pandas, polars, or anything with ``.columns``), or a mapping of name to array; rows oldest
            first. NaN, None and masked values are missing, booleans are 0 and 1.
        target: the column to forecast, or several.
        ahead: steps between a window's last row and the first forecast, the output ``{target}+{ahead}``; with `horizon`
            h there are outputs up to ``{target}+{ahead+h-1}``. 0 for a target that is already shifted, so that each row
            has the value to forecast from it; its output is called ``{target}+1``.
        features: input columns; by default every column of numbers, booleans or texts without another role, including
            the target if `ahead` is not 0, because its past is then known. A warning names the columns left out.
        time: the column of time stamps: dates, ISO 8601 or 31.12.2023 23:00 as strings, or numbers; by default the
            index, if it has dates. A step longer than `max_step` is a gap.
        series: the column that says of which series a row is, such as the shop: one model is trained on all of them,
            and no window has rows of two. Rows are oldest first in each series. Of a wide table the columns of the
            target, one for each series, which are called `target` then. Without `time`, a series ends where the value
            changes.
        static: columns that have one value for each series, such as its region.
        split: the column with train, validation or test; by default the newest 15 % of the rows are for the test, by
            time. Without validation rows, blocks of training windows all over the rows before the test are held out
            (`validation_share`, `validation_blocks`); the reference windows are chosen evenly from them. With
            `intervals`, every second block calibrates these instead.
        max_step: the longest time step that is not a gap, as a multiple of the usual step. Steps are counted in the
            rhythm of the table: a fixed time, days, months or the end of months of the local calendar, or, where some
            weekdays have no rows, open days, of which the next row is a step unless it is weeks away. Up to three days
            without a row are no gap in one of many series of days, since a shop may be closed.
        zone: time zone of times without an offset, of the calendar and of days, such as ``Europe/Berlin``; by default
            that of the time column, or else UTC.
        calendar: whether hour, weekday and day of the year, each as sine and cosine, and the weekend are features, or
            the names of some: ``["hour", "weekday"]``. A window's last step has those of the last forecast's time, and
            so the steps before it have those of the others.
        holidays: the country, such as ``DE`` or ``DE-BY``, whose public holidays are a feature.
        known: columns whose future is known at the forecast, such as a weather forecast or a schedule: a window's last
            step has the value of the last forecast's time, and so the steps before it have those of the others. With
            `ahead` 1 and `horizon` 24 the feature is called ``temp+24``.
        fill: how missing values are filled: ``forward``, with the last one; ``linear``, on a line to the next one, if
            that is known at the end of the window, or else with the last one; or a number. Levels are always filled
            forward. Targets are not filled.
        max_fill: the most rows without a value, one after another and up to the window's end, that are filled.
        units: unit of a feature or target, by name.
        titles: what a feature or target is called in sentences, by name: a noun phrase, such as ``{"dtemp_6h":
            "Newark's temperature change over the next six hours"}``.
        last_value: by target, the feature whose last value is the persistence forecast, or 0 for a target that is
            itself a change; only needed if `ahead` is 0.
        groups: features that belong together, such as ``{"hour": ["hour_sin", "hour_cos"]}``; explanations also sum
            their contributions.
        integer: features with whole numbers, which a counterfactual keeps whole; those of 0 and 1 alone are found.
        fixed: features that nobody can change, such as the calendar, which a counterfactual leaves unchanged.
        progress: called with a `Progress` after each epoch; True for a line of text, False for none, None for a line in
            a terminal or a notebook.
        intervals: levels of prediction intervals, such as ``(0.8, 0.95)``, or one of them. They are trained after the
            forecasts, which they do not change, and calibrated on windows on which no weight or scale depends; see
            `kanmodel.training.training.fit`. `Model.predict` then gives bounds, which can be explained.
        name: name of the model.
        **options: of the training.

    Raises:
        DataError: a value that cannot be used, too few windows, or a constant target; the message states the reason.
        UnknownNameError: a column or an option that does not exist.
        ConfigError: an architecture that cannot exist, or cannot have intervals.
        NonFiniteError: the training diverged.
    """
    chosen = _read_options(options | {"intervals": tuple(np.atleast_1d(intervals).tolist())})
    columns = Columns(
        targets=(target,) if isinstance(target, str) else tuple(target),
        features=None if features is None else tuple(features),
        split=split,
        series=series if isinstance(series, str | None) else tuple(series),
        static=tuple(static),
        time=time,
        max_step=max_step,
        zone=zone,
        calendar=calendar,
        holidays=holidays,
        known=tuple(known),
        fill=fill,
        max_fill=max_fill,
        ahead=ahead,
        horizon=chosen.horizon,
        units=units or {},
        titles=titles or {},
        last_value=last_value or {},
        groups=groups or {},
        integer=tuple(integer),
        fixed=tuple(fixed),
    )
    table = make_table(frame, columns)
    if table.left_out:
        warn_caller(describe_left_out(table.left_out))
    line = ProgressLine(progress)
    trained = training.fit(table, chosen, line, warn_caller)
    line.finish(trained.metrics)
    return Model.of(trained, name)


@with_options(without=("lookback", "horizon", *ARCHITECTURE))
@checked
def fine_tune(
    model: Model,
    frame: Any,
    *,
    time: str | None = None,
    split: str | None = None,
    max_step: float = MAX_STEP,
    last_value: Mapping[str, str | float] | None = None,
    grid_size: int | None = None,
    move_grids: bool = False,
    grid_updates: int = 0,
    progress: Report = None,
    **options: Any,
) -> Model:
    """Continues training a model: with a penalty for sparser edges, on finer grids, or on new data.

    Columns, `ahead`, architecture, units and scaling are the model's; masked edges stay masked. The returned weights
    are those of the epoch with the lowest validation error plus penalty, including epoch 0, the start; with 0 epochs
    the model is only measured.

    Intervals are trained anew after the forecasts, and calibrated on this table: on windows that the first training did
    not fit either if it is the same table with the same split, or a newer one.

    Args:
        model: the model to start from; it is not changed.
        frame: as in `train`.
        time: as in `train`, like `split`, `max_step`, `last_value` and `progress`.
        split: likewise.
        max_step: likewise.
        last_value: likewise.
        progress: likewise.
        grid_size: intervals of a finer grid for every spline, set before training as by `Model.refine_grid`; None to
            keep the grids.
        move_grids: whether all knots are moved to the data before training, and again after it, because the inputs of
            the inner layers have changed by then.
        grid_updates: how often knots are moved to the data during training.
        **options: of the training, except those of the architecture.

    Raises:
        DataError, UnknownNameError, NonFiniteError: as `train`.
        ConfigError: `grid_size` or `move_grids` for a model without B-splines, a grid that is not finer, or an option
            of the architecture.
    """
    for option in ("lookback", "horizon", *ARCHITECTURE):
        if option in options:
            more = "; grid_size sets a finer one" if option == "grid" else ""
            raise ConfigError(f"{option} cannot be given, because it is taken from the model{more}")
    config = model.config
    targets, spec = tuple(target.name for target in config.targets), config.table
    columns = Columns(targets, spec.encoding.names, split, time=time, max_step=max_step, ahead=config.ahead)
    if spec.series is not None:
        columns = replace(columns, series=spec.series.columns or spec.series.name)
    table, line = make_table(frame, replace(columns, last_value=last_value or {}), spec), ProgressLine(progress)
    chosen = _read_options(options | {"grid_updates": grid_updates})
    tuning = training.fine_tune(model, table, chosen, line, move_grids, grid_size)
    line.finish(tuning.after.metrics)
    return Model.of(tuning.after, model.name)


def _read_options(options: Mapping[str, Any]) -> TrainingOptions:
    known = [field.name for field in fields(TrainingOptions)]
    for name in options:
        if name not in known:
            raise UnknownNameError(f"there is no option {name!r}; the options are {', '.join(known)}")
    return TrainingOptions(**options)
