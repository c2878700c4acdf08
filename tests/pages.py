"""Pages of the site, run as their readers do: Python as at its prompt, commands as in a shell, block by block."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import pytest
from readmes import PAGES, READMES

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TOKEN = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?|[^\W\d]+|[^\s\w]")


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Language and text of each block of a page; what lines print has no language."""
    for block in BLOCK.finditer(READMES[PAGES / page]):
        yield block[1], block[2]


def read_page(
    page: str,
    names: dict[str, Any],
    run: Callable[[str], str] | None = None,
    edit: Callable[[str], str] = str,
    within: float = 0.02,
) -> None:
    """Runs a page in the working folder, and compares what its blocks show with what they print.

    Args:
        page: its path below the folder of pages.
        names: those of the Python session, which is empty at first.
        run: runs the commands of a block, and returns what they print.
        edit: changes lines of Python before they run, such as the port of a server.
        within: how far, relatively, a number may be from what is shown: a training ends otherwise on each processor.
    """
    printed = ""
    for language, text in blocks(page):
        if language == "python":
            printed = execute(edit(text), names)
        elif language == "sh":
            assert run, text
            printed = run(text)
        else:
            assert is_shown(text, printed, within), f"{page} shows\n{text}\nbut printed is\n{printed}"


def execute(code: str, names: dict[str, Any]) -> str:
    """What Python's prompt prints for lines: warnings, what they print, and the values of expressions."""
    printed = StringIO()
    with warnings.catch_warnings(record=True) as raised, redirect_stdout(printed):
        warnings.simplefilter("always")
        for statement in ast.parse(code).body:
            exec(compile(ast.Interactive([statement]), "page", "single"), names)
    return "".join(f"{one.category.__name__}: {one.message}\n" for one in raised) + printed.getvalue()


def run_examples(text: str, names: dict[str, Any]) -> None:
    """Runs a text's blocks of Python: what a comment or the block below shows is what the code returns or prints."""
    examples = re.findall(r"```python\n(.*?)```\n(?:```\n(.*?)```\n)?", text, re.DOTALL)
    assert examples
    for code, shown in examples:
        printed, value = StringIO(), None
        for node in ast.parse(code).body:
            statement = ast.get_source_segment(code, node) or ""
            comment = code.splitlines()[(node.end_lineno or 0) - 1].partition("  # ")[2]
            with redirect_stdout(printed):
                if isinstance(node, ast.Expr):
                    value = eval(statement, names)
                else:
                    exec(statement, names)
            assert not (isinstance(node, ast.Expr) and comment) or repr(value) == comment, statement
        assert not shown or (printed.getvalue() or f"{value!r}\n") == shown


def is_shown(shown: str, printed: str, within: float = 0.02) -> bool:
    """Whether a text is what was printed, up to spaces, a share of a number, and what … stands for."""
    tokens, start = TOKEN.findall(printed), 0
    parts = [TOKEN.findall(part) for part in shown.split("…")]
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        ends = [start] if number == 0 else range(start, len(tokens) - len(part) + 1)
        if last and number:
            ends = [max(start, len(tokens) - len(part))]
        found = next((at for at in ends if _match(part, tokens[at : at + len(part)], within)), None)
        if found is None:
            return False
        start = found + len(part)
    return start == len(tokens) or not parts[-1]


def _match(expected: list[str], tokens: list[str], within: float) -> bool:
    pairs = zip(expected, tokens, strict=False)
    return len(expected) == len(tokens) and all(_equal(one, other, within) for one, other in pairs)


def _equal(expected: str, token: str, within: float) -> bool:
    try:
        return float(token.replace(",", "")) == pytest.approx(float(expected.replace(",", "")), rel=within)
    except ValueError:
        return expected == token
