"""Types of the explorer's modules, checked against the committed OpenAPI document."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.document.__main__ import DOCUMENT
from service.pages import FOLDER

HERE = Path(__file__).parent
MODULES = Path(sys.prefix) / "clients" / "node_modules"  # `make test` sets it up


def run(folder, *command):
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.thorough("checks all types, for 8 s")
def test_the_modules_use_the_api_as_it_is_described(tmp_path):
    """tsc finds no error in the JSDoc types, with responses typed by openapi-typescript."""
    if not MODULES.exists():
        pytest.skip("node or its packages are missing: make test installs these where there is npm")
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("vendor"))
    (tmp_path / "vendor").mkdir()
    for bundle in (FOLDER / "vendor").glob("*.js"):
        (tmp_path / "vendor" / bundle.with_suffix(".d.ts").name).write_text("export {};\n")
    (tmp_path / "node_modules").symlink_to(MODULES)
    for name in ("tsconfig.json", "libraries.d.ts"):
        shutil.copy(HERE / name, tmp_path)
    run(tmp_path, MODULES / ".bin" / "openapi-typescript", DOCUMENT, "--output", "schema.d.ts")
    run(tmp_path, MODULES / ".bin" / "tsc", "--project", "tsconfig.json")
