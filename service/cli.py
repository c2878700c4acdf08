"""The command line: ``kanscope serve``, ``train``, ``import`` and the commands that look into a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
import typer

from kanmodel.errors import KanscopeError
from service.commands.explain import explain
from service.commands.export import export
from service.commands.formula import formula
from service.commands.import_ import import_
from service.commands.inspect import inspect
from service.commands.prune import prune
from service.commands.serve import serve
from service.commands.train import train

EXIT_BAD_INPUT = 2

app = typer.Typer(
    help="Look inside LSTM+KAN forecasters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(train)
app.command("import")(import_)
app.command()(inspect)
app.command()(explain)
app.command()(formula)
app.command()(prune)
app.command()(export)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; what the user can mend ends in one sentence on stderr and exit code 2.

    Args:
        arguments: what follows the program's name; None for those of the process.
    """
    torch.set_num_threads(1)  # several are slower on models of this size, and much slower beside other work
    try:
        app(args=arguments, prog_name="kanscope")
    except KanscopeError as error:
        print(f"kanscope: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
