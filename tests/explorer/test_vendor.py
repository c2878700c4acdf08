"""The libraries bundled with the explorer."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from service.pages import FOLDER, PLOT_STYLE

VENDOR = FOLDER / "vendor"
PACKAGES = Path(__file__).parents[1] / "clients" / "package.json"
README = (VENDOR / "README.md").read_text(encoding="utf-8")


def test_each_file_is_the_one_that_was_fetched():
    """SHA256SUMS has every file except itself and the README, with its checksum."""
    stated = dict(line.split("  ")[::-1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    files = {path.name: path.read_bytes() for path in VENDOR.iterdir() if path.name not in ("README.md", "SHA256SUMS")}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == stated


def test_the_readme_names_version_and_licence_of_each():
    """The versions are those of `make vendor` and of the files."""
    wanted = json.loads(PACKAGES.read_text())["devDependencies"]
    rows = re.findall(r"^\| `(\S+)` \| (\S+) \| (\S+) \| ISC, `(\S+)` \|$", README, re.MULTILINE)
    assert {file for file, *_ in rows} == {path.name for path in VENDOR.glob("*.js")}
    for file, package, version, licence in rows:
        assert wanted[package] == version
        assert f" v{version} " in (VENDOR / file).read_text(encoding="utf-8")[:200]
        assert "Permission to use, copy, modify, and/or distribute" in (VENDOR / licence).read_text(encoding="utf-8")


def test_the_policy_lets_in_the_style_that_plot_writes():
    """The hash of Plot's inline style, for the class of the explorer's charts, is in the policy."""
    template = (
        PLOT_STYLE.replace("plot) {", "${class}) {")
        .replace("plot text", "${class} text")
        .replace("plot tspan", "${class} tspan")
    )
    library = re.sub(r"\$\{\w+\}", "${class}", (VENDOR / "plot.umd.min.js").read_text(encoding="utf-8"))
    assert template.replace("\n", "\\n") in library
