"""Commands of openapi/README.md that generate clients, and what runs these."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.document.__main__ import DOCUMENT

HERE = Path(__file__).parent
TOOLS = Path(sys.prefix) / "clients"  # `make test` sets it up
MODULES = TOOLS / "node_modules"
# Warnings of openapi-generator that the document does not avoid: of any value, and of a parameter's name in TypeScript.
UNAVOIDABLE = r"Failed to get the schema name: null|Index \(reserved word\) cannot be used as model name"


def run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """What a command has printed."""
    # The generators find the formatters that make check runs, and the linters send nothing anywhere.
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    environment = {**os.environ, **quiet, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def generate(folder: Path, command: str) -> None:
    """Runs the command of openapi/README.md that starts so, which must not warn of the document."""
    (line,) = re.findall(rf"^{re.escape(command)}.*$", DOCUMENT.with_name("README.md").read_text(), re.MULTILINE)
    words = [word.replace("openapi/", f"{DOCUMENT.parent}/") if ".json" in word else word for word in shlex.split(line)]
    if words[0] == "npx":
        generator, options = MODULES / ".bin" / Path(words[1]).name, words[2:]
    else:
        start = words.index("run") + 1 if words[0] == "pipx" else 0
        generator, options = TOOLS / "bin" / words[start], words[start + 1 :]
    if not generator.exists() or (generator.name == "openapi-generator-cli" and not shutil.which("java")):
        pytest.skip(f"{generator.name}, node or java is missing: make test and .ci/run install them")
    done = run(folder, generator, *options)
    printed = done.stdout + done.stderr
    warnings = re.findall(r".*(?:\bWARN\b|\bERROR\b|WARNING|Warning\(s\)|Unable to|Skipping).*", printed)
    remaining = [line for line in warnings if not re.search(UNAVOIDABLE, line)]
    assert remaining == [], printed
