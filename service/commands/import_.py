"""``kanscope import``: converts the weights of another library to a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from kanmodel import Model
from kanmodel.explain.scores import MIN_INPUTS
from kanmodel.importers.documents import read_names, read_windows_file
from kanmodel.importers.from_file import Description, Imported, describe_file, import_checkpoint
from kanmodel.importers.manifest import Manifest, parse_manifest, read_manifest
from kanmodel.importers.search import Result
from service.commands.options import make_console, refuse_unwritable


def import_(
    file: Annotated[
        Path,
        typer.Argument(help="Saved weights: a state_dict, a whole module, or a training checkpoint that contains one."),
    ],
    windows: Annotated[
        Path | None, typer.Option(help="windows.npz: eval, predictions, and if possible reference, reference_target.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Text file with one feature per line: its name, or name,unit.")
    ] = None,
    targets: Annotated[Path | None, typer.Option(help="The same for the targets.")] = None,
    scaling: Annotated[Path | None, typer.Option(help="Means and standard deviations, .json or .yaml.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="What windows and weights leave open, .yaml or .json; see --describe.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Checkpoint to write, *.safetensors.")] = None,
    describe: Annotated[
        bool,
        typer.Option("--describe", help="Print what was found in the file and the windows, and a manifest for it."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file if several functions fit the windows.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Convert saved weights to a checkpoint, and verify that it predicts the same.

    An LSTM or a GRU, or neither, with KAN or Linear layers; the predictions determine how they are put together.
    """
    known = _read_known(windows, features, targets, scaling, manifest)
    if describe and known is None:
        _print_description(describe_file(file), as_json)
        return
    if known is None or (output is None and not describe):
        raise typer.BadParameter(
            "give --windows and --features, or --manifest, and --output; or --describe to see what the file contains"
        )
    if output is not None:
        refuse_unwritable(output)
    from service.batch.tables import read_columns  # here, since the other commands start faster without polars

    with _progress(as_json) as progress:
        imported = import_checkpoint(file, known, read_columns, progress, strict)
    if describe:
        _print_description(describe_file(file, imported, known), as_json)
        return
    assert output is not None
    checkpoint = str(Model(imported.model).save(output).checkpoint)
    if as_json:
        typer.echo(json.dumps(_summary(imported, output, checkpoint), ensure_ascii=False, allow_nan=False))
    else:
        _print_summary(imported, output, checkpoint)


def _read_known(
    windows: Path | None, features: Path | None, targets: Path | None, scaling: Path | None, manifest: Path | None
) -> Manifest | None:
    """What options or a manifest state beside the file, the manifest first; None if neither is given."""
    given: dict[str, Any] = {} if windows is None else read_windows_file(windows)
    for key, names in (("features", features), ("targets", targets)):
        if names is not None:
            given[key] = read_names(names)
    if scaling is not None:
        given["scaling"] = str(scaling.resolve())
    if manifest is not None:
        return read_manifest(manifest, given)
    if not given:
        return None
    return parse_manifest({}, windows or Path("the command"), given)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Shows the number of readings tried, on a terminal."""
    console = make_console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda tried, total: None
        return
    with console.status("reading") as status:
        yield lambda tried, total: status.update(f"{tried:,} of {total:,} readings tried")


def _summary(imported: Imported, output: Path, checkpoint: str) -> dict[str, Any]:
    result = imported.result
    return {
        "name": imported.name,
        "file": str(output),
        "checkpoint": checkpoint,
        "provenance": vars(imported.model.provenance),
        "largest_difference": result.comparison.absolute if result.comparison else None,
        "relative_difference": result.comparison.relative if result.comparison else None,
        "reading": result.found.describe() or None,
        "also_matching": [match.reading.describe() for match in result.matches[1:]],
        "not_told_apart": result.describe_undecided(),
        "readings_left_out": result.left_out,
        "readings_tried": result.tried,
        "readings": result.total,
        "reference_windows": len(imported.model.reference.windows),
    }


def _print_summary(imported: Imported, output: Path, checkpoint: str) -> None:
    console, result = make_console(soft_wrap=True), imported.result
    n_reference = len(imported.model.reference.windows)
    console.print(f"{imported.name}: wrote {output}  {checkpoint[:19]}…")
    if result.comparison is None:
        console.print("not verified: the manifest has no check, so the forecasts were compared with nothing")
    else:
        console.print(
            f"verified: the largest difference from the check is {result.comparison.absolute:.2g}, "
            f"{result.comparison.describe_relative()}"
        )
    if reading := result.found.describe():
        found = "found" if result.comparison else "assumed"
        tried = f" ({result.tried:,} of {result.total:,} readings tried)" if result.comparison else ""
        console.print(f"{found}: {reading}{tried}")
    _print_undecided(console, result)
    if n_reference < MIN_INPUTS:
        console.print(f"{n_reference} reference windows: scores need {MIN_INPUTS}, and will be null")
    span = imported.model.reference_span
    if span.unlike_training:
        console.print(f"The reference windows are not like the training rows: {span}.")


def _print_undecided(console: Console, result: Result) -> None:
    """Warns of other functions that reproduce the predictions."""
    others = result.describe_undecided()
    for other in others[:5]:
        console.print(f"warning: these windows fit as well: {other}")
    if len(others) > 5:
        console.print(f"warning: and {len(others) - 5} more")
    if result.left_out:
        console.print(f"warning: {result.left_out} more readings may fit, too many to compare")
    if others or result.left_out:
        console.print(
            "the simplest was chosen: state the right one in the manifest, or use --strict to refuse such files"
        )


def _print_description(description: Description, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(description), ensure_ascii=False))
        return
    console = make_console()
    console.print(_description_table(description))
    if description.found is not None:
        console.print(f"found: {description.found}", soft_wrap=True)
        for other in description.undecided:
            console.print(f"warning: these windows fit as well: {other}", soft_wrap=True)
    else:
        console.print("not in the file:")
        for missing in description.missing:
            console.print(f"  {missing}", soft_wrap=True)
    console.print("\nmanifest:\n")
    typer.echo(description.manifest, nl=False)


def _description_table(description: Description) -> Table:
    table = Table("", "found", title=description.file)
    where = f"{description.container}, " if description.container else ""
    prefix = f", without the prefix {description.prefix}" if description.prefix else ""
    types = ", ".join(description.dtypes)
    table.add_row("weights", f"{where}{description.n_tensors} tensors of {types}{prefix}")
    for part in description.parts:
        table.add_row(part.library, f"{part.place!r}: {part.sizes}")
    if description.unknown:
        table.add_row("not understood", ", ".join(description.unknown[:10]))
    return table
