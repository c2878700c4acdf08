"""``kanscope export``: a checkpoint as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kanmodel import load
from service.commands.options import Checkpoint, figure, refuse_unwritable


def export(
    file: Checkpoint,
    output: Annotated[Path, typer.Option("-o", "--output", help="ONNX file to write, *.onnx.", show_default=False)],
) -> None:
    """Write the forward pass, scaling included, as an ONNX graph that any ONNX runtime can run.

    Its input is "instances" (n, lookback, features) in original units, oldest step first; its outputs are "predictions"
    (n, outputs) in original units, and "logits" where there is an output function. It is compared with the model on all
    reference windows before it is written.
    """
    refuse_unwritable(output, ".onnx")
    written = load(file).export_onnx(output)
    typer.echo(f"{output} ({output.stat().st_size / 1e6:.2f} MB)")
    typer.echo(
        f"Largest difference from the model on {written.windows} reference windows: {figure(written.difference)}, "
        f"or {figure(written.relative_difference)} standard deviations."
    )
