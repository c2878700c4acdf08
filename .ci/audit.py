"""Asks pip-audit whether a dependency of the image has a known hole: the lock's, and the torch that is installed.

Where its database can't be had, this says so, also in the file that the variable NOT_RUN names, and succeeds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

LOCK = Path(__file__).with_name("requirements.txt")


def _say_not_run(reason: str) -> int:
    """Prints it, also into the summary of the run."""
    sentence = f"NOT RUN: the audit of the dependencies, {reason}"
    print(sentence)
    with Path(os.environ.get("NOT_RUN", os.devnull)).open("a") as summary:
        print(sentence, file=summary)
    return 0


def main() -> int:
    """Prints each known hole; 1 where there is one."""
    pins = [line.removesuffix("\\") for line in LOCK.read_text().splitlines() if line[0].isalnum()]
    pins.append(f"torch=={version('torch').partition('+')[0]}")  # without the name of the build
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins))
        file.flush()
        options = ["--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json", "--requirement", file.name]
        audit = subprocess.run([sys.executable, "-m", "pip_audit", *options], capture_output=True, text=True)
    try:
        dependencies = json.loads(audit.stdout)["dependencies"]
    except ValueError:
        reason = (audit.stderr.strip().splitlines() or ["pip-audit printed nothing"])[-1][:200]
        return _say_not_run(f"since its database can't be had: {reason}")
    holes = [(found, hole) for found in dependencies for hole in found.get("vulns", ())]
    unknown = [found["name"] for found in dependencies if "skip_reason" in found]
    if len(unknown) == len(dependencies):
        return _say_not_run("since its database knows none of them")
    print(f"{len(dependencies) - len(unknown)} dependencies audited, {len(holes)} known holes")
    if unknown:
        print(f"not audited, since the database does not know them: {', '.join(unknown)}")
    for found, hole in holes:
        print(
            f"{found['name']} {found['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'none'}"
        )
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
