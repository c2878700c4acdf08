"""Clients in Go and Rust, generated as on the page and compiled, against a live server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from generating import TOOLS, check_answers, check_program, generate, run, write_program

HERE = Path(__file__).parent
COMMAND = "openapi-generator-cli generate -g"
CRATES = Path("/usr/share/cargo/registry")  # of Debian's packages


@pytest.mark.thorough("generates a client and compiles it")
def test_the_go_client(server, tmp_path):
    """The generated Go client and a program with it pass `go vet`, compile and run."""
    if not shutil.which("go"):
        pytest.skip("go is missing: .ci/run installs it")
    shutil.copytree(HERE / "go", tmp_path, dirs_exist_ok=True)
    generate(tmp_path, f"{COMMAND} go ")
    alone = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}  # nothing but the standard library
    write_program(server, "go", tmp_path / "page" / "main.go")
    run(tmp_path, "go", "vet", ".", "./page", "./kanscope", **alone)
    run(tmp_path, "go", "build", "-o", "program", **alone)
    check_answers(server, tmp_path, tmp_path / "program")
    run(tmp_path, "go", "build", "-o", "shown", "./page", **alone)
    check_program(server, tmp_path, tmp_path / "shown")


@pytest.mark.thorough("generates a client and compiles it")
def test_the_rust_client(server):
    """The generated Rust client and a program with it compile, without a warning of the program, and run."""
    cargo = shutil.which("cargo", path="/usr/bin")
    if not cargo or not CRATES.exists():
        pytest.skip("Debian's cargo or its crates are missing: .ci/run installs them")
    folder = TOOLS / "rust"  # always the same, so that cargo compiles the crates of others once
    shutil.rmtree(folder / "kanscope", ignore_errors=True)
    shutil.copytree(HERE / "rust", folder, dirs_exist_ok=True)
    write_program(server, "rust", folder / "page.rs")
    generate(folder, f"{COMMAND} rust ")
    use_debians_reqwest(folder / "kanscope" / "Cargo.toml")
    source = ["source.crates-io.replace-with='debian'", f"source.debian.directory='{CRATES}'"]
    options = [word for line in source for word in ("--config", line)]
    variables = {"PATH": f"/usr/bin:{os.environ['PATH']}", "CARGO_TARGET_DIR": "target", "CARGO_PROFILE_DEV_DEBUG": "0"}
    logged = run(folder, cargo, *options, "build", "--offline", "--quiet", **variables).stderr
    assert "--> main.rs" not in logged and "--> page.rs" not in logged, logged
    check_answers(server, folder, folder / "target" / "debug" / "program")
    check_program(server, folder, folder / "target" / "debug" / "page")


def use_debians_reqwest(manifest):
    """Lets a generated crate use reqwest 0.12, which Debian has, in place of 0.13; features have other names in it."""
    text = manifest.read_text()
    for old, new in (('"^0.13"', '"^0.12"'), (', "query", "form"', ""), ('"reqwest/rustls"', '"reqwest/rustls-tls"')):
        assert old in text
        text = text.replace(old, new)
    manifest.write_text(text)
