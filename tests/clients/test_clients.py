"""Clients that their users generate, as openapi/README.md says, and drive against a live server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.openapi import DOCUMENT

HERE = Path(__file__).parent
TOOLS = Path(sys.prefix) / "clients"  # `make test` sets it up
WINDOW = HERE.parent / "examples" / "window.json"


def run(folder, *command):
    """What a command prints."""
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documented(runner):
    """The words of the command that openapi/README.md gives for a runner, for the committed document."""
    (command,) = re.findall(rf"^{runner} (.*)$", DOCUMENT.with_name("README.md").read_text(), re.MULTILINE)
    return [str(DOCUMENT) if word == "openapi/openapi.json" else word for word in command.split()]


def check_answers(server, printed):
    """A client has read from the answers what the server says without it."""
    model = "/v1/models/nyc-weather"
    window = json.loads(WINDOW.read_bytes())
    predicted = server.post(f"{model}:predict", json=window).json()
    explained = server.post(f"{model}:explain", json={**window, "baseline": "zero"}).json()
    drawn = server.get(f"{model}/topology", params={"metric": "backward", "fidelity": 0.9}).json()
    assert json.loads(printed) == {
        "forecast": predicted["predictions"][0][0],
        "contributions": explained["explanations"][0]["contributions"],
        "kept": drawn["graph"]["edges"]["kept"],
        "status": 422,
        "place": "instances",
    }


def test_the_python_client(server, tmp_path):
    """The client of openapi-python-client and a program that uses it have sound types, and work."""
    generator = TOOLS / "bin" / "openapi-python-client"
    if not generator.exists():
        pytest.skip("openapi-python-client is missing: make test installs it")
    name, *options = documented("pipx run")
    assert name == generator.name
    run(tmp_path, generator, *options)
    folder, python = tmp_path / "kanscope-client", generator.with_name("python")
    program = shutil.copy(HERE / "program.py", folder)
    run(folder, sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "kanscope_client", program)
    check_answers(server, run(folder, python, program, str(server.base_url), "nyc-weather", WINDOW))


def test_the_typescript_client(server, tmp_path):
    """The types of openapi-typescript and a program that uses them with openapi-fetch are sound, and work."""
    modules = TOOLS / "node_modules"
    if not modules.exists():
        pytest.skip("node or its packages are missing: make test installs these where there is npm")
    (tmp_path / "node_modules").symlink_to(modules)
    for name in ("package.json", "tsconfig.json", "program.ts"):
        shutil.copy(HERE / name, tmp_path)
    name, *options = documented("npx")
    run(tmp_path, modules / ".bin" / name, *options)
    run(tmp_path, modules / ".bin" / "tsc", "--project", "tsconfig.json")
    check_answers(server, run(tmp_path, "node", "built/program.js", str(server.base_url), "nyc-weather", WINDOW))
