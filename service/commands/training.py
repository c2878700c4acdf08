"""Training and fine-tuning for ``kanscope train``, with progress bar, saving and printed metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from kanmodel import Model
from kanmodel.explain.scores import MIN_INPUTS
from kanmodel.training.optimization import Progress as Epoch
from kanmodel.training.optimization import TrainingOptions
from kanmodel.training.tables import Columns, describe_left_out, make_table
from kanmodel.training.training import fine_tune, fit
from service.commands.fine_tuning import fine_tuning_table
from service.commands.inspect import metrics_table
from service.commands.options import make_console, print_written

Trained = TypeVar("Trained")


def train_new(data: Path, columns: Columns, options: TrainingOptions, output: Path) -> None:
    """Trains a new model, saves it and prints its metrics."""
    from service.batch.tables import read_training_frame  # here, since the other commands start faster without polars

    table = make_table(read_training_frame(data, columns), columns)
    if table.left_out:
        typer.echo(f"{data.name}: {describe_left_out(table.left_out)}", err=True)
    trained = with_progress(options.epochs, lambda report: fit(table, options, report))
    print_result(Model(trained).save(output), output)


def train_on(
    model: Model,
    data: Path,
    columns: Columns,
    options: TrainingOptions,
    output: Path,
    update_grid: bool,
    grid_size: int | None,
) -> None:
    """Fine-tunes a model, saves it and prints its metrics."""
    from service.batch.tables import read_training_frame

    config = model.config
    targets = tuple(target.name for target in config.targets)
    columns = replace(columns, targets=targets, features=config.feature_names, ahead=config.ahead)
    table = make_table(read_training_frame(data, columns), columns)
    tuning = with_progress(
        options.epochs, lambda report: fine_tune(model.loaded, table, options, report, update_grid, grid_size)
    )
    after = Model(tuning.after).save(output)
    make_console().print(fine_tuning_table(tuning))
    print_result(after, output)


def with_progress(epochs: int, train: Callable[[Callable[[Epoch], None]], Trained]) -> Trained:
    """Trains with a progress bar on stderr."""
    columns = (TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"), BarColumn(20), TimeElapsedColumn())
    errors = TextColumn("{task.fields[errors]}")
    with Progress(*columns, errors, console=make_console(stderr=True)) as bar:
        task = bar.add_task("train", total=epochs, errors="")

        def report(epoch: Epoch) -> None:
            errors = f"train {epoch.train_error:.4f}, validation {epoch.validation_error:.4f}"
            bar.update(task, completed=epoch.epoch, errors=f"{errors}, best {epoch.best_error:.4f}")

        return train(report)


def print_result(model: Model, output: Path) -> None:
    """Prints the metrics, and path, size and hash of the checkpoint."""
    console = make_console()
    console.print(metrics_table(model))
    if "persistence_r2" not in model.metrics:
        console.print(
            "Persistence is not measured, because the last value of an already shifted target is not known: "
            "use --ahead or --last-value."
        )
    n_reference = len(model.reference)
    if n_reference < MIN_INPUTS:
        console.print(f"{n_reference} reference windows are too few for pruning and scores, which need {MIN_INPUTS}.")
    if model.reference.unlike_training:
        console.print(f"The reference windows are not like the training rows: {model.reference}.")
    print_written(output, model)
