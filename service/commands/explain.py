"""``kanscope explain``: contributions to a forecast, faithfulness, receipts, and whole tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from kanmodel import load
from kanmodel.errors import DataError, UnknownNameError
from kanmodel.explain.attribution import Explanation
from kanmodel.explain.effects import Effects
from kanmodel.explain.faithfulness import Faithfulness
from kanmodel.model import Model
from service.batch import PART_WINDOWS, EngineName
from service.commands.options import (
    AsJson,
    OptionalCheckpoint,
    OutputName,
    figure,
    find_output,
    make_console,
    print_json,
)

ROUNDING = 1e-6  # of a feature's standard deviation: values below are the rounding error of a float32 zero
LEDGER = "ledger"
EFFECTS = ("removed", "alone")
DEFAULTS: tuple[EngineName, int] = ("threads", PART_WINDOWS)
BETTER = {"deletion": "more", "insertion": "less", "infidelity": "less"}


def explain(
    file: OptionalCheckpoint = None,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="[TABLE]",
            help="Explain all windows of a table instead: a .csv, .csv.gz or .parquet file, or a folder of them, read "
            "in the order of their names. Each row is a time step, oldest first, or, in parquet, a window: the column "
            "of each feature holds a list of its values, oldest first.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder for the parquet files of TABLE; run the same command again to resume after an interruption.",
            show_default=False,
        ),
    ] = None,
    time_column: Annotated[
        str | None,
        typer.Option(
            help="Column of TABLE with time stamps, copied into the result; no window crosses a gap between them. "
            "Default: that of the training, if TABLE has it."
        ),
    ] = None,
    segment_column: Annotated[
        str | None, typer.Option(help="Column of TABLE that changes at each gap: no window crosses it.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop at the first bad row of TABLE instead of listing it in _rejected.csv."),
    ] = False,
    engine: Annotated[
        EngineName, typer.Option(help="Where TABLE is explained: in threads of this process, or on a Ray cluster.")
    ] = DEFAULTS[0],
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads, or Ray actors. Default: one per core.", show_default=False),
    ] = None,
    part_windows: Annotated[int, typer.Option(min=1, help="Rows of TABLE per output file.")] = DEFAULTS[1],
    effects: Annotated[
        bool,
        typer.Option(
            "--effects",
            help="Add two ablation effects per contribution: what the forecast loses without the feature (removed), "
            "and what the feature does alone. Takes 2 forecasts per window and feature.",
        ),
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(min=0, help="Reference window to explain, from 0. Default: the last.", show_default=False),
    ] = None,
    faithfulness: Annotated[
        bool,
        typer.Option(
            "--faithfulness",
            help="Measure instead how faithful the contributions are (deletion, insertion, infidelity), compared with "
            "gradients, random order and, without an LSTM, pykan's scores.",
        ),
    ] = False,
    receipt: Annotated[
        Path | None,
        typer.Option(
            help="Recompute a saved answer of :explain that has a receipt, and compare the numbers; exit code 1 if "
            "they differ. FILE may then be a folder; its default is KANSCOPE_MODELS, or the bundled model.",
            show_default=False,
        ),
    ] = None,
    windows: Annotated[
        Path | None,
        typer.Option("--input", help="Body of the request that the receipt belongs to.", show_default=False),
    ] = None,
    output_name: OutputName = None,
    as_json: AsJson = False,
) -> None:
    """Print each feature's contribution to the forecast of a reference window, or write them for a whole table."""
    if receipt is not None or windows is not None:
        if receipt is None or windows is None:
            raise DataError("--receipt and --input go together")
        if faithfulness or effects or any(given is not None for given in (window, output_name, data, folder)):
            raise DataError("--receipt takes all its options from the receipt, so no others can be given with it")
        from service.commands.receipts import repeat  # here, since the other commands start faster without FastAPI

        repeat(receipt, windows, file, as_json)
        return
    if file is None:
        raise DataError("FILE is missing: give the checkpoint")
    if faithfulness and (window is not None or effects):
        raise DataError("--faithfulness averages over many windows, so --window and --effects cannot be given with it")
    if (data is None) != (folder is None):
        raise DataError("TABLE and -o go together: the table to explain, and the folder to write to")
    if data is None and (time_column or segment_column or strict or workers or (engine, part_windows) != DEFAULTS):
        raise DataError("--time-column, --segment-column, --strict, --engine, --workers and --part-windows need TABLE")
    if data is not None and (faithfulness or window is not None):
        raise DataError("all windows of TABLE are explained, so --window and --faithfulness cannot be given with it")
    model = load(file)
    output = find_output(model.config, output_name)
    if data is not None and folder is not None:
        from service.batch.chunks import Plan
        from service.batch.tables import find_files, read_schema
        from service.commands.tables import explain_to_folder  # here, since the other commands start without polars

        clock = model.config.time
        if time_column is None and clock is not None and clock.name in read_schema(find_files(data)[0]):
            time_column = clock.name
        plan = Plan(model, data, output, time_column, segment_column, part_windows, strict, effects)
        explain_to_folder(plan, folder, engine, workers, as_json)
        return
    if faithfulness:
        rows = model.faithfulness(model.outputs[output])
        document, table = describe_faithfulness(rows), faithfulness_table(rows)
    else:
        number = find_window(model, window)
        explained = model.explain(model.reference.windows[number], model.outputs[output], effects=effects)
        document, table = describe_explanation(model, explained, number), explanation_table(model, explained, number)
    if as_json:
        print_json(_header(file, model, output) | document)
        return
    make_console().print(table)


