"""Commands and programs of the page on clients, and what runs these."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from expected import MODEL, WINDOW, expect
from readmes import PAGES, READMES

from service.document.__main__ import DOCUMENT

HERE = Path(__file__).parent
PAGE = READMES[PAGES / "how-to" / "clients.md"]
TOOLS = Path(sys.prefix) / "clients"  # `make test` sets it up
MODULES = TOOLS / "node_modules"
# Warnings of openapi-generator that the document does not avoid, by its language: of any value, of names that are words
# of the language, and of any media type.
_OF_ANY = "Failed to get the schema name: null"
UNAVOIDABLE = {
    "python": _OF_ANY,
    "typescript-fetch": rf"{_OF_ANY}|Index \(reserved word\) cannot be used as model name",
    "typescript-axios": _OF_ANY,
    "go": r"range \(reserved word\) cannot be used as (model|parameter) name\.",
    "rust": r"(type|use|r#use) cannot be used as a field/variable name|ApplicationJson cannot be used as a model",
}


def run(folder: Path, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What a command has printed, with further variables in its environment."""
    # The generators find the formatters that make check runs, and the linters send nothing anywhere.
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    environment = {**os.environ, **quiet, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | variables
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def generate(folder: Path, command: str) -> None:
    """Runs the command of the page that starts so, which must not warn of the document."""
    (line,) = re.findall(rf"^{re.escape(command)}.*$", PAGE.replace("\\\n", ""), re.MULTILINE)
    words = shlex.split(line, comments=True)
    words = [word.replace("openapi/", f"{DOCUMENT.parent}/") if ".json" in word else word for word in words]
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
    language = words[words.index("-g") + 1] if "-g" in words else ""
    unavoidable = UNAVOIDABLE.get(language)
    assert [line for line in warnings if unavoidable is None or not re.search(unavoidable, line)] == [], printed


def check_answers(server: httpx2.Client, folder: Path, *program: str | Path) -> None:
    """Checks that a program, given the server and a window, prints what plain HTTP gives."""
    printed = run(folder, *program, str(server.base_url).rstrip("/"), WINDOW).stdout
    assert json.loads(printed) == expect(server)


def write_program(server: httpx2.Client, language: str, file: Path) -> None:
    """Writes the page's program in a language, which asks a server of the tests."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert text.count("http://127.0.0.1:8000") == 1
    file.parent.mkdir(exist_ok=True)
    file.write_text(text.replace("http://127.0.0.1:8000", str(server.base_url).rstrip("/")))


def check_program(server: httpx2.Client, folder: Path, *program: str | Path) -> None:
    """Checks that a program of the page prints the temperature's contribution to the forecast of a reference window."""
    instance = server.get(f"{MODEL}/reference/0").json()["instance"]
    answer = server.post(f"{MODEL}:explain", json={"instances": [instance]}).json()
    printed = float(run(folder, *program).stdout)
    assert printed == pytest.approx(answer["explanations"][0]["contributions"]["temp_c"], rel=1e-12)
