"""What commands share: options, the check of a path before the work, tables, and JSON."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.table import Table
from typer import Argument, BadParameter, Option, echo

from kanmodel.errors import CheckpointError
from kanmodel.model import Model
from kanmodel.origins import prepare
from kanmodel.prepared import results_path
from kanmodel.text import write_value
from service.batch import Csv

Checkpoint = Annotated[Path, Argument(help="Checkpoint, *.safetensors.")]
OutputName = Annotated[str | None, Option(help="Output, such as load+1, or load+1:width@0.8. Default: the first.")]
Series = Annotated[list[str], Option(metavar="NAME", help="Series of the table; repeat for several. Default: all.")]
Separator = Annotated[str, Option(help="What separates columns of a .csv, such as ';'.")]
Decimal = Annotated[Literal[".", ","], Option(help="Decimal mark of a .csv.")]
AsJson = Annotated[bool, Option("--json", help="Print JSON.")]
Written = Annotated[Path, Option("-o", "--output", help="Checkpoint to write, *.safetensors.")]
Prepare = Annotated[bool, Option("--prepare", help="Also compute global results, into *.results beside it.")]


def parse_levels(texts: list[str]) -> tuple[float, ...]:
    """Parses each ``0.8,0.95`` into levels."""
    try:
        return tuple(map(float, split_names(texts)))
    except ValueError as error:
        raise BadParameter(f"{','.join(texts)!r} is not levels such as 0.8,0.95", param_hint="--intervals") from error


def split_names(texts: list[str]) -> tuple[str, ...]:
    """Splits each ``a,b`` into names."""
    return tuple(stripped for text in texts for name in text.split(",") if (stripped := name.strip()))


def refuse_unwritable(output: Path, suffix: str = ".safetensors") -> None:
    """Refuses a path that cannot be written to, before any work is done."""
    if output.suffix != suffix:
        raise CheckpointError(f"{output} must end in {suffix}")
    if not output.parent.is_dir():
        raise CheckpointError(f"cannot write {output}: there is no folder {output.parent}")
    if output.is_dir():
        raise CheckpointError(f"cannot write {output}: it is a folder")


def read_table(model: Model, table: Path, csv: Csv) -> dict[str, Any]:
    """The columns of a table, of which the model's time must be there."""
    from service.batch import tables  # here, since a wrong option is refused faster without polars

    spec = model.config.table
    return tables.read_table(table, [spec.time.name] if spec.time else [], tables.list_texts(spec), csv)


def make_console(stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints every text as it is: names may hold brackets, such as ``wind [m/s]``, or colons."""
    return Console(stderr=stderr, quiet=quiet, highlight=False, markup=False, emoji=False)


def is_watched() -> bool:
    """Whether somebody sees the progress of a command: it goes to stderr, and there only to a terminal."""
    return sys.stderr.isatty()


def print_table(
    title: str, columns: Sequence[str], *sections: Iterable[Sequence[Any]], n_left: int = 1, caption: str | None = None
) -> None:
    """Prints a table, with a line between two sections; the first `n_left` columns are left-aligned."""
    table = Table(title=title, caption=caption)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < n_left else "right")
    for section in sections:
        for row in section:
            table.add_row(*("" if value is None else write_value(value) for value in row))
        table.add_section()
    make_console().print(table)


def print_json(document: Mapping[str, Any]) -> None:
    """Prints one line of JSON on stdout."""
    echo(json.dumps(document, ensure_ascii=False, allow_nan=False))


def save(model: Model, output: Path, with_results: bool) -> Model:
    """Writes a checkpoint, and its global results beside it if wanted, and returns the model as it is loaded there."""
    saved = model.save(output)
    return prepare(output, progress=is_watched()) if with_results else saved


def print_written(output: Path, model: Model) -> None:
    """Prints path, size and hash of a written checkpoint, and path and size of results that were written with it."""
    echo(f"{output} ({output.stat().st_size / 1e6:.2f} MB, {(model.checkpoint or '')[:19]}…)")
    if model.prepared is not None:
        echo(describe_results(output))


def describe_results(checkpoint: Path) -> str:
    """Path and size of the results beside a checkpoint."""
    path = results_path(checkpoint)
    return f"{path} ({path.stat().st_size / 1e6:.2f} MB)"
