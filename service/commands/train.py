"""``kanscope train``: a table becomes a checkpoint; with ``--from`` a checkpoint is fine-tuned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kanmodel import load
from kanmodel.errors import ConfigError
from kanmodel.network.config import Cell
from kanmodel.training.clock import MAX_STEP
from kanmodel.training.grids import refine_config, refuse_without_knots
from kanmodel.training.optimization import DEFAULTS, TrainingOptions, Width
from kanmodel.training.tables import Columns
from service.commands.fine_tuning import refuse_differing, refuse_stated
from service.commands.options import Written, refuse_unwritable
from service.commands.training import train_new, train_on


def parse_width(text: str) -> Width:
    """A width as pykan writes it: ``12,5,1``, with product nodes ``12,[5,2],1``."""
    try:
        layers = json.loads(f"[{text}]")
        if len(layers) == 1 and isinstance(layers[0], list):
            layers = layers[0]
        return tuple(layer if isinstance(layer, int) else (int(layer[0]), int(layer[1])) for layer in layers)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise typer.BadParameter(f"{text!r} is not a width such as 12,5,1 or 12,[5,2],1") from error


def parse_pairs(texts: list[str], option: str) -> dict[str, str]:
    """``NAME=VALUE`` options as a mapping."""
    for text in texts:
        if "=" not in text:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return dict(text.split("=", 1) for text in texts)


def split_names(text: str | None) -> tuple[str, ...] | None:
    """``a,b`` as two names."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def train(
    context: typer.Context,
    data: Annotated[
        Path, typer.Argument(help="Table: .csv, .csv.gz or .parquet, rows oldest first.", show_default=False)
    ],
    output: Written,
    target: Annotated[
        list[str],
        typer.Option(
            help="Column to forecast; repeat for several. With --from: the checkpoint's.",
            show_default=False,
        ),
    ] = [],  # noqa: B006  (typer copies it)
    ahead: Annotated[
        int,
        typer.Option(
            min=0,
            help="How many rows after a window's last row the forecast lies: --target load --ahead 6 forecasts load+6. "
            "0 for a column that is shifted already, and holds at each row the value to predict there.",
        ),
    ] = 0,
    origin: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Checkpoint to fine-tune, such as one that cannot be read because all its edges matter. Columns, "
            "architecture, units and scaling are its own, and masked edges stay masked. Prints test R2, edges needed "
            "and inputs outside their grids, before and after.",
            show_default=False,
        ),
    ] = None,
    update_grid: Annotated[
        bool,
        typer.Option(
            "--update-grid",
            help="With --from: move the knots to where the data is, before and after training, and as --grid-updates "
            "says.",
        ),
    ] = False,
    features: Annotated[
        str | None,
        typer.Option(
            help="Input columns, as a,b,c. Default: every column of numbers that no other option names, and with "
            "--ahead the target, whose past is known then."
        ),
    ] = None,
    split_column: Annotated[
        str | None,
        typer.Option(
            help="Column that says train, validation or test. Without validation rows, some of the training "
            "windows are held out in blocks. Without this option: 70/15/15 % in row order."
        ),
    ] = None,
    segment_column: Annotated[
        str | None, typer.Option(help="Column that changes where another series begins: no window crosses it.")
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(help="Column of time stamps, ISO 8601 or numbers: no window crosses a gap in it.")
    ] = None,
    max_step: Annotated[
        float, typer.Option(help="The longest step in time that is no gap, in usual steps (their median).")
    ] = MAX_STEP,
    unit: Annotated[
        list[str], typer.Option(help="Unit of a feature or target, as NAME=UNIT; repeat for several.")
    ] = [],  # noqa: B006
    last_value: Annotated[
        list[str],
        typer.Option(
            help="TARGET=FEATURE: the feature whose last value persistence repeats, or TARGET=0 for a target that is "
            "itself a change. With --ahead it is the target's own. Without either there is no persistence."
        ),
    ] = [],  # noqa: B006
    lookback: Annotated[int, typer.Option(min=1, help="Rows of a window.")] = DEFAULTS.lookback,
    horizon: Annotated[
        int,
        typer.Option(
            min=1,
            help="Steps to forecast: outputs TARGET+AHEAD, TARGET+(AHEAD+1), ...; with --ahead 0 from TARGET+1 on.",
        ),
    ] = DEFAULTS.horizon,
    hidden: Annotated[
        int, typer.Option(min=0, help="Units of the LSTM or GRU; 0 for a KAN alone, with lookback 1.")
    ] = DEFAULTS.hidden,
    cell: Annotated[Cell, typer.Option(help="Kind of the recurrent part.")] = DEFAULTS.cell,
    num_layers: Annotated[int, typer.Option(min=1, help="LSTM or GRU layers.")] = DEFAULTS.num_layers,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional", help="Read the window backwards too.")
    ] = DEFAULTS.bidirectional,
    width: Annotated[
        str | None,
        typer.Option(
            help="Width of the head KAN from LSTM units to outputs, as pykan writes it: 12,5,1, or "
            "12,[5,2],1 with 2 product nodes. Default: one hidden layer of 5."
        ),
    ] = None,
    front: Annotated[
        str | None, typer.Option(help="Width of a KAN on each step's features before the LSTM, such as 20,8.")
    ] = None,
    grid: Annotated[
        int,
        typer.Option(
            min=1,
            help="Grid intervals of every edge. With --from: a finer grid under the same functions, with "
            "which training continues (grid extension, pykan's refine).",
        ),
    ] = DEFAULTS.grid,
    order: Annotated[int, typer.Option(min=0, help="Spline order; 3: cubic.")] = DEFAULTS.order,
    lamb: Annotated[float, typer.Option(min=0, help="Weight of the sparsity penalty.")] = DEFAULTS.lamb,
    grid_updates: Annotated[
        int,
        typer.Option(
            min=0,
            help="How often the knots move to where the data is; with --from only if this or --update-grid is given.",
        ),
    ] = DEFAULTS.grid_updates,
    learning_rate: Annotated[float, typer.Option(min=0, help="Falls to 0 along a cosine.")] = DEFAULTS.learning_rate,
    weight_decay: Annotated[float, typer.Option(min=0, help="AdamW's weight decay.")] = DEFAULTS.weight_decay,
    noise: Annotated[
        float, typer.Option(min=0, help="Noise on training windows, in standard deviations of each feature.")
    ] = DEFAULTS.noise,
    batch: Annotated[int, typer.Option(min=2, help="Windows a step.")] = DEFAULTS.batch,
    epochs: Annotated[
        int,
        typer.Option(
            min=0, help="At most so many passes over the training windows; 0 only with --from, to move grids alone."
        ),
    ] = DEFAULTS.epochs,
    patience: Annotated[
        int, typer.Option(min=1, help="Stop after so many epochs without a better validation error.")
    ] = DEFAULTS.patience,
    validation_share: Annotated[
        float, typer.Option(help="Share of the training windows held out where no row says validation.")
    ] = DEFAULTS.validation_share,
    reference_windows: Annotated[
        int, typer.Option(min=2, help="Validation windows kept in the checkpoint, for its explanations.")
    ] = DEFAULTS.reference_windows,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same model.")] = DEFAULTS.seed,
) -> None:
    """Train an LSTM+KAN forecaster on a table, and measure it beside persistence and ridge regression.

    To fine-tune a checkpoint that cannot be read, because too many of its edges matter:

    kanscope train data.csv --from old.safetensors --lamb 0.05 --update-grid -o new.safetensors
    """
    given = given_options(context)
    options = TrainingOptions(
        lookback=lookback,
        horizon=horizon,
        hidden=hidden,
        cell=cell,
        num_layers=num_layers,
        bidirectional=bidirectional,
        width=None if width is None else parse_width(width),
        front=None if front is None else parse_width(front),
        grid=grid,
        order=order,
        lamb=lamb,
        grid_updates=grid_updates,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        noise=noise,
        batch=batch,
        epochs=epochs,
        patience=patience,
        validation_share=validation_share,
        reference_windows=reference_windows,
        seed=seed,
    )
    last_values = parse_pairs(last_value, "--last-value")
    columns = Columns(
        targets=tuple(target),
        features=split_names(features),
        ahead=ahead,
        split=split_column,
        segment=segment_column,
        time=time_column,
        max_step=max_step,
        units=parse_pairs(unit, "--unit"),
        last_value={name: 0 if value == "0" else value for name, value in last_values.items()},
    )
    refuse_unwritable(output)
    if origin is None:
        if not target:
            raise ConfigError("--target is missing: the column to forecast, or --from with a checkpoint that names it")
        if update_grid:
            raise ConfigError("--update-grid needs --from: the grids of a new model follow the data by themselves")
        train_new(data, columns, options, output)
        return
    refuse_stated(given, origin)
    if "grid_updates" not in given and not update_grid:
        options = replace(options, grid_updates=0)
    model = load(origin)
    wanted = {"target": columns.targets, "features": columns.features, "ahead": ahead}
    wanted |= {"lookback": lookback, "horizon": horizon}
    refuse_differing({name: value for name, value in wanted.items() if name in given}, model.config, origin)
    grid_size = grid if "grid" in given else None
    if update_grid or options.grid_updates:
        refuse_without_knots(model.config)
    if grid_size is not None:
        refine_config(model.config, grid_size)  # refuses what cannot be, before the table is read
    train_on(model, data, columns, options, output, update_grid, grid_size)


def given_options(context: typer.Context) -> set[str]:
    """Names of the options that the command line gives, rather than leaves at their default."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
