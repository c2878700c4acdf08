"""The command line, ``kanscope``: finds a subcommand, imports and runs it, and turns errors into exit codes."""

import gc
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from kanmodel.errors import KanscopeError

EXIT_BAD_INPUT = 2
COMMANDS = {"serve": "serve:serve", "train": "train:train", "import": "import_:import_"}
COMMANDS |= {
    "inspect": "checkpoints:inspect",
    "explain": "explain:explain",
    "record": "record:record",
    "drift": "drift:drift",
    "prepare": "prepare:prepare",
}
COMMANDS |= {
    name: f"checkpoints:{name}" for name in ("report", "formula", "backtest", "calibrate", "compare", "prune", "export")
}


class _Commands(TyperGroup):
    """Imports a command only when it is run: each starts faster without the imports of the others."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name) for name in COMMANDS}  # names alone, to suggest one for a typo

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """The command of that name; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        module, name = COMMANDS[cmd_name].split(":")
        commands = import_module(f"{__package__}.commands.{module}")
        if not gc.isenabled():  # by `main`
            gc.freeze()
            gc.enable()
        alone.command(cmd_name, epilog=getattr(commands, "EPILOG", None))(getattr(commands, name))
        return get_command(alone)


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kanscope {version('kanscope')}")
        raise typer.Exit


@app.callback()
def _look_inside(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Look inside LSTM+KAN forecasters."""


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """As a sentence: the line of this program that it is about tells a user of the command nothing."""
    print(f"kanscope: warning: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command, by default that of the process; an error that the user can fix is one sentence on stderr."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy reads it once; as torch below
    if "torch" not in sys.modules:  # what imports create is left out of searches for garbage: an eighth of the start
        gc.disable()
    import torch  # here: completion does not need it

    torch.set_num_threads(1)  # models of this size run slower on several threads, much slower under load
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            app(args=arguments, prog_name="kanscope")
    except KanscopeError as error:
        print(f"kanscope: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
