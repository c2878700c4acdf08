"""Makes the next version of the work tree: its number wherever it stands, its changelog, a commit and a tag.

usage: release.py VERSION    then, once its package is built:
       release.py next       the number of what follows, such as 0.4.0.dev0, with a commit of its own
"""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from packaging.version import Version

CHANGELOG = "CHANGELOG.md"
# Where the version stands, as `version = "…"` or `"version": "…"`.
FILES = ("pyproject.toml", "openapi/openapi.json", "openapi/openapi-3.0.json", "service/document/examples.json")
KUBERNETES = "service/engines/kubernetes"  # the image, a label, and the chart with both


def main(new: str) -> str | None:
    """Writes, commits and tags; returns what is in the way, if anything is, and has then changed nothing."""
    old = re.findall(r'^version = "(.*)"', Path(FILES[0]).read_text(encoding="utf-8"), re.MULTILINE)[0]
    if git("status", "--porcelain", "--untracked-files=no"):
        return "the work tree has changes that are not committed"
    if new == "next":
        major, minor, _ = Version(old).release
        new = f"{major}.{minor + 1}.0.dev0"
        write_version(old, new)
        git("commit", "--quiet", "--all", "--message", f"Begin {new}")
        print(f"the version is {new} from now on")
        return None
    changes = Path(CHANGELOG).read_text(encoding="utf-8")
    before, heading, after = changes.partition("## [Unreleased]\n")
    if not re.fullmatch(r"\d+\.\d+\.\d+", new) or Version(new) <= Version(old):
        return f"VERSION must be three numbers and above {old}, but is {new!r}"
    if not after.partition("\n## ")[0].strip():
        return f"{CHANGELOG} has nothing under [Unreleased]"
    write_version(old, new)
    today = datetime.now(UTC).date().isoformat()
    Path(CHANGELOG).write_text(f"{before}{heading}\n## [{new}] - {today}\n{after}", encoding="utf-8")
    git("commit", "--quiet", "--all", "--message", f"Version {new}")
    git("tag", "--annotate", f"v{new}", "--message", f"Version {new}")
    print(f"version {new} is committed and tagged v{new}; to publish it: git push --follow-tags")
    return None


def write_version(old: str, new: str) -> None:
    """Replaces the version in all files."""
    for name in FILES:
        text = Path(name).read_text(encoding="utf-8")
        of_document = rf'^( +"version": )"({re.escape(semantic(old))}|{re.escape(old)})"'
        text = re.sub(of_document, rf'\g<1>"{semantic(new)}"', text, flags=re.MULTILINE)
        of_file = rf'^(version = |.*"version": )"{re.escape(old)}"'
        Path(name).write_text(re.sub(of_file, rf'\g<1>"{new}"', text, flags=re.MULTILINE), encoding="utf-8")
    for path in sorted(Path(KUBERNETES).rglob("*")):
        if path.is_file() and path.suffix in (".env", ".yaml"):
            text = path.read_text(encoding="utf-8")
            text = re.sub(rf"(\bversion: |\bappVersion: |/kanscope:){re.escape(old)}\b", rf"\g<1>{new}", text)
            of_chart = rf"^version: ({re.escape(semantic(old))}|{re.escape(new)})$"
            path.write_text(re.sub(of_chart, f"version: {semantic(new)}", text, flags=re.MULTILINE), encoding="utf-8")


def semantic(version: str) -> str:
    """The version by Semantic Versioning, as Helm wants that of a chart, and Cargo that of a generated client."""
    return version.replace(".dev", "-dev")


def git(*arguments: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *arguments], check=True, text=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
