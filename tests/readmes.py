"""The project's documents: its README, those of the folders, results, the pages of the site, and the recipes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = ROOT / ".ci" / "site" / "pages"
ROOMS = ("kanmodel", "service", "openapi", "tests")
# By path, the README of the repository first.
READMES = {
    path: path.read_text(encoding="utf-8")
    for path in (
        README,
        *sorted(path for room in ROOMS for path in (ROOT / room).rglob("README.md")),
        *sorted((ROOT / "tests" / "benchmarks").rglob("RESULTS.md")),
        *sorted(PAGES.rglob("*.md")),
        ROOT / ".github" / "CONTRIBUTING.md",
    )
}
EVERYTHING = "\n".join(READMES.values())
