"""The published package: an sdist, and the wheel built from it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from email.parser import Parser
from pathlib import Path

import pytest
from processes import run_process
from trove_classifiers import classifiers

ROOT = Path(__file__).parents[2]
PACKAGES = ("kanmodel", "service")
BUILDS = pytest.mark.thorough("builds the wheel")


def python(*arguments: str | Path, folder: Path) -> None:
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An sdist of the repository and a wheel of the sdist, both built offline."""
    folder = tmp_path_factory.mktemp("built")
    python("-m", "hatchling", "build", "-t", "sdist", "-d", folder, folder=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    python("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, sdist, folder=folder)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@BUILDS
def test_the_wheel_holds_the_two_packages_and_nothing_else(built: tuple[Path, Path]) -> None:
    """It has the code, the bundled model, the explorer with its licences and `py.typed`, but no tests."""
    names = zipfile.ZipFile(built[1]).namelist()
    held = {name for name in names if ".dist-info/" not in name}
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    assert held == {
        path.relative_to(ROOT).as_posix() for path in files if path.is_file() and path.suffix not in (".pyc", ".pyo")
    }
    assert {"kanmodel/py.typed", "service/bundled/nyc-weather.safetensors", "service/explorer/index.html"} <= held
    licenses = {name.partition(".dist-info/licenses/")[2] for name in names} - {""}
    assert licenses == {f"service/explorer/vendor/{name}.LICENSE" for name in ("d3", "plot")} | {"LICENSE"}


@BUILDS
def test_the_sdist_holds_the_project(built: tuple[Path, Path]) -> None:
    """It has the tests and documents, so that a packager can run them."""
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", "LICENSE", "openapi/openapi.json"} <= names
    assert "tests/image/test_package.py" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/", "build/"))]


@BUILDS
def test_the_metadata_are_complete(built: tuple[Path, Path]) -> None:
    """Metadata have the changelog's version, a summary, keywords, the README as Markdown and valid classifiers."""
    wheel = zipfile.ZipFile(built[1])
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text().strip()
    assert metadata["Summary"] and metadata["Keywords"]
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and metadata["Version"] == newest[1]
    assert metadata.get_all("Classifier") and set(metadata.get_all("Classifier")) <= classifiers


@pytest.mark.thorough("installs the wheel and starts it")
def test_the_wheel_serves_without_the_repository(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Installed into its own folder, the command serves the bundled model and the explorer from there."""
    site = tmp_path / "site"
    python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, built[1], folder=tmp_path)
    # before the repository, which is installed in the tests' environment
    variables = {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}

    def start_installed(log: Path, arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            command = [site / "bin" / "kanscope", *arguments]
            return subprocess.Popen(command, cwd=tmp_path, env=dict(environment), stdout=file, stderr=file)

    where = "import kanmodel, service; print(kanmodel.__file__, service.__file__)"
    printed = subprocess.check_output(
        [sys.executable, "-c", where], cwd=tmp_path, env={**os.environ, **variables}, text=True
    )
    assert [Path(file).parents[1] for file in printed.split()] == [site, site]
    with run_process(tmp_path / "log", by=start_installed, **variables) as process:
        window = (ROOT / "tests" / "examples" / "window.json").read_bytes()
        answer = process.client.post(
            "/v1/models/nyc-weather:explain", content=window, headers={"Content-Type": "application/json"}
        )
        assert answer.json()["explanations"][0]["converged"]
        assert process.client.get("/explorer/app.js").status_code == 200