def _header(file: Path, model: Model, output: int) -> dict[str, Any]:
    return {"file": str(file), "checkpoint": model.checkpoint, "output": model.config.outputs[output]}


def find_window(model: Model, number: int | None) -> int:
    """Index of a reference window; that of the last if `number` is None.

    Raises:
        UnknownNameError: there is no such window.
    """
    last = len(model.reference) - 1
    if number is not None and number > last:
        raise UnknownNameError(f"there is no reference window {number}; the windows are 0 to {last}")
    return last if number is None else number


def describe_explanation(model: Model, explained: Explanation, number: int) -> dict[str, Any]:
    """The explanation of one window, as JSON members."""
    output, names = model.config.outputs.index(explained.output), model.config.feature_names
    by_group = dict(zip(explained.group_names, explained.contributions_by_group[0].tolist(), strict=True))
    return {
        "unit": model.config.target_of(output).unit,
        "window": number,
        "time": None if model.reference.times is None else model.reference.times[number],
        "target": _target(model, number, output),
        "prediction": float(explained.predictions[0]),
        "baseline_prediction": explained.baseline_prediction,
        "contributions": dict(zip(names, explained.contributions[0].tolist(), strict=True)),
        **({"contributions_by_group": by_group} if explained.groups else {}),
        **({"effects": _describe_effects(names, explained.effects)} if explained.effects else {}),
        **(
            {"effects_by_group": _describe_effects(explained.group_names, explained.effects_by_group)}
            if explained.effects_by_group
            else {}
        ),
        "residual": float(explained.residual[0]),
        "error": float(explained.error[0]),
        "tolerance": explained.tolerance,
        "converged": bool(explained.converged[0]),
    }


def _describe_effects(names: Sequence[str], effects: Effects) -> dict[str, dict[str, float]]:
    pairs = zip(names, effects.removed[0].tolist(), effects.alone[0].tolist(), strict=True)
    return {name: {"removed": removed, "alone": alone} for name, removed, alone in pairs}


