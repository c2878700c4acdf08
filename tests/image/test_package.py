"""The published package: an sdist, and the wheel built from it, in which the folder service is `kanscope.service`."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping
from email.parser import Parser
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from processes import run_process
from trove_classifiers import classifiers

ROOT = Path(__file__).parents[2]
PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"
VARIABLES = {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
ALONE = {**os.environ, **VARIABLES}
BUILDS = pytest.mark.thorough("builds the wheel")


def python(*arguments: str | Path, folder: Path) -> None:
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE)


def make_environment(folder: Path, wheel: Path) -> tuple[Path, Path]:
    """The folders of commands and packages of a new environment that has the wheel alone."""
    python("-m", "venv", "--without-pip", "environment", folder=folder)
    binaries = folder / "environment" / "bin"
    quiet = ("install", "--quiet", "--no-deps", "--no-index")
    python("-m", "pip", "--python", binaries / "python", *quiet, wheel, folder=folder)
    return binaries, Path(subprocess.check_output([binaries / "python", "-c", PURELIB], text=True).strip())


def requirements_of(wheel: Path) -> set[Path]:
    """The modules and packages installed here that the wheel requires without extras, directly or not."""
    (metadata,) = (
        zipfile.Path(wheel) / name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA")
    )
    waiting, found = Parser().parsestr(metadata.read_text()).get_all("Requires-Dist", []), dict[str, set[Path]]()
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            held = distribution(requirement.name)
            tops = {file.parts[0] for file in held.files or ()} - {"..", "__pycache__"}
            found[requirement.name] = {Path(str(held.locate_file(top))) for top in tops}
            waiting += held.requires or []
    return set().union(*found.values())


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
    files = (path for package in ("kanmodel", "service") for path in (ROOT / package).rglob("*"))
    names_here = {path.relative_to(ROOT).as_posix() for path in files if path.is_file() and path.suffix != ".pyc"}
    assert held == {re.sub("^service/", "kanscope/service/", name) for name in names_here} | {"kanscope/__init__.py"}
    model, page = "kanscope/service/bundled/nyc-weather.safetensors", "kanscope/service/explorer/index.html"
    assert {"kanmodel/py.typed", model, page} <= held
    licenses = {name.partition(".dist-info/licenses/")[2] for name in names} - {""}
    of_libraries = (ROOT / "service" / "explorer" / "vendor").glob("*.LICENSE")
    assert licenses == {path.relative_to(ROOT).as_posix() for path in of_libraries} | {"LICENSE"}


@BUILDS
def test_no_module_of_the_wheel_names_a_package_service(built: tuple[Path, Path]) -> None:
    """No import, and no text such as `service.app`, would find someone else's package, or none."""
    with zipfile.ZipFile(built[1]) as wheel:
        modules = {name: wheel.read(name) for name in wheel.namelist() if name.endswith(".py")}
    for name, code in modules.items():
        for node in ast.walk(ast.parse(code)):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
            assert not [text for text in found if re.match(r"service($|\.\w)", text)], f"{name}:{node.lineno}"


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
    """The version is the changelog's, or one between releases above it; the README is Markdown, classifiers valid."""
    wheel = zipfile.ZipFile(built[1])
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text().strip()
    assert metadata["Summary"] and metadata["Keywords"]
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    built_version = Version(metadata["Version"])
    assert newest and (
        built_version > Version(newest[1]) if built_version.is_devrelease else built_version == Version(newest[1])
    )
    assert metadata.get_all("Classifier") and set(metadata.get_all("Classifier")) <= classifiers


# Prints a sentence for each extra that is missing.
BASE = """
import numpy as np
import kanmodel

rows = np.arange(200.0)
table = {"x": np.sin(rows / 3), "y": np.cos(rows / 5)}
model = kanmodel.train(table, "y", ahead=1, lookback=4, epochs=1)
assert np.isfinite(model.explain({name: table[name][-4:] for name in model.config.feature_names}).contributions).all()
assert model.topology().edges and model.report().html()
for ask in (model.formula, lambda: model.export_onnx("model.onnx")):
    try:
        ask()
    except kanmodel.ConfigError as error:
        print(error)
"""


@pytest.mark.thorough("builds the wheel and trains a model with it")
def test_the_base_trains_and_explains_and_names_the_extras(built: tuple[Path, Path], tmp_path: Path) -> None:
    """With what the wheel requires without extras, a model is trained and explained; the rest says what to install."""
    binaries, site = make_environment(tmp_path, built[1])
    for path in requirements_of(built[1]):
        (site / path.name).symlink_to(path)
    printed = subprocess.check_output([binaries / "python", "-c", BASE], cwd=tmp_path, text=True, env=ALONE)
    what = ("the search for a formula", "formulas"), ("the export to ONNX", "onnx")
    assert printed == "".join(f"{name} needs a package: pip install 'kanscope[{extra}]'\n" for name, extra in what)
    refused = subprocess.run([binaries / "kanscope", "serve"], env=ALONE, capture_output=True, text=True)
    sentence = "kanscope: the command kanscope needs a package: pip install 'kanscope[serve]'\n"
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", sentence)


@pytest.mark.thorough("installs the wheel and starts it")
def test_the_wheel_serves_beside_a_package_named_service(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In an environment without the repository, the command serves the bundled model and the explorer."""
    binaries, site = make_environment(tmp_path, built[1])
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))  # of which no .pth counts
    (site / "service").mkdir()
    (site / "service" / "__init__.py").write_text("raise ImportError('of someone else')")

    def start_installed(log: Path, arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            command = [binaries / "kanscope", *arguments]
            return subprocess.Popen(command, cwd=tmp_path, env=dict(environment), stdout=file, stderr=file)

    log = tmp_path / "version"
    assert start_installed(log, ["--version"], ALONE).wait(timeout=60) == 0
    assert log.read_text() == f"kanscope {version('kanscope')}\n"
    where = "import kanmodel, kanscope.service; print(kanmodel.__file__, kanscope.service.__file__)"
    printed = subprocess.check_output([binaries / "python", "-c", where], cwd=tmp_path, env=ALONE, text=True)
    assert printed.split() == [f"{site}/kanmodel/__init__.py", f"{site}/kanscope/service/__init__.py"]
    with run_process(tmp_path / "log", by=start_installed, **VARIABLES) as process:
        window = (ROOT / "tests" / "examples" / "window.json").read_bytes()
        answer = process.client.post(
            "/v1/models/nyc-weather:explain", content=window, headers={"Content-Type": "application/json"}
        )
        assert answer.json()["explanations"][0]["converged"]
        assert process.client.get("/explorer/app.js").status_code == 200
        committed = json.loads((ROOT / "openapi/openapi.json").read_text())
        assert process.client.get("/openapi.json").json() | {"servers": committed["servers"]} == committed
