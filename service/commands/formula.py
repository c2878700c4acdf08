"""``kanscope formula``: the KAN head as formulas, by complexity."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from kanmodel import load
from service.commands.options import AsJson, Checkpoint, OutputName, print_json


def formula(
    file: Checkpoint,
    output_name: OutputName = None,
    complexity: Annotated[
        int | None, typer.Option(min=1, help="Print only the best formula of at most this complexity, as Python.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print formulas of the head, from a constant to the whole network, each with its error on held-out windows.

    Their variables are LSTM units, or features if there is no LSTM, in original units. R2 and mean absolute error are
    measured through the whole model on a third of the reference windows, which neither the search nor the choice among
    the formulas has used.
    """
    model = load(file)
    found = model.formula(output_name)
    chosen = [each for each in found if complexity is None or each.complexity <= complexity]
    if complexity is not None:
        chosen = chosen[-1:]
    if as_json:
        windows = {name: asdict(getattr(found, name)) for name in ("searched", "chosen", "judged")}
        formulas = [asdict(each) for each in chosen]
        print_json(
            {
                "file": str(file),
                "checkpoint": model.checkpoint,
                "output": found.output,
                "windows": windows,
                "formulas": formulas,
            }
        )
    elif complexity is None:
        typer.echo(repr(found))
    else:
        (one,) = chosen
        r2 = "no R2, as it is not finite" if one.r2 is None else f"R2 {one.r2:.4f} against the model"
        typer.echo(f"# complexity {one.complexity}, {r2} on held-out windows")
        for symbol, variable in one.variables.items():
            typer.echo(f"# {symbol} is {variable.node}")
        typer.echo(one.python.rstrip())
