"""``kanscope explain FILE TABLE -o FOLDER``: explains every window of a table."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from time import monotonic

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from kanmodel.errors import DataError, KanscopeError
from service.batch import EngineName
from service.batch.chunks import Plan, Summary
from service.batch.parts import REJECTED
from service.batch.run import Engine, explain_table, use_threads
from service.batch.tables import find_files
from service.commands.options import make_console, print_json

EXIT_INTERRUPTED = 130  # the convention of shells for SIGINT: 128 + 2


def explain_to_folder(plan: Plan, output: Path, engine: EngineName, workers: int | None, as_json: bool) -> None:
    """Explains a table with a progress bar on stderr, by bytes of the table, and prints a summary.

    Args:
        plan: the table.
        output: the folder of the result.
        engine: name of the engine that explains it.
        workers: threads or processes; None for one per core.
        as_json: whether to print JSON.

    Raises:
        KanscopeError: the run cannot continue; the message states how many windows are saved. Or no window is
            explained.
        typer.Exit: it was interrupted.
    """
    columns = (TextColumn("{task.fields[done]}"), BarColumn(20), TextColumn("{task.fields[rate]}"))
    total, before, start = Summary(), None, monotonic()
    try:
        with Progress(*columns, TimeRemainingColumn(), console=make_console(stderr=True)) as bar:
            n_bytes = sum(path.stat().st_size for path in find_files(plan.table))
            task = bar.add_task("explain", total=n_bytes, done="", rate="")
            for total, read in explain_table(plan, output, find_engine(engine), workers):
                before = total.windows if before is None else before  # those of an earlier run
                rate = (total.windows - before) / max(monotonic() - start, 1e-9)
                bar.update(task, completed=read, done=f"{total.windows:,} windows", rate=f"{rate:,.0f}/s")
    except KeyboardInterrupt:
        typer.echo(f"kanscope: interrupted; {_count(total)}; run the same command again to resume", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except KanscopeError as error:
        if not total.windows + total.lost:
            raise
        raise DataError(f"{error} ({_count(total)}; run the same command again to resume)") from error
    if as_json:
        print_json({"output": str(output), **asdict(total)})
    else:
        typer.echo(f"{output}: {total.windows:,} windows, {total.unconverged:,} not within the tolerance")
        if total.rejected:
            lost = f"{total.lost:,} windows left out because of them"
            typer.echo(f"{total.rejected:,} bad rows; {lost}: {output / REJECTED}")
        if total.across_gaps:
            typer.echo(f"{total.across_gaps:,} windows left out that cross a gap in time, such as {total.gap}")
    if not total.windows:
        raise DataError(f"no window of {plan.table.name} is explained; {output / REJECTED} has the reasons")


def _count(summary: Summary) -> str:
    return f"{summary.windows:,} explained windows are saved"


def find_engine(name: EngineName) -> Engine:
    """Imports an engine by its name; raises `DataError` if it is not installed."""
    if name == "threads":
        return use_threads
    try:
        from service.batch.cluster import use_ray  # here, since ray is an extra, and takes seconds to import
    except ModuleNotFoundError as error:
        raise DataError("--engine ray needs Ray: pip install 'kanscope[ray]'") from error
    return use_ray
