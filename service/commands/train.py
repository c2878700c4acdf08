"""``kanscope train``: trains a model on a table, or with ``--from`` fine-tunes a checkpoint."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from typer import Argument, BadParameter, Context, Option, echo

from kanmodel import Model, load
from kanmodel.errors import ConfigError
from kanmodel.network.config import Cell, ModelConfig
from kanmodel.structure.scores import MIN_INPUTS
from kanmodel.tables.encoding import MAX_FILL
from kanmodel.tables.rhythm import MAX_STEP
from kanmodel.tables.roles import Columns, TrainingTable, describe_left_out, make_table
from kanmodel.tables.table import TableSpec
from kanmodel.training.grids import refine_config, refuse_without_knots
from kanmodel.training.optimization import ARCHITECTURE, DEFAULTS, Scale, TrainingOptions, Width
from kanmodel.training.optimization import Progress as Epoch
from kanmodel.training.training import fine_tune, fit
from service.batch import Csv
from service.commands.options import (
    Decimal,
    Prepare,
    Separator,
    Written,
    make_console,
    parse_levels,
    print_table,
    print_written,
    refuse_unwritable,
    save,
    split_names,
)

ENCODING = ("static", "zone", "calendar", "holidays", "known", "fill", "max_fill")


def parse_width(text: str | None) -> Width | None:
    """Parses a width in pykan's notation: ``12,5,1``, with product nodes ``12,[5,2],1``."""
    if text is None:
        return None
    try:
        layers = json.loads(f"[{text}]")
        if len(layers) == 1 and isinstance(layers[0], list):
            layers = layers[0]
        return tuple(layer if isinstance(layer, int) else (int(layer[0]), int(layer[1])) for layer in layers)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise BadParameter(f"{text!r} is not a width such as 12,5,1 or 12,[5,2],1") from error


def parse_pairs(texts: list[str], option: str) -> dict[str, str]:
    """Parses ``NAME=VALUE`` options into a mapping."""
    for text in texts:
        if "=" not in text:
            raise BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return dict(text.split("=", 1) for text in texts)


