"""``kanscope explain``: contributions to a forecast, faithfulness, receipts, and whole tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from kanmodel import load
from kanmodel.errors import DataError, UnknownNameError
from kanmodel.model import Model
from kanmodel.results import Explanation
from kanmodel.terms import Faithfulness
from service.batch.plan import PART_WINDOWS, EngineName, Plan
from service.commands.options import AsJson, OptionalCheckpoint, OutputName, figure, find_output, print_json

ROUNDING = 1e-6  # of a feature's deviation: what float32 leaves of a zero
LEDGER = "ledger"
DEFAULTS: tuple[EngineName, int] = ("threads", PART_WINDOWS)
BETTER = {"deletion": "more", "insertion": "less", "infidelity": "less"}


def explain(
    file: OptionalCheckpoint = None,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="[TABLE]",
            help="Explain all windows of a table instead: a .csv, .csv.gz or .parquet file, or a folder of them in the "
            "order of their names. A row is a time step, oldest first; or, in parquet, a window: each feature's column "
            "holds a list of its values, oldest first.",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder of parquet files to write for TABLE; an interrupted run continues there.",
            show_default=False,
        ),
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(help="Column of TABLE with time stamps, which go into the result.")
    ] = None,
    segment_column: Annotated[
        str | None, typer.Option(help="Column of TABLE that changes at each gap: no window crosses it.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop at a bad row of TABLE instead of listing it in _rejected.csv."),
    ] = False,
    engine: Annotated[
        EngineName, typer.Option(help="What explains TABLE: threads of this process, or a Ray cluster.")
    ] = DEFAULTS[0],
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Threads, or processes of the cluster. Default: one a core.", show_default=False),
    ] = None,
    part_windows: Annotated[int, typer.Option(min=1, help="Rows of TABLE whose windows go into one file.")] = DEFAULTS[
        1
    ],
    window: Annotated[
        int | None,
        typer.Option(min=0, help="Reference window to explain, from 0. Default: the last.", show_default=False),
    ] = None,
    faithfulness: Annotated[
        bool,
        typer.Option(
            "--faithfulness",
            help="Measure instead how well contributions predict what removing features changes (deletion, insertion, "
            "infidelity), beside gradients, random order and, without an LSTM, pykan's scores.",
        ),
    ] = False,
    receipt: Annotated[
        Path | None,
        typer.Option(
            help="Repeat a saved answer of :explain that has a receipt, and say whether the numbers agree; exit code 1 "
            "where they do not. FILE may then be a folder, and is the bundled model, or KANSCOPE_MODELS, by default.",
            show_default=False,
        ),
    ] = None,
    windows: Annotated[
        Path | None,
        typer.Option("--input", help="What the receipt is of: the body of the request.", show_default=False),
    ] = None,
    output_name: OutputName = None,
    as_json: AsJson = False,
) -> None:
    """Print what each feature adds to the forecast for a reference window, or write it for every window of a table."""
    if receipt is not None or windows is not None:
        if receipt is None or windows is None:
            raise DataError("--receipt and --input go together")
        if faithfulness or window is not None or output_name is not None or data is not None or folder is not None:
            raise DataError("--receipt repeats what the receipt says, so nothing else can be asked for")
        from service.commands.receipts import repeat  # here, since the other commands start faster without FastAPI

        repeat(receipt, windows, file, as_json)
        return
    if file is None:
        raise DataError("FILE is missing: give the checkpoint")
    if faithfulness and window is not None:
        raise DataError("--faithfulness measures over many windows, so --window cannot be given with it")
    if (data is None) != (folder is None):
        raise DataError("TABLE and -o go together: the table to explain, and the folder to write")
    if data is None and (time_column or segment_column or strict or workers or (engine, part_windows) != DEFAULTS):
        raise DataError(
            "--time-column, --segment-column, --strict, --engine, --workers and --part-windows are for TABLE"
        )
    if data is not None and (faithfulness or window is not None):
        raise DataError("all windows of TABLE are explained, so --window and --faithfulness cannot be given with it")
    model = load(file)
    output = find_output(model.config, output_name)
    if data is not None and folder is not None:
        from service.commands.tables import explain_to_folder  # here, since the other commands start without polars

        plan = Plan(
            table=data,
            features=model.config.feature_names,
            lookback=model.config.lookback,
            output=output,
            time=time_column,
            segment=segment_column,
            groups=tuple(model.config.groups),
            part_windows=part_windows,
            strict=strict,
        )
        explain_to_folder(model, plan, folder, engine, workers, as_json)
        return
    if faithfulness:
        rows = model.faithfulness(model.outputs[output])
        document, table = describe_faithfulness(rows), faithfulness_table(rows)
    else:
        number = find_window(model, window)
        explained = model.explain(model.reference.windows[number], model.outputs[output])
        document, table = describe_explanation(model, explained, number), explanation_table(model, explained, number)
    if as_json:
        print_json(_header(file, model, output) | document)
        return
    Console(highlight=False).print(table)


def _header(file: Path, model: Model, output: int) -> dict[str, Any]:
    return {"file": str(file), "checkpoint": model.checkpoint, "output": model.config.outputs[output]}


def find_window(model: Model, number: int | None) -> int:
    """Number of a reference window; the last where none is given.

    Raises:
        UnknownNameError: there is no such window.
    """
    last = len(model.reference) - 1
    if number is not None and number > last:
        raise UnknownNameError(f"there is no reference window {number}, but 0 to {last}")
    return last if number is None else number


def describe_explanation(model: Model, explained: Explanation, number: int) -> dict[str, Any]:
    """One window explained, for machines."""
    output = model.config.outputs.index(explained.output)
    by_group = dict(zip(explained.group_names, explained.contributions_by_group[0].tolist(), strict=True))
    return {
        "unit": model.config.target_of(output).unit,
        "window": number,
        "time": None if model.reference.times is None else model.reference.times[number],
        "target": _target(model, number, output),
        "prediction": float(explained.predictions[0]),
        "baseline_prediction": explained.baseline_prediction,
        "contributions": dict(zip(model.config.feature_names, explained.contributions[0].tolist(), strict=True)),
        **({"contributions_by_group": by_group} if explained.groups else {}),
        "residual": float(explained.residual[0]),
        "error": float(explained.error[0]),
        "tolerance": explained.tolerance,
        "converged": bool(explained.converged[0]),
    }


def explanation_table(model: Model, explained: Explanation, number: int) -> Table:
    """One window explained, largest contributions first."""
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
    last = model.reference.windows[number, -1]
    contributions = explained.contributions[0]
    for index in np.argsort(-np.abs(contributions), kind="stable").tolist():
        feature = config.features[index]
        value = last[index] if abs(last[index]) > ROUNDING * model.scaling.feature_scale[index] else 0.0
        table.add_row(feature.name, feature.unit or "", figure(value), f"{contributions[index]:+.4f}")
    if explained.groups:
        table.add_section()
        for name, value in zip(explained.groups, explained.contributions_by_group[0].tolist(), strict=False):
            table.add_row(f"{name}: {', '.join(explained.groups[name])} together", "", "", f"{value:+.4f}")
    table.add_section()
    table.add_row("baseline: the forecast for the mean window", "", "", f"{explained.baseline_prediction:+.4f}")
    table.add_row("forecast", "", "", f"{explained.predictions[0]:+.4f}")
    target = _target(model, number, output)
    if target is not None:
        table.add_row("what came", "", "", f"{target:+.4f}")
    return table


def _target(model: Model, number: int, output: int) -> float | None:
    targets = model.reference.targets
    return None if targets is None else float(targets[number, output])


@dataclass(frozen=True)
class Loss:
    """Where another method does better than the ledger.

    Attributes:
        measure: deletion, insertion or infidelity.
        method: the other method.
        ledger: the ledger's figure.
        other: the other's.
    """

    measure: str
    method: str
    ledger: float
    other: float


def find_losses(rows: Sequence[Faithfulness]) -> list[Loss]:
    """Every figure in which another method does better than the ledger."""
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
    """The figures of every method, for machines."""
    return {
        "faithfulness": [asdict(row) for row in rows],
        "ledger_loses": [asdict(loss) for loss in find_losses(rows)],
    }


def faithfulness_table(rows: Sequence[Faithfulness]) -> Table:
    """The figures of every method, and where the ledger loses."""
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
