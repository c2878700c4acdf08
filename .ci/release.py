"""Makes the next version of the work tree: its number wherever it stands, its changelog, a commit and a tag.

usage: release.py VERSION
"""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

CHANGELOG = "CHANGELOG.md"
# Where the version stands, as `version = "…"` or `"version": "…"`.
FILES = ("pyproject.toml", "openapi/openapi.json", "service/document/examples.json")
KUBERNETES = "service/engines/kubernetes"  # the image, a label, and the chart with both


def main(new: str) -> str | None:
    """Writes, commits and tags; returns what is in the way, if anything is, and has then changed nothing."""
    texts = {name: Path(name).read_text(encoding="utf-8") for name in (CHANGELOG, *FILES)}
    old = re.findall(r'^version = "(.*)"', texts["pyproject.toml"], re.MULTILINE)[0]
    before, heading, after = texts[CHANGELOG].partition("## [Unreleased]\n")
    if not re.fullmatch(r"\d+\.\d+\.\d+", new) or number(new) <= number(old):
        return f"VERSION must be three numbers and above {old}, but is {new!r}"
    if git("status", "--porcelain", "--untracked-files=no"):
        return "the work tree has changes that are not committed"
    if not after.partition("\n## ")[0].strip():
        return f"{CHANGELOG} has nothing under [Unreleased]"
    for name in FILES:
        text = re.sub(
            rf'^(version = |.*"version": )"{re.escape(old)}"', rf'\g<1>"{new}"', texts[name], flags=re.MULTILINE
        )
        Path(name).write_text(text, encoding="utf-8")
    for path in sorted(Path(KUBERNETES).rglob("*")):
        if path.is_file() and path.suffix in (".env", ".yaml"):
            text = path.read_text(encoding="utf-8")
            text = re.sub(rf"(\bversion: |\bappVersion: |/kanscope:){re.escape(old)}\b", rf"\g<1>{new}", text)
            path.write_text(text, encoding="utf-8")
    today = datetime.now(UTC).date().isoformat()
    Path(CHANGELOG).write_text(f"{before}{heading}\n## [{new}] - {today}\n{after}", encoding="utf-8")
    git("commit", "--quiet", "--all", "--message", f"Version {new}")
    git("tag", "--annotate", f"v{new}", "--message", f"Version {new}")
    print(f"version {new} is committed and tagged v{new}; to publish it: git push --follow-tags")
    return None


def number(version: str) -> tuple[int, ...]:
    """A version as numbers that compare."""
    return tuple(map(int, version.split(".")))


def git(*arguments: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *arguments], check=True, text=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
