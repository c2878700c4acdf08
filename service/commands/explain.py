"""``kanscope explain``: contributions to a forecast, faithfulness, saved answers, and whole tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from typer import Argument, Exit, Option, echo

from kanmodel import Model, load
from kanmodel.attribution.explanation import Explanation, Method
from kanmodel.errors import DataError, InsufficientReferenceError, KanscopeError, UnknownNameError, missing_package
from kanmodel.report.faithfulness import Faithfulness
from kanmodel.text import write_value
from service.batch import PART_WINDOWS, Csv, EngineName
from service.commands.options import (
    AsJson,
    Decimal,
    OutputName,
    Separator,
    Series,
    make_console,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from service.batch.chunks import Plan

RESUME = "run the same command again to resume"
ROUNDING = 1e-6  # of a feature's standard deviation: values below are the rounding error of a float32 zero
BETTER = {"deletion": "more", "insertion": "less", "infidelity": "less"}


def explain(
    file: Annotated[Path | None, Argument(help="Checkpoint, *.safetensors.")] = None,
    data: Annotated[Path | None, Argument(metavar="[TABLE]", help="Explain all windows of it; see above.")] = None,
    folder: Annotated[Path | None, Option("-o", "--output", help="Folder for parquet files; a rerun resumes.")] = None,
    time_column: Annotated[str | None, Option(help="Times of TABLE, which show gaps. Default: as in training.")] = None,
    series: Series = [],  # noqa: B006
    separator: Separator = ",",
    decimal: Decimal = ".",
    strict: Annotated[bool, Option("--strict", help="Stop at the first bad row of TABLE.")] = False,
    engine: Annotated[EngineName, Option(help="Threads of this process, or a Ray cluster.")] = "threads",
    workers: Annotated[
        int | None, Option(min=1, help="Threads, or Ray actors. Default: one per core that it may use.")
    ] = None,
    part_windows: Annotated[int, Option(min=1, help="Rows of TABLE per output file.")] = PART_WINDOWS,
    effects: Annotated[bool, Option("--effects", help="Add the effect of each feature removed, and alone.")] = False,
    shapley: Annotated[bool, Option("--shapley", help="Add Shapley values of groups and single features.")] = False,
    window: Annotated[int | None, Option(min=0, help="Reference window, from 0. Default: the last.")] = None,
    faithfulness: Annotated[bool, Option("--faithfulness", help="Measure that of contributions instead.")] = False,
    receipt: Annotated[Path | None, Option(help="Saved answer of :explain to compute again; see above.")] = None,
    windows: Annotated[Path | None, Option("--input", help="Body of the request of the saved answer.")] = None,
    output_name: OutputName = None,
    as_json: AsJson = False,
) -> None:
    """Print each feature's contribution to the forecast of a reference window, or write them for a whole table.

    TABLE is a .csv, .csv.gz or .parquet file, or a folder of them, read in the order of their names. Each row is a time
    step, oldest first in its series, or, in parquet, a window: the column of each feature holds a list of its values,
    oldest first. No window crosses a gap, or has rows of two series. Bad rows are listed in _rejected.csv.

    Faithfulness is deletion, insertion and infidelity, beside those of gradients, of a random order and, without an
    LSTM, of pykan's scores. Effects take 2 forecasts per window and feature.

    With --receipt, FILE may be a folder. Default: KANSCOPE_MODELS, or the bundled model. Exit code 1 if numbers differ.
    """
    if receipt is not None or windows is not None:
        if receipt is None or windows is None:
            raise DataError("--receipt and --input go together")
        if (
            faithfulness
            or effects
            or shapley
            or any(given is not None for given in (window, output_name, data, folder))
        ):
            raise DataError("--receipt takes all its options from the receipt, so no others can be given with it")
        from service.commands.repeat import repeat

        return repeat(receipt, windows, file, as_json)
    if file is None:
        raise DataError("FILE is missing: give the checkpoint")
    if faithfulness and (window is not None or effects or shapley):
        others = "--window, --effects and --shapley"
        raise DataError(f"--faithfulness averages over many windows, so {others} cannot be given with it")
    if (data is None) != (folder is None):
        raise DataError("TABLE and -o go together: the table to explain, and the folder to write to")
    of_table = time_column or series or strict or workers or engine != "threads" or part_windows != PART_WINDOWS
    of_table = of_table or separator != "," or decimal != "."
    if data is None and of_table:
        others = "--separator, --decimal, --time-column, --series, --strict, --engine, --workers and --part-windows"
        raise DataError(f"{others} need TABLE")
    if data is not None and (faithfulness or window is not None):
        raise DataError("all windows of TABLE are explained, so --window and --faithfulness cannot be given with it")
    model = load(file)
    method: Method = "shapley" if shapley else "path"
    about = {"file": str(file), "checkpoint": model.checkpoint}
    if data is not None and folder is not None:
        from service.batch import chunks, tables

        output, clock, csv = output_name or model.outputs[0], model.config.time, Csv(separator, decimal)
        model.find_output(output)  # refuses an unknown one
        if (
            time_column is None
            and clock is not None
            and clock.name in tables.read_schema(tables.find_files(data)[0], csv=csv)
        ):
            time_column = clock.name
        plan = chunks.Plan(model, data, output, time_column, tuple(series), part_windows, strict, effects, method, csv)
        _explain_table(plan, folder, engine, workers, as_json)
    elif faithfulness:
        rows = model.faithfulness(output_name)
        if as_json:
            measured = {"faithfulness": [asdict(row) for row in rows], "ledger_loses": [*find_losses(rows)]}
            print_json(about | {"output": output_name or model.outputs[0]} | measured)
        else:
            columns = ["method", *(f"{measure} ({better} is better)" for measure, better in BETTER.items())]
            title = "faithfulness, in standard deviations of the output"
            print_table(title, columns, map(astuple, rows), caption=describe_losses(rows))
    else:
        last = len(model.reference) - 1
        number = last if window is None else window
        if number > last:
            raise UnknownNameError(f"there is no reference window {number}; the windows are 0 to {last}")
        chosen = model.reference.windows[number]
        explained = model.explain(chosen, output_name, effects=effects, detail="features", method=method)
        time = None if model.reference.times is None else model.reference.times[number]
        target = trust = None
        is_output = explained.output in model.outputs  # bounds have no actual values
        if is_output and (actual := model.reference.actual(model.outputs.index(explained.output))) is not None:
            target = float(actual[number])
        with suppress(InsufficientReferenceError):
            trust = model.trust()[number]
        if as_json:
            from service.answers.forms import describe_one
            from service.operations.explanations import describe_explanation

            shown = {"window": number, "time": time, "target": target, "trust": trust and describe_one(trust)}
            described = next(describe_explanation(explained, "features", number))
            print_json({**about, "unit": explained.unit, **shown, **described})
        else:
            if explained.caution:
                echo(explained.caution)
            title = f"{explained.output}, window {number} of 0 to {last}{f', {time}' if time else ''}"
            _print_window(model, explained, number, title, target)
            if trust is not None:
                echo(str(trust))


def _print_window(model: Model, explained: Explanation, number: int, title: str, target: float | None) -> None:
    """Prints the explanation of a reference window, largest contributions first."""
    caption = f"{explained.width_summary}; " if explained.width_summary else ""
    caption += f"the contributions add up to within {explained.residual[0]:.2g}; "
    caption += f"their largest error is {explained.error[0]:.2g}"
    if not explained.converged[0]:
        caption += f"; not converged to the tolerance of {explained.tolerance:.2g}"
    unit, effects = f", {explained.unit}" if explained.unit else "", ["removed", "alone"] if explained.effects else []
    last = model.reference.windows[number, -1]
    shown = np.where(np.abs(last) > ROUNDING * model.scaling.feature_scale, last, 0.0).tolist()
    known = {feature.name: (feature.unit, value) for feature, value in zip(model.features, shown, strict=True)}

    shapley = ["shapley"] if explained.shapley else []

    def signed(row: Mapping[str, Any]) -> list[str]:
        values = (row.get(name) for name in ("contribution", *effects, *shapley))
        return ["" if value is None else f"{value:+.4f}" for value in values]

    rows = sorted(explained.table(), key=lambda row: -abs(row["contribution"]))
    by_group = explained.table("group")
    of_parts = {row["group"]: row.get("shapley") for row in by_group}
    rows = [row | {"shapley": of_parts.get(row["feature"])} for row in rows]
    groups = by_group[: len(explained.groups)]  # the rest are features without a group
    quantity = (
        "forecast" if explained.output in model.outputs else "bound" if explained.usual_width is None else "width"
    )
    totals = {f"baseline: the {quantity} for the mean window": explained.baseline_prediction}
    totals |= {quantity: explained.predictions[0]}
    for level, bounds in explained.intervals.items():
        totals |= {f"{end} bound at {level:g}": bound[0] for end, bound in zip(("lower", "upper"), bounds, strict=True)}
    totals |= {} if target is None else {"actual value": target}
    columns = ["feature", "unit", "last value", f"contribution{unit}", *effects, *shapley]
    singles = [(row["feature"], *known[row["feature"]], *signed(row)) for row in rows]
    sums = [(f"{r['group']}: {', '.join(explained.groups[r['group']])} together", "", "", *signed(r)) for r in groups]
    ends = [(name, "", "", f"{value:+.4f}") for name, value in totals.items()]
    print_table(title, columns, singles, sums, ends, n_left=2, caption=caption)


def find_losses(rows: Sequence[Faithfulness]) -> Iterator[dict[str, Any]]:
    """Every measure in which another method does better than the ledger, with both values."""
    (ours,) = (asdict(row) for row in rows if row.method == "ledger")
    for measure, better in BETTER.items():
        for row in map(asdict, rows):
            mine, other = ours[measure], row[measure]
            if other is not None and (other > mine if better == "more" else other < mine):
                yield {"measure": measure, "method": row["method"], "ledger": mine, "other": other}


def describe_losses(rows: Sequence[Faithfulness]) -> str:
    """The measures in which the ledger loses, a line for each."""
    lines = [
        f"The ledger loses to {method} in {measure}: {write_value(ours)} against {write_value(other)}."
        for measure, method, ours, other in map(dict.values, find_losses(rows))
    ]
    return "\n".join(lines) or "The ledger is best in every column."


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """Hides the second interrupt of one SIGINT: after that of polars, Python's own, raised as generators are closed."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda raised: None if raised.exc_type is KeyboardInterrupt else hook(raised)
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _explain_table(plan: Plan, output: Path, engine: EngineName, workers: int | None, as_json: bool) -> None:
    """Explains a table into a folder with a progress bar on stderr, by bytes of the table, and prints a summary.

    KanscopeError if no window is explained, Ray is missing, or the run ends early: it says how many windows are saved.
    """
    from service.batch import chunks, parts, run, tables

    if engine == "ray" and find_spec("ray") is None:
        raise missing_package("--engine ray", "kanscope[ray]")
    use_engine = run.use_ray if engine == "ray" else run.use_threads
    columns = (TextColumn("{task.fields[done]}"), BarColumn(20), TextColumn("{task.fields[rate]}"))
    total, before, start = chunks.Summary(), None, monotonic()
    try:
        with _interrupted_once(), Progress(*columns, TimeRemainingColumn(), console=make_console(stderr=True)) as bar:
            n_bytes = sum(path.stat().st_size for path in tables.find_files(plan.table))
            task = bar.add_task("explain", total=n_bytes, done="", rate="")
            for total, read in run.explain_table(plan, output, use_engine, workers):
                before = total.windows if before is None else before  # those of an earlier run
                rate = (total.windows - before) / max(monotonic() - start, 1e-9)
                bar.update(task, completed=read, done=f"{total.windows:,} windows", rate=f"{rate:,.0f}/s")
    except KeyboardInterrupt:
        saved = len(list(output.glob("part-*")))  # one more than was counted, if the interrupt came as it was written
        echo(f"kanscope: interrupted; {saved:,} parts of the result are saved; {RESUME}", err=True)
        raise Exit(130) from None  # the convention of shells for SIGINT: 128 + 2
    except KanscopeError as error:
        if not total.windows + total.lost:
            raise
        raise DataError(f"{error} ({total.windows:,} explained windows are saved; {RESUME})") from error
    rejected = output / parts.REJECTED
    if as_json:
        print_json({"output": str(output), **asdict(total)})
    else:
        echo(f"{output}: {total.windows:,} windows, {total.unconverged:,} not within the tolerance")
        if total.rejected:
            echo(f"{total.rejected:,} bad rows; {total.lost:,} windows left out because of them: {rejected}")
        if total.across_gaps:
            echo(f"{total.across_gaps:,} windows left out that cross a gap in time, such as {total.gap}")
    if not total.windows:
        raise DataError(f"no window of {plan.table.name} is explained; {rejected} has the reasons")
