"""Clients in Go and Rust, generated as in openapi/README.md and compiled, against a live server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from expected import WINDOW, expect

from service.document.__main__ import DOCUMENT

HERE = Path(__file__).parent
TOOLS = Path(sys.prefix) / "clients"  # `make test` sets it up
CRATES = Path("/usr/share/cargo/registry")  # of Debian's packages
# Warnings that no document avoids: of members that are keywords of the language, and of any media type.
UNAVOIDABLE = {
    "go": r"range \(reserved word\) cannot be used as (model|parameter) name\.",
    "rust": r"(type|use|r#use) cannot be used as a field/variable name|ApplicationJson cannot be used as a model",
}


def run(folder, *command, **variables):
    """The output of a command and what it has logged."""
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


def generate(language, folder):
    """Puts the program and the client of the documented command into a folder, without a warning of the document."""
    generator = TOOLS / "bin" / "openapi-generator-cli"
    if not generator.exists() or not shutil.which("java"):
        pytest.skip("openapi-generator-cli or java is missing: make test and .ci/run install them")
    shutil.copytree(HERE / language, folder, dirs_exist_ok=True)
    readme = DOCUMENT.with_name("README.md").read_text()
    (command,) = re.findall(rf"^{generator.name} (.* -g {language} .*)$", readme, re.MULTILINE)
    document = DOCUMENT.with_name("openapi-3.0.json")
    words = [str(document) if word == "openapi/openapi-3.0.json" else word for word in command.split()]
    logged = "".join(run(folder, generator, *words)).splitlines()
    warnings = [line for line in logged if re.search(r"\b(WARN|ERROR)\b", line)]
    assert [line for line in warnings if not re.search(UNAVOIDABLE[language], line)] == []


@pytest.mark.thorough("generates a client and compiles it")
def test_the_go_client(server, tmp_path):
    """The generated Go client and a program with it pass `go vet`, compile and run."""
    if not shutil.which("go"):
        pytest.skip("go is missing: .ci/run installs it")
    generate("go", tmp_path)
    alone = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}  # nothing but the standard library
    run(tmp_path, "go", "vet", ".", "./kanscope", **alone)
    run(tmp_path, "go", "build", "-o", "program", **alone)
    printed, _ = run(tmp_path, tmp_path / "program", str(server.base_url), WINDOW)
    assert json.loads(printed) == expect(server)


@pytest.mark.thorough("generates a client and compiles it")
def test_the_rust_client(server):
    """The generated Rust client and a program with it compile, without a warning of the program, and run."""
    cargo = shutil.which("cargo", path="/usr/bin")
    if not cargo or not CRATES.exists():
        pytest.skip("Debian's cargo or its crates are missing: .ci/run installs them")
    folder = TOOLS / "rust"  # always the same, so that cargo compiles the crates of others once
    shutil.rmtree(folder / "kanscope", ignore_errors=True)
    generate("rust", folder)
    use_debians_reqwest(folder / "kanscope" / "Cargo.toml")
    source = ["source.crates-io.replace-with='debian'", f"source.debian.directory='{CRATES}'"]
    options = [word for line in source for word in ("--config", line)]
    variables = {"PATH": f"/usr/bin:{os.environ['PATH']}", "CARGO_TARGET_DIR": "target", "CARGO_PROFILE_DEV_DEBUG": "0"}
    _, logged = run(folder, cargo, *options, "build", "--offline", "--quiet", **variables)
    assert "--> main.rs" not in logged, logged
    printed, _ = run(folder, folder / "target" / "debug" / "program", str(server.base_url), WINDOW)
    assert json.loads(printed) == expect(server)


def use_debians_reqwest(manifest):
    """Lets a generated crate use reqwest 0.12, which Debian has, in place of 0.13; features have other names in it."""
    text = manifest.read_text()
    for old, new in (('"^0.13"', '"^0.12"'), (', "query", "form"', ""), ('"reqwest/rustls"', '"reqwest/rustls-tls"')):
        assert old in text
        text = text.replace(old, new)
    manifest.write_text(text)
