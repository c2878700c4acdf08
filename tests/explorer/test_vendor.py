"""The libraries bundled with the explorer."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest

from service.pages import FOLDER, PLOT_STYLE

VENDOR = FOLDER / "vendor"
PACKAGES = Path(__file__).parents[1] / "clients" / "package.json"
MODULES = Path(sys.prefix) / "clients" / "node_modules"  # `make test` sets it up
README = (VENDOR / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\S+)` \| (\S+) \| (\S+) \| `(\S+)` \| (\S+), `(\S+)` \|$", re.MULTILINE)
WORDS = {  # of each licence
    "ISC": "Permission to use, copy, modify, and/or distribute",
    "MIT": "Permission is hereby granted, free of charge",
    "Apache-2.0": "Apache License",
}


def test_each_file_is_the_one_that_was_fetched():
    """SHA256SUMS has every file except itself and the README, with its checksum."""
    stated = dict(line.split("  ")[::-1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    files = {path.name: path.read_bytes() for path in VENDOR.iterdir() if path.name not in ("README.md", "SHA256SUMS")}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == stated


def test_the_readme_names_version_and_licence_of_each():
    """The versions are those of `make vendor`, and the licences those of the package."""
    wanted = json.loads(PACKAGES.read_text())["devDependencies"]
    rows = ROW.findall(README)
    assert {file for file, *_ in rows} == {path.name for path in VENDOR.iterdir() if path.suffix in (".js", ".mjs")}
    assert {licence for *_, licence in rows} == {path.name for path in VENDOR.glob("*.LICENSE")}
    for _, package, version, _, licence, text in rows:
        assert wanted[package] == version
        assert WORDS[licence] in (VENDOR / text).read_text(encoding="utf-8")
    stated = re.search(r'^license = "(.+?)"', (PACKAGES.parents[2] / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert {licence for *_, licence, _ in rows} <= set(stated[1].split(" AND "))


def test_each_file_is_that_of_its_package():
    """Byte for byte, where the packages are installed."""
    for file, package, version, source, *_ in ROW.findall(README):
        if not (MODULES / package).exists():
            pytest.skip(f"{package} is missing: make test installs it where there is npm")
        assert json.loads((MODULES / package / "package.json").read_text("utf-8"))["version"] == version
        assert (MODULES / package / source).read_bytes() == (VENDOR / file).read_bytes()


def test_each_name_that_modules_import_is_in_the_import_map():
    """A name without a path is one of a library, and the map leads to its file."""
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    names = json.loads(re.search(r'<script type="importmap">(.*?)</script>', page, re.DOTALL)[1])["imports"]
    assert {path.removeprefix("./release/vendor/") for path in names.values()} == {f.name for f in VENDOR.glob("*.mjs")}
    modules = [path for path in FOLDER.rglob("*") if path.suffix in (".js", ".mjs")]
    told = r"""(?:\bfrom|^import)\s*["']([@a-z][\w@/-]*)["']"""
    asked = {name for path in modules for name in re.findall(told, path.read_text("utf-8"), re.MULTILINE)}
    assert asked == set(names)


def test_the_policy_lets_in_the_style_that_plot_writes():
    """The hash of Plot's inline style, for the class of the explorer's charts, is in the policy."""
    template = (
        PLOT_STYLE.replace("plot) {", "${class}) {")
        .replace("plot text", "${class} text")
        .replace("plot tspan", "${class} tspan")
    )
    library = re.sub(r"\$\{\w+\}", "${class}", (VENDOR / "plot.umd.min.js").read_text(encoding="utf-8"))
    assert template.replace("\n", "\\n") in library
