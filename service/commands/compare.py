"""``kanscope compare``: one model beside another, as `Model.compare`, with intervals of paired differences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kanmodel import load
from kanmodel.errors import DataError, Problem
from service.commands.options import AsJson, OutputName, print_json
from service.models.registry import Served
from service.schemas.comparisons import describe_model_comparison


def compare(
    file: Annotated[Path, typer.Argument(help="Checkpoint, *.safetensors.", show_default=False)],
    against: Annotated[
        Path, typer.Argument(help="Checkpoint to compare it with, such as the last version.", show_default=False)
    ],
    output_name: OutputName = None,
    fidelity: Annotated[
        float, typer.Option(min=0, max=1, help="R2 to which both models are pruned before their edges are compared.")
    ] = 0.99,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a pull request with a new model.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a model with another on its reference windows: importance of features, edges, their curves, and errors.

    Differences are the first model minus the second: the changes from the second to the first. Both models explain the
    same windows, so the intervals are those of paired differences.
    """
    if as_markdown and as_json:
        raise DataError(
            "--markdown and --json are both given: give one", [Problem("--markdown", "cannot be combined with --json")]
        )
    model, other = (replace(load(path), name=str(path)) for path in (file, against))
    found = model.compare(other, output=output_name, fidelity=fidelity)
    if as_json:
        document = describe_model_comparison(Served(model.name, model), Served(other.name, other), found)
        print_json(dict(document))
    else:
        typer.echo(found.markdown().rstrip() if as_markdown else repr(found))