def parse_fill(text: str | None) -> str | float | None:
    """Parses ``linear`` or ``forward``, which stay as they are, or a number."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def train(
    context: Context,
    data: Annotated[Path, Argument(help="Table: .csv, .csv.gz or .parquet, rows oldest first.")],
    output: Written,
    target: Annotated[list[str], Option(help="Column to forecast; repeat for several.")] = [],  # noqa: B006  (copied)
    ahead: Annotated[int, Option(min=0, help="Rows from a window to the forecast: 6 for load+6; see --horizon.")] = 0,
    origin: Annotated[Path | None, Option("--from", help="Checkpoint to tune; its columns and scaling stay.")] = None,
    update_grid: Annotated[bool, Option("--update-grid", help="With --from: move knots to the data, twice.")] = False,
    separator: Separator = ",",
    decimal: Decimal = ".",
    features: Annotated[list[str], Option(help="Inputs, as a,b, or repeat. Default: all numbers and texts.")] = [],  # noqa: B006
    split_column: Annotated[str | None, Option(help="Column with train, validation or test.")] = None,
    series_column: Annotated[list[str], Option(help="Names of series; or the target's column of each, as a,b.")] = [],  # noqa: B006
    static: Annotated[list[str], Option(help="Columns with one value for each series, as a,b.")] = [],  # noqa: B006
    time_column: Annotated[str | None, Option(help="Times: ISO 8601, 31.12.2023 23:00, numbers; show gaps.")] = None,
    max_step: Annotated[float, Option(help="Longest step that is not a gap, in median steps.")] = MAX_STEP,
    zone: Annotated[str | None, Option(help="Time zone of times without offset, such as Europe/Berlin.")] = None,
    calendar: Annotated[bool, Option("--calendar", help="Add hour, weekday, day of year and weekend.")] = False,
    holidays: Annotated[str | None, Option(help="Add the public holidays of a country: DE, or DE-BY.")] = None,
    known: Annotated[list[str], Option(help="Columns known AHEAD rows later, as a,b, or repeat.")] = [],  # noqa: B006
    fill: Annotated[str | None, Option(help="Missing values: forward, linear, or a number.")] = None,
    max_fill: Annotated[int, Option(min=1, help="Most rows in a row that are filled.")] = MAX_FILL,
    unit: Annotated[list[str], Option(help="NAME=UNIT of a feature or target; repeat.")] = [],  # noqa: B006
    title: Annotated[list[str], Option(help="NAME=TITLE of a feature or target in sentences; repeat.")] = [],  # noqa: B006
    last_value: Annotated[list[str], Option(help="TARGET=FEATURE of persistence, or =0 for changes.")] = [],  # noqa: B006
    group: Annotated[list[str], Option(help="NAME=a,b: contributions to sum; repeat.")] = [],  # noqa: B006
    integer: Annotated[list[str], Option(help="Features that counterfactuals keep whole, as a,b.")] = [],  # noqa: B006
    fixed: Annotated[list[str], Option(help="Features that counterfactuals leave unchanged, as a,b.")] = [],  # noqa: B006
    lookback: Annotated[int, Option(min=1, help="Rows of a window.")] = DEFAULTS.lookback,
    horizon: Annotated[int, Option(min=1, help="Steps to forecast, from AHEAD, or 1, on.")] = DEFAULTS.horizon,
    hidden: Annotated[int, Option(min=0, help="Units of the LSTM or GRU; 0 for a KAN alone.")] = DEFAULTS.hidden,
    cell: Annotated[Cell, Option(help="Recurrent cell.")] = DEFAULTS.cell,
    num_layers: Annotated[int, Option(min=1, help="LSTM or GRU layers.")] = DEFAULTS.num_layers,
    bidirectional: Annotated[bool, Option("--bidirectional", help="Read it backwards too.")] = DEFAULTS.bidirectional,
    width: Annotated[str | None, Option(help="Of the head: 12,5,1, or 12,[5,2],1 with 2 product nodes.")] = None,
    front: Annotated[str | None, Option(help="Width of a KAN on each step's features, such as 20,8.")] = None,
    grid: Annotated[int, Option(min=1, help="Grid intervals of an edge; with --from, more.")] = DEFAULTS.grid,
    order: Annotated[int, Option(min=0, help="Spline order; 3 is cubic.")] = DEFAULTS.order,
    scaling: Annotated[Scale | None, Option(help="By all rows, or each window by its level, as many series.")] = None,
    screen: Annotated[
        bool | None,
        Option("--screen/--no-screen", help="Leave out columns that do not matter first; by default of wide tables."),
    ] = DEFAULTS.screen,
    linear: Annotated[
        bool,
        Option(
            "--linear/--no-linear", help="Add a linear path beside a network that is worse than a ridge regression."
        ),
    ] = DEFAULTS.linear,
    lamb: Annotated[float, Option(min=0, help="Weight of the sparsity penalty.")] = DEFAULTS.lamb,
    grid_updates: Annotated[int, Option(min=0, help="Moves of the knots; 0 with --from.")] = DEFAULTS.grid_updates,
    learning_rate: Annotated[float, Option(min=0, help="Initial rate; falls along a cosine.")] = DEFAULTS.learning_rate,
    weight_decay: Annotated[float, Option(min=0, help="AdamW's weight decay.")] = DEFAULTS.weight_decay,
    noise: Annotated[float, Option(min=0, help="Noise on training windows, in standard deviations.")] = DEFAULTS.noise,
    batch: Annotated[int, Option(min=2, help="Windows per optimization step.")] = DEFAULTS.batch,
    epochs: Annotated[int, Option(min=0, help="Most passes; 0 with --from moves only the grids.")] = DEFAULTS.epochs,
    max_steps: Annotated[int, Option(min=1, help="Most batches: fewer passes of large tables.")] = DEFAULTS.max_steps,
    patience: Annotated[int, Option(min=1, help="Epochs without improvement until the end.")] = DEFAULTS.patience,
    validation_share: Annotated[float, Option(help="Share of windows held out.")] = DEFAULTS.validation_share,
    validation_blocks: Annotated[int, Option(min=1, help="Blocks held out, at most.")] = DEFAULTS.validation_blocks,
    reference_windows: Annotated[int, Option(min=2, help="Kept for explanations.")] = DEFAULTS.reference_windows,
    intervals: Annotated[list[str], Option(help="Levels of prediction intervals, as 0.8,0.95.")] = [],  # noqa: B006
    seed: Annotated[int, Option(min=0, help="The same seed gives the same model.")] = DEFAULTS.seed,
    with_results: Prepare = False,
) -> None:
    """Train an LSTM+KAN forecaster on a table, and compare it with persistence, the seasonal naive forecast and ridge.

    One model is trained on all series of a table; no window has rows of two.

    With --from, fine-tune a checkpoint, for example to make it sparser; masked edges stay masked. Test R2, edges needed
    and inputs outside their grids are printed, before and after:

    kanscope train data.csv --from old.safetensors --lamb 0.05 --update-grid -o new.safetensors
    """
    values = context.params | {
        "target": tuple(target),
        "targets": tuple(target),
        "features": split_names(features) or None,
    }
    values |= {"width": parse_width(width), "front": parse_width(front), "units": parse_pairs(unit, "--unit")}
    values |= {"titles": parse_pairs(title, "--title")}
    names = split_names(series_column)
    values |= {"split": split_column, "time": time_column, "series_column": names}
    values["series"] = names if len(names) > 1 else next(iter(names), None)
    values |= {"static": split_names(static), "known": split_names(known), "fill": parse_fill(fill)}
    values |= {"integer": split_names(integer), "fixed": split_names(fixed), "intervals": parse_levels(intervals)}
    last_values = parse_pairs(last_value, "--last-value").items()
    values["last_value"] = {name: 0 if of == "0" else of for name, of in last_values}
    values["groups"] = {name: split_names([names]) for name, names in parse_pairs(group, "--group").items()}
    options = TrainingOptions(**{option.name: values[option.name] for option in fields(TrainingOptions)})
    columns = Columns(**{role.name: values[role.name] for role in fields(Columns)})
    refuse_unwritable(output)
    if origin is None:
        if not target:
            raise ConfigError("--target is missing: the column to forecast, or --from with a checkpoint that names it")
        if update_grid:
            raise ConfigError("--update-grid needs --from: the grids of a new model are fitted to the data anyway")
        table = _read_table(data, columns, Csv(separator, decimal))
        with _progress(options.epochs) as report:
            trained = fit(table, options, report, lambda sentence: echo(f"{data.name}: {sentence}", err=True))
        _print_trained(save(Model.of(trained), output, with_results), output)
        return
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name: values[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    old = load(origin)
    columns = _take_columns(old.config, columns, given, origin)
    if "grid_updates" not in given and not update_grid:
        options = replace(options, grid_updates=0)
    if update_grid or options.grid_updates:
        refuse_without_knots(old.config)
    grid_size = grid if "grid" in given else None
    if grid_size is not None:
        refine_config(old.config, grid_size)  # raises before the table is read
    table = _read_table(data, columns, Csv(separator, decimal), old.config.table)
    with _progress(options.epochs) as report:
        tuning = fine_tune(old, table, options, report, update_grid, grid_size)
    tuned = save(Model.of(tuning.after), output, with_results)
    names = ("test R2", "edges needed for R2 0.99", "inputs outside their grids")
    rows = zip(names, _measure(Model.of(tuning.before)), _measure(tuned), strict=True)
    caption = f"edges and inputs: on the {len(tuned.reference)} reference windows"
    print_table("before and after", ["", "before", "after"], rows, caption=caption)
    _print_trained(tuned, output)


def _take_columns(config: ModelConfig, columns: Columns, given: Mapping[str, Any], file: Path) -> Columns:
    """The columns with those of a checkpoint; refuses options that it determines, or that are given differently."""
    for name in (*ARCHITECTURE, "unit", "title", "group", "integer", "fixed", *ENCODING):
        if name in given and name != "grid":  # which may refine that of the checkpoint
            option = f"--{name.replace('_', '-')} cannot be given with --from"
            raise ConfigError(f"{option}: architecture, units, titles, groups and encoding come from {file.name}")
    stated: dict[str, Any] = {name: getattr(config, name) for name in ("ahead", "lookback", "horizon")}
    spec = config.table
    stated |= {"target": spec.targets, "features": spec.encoding.names}
    if spec.series is not None:
        stated["series_column"] = spec.series.columns or (spec.series.name,)
    for name, of_file in stated.items():
        if name in given and given[name] != of_file:
            value, has = (",".join(each) if isinstance(each, tuple) else each for each in (given[name], of_file))
            raise ConfigError(f"--{name} is {value}, but {file.name} has {has}")
    series = None if spec.series is None else spec.series.columns or spec.series.name
    return replace(columns, targets=spec.targets, features=spec.encoding.names, ahead=config.ahead, series=series)


def _read_table(data: Path, columns: Columns, csv: Csv, spec: TableSpec | None = None) -> TrainingTable:
    from service.batch.tables import list_texts, read_table  # here: the other commands start faster without polars

    wide = () if isinstance(columns.series, str) else columns.series or ()
    special = {column for column in (columns.split, columns.time, columns.series) if isinstance(column, str)}
    features = (name for name in columns.features or () if name not in columns.targets)
    names = (*(wide or columns.targets), *features, *special)
    frame = read_table(data, names, special | (list_texts(spec) if spec else set()), csv)
    table = make_table(frame, columns, spec)
    if table.left_out:
        echo(f"{data.name}: {describe_left_out(table.left_out)}", err=True)
    return table


@contextmanager
def _progress(epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """A progress bar on stderr; yields the function that advances it after an epoch."""
    columns = (TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"), BarColumn(20), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[errors]}"), console=make_console(stderr=True)) as bar:
        task = bar.add_task("train", total=epochs, errors="")

        def report(epoch: Epoch) -> None:
            errors = f"train {epoch.train_error:.4f}, validation {epoch.validation_error:.4f}"
            errors = f"{errors}, best {epoch.best_error:.4f}"
            errors = errors if epoch.stage == "forecasts" else f"{epoch.stage}: {errors}"
            bar.update(task, completed=epoch.epoch, errors=errors)

        yield report


def _measure(model: Model) -> tuple[str, str, str]:
    """Test R2; edges that keep R2 0.99 for every output; the share of an edge's inputs outside its grid, on average."""
    edges = model.topology().kan_edges
    outside = sum(edge.outside_grid or 0.0 for edge in edges) / len(edges)
    needed = f"{model.prune().size.edges} of {model.size.edges}"
    return f"{model.metrics['test_r2']:.4f}", needed, f"{100 * outside:.2f} %"


def _print_trained(model: Model, output: Path) -> None:
    """Prints the metrics, what limits explanations, and path, size and hash of the checkpoint."""
    echo(f"Skill {model.skill.brief}")
    print_table("metrics", ["metric", "value"], model.metrics.items())
    if model.intervals is not None:
        calibration = model.intervals.calibration
        levels = " and ".join(f"{level:g}" for level in model.levels)
        span = "" if calibration.first is None else f", {calibration.first} to {calibration.last}"
        echo(f"Intervals at {levels} are calibrated on {calibration.windows} windows{span}.")
    if "persistence_r2" not in model.metrics:
        unknown = "because the last value of an already shifted target is not known: use --ahead or --last-value."
        echo(f"Persistence is not measured, {unknown}")
    n_reference = len(model.reference)
    if n_reference < MIN_INPUTS:
        echo(f"{n_reference} reference windows are too few for pruning and scores, which need {MIN_INPUTS}.")
    if model.reference.unlike_training:
        echo(f"The reference windows are not like the training rows: {model.reference}.")
    print_written(output, model)
