"""The scan of the image's Debian packages, with a database of holes in the form that Debian publishes."""

from __future__ import annotations

import os
import shutil
import subprocess
import zlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from sockets import serving

SCRIPT = Path(__file__).with_name("scan.sh")
# A hole in the source package openssl that version 3.5.2-1 mends, and one in zlib that nothing mends.
DATABASE = (
    "VERSION 1\nCVE-2026-0001,,a hole\nCVE-2026-0002,,another\n\nopenssl,0,SHRF,3.5.2-1,\nzlib,1,SHR ,,\n\n"
    "openssl,libssl3t64\nzlib,zlib1g\n\n"
)


def scan(folder: Path, source: str, version: str) -> subprocess.CompletedProcess[str]:
    """Scans a system that has these packages."""
    if shutil.which("debsecan") is None:
        pytest.skip("debsecan is missing: Debian has it in the package of that name")
    packages = (("libssl3t64", "openssl", version), ("zlib1g", "zlib", "1:1.3"))
    (folder / "status").write_text(
        "".join(
            f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nSource: {origin}\nVersion: {each}\n\n"
            for name, origin, each in packages
        )
    )
    environment = {**os.environ, "DEBSECAN_SOURCE": source}
    return subprocess.run([SCRIPT, folder / "status"], env=environment, capture_output=True, text=True)


def test_a_hole_that_a_newer_base_mends_fails_the_scan(tmp_path: Path) -> None:
    """It is named; one that nothing mends is none of the image's."""

    class Database(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(zlib.compress(DATABASE.encode()))

    with serving(Database) as source:
        old, new = (scan(tmp_path, source, version) for version in ("3.5.1-1", "3.5.2-1"))
    assert old.returncode == 1 and "2 Debian packages scanned, 1 known holes" in old.stdout
    assert "CVE-2026-0001 libssl3t64" in old.stdout and "CVE-2026-0002" not in old.stdout
    assert new.returncode == 0 and "2 Debian packages scanned, 0 known holes" in new.stdout


def test_a_scan_that_cannot_be_done_is_said_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a database it succeeds, and says that it was not run, also in the summary."""
    monkeypatch.setenv("NOT_RUN", str(tmp_path / "not-run"))
    ended = scan(tmp_path, "http://127.0.0.1:9", "3.5.1-1")
    assert ended.returncode == 0 and ended.stdout.startswith("NOT RUN: ")
    assert (tmp_path / "not-run").read_text() == ended.stdout
