"""The project's documents: the README of the repository and those of the folders."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
# By path, the README of the repository first.
READMES = {
    path: path.read_text(encoding="utf-8")
    for path in (
        README,
        *sorted(
            path for room in ("kanmodel", "service", "openapi", "tests") for path in (ROOT / room).rglob("README.md")
        ),
    )
}
EVERYTHING = "\n".join(READMES.values())
