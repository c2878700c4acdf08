"""The command line: ``kanscope serve``, ``train``, ``import`` and the commands that look into a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from kanmodel.errors import KanscopeError

EXIT_BAD_INPUT = 2

COMMANDS = {  # by name the module, and its function
    "serve": ("serve", "serve"),
    "train": ("train", "train"),
    "import": ("import_", "import_"),
    "inspect": ("inspect", "inspect"),
    "explain": ("explain", "explain"),
    "formula": ("formula", "formula"),
    "compare": ("compare", "compare"),
    "prune": ("prune", "prune"),
    "export": ("export", "export"),
}


class _Commands(TyperGroup):
    """Imports a command when it is asked for: the service starts sooner without what the others need."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name) for name in COMMANDS}  # the names, to suggest the nearest to a typo

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Their names, in the order of the help."""
        return [*COMMANDS]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """The command of a name; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name]
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        alone.command(cmd_name)(getattr(import_module(f"service.commands.{module}"), function))
        return get_command(alone)


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _look_inside() -> None:
    """Look inside LSTM+KAN forecasters."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; what the user can mend ends in one sentence on stderr and exit code 2.

    Args:
        arguments: what follows the program's name; None for those of the process.
    """
    import torch  # here, since to look for a command needs none of it

    torch.set_num_threads(1)  # several are slower on models of this size, and much slower beside other work
    try:
        app(args=arguments, prog_name="kanscope")
    except KanscopeError as error:
        print(f"kanscope: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
