"""``kanscope formula``: a KAN as one expression."""

from __future__ import annotations

from typing import Annotated

import typer

from kanmodel import load
from service.commands.options import AsJson, Checkpoint, OutputName, print_json


def formula(
    file: Checkpoint,
    output_name: OutputName = None,
    fidelity: Annotated[
        float,
        typer.Option(min=0, max=1, help="R2 that the edges in the formula keep against all edges; fewer are simpler."),
    ] = 0.99,
    as_json: AsJson = False,
) -> None:
    """Write a KAN without LSTM as one expression of its features, and print its R2 against the model.

    The expression is Python with numpy's names of functions. Features whose names can't stand in it get symbols.
    """
    model = load(file)
    topology = model.topology(output_name, fidelity=fidelity)
    found = model.formula(output_name, fidelity=fidelity)
    kept, total = sum(edge.kept for edge in topology.kan_edges), len(topology.kan_edges)
    if as_json:
        print_json(
            {
                "file": str(file),
                "checkpoint": model.checkpoint,
                "output": found.output,
                "expression": found.expression,
                "symbols": dict(found.symbols),
                "r2": found.r2,
                "edges": {"kept": kept, "total": total},
                "reference_windows": topology.reference_windows,
            }
        )
        return
    typer.echo(f"{found.output} = {found.expression}")
    typer.echo(
        f"R2 {found.r2:.4f} against the model on {topology.reference_windows} reference windows, "
        f"with {kept} of {total} edges; features in their own units."
    )
    for symbol, name in found.symbols.items():
        if symbol != name:
            typer.echo(f"{symbol} stands for {name!r}.")
