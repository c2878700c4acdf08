"""``kanscope prepare``: computes the global results of checkpoints, and writes them beside these."""

from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Annotated

from typer import Argument, Exit, Option, echo

import kanmodel
from kanmodel.errors import CheckpointError, KanscopeError
from kanmodel.prepared import results_path
from service.commands import options
from service.models.repository import CheckpointFile, list_checkpoints

EXIT_STALE = 1


def prepare(
    paths: Annotated[list[Path], Argument(help="Checkpoints, or folders of them with all versions.")],
    check: Annotated[bool, Option("--check", help="Write nothing; exit with 1 if results are missing or old.")] = False,
) -> None:
    """Compute global results of checkpoints, and write them beside these, for the service and all else that loads them.

    name.results beside name.safetensors has importance, profiles and the default pruning of every output. It is read
    with the checkpoint, so that attributions, topology and edges take milliseconds after a start. What is there and
    current is left as it is.
    """
    stale, failed = 0, 0
    for file in _list_files(paths):
        try:
            stale += not _prepare(file, check)
        except KanscopeError as error:
            echo(f"{file.path}: {error}", err=True)
            failed += 1
    if failed:
        raise CheckpointError(f"{failed} of the checkpoints cannot be prepared")
    if check and stale:
        raise Exit(EXIT_STALE)


def _list_files(paths: list[Path]) -> Iterator[CheckpointFile]:
    """The checkpoints, each once, as the service lists them."""
    found: dict[Path, CheckpointFile] = {}
    for path in paths:
        listed = list_checkpoints(path).values()
        if not listed:
            raise CheckpointError(f"there are no checkpoints in {path}")
        found |= {file.path: file for file in listed}
    yield from found.values()


def _prepare(file: CheckpointFile, check: bool) -> bool:
    """Prepares a checkpoint, or only checks it; prints which, and returns whether its results were current."""
    if file.refusal is not None:
        raise CheckpointError(file.refusal)
    model = kanmodel.load(file.path)
    if model.prepared is not None:
        echo(f"{results_path(file.path)}: is current")
    elif check:
        echo(f"{file.path}: {model.unprepared}")
    else:
        start = process_time()
        kanmodel.prepare(file.path, progress=options.is_watched())
        echo(f"{options.describe_results(file.path)}, {process_time() - start:.1f} s of one core")
    return model.prepared is not None
