"""Options that several commands share, and the printing of JSON and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from kanmodel.errors import CheckpointError, UnknownNameError
from kanmodel.model import Model
from kanmodel.network.config import ModelConfig

Checkpoint = Annotated[Path, typer.Argument(help="Checkpoint, *.safetensors.", show_default=False)]
OptionalCheckpoint = Annotated[Path | None, typer.Argument(help="Checkpoint, *.safetensors.", show_default=False)]
OutputName = Annotated[
    str | None, typer.Option(help="Output to use, such as load+1. Default: the first.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Written = Annotated[
    Path, typer.Option("-o", "--output", help="Checkpoint to write, *.safetensors.", show_default=False)
]


def find_output(config: ModelConfig, name: str | None) -> int:
    """Index of the named output; 0 if `name` is None.

    Raises:
        UnknownNameError: there is no such output.
    """
    if name is None:
        return 0
    if name not in config.outputs:
        raise UnknownNameError(f"there is no output {name!r}; the outputs are {', '.join(config.outputs)}")
    return config.outputs.index(name)


def refuse_unwritable(output: Path, suffix: str = ".safetensors") -> None:
    """Refuses a path that cannot be written to, before any work is done."""
    if output.suffix != suffix:
        raise CheckpointError(f"{output} must end in {suffix}")
    if not output.parent.is_dir():
        raise CheckpointError(f"cannot write {output}: there is no folder {output.parent}")
    if output.is_dir():
        raise CheckpointError(f"cannot write {output}: it is a folder")


def make_console(stderr: bool = False, soft_wrap: bool = False) -> Console:
    """A console that prints every text as it is: names may hold brackets, such as ``wind [m/s]``, or colons."""
    return Console(stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False)


def print_json(document: dict[str, Any]) -> None:
    """Prints one line of JSON on stdout."""
    typer.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))


def print_written(output: Path, model: Model) -> None:
    """Prints path, size and hash of a written checkpoint."""
    size = output.stat().st_size / 1e6
    make_console().print(f"{output} ({size:.2f} MB, {(model.checkpoint or '')[:19]}…)", soft_wrap=True)


def figure(value: float | None) -> str:
    """A number, formatted to be read."""
    return "" if value is None else f"{value:.4g}"