def explanation_table(model: Model, explained: Explanation, number: int) -> Table:
    """The explanation of one window as a table, largest contributions first."""
    config, output = model.config, model.config.outputs.index(explained.output)
    place = f"window {number} of 0 to {len(model.reference) - 1}"
    if model.reference.times is not None:
        place += f", {model.reference.times[number]}"
    residual, error = explained.residual[0], explained.error[0]
    caption = f"the contributions add up to within {residual:.2g}; their largest error is {error:.2g}"
    if not explained.converged[0]:
        caption += f"; not converged to the tolerance of {explained.tolerance:.2g}"
    table = Table("feature", "unit", title=f"{explained.output}, {place}", caption=caption)
    unit = config.target_of(output).unit
    table.add_column("last value", justify="right")
    table.add_column("contribution" if unit is None else f"contribution, {unit}", justify="right")
    effects = [] if explained.effects is None else [explained.effects.removed[0], explained.effects.alone[0]]
    for name in EFFECTS[: len(effects)]:
        table.add_column(name, justify="right")
    last = model.reference.windows[number, -1]
    contributions = explained.contributions[0]
    for index in np.argsort(-np.abs(contributions), kind="stable").tolist():
        feature = config.features[index]
        value = last[index] if abs(last[index]) > ROUNDING * model.scaling.feature_scale[index] else 0.0
        amounts = (f"{values[index]:+.4f}" for values in (contributions, *effects))
        table.add_row(feature.name, feature.unit or "", figure(value), *amounts)
    if explained.groups:
        table.add_section()
        by_group = [explained.contributions_by_group[0]]
        if explained.effects_by_group is not None:
            by_group += [explained.effects_by_group.removed[0], explained.effects_by_group.alone[0]]
        for number, name in enumerate(explained.groups):
            amounts = (f"{values[number]:+.4f}" for values in by_group)
            table.add_row(f"{name}: {', '.join(explained.groups[name])} together", "", "", *amounts)
    table.add_section()
    table.add_row("baseline: the forecast for the mean window", "", "", f"{explained.baseline_prediction:+.4f}")
    table.add_row("forecast", "", "", f"{explained.predictions[0]:+.4f}")
    target = _target(model, number, output)
    if target is not None:
        table.add_row("actual value", "", "", f"{target:+.4f}")
    return table


def _target(model: Model, number: int, output: int) -> float | None:
    targets = model.reference.targets
    return None if targets is None else float(targets[number, output])


@dataclass(frozen=True)
class Loss:
    """A measure in which another method does better than the ledger.

    Attributes:
        measure: deletion, insertion or infidelity.
        method: the other method.
        ledger: the ledger's value.
        other: the other method's value.
    """

    measure: str
    method: str
    ledger: float
    other: float


def find_losses(rows: Sequence[Faithfulness]) -> list[Loss]:
    """Every measure in which another method does better than the ledger."""
    (ours,) = (row for row in rows if row.method == LEDGER)
    losses = []
    for measure, better in BETTER.items():
        mine = getattr(ours, measure)
        for row in rows:
            other = getattr(row, measure)
            if other is not None and (other > mine if better == "more" else other < mine):
                losses.append(Loss(measure, row.method, mine, other))
    return losses


def describe_faithfulness(rows: Sequence[Faithfulness]) -> dict[str, Any]:
    """The measures of every method, as JSON members."""
    return {
        "faithfulness": [asdict(row) for row in rows],
        "ledger_loses": [asdict(loss) for loss in find_losses(rows)],
    }


def faithfulness_table(rows: Sequence[Faithfulness]) -> Table:
    """The measures of every method as a table, and those in which the ledger loses."""
    losses = [
        f"The ledger loses to {loss.method} in {loss.measure}: {figure(loss.ledger)} against {figure(loss.other)}."
        for loss in find_losses(rows)
    ]
    caption = "\n".join(losses or ["The ledger is best in every column."])
    table = Table("method", title="faithfulness, in standard deviations of the output", caption=caption)
    for measure, better in BETTER.items():
        table.add_column(f"{measure} ({better} is better)", justify="right")
    for row in rows:
        table.add_row(row.method, *(figure(getattr(row, measure)) for measure in BETTER))
    return table
