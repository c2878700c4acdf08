"""``kanscope record``: checks what the service has recorded."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Exit, Option, echo

from kanmodel.errors import DataError
from service.commands.options import AsJson, print_json
from service.telemetry.chain import verify

MOST_LISTED = 20  # problems that are printed


def record(
    action: Annotated[Literal["verify"], Argument(help="What to do.")],
    folder: Annotated[Path, Argument(help="Folder of the record, KANSCOPE_RECORD.")],
    head: Annotated[list[str] | None, Option(help="Hash that was noted before, and must be there; repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that no line of a record was edited, added, removed or moved since it was written.

    Prints the number and the hash of the last line of each file. Note them where nobody who can write to the folder
    can, and give them as --head later: the hashes alone do not show that all were computed anew, or that the end of the
    newest file of a process was cut off. Exit code 1 if something is wrong.
    """
    try:
        found = verify(folder, head or ())
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}") from error
    if as_json:
        print_json(asdict(found))
    else:
        lines = [f"{end.file}: {end.lines} lines, hash {end.chain}" for end in found.ends]
        torn = [f"{file}: {n} bytes of an unfinished line, as of a killed process" for file, n in found.torn.items()]
        unfinished = [f"{file}: no closing line, as of a process that runs or was killed" for file in found.unfinished]
        lost = [f"{n} events were not recorded ({reason})" for reason, n in found.lost.items()]
        removed = [f"{found.removed} files were removed as the settings say"] if found.removed else []
        problems = [f"problem: {problem}" for problem in found.problems[:MOST_LISTED]]
        if (more := len(found.problems) - MOST_LISTED) > 0:
            problems.append(f"and {more} more")
        verdict = _count(len(found.problems), "problem") if problems else "unchanged"
        verdict = f"{_count(found.events, 'event')} in {_count(len(lines), 'file')}: {verdict}"
        echo("\n".join([*lines, *unfinished, *torn, *lost, *removed, *problems, verdict]))
    if found.problems:
        raise Exit(1)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
