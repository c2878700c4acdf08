"""``kanscope explain FILE TABLE -o FOLDER``: explains every window of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from kanmodel.errors import DataError, KanscopeError
from kanmodel.model import Model
from service.batch.folder import REJECTED
from service.batch.parts import Summary
from service.batch.plan import EngineName, Plan
from service.batch.run import Advance, Engine, explain_table
from service.batch.sources import find_files
from service.batch.threads import explain_with_threads
from service.commands.options import make_console, print_json

EXIT_INTERRUPTED = 130  # the convention of shells for SIGINT: 128 + 2


def explain_to_folder(
    model: Model, plan: Plan, output: Path, engine: EngineName, workers: int | None, as_json: bool
) -> None:
    """Explains a table with a progress bar, and prints a summary.

    Args:
        model: the model.
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
    total = Summary()
    try:
        with _progress(plan) as show:
            for advance in explain_table(model, plan, output, find_engine(engine), workers):
                total = advance.summary
                show(advance)
    except KeyboardInterrupt:
        typer.echo(f"kanscope: interrupted; {_kept(total)}; run the same command again to resume", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except KanscopeError as error:
        if not total.windows + total.lost:
            raise
        raise DataError(f"{error} ({_kept(total)}; run the same command again to resume)") from error
    if as_json:
        print_json({"output": str(output), **asdict(total)})
    else:
        _print(total, output)
    if not total.windows:
        raise DataError(f"no window of {plan.table.name} is explained; {output / REJECTED} has the reasons")


def find_engine(name: EngineName) -> Engine:
    """Imports an engine by its name.

    Raises:
        DataError: it is not installed.
    """
    if name == "threads":
        return explain_with_threads
    try:
        from service.batch.cluster import explain_with_ray  # here, since ray is an extra, and takes seconds to import
    except ModuleNotFoundError as error:
        raise DataError("--engine ray needs Ray: pip install 'kanscope[ray]'") from error
    return explain_with_ray


@contextmanager
def _progress(plan: Plan) -> Iterator[Callable[[Advance], None]]:
    """A progress bar on stderr, by bytes of the table; yields the function that advances it."""
    columns = (TextColumn("{task.fields[done]}"), BarColumn(20), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=make_console(stderr=True)) as bar:
        size = sum(path.stat().st_size for path in find_files(plan.table))
        task = bar.add_task("explain", total=size, done="", rate="")
        start, before = monotonic(), None

        def show(advance: Advance) -> None:
            nonlocal before
            windows = advance.summary.windows
            before = windows if before is None else before
            rate = (windows - before) / max(monotonic() - start, 1e-9)
            bar.update(task, completed=advance.read, done=f"{windows:,} windows", rate=f"{rate:,.0f}/s")

        yield show


def _kept(summary: Summary) -> str:
    return f"{summary.windows:,} explained windows are saved"


def _print(total: Summary, output: Path) -> None:
    console = make_console(soft_wrap=True)
    console.print(f"{output}: {total.windows:,} windows, {total.unconverged:,} not within the tolerance")
    if total.rejected:
        rows = f"{total.rejected:,} bad rows; {total.lost:,} windows left out because of them"
        console.print(f"{rows}: {output / REJECTED}")
    if total.across_gaps:
        console.print(f"{total.across_gaps:,} windows left out that cross a gap in time, such as {total.gap}")
