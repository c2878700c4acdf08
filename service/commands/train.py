"""``kanscope train``: trains a model on a table, or with ``--from`` fine-tunes a checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kanmodel import load
from kanmodel.data import MAX_STEP
from kanmodel.errors import ConfigError
from kanmodel.network.config import Cell
from kanmodel.training.grids import refine_config, refuse_without_knots
from kanmodel.training.optimization import DEFAULTS, TrainingOptions, Width
from kanmodel.training.tables import Columns
from service.commands.fine_tuning import refuse_differing, refuse_stated
from service.commands.options import Written, refuse_unwritable
from service.commands.training import train_new, train_on


def parse_width(text: str) -> Width:
    """Parses a width in pykan's notation: ``12,5,1``, with product nodes ``12,[5,2],1``."""
    try:
        layers = json.loads(f"[{text}]")
        if len(layers) == 1 and isinstance(layers[0], list):
            layers = layers[0]
        return tuple(layer if isinstance(layer, int) else (int(layer[0]), int(layer[1])) for layer in layers)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise typer.BadParameter(f"{text!r} is not a width such as 12,5,1 or 12,[5,2],1") from error


def parse_pairs(texts: list[str], option: str) -> dict[str, str]:
    """Parses ``NAME=VALUE`` options into a mapping."""
    for text in texts:
        if "=" not in text:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return dict(text.split("=", 1) for text in texts)


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Splits ``a,b`` into names."""
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
            help="Rows between a window's last row and the forecast: --target load --ahead 6 forecasts load+6. "
            "0 for a column that is already shifted, so that each row holds the value to predict from it.",
        ),
    ] = 0,
    origin: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Checkpoint to fine-tune, for example to make a model sparse whose edges all matter. Columns, "
            "architecture, units and scaling are taken from it, and masked edges stay masked. Prints test R2, edges "
            "needed and inputs outside their grids, before and after.",
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
            help="Input columns, as a,b,c. Default: every numeric column that no other option names, and with "
            "--ahead the target too, whose past values are then known."
        ),
    ] = None,
    split_column: Annotated[
        str | None,
        typer.Option(
            help="Column that says train, validation or test. Without validation rows, some of the training "
            "windows are held out in blocks. Without this option the newest 15 % of the rows are for the test."
        ),
    ] = None,
    segment_column: Annotated[
        str | None, typer.Option(help="Column whose value changes where another series begins: no window crosses it.")
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(help="Column of time stamps, ISO 8601 or numbers: no window crosses a gap in it.")
    ] = None,
    max_step: Annotated[
        float, typer.Option(help="Longest time step that is not a gap, as a multiple of the median step.")
    ] = MAX_STEP,
    unit: Annotated[
        list[str], typer.Option(help="Unit of a feature or target, as NAME=UNIT; repeat for several.")
    ] = [],  # noqa: B006
    last_value: Annotated[
        list[str],
        typer.Option(
            help="TARGET=FEATURE: the feature whose last value is the persistence forecast, or TARGET=0 for a target "
            "that is itself a change. With --ahead, the target's own. Without either, persistence is not measured."
        ),
    ] = [],  # noqa: B006
    group: Annotated[
        list[str],
        typer.Option(
            help="Features that belong together, as NAME=a,b: --group hour=hour_sin,hour_cos. Explanations also sum "
            "their contributions. Repeat for several; a member may be another group."
        ),
    ] = [],  # noqa: B006
    integer: Annotated[
        str | None,
        typer.Option(help="Features with whole numbers, as a,b: counterfactuals keep them whole."),
    ] = None,
    fixed: Annotated[
        str | None,
        typer.Option(help="Features that nobody can change, as a,b: counterfactuals leave them unchanged."),
    ] = None,
    lookback: Annotated[int, typer.Option(min=1, help="Rows of a window.")] = DEFAULTS.lookback,
    horizon: Annotated[
        int,
        typer.Option(
            min=1,
            help="Steps to forecast: outputs TARGET+AHEAD, TARGET+(AHEAD+1), ...; with --ahead 0 from TARGET+1 on.",
        ),
    ] = DEFAULTS.horizon,
    hidden: Annotated[
        int, typer.Option(min=0, help="Hidden units of the LSTM or GRU; 0 for a KAN alone, with lookback 1.")
    ] = DEFAULTS.hidden,
    cell: Annotated[Cell, typer.Option(help="Recurrent cell.")] = DEFAULTS.cell,
    num_layers: Annotated[int, typer.Option(min=1, help="LSTM or GRU layers.")] = DEFAULTS.num_layers,
    bidirectional: Annotated[
        bool, typer.Option("--bidirectional", help="Read the window backwards too.")
    ] = DEFAULTS.bidirectional,
    width: Annotated[
        str | None,
        typer.Option(
            help="Width of the KAN head from LSTM units to outputs, in pykan's notation: 12,5,1, or "
            "12,[5,2],1 with 2 product nodes. Default: one hidden layer of 5."
        ),
    ] = None,
    front: Annotated[
        str | None, typer.Option(help="Width of a KAN that maps each step's features before the LSTM, such as 20,8.")
    ] = None,
    grid: Annotated[
        int,
        typer.Option(
            min=1,
            help="Grid intervals of every edge. With --from: refine the grid without changing the functions, then "
            "train (grid extension, pykan's refine).",
        ),
    ] = DEFAULTS.grid,
    order: Annotated[int, typer.Option(min=0, help="Spline order; 3 is cubic.")] = DEFAULTS.order,
    lamb: Annotated[float, typer.Option(min=0, help="Weight of the sparsity penalty.")] = DEFAULTS.lamb,
    grid_updates: Annotated[
        int,
        typer.Option(
            min=0,
            help="How often the knots are moved to the data; with --from only if this or --update-grid is given.",
        ),
    ] = DEFAULTS.grid_updates,
    learning_rate: Annotated[
        float, typer.Option(min=0, help="Initial learning rate; decays to 0 along a cosine.")
    ] = DEFAULTS.learning_rate,
    weight_decay: Annotated[float, typer.Option(min=0, help="AdamW's weight decay.")] = DEFAULTS.weight_decay,
    noise: Annotated[
        float, typer.Option(min=0, help="Noise added to training windows, in standard deviations of each feature.")
    ] = DEFAULTS.noise,
    batch: Annotated[int, typer.Option(min=2, help="Windows per optimization step.")] = DEFAULTS.batch,
    epochs: Annotated[
        int,
        typer.Option(
            min=0, help="Most passes over the training windows; 0 only with --from, to move the grids without training."
        ),
    ] = DEFAULTS.epochs,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs without a better validation error after which training stops.")
    ] = DEFAULTS.patience,
    validation_share: Annotated[
        float, typer.Option(help="Share of the training windows held out if no row is marked validation.")
    ] = DEFAULTS.validation_share,
    validation_blocks: Annotated[
        int, typer.Option(min=1, help="Most blocks in which they are held out, evenly spread over the training rows.")
    ] = DEFAULTS.validation_blocks,
    reference_windows: Annotated[
        int, typer.Option(min=2, help="Validation windows kept in the checkpoint, for its explanations.")
    ] = DEFAULTS.reference_windows,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same model.")] = DEFAULTS.seed,
) -> None:
    """Train an LSTM+KAN forecaster on a table, and compare it with persistence and ridge regression.

    To make an existing checkpoint sparser by fine-tuning it:

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
        validation_blocks=validation_blocks,
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
        groups={name: split_names(names) or () for name, names in parse_pairs(group, "--group").items()},
        integer=split_names(integer) or (),
        fixed=split_names(fixed) or (),
    )
    refuse_unwritable(output)
    if origin is None:
        if not target:
            raise ConfigError("--target is missing: the column to forecast, or --from with a checkpoint that names it")
        if update_grid:
            raise ConfigError("--update-grid needs --from: the grids of a new model are fitted to the data anyway")
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
        refine_config(model.config, grid_size)  # raises before the table is read
    train_on(model, data, columns, options, output, update_grid, grid_size)


def given_options(context: typer.Context) -> set[str]:
    """Names of the options that are given on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
