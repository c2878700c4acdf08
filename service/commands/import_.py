"""``kanscope import``: the weights of another trainer in, a checkpoint out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from kanmodel.checkpoint import save_checkpoint
from kanmodel.explain.scores import MIN_INPUTS
from kanmodel.importers.description import Description, describe_file, nodes_of
from kanmodel.importers.detect import TITLES, FoundKAN, FoundLSTM
from kanmodel.importers.importing import Imported, describe_relative, import_checkpoint


def import_(
    file: Annotated[Path, typer.Argument(help="Weights as a trainer saved them: .pt, .pth, .ckpt, pykan's *_state.")],
    manifest: Annotated[
        Path | None, typer.Option(help="What the weights do not say, .yaml or .json; see --describe.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Checkpoint to write, *.safetensors.")] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="Print what the file says, and a manifest to be filled in.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a checkpoint of a state_dict of an LSTM and a KAN of pykan, efficient-kan, fast-kan or FasterKAN."""
    if describe:
        _print_description(describe_file(file), as_json)
        return
    if manifest is None or output is None:
        raise typer.BadParameter("give --manifest and --output, or --describe to see what the file says")
    if output.suffix != ".safetensors":
        raise typer.BadParameter(f"{output.name} must end in .safetensors", param_hint="--output")
    from service.batch.tables import read_columns  # here, since the other commands start faster without polars

    imported = import_checkpoint(file, manifest, read_columns)
    sha256 = save_checkpoint(imported.model, output)
    if as_json:
        typer.echo(json.dumps(_summary(imported, output, sha256), ensure_ascii=False, allow_nan=False))
    else:
        _print_summary(imported, output, sha256)


def _summary(imported: Imported, output: Path, sha256: str) -> dict[str, Any]:
    return {
        "name": imported.name,
        "file": str(output),
        "checkpoint": f"sha256:{sha256}",
        "provenance": vars(imported.model.provenance),
        "largest_difference": imported.comparison.absolute if imported.comparison else None,
        "relative_difference": imported.comparison.relative if imported.comparison else None,
        "reading": imported.reading or None,
        "also_matching": imported.also_matching,
        "reference_windows": len(imported.model.reference.windows),
    }


def _print_summary(imported: Imported, output: Path, sha256: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    n_reference = len(imported.model.reference.windows)
    console.print(f"{imported.name}: wrote {output}  sha256:{sha256[:12]}…", markup=False)
    if imported.comparison is None:
        console.print("not verified: the manifest has no check, so nothing proves that the forecasts are the model's")
    else:
        console.print(
            f"verified: the largest difference from the check is {imported.comparison.absolute:.2g}, "
            f"{describe_relative(imported.comparison)}"
        )
    if imported.reading:
        found = "found" if imported.comparison else "taken for granted"
        console.print(f"{found}: {imported.reading}", markup=False)
    for other in imported.also_matching:
        console.print(f"the check is met just as well with {other}", markup=False)
    if n_reference < MIN_INPUTS:
        console.print(f"{n_reference} reference windows: scores need {MIN_INPUTS} and will be null")


def _print_description(description: Description, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(description), ensure_ascii=False))
        return
    console = Console(highlight=False)
    console.print(_description_table(description))
    console.print("not in the file:")
    for missing in description.missing:
        console.print(f"  {missing}", markup=False)
    console.print("\nmanifest:\n")
    typer.echo(description.manifest, nl=False)


def _description_table(description: Description) -> Table:
    table = Table("", "found", title=description.file)
    where = f"{description.container}, " if description.container else ""
    prefix = f", without the prefix {description.prefix}" if description.prefix else ""
    types = ", ".join(description.dtypes)
    table.add_row("weights", f"{where}{description.n_tensors} tensors of {types}{prefix}")
    for lstm in description.lstms:
        table.add_row("LSTM", _describe_lstm(lstm))
    for kan in description.kans:
        table.add_row("KAN", _describe_kan(kan))
    if description.unknown:
        table.add_row("not understood", ", ".join(description.unknown[:10]))
    return table


def _describe_lstm(lstm: FoundLSTM) -> str:
    layers = "1 layer" if lstm.num_layers == 1 else f"{lstm.num_layers} layers"
    direction = ", bidirectional" if lstm.bidirectional else ""
    bias = "" if lstm.bias else ", without bias"
    return f"{lstm.prefix!r}: {lstm.n_inputs} inputs, {lstm.hidden_size} units, {layers}{direction}{bias}"


def _describe_kan(kan: FoundKAN) -> str:
    libraries = " or ".join(TITLES[format_] for format_ in kan.formats) or "no known library"
    grids = ", ".join(str(layer.grid_size) for layer in kan.layers)
    orders = sorted({layer.spline_order for layer in kan.layers if layer.spline_order is not None})
    order = f", spline order {', '.join(map(str, orders))}" if orders else ""
    multiplies = ", some of them products" if any(layer.n_subnodes != layer.n_nodes for layer in kan.layers) else ""
    return f"{kan.prefix!r}: {libraries}, nodes {nodes_of(kan)}{multiplies}, grid {grids}{order}"
