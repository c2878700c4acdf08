import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def read_pins(name):
    """Names and versions of a lock file, whose lines may continue with hashes."""
    lines = (ROOT / ".ci" / name).read_text().splitlines()
    pins = [Requirement(line.removesuffix("\\")) for line in lines if line[0].isalnum()]
    return {(canonicalize_name(pin.name), str(pin.specifier)) for pin in pins}


def test_the_image_has_the_versions_of_the_tests():
    """Each version in the image's lock is that of the development lock."""
    assert read_pins("requirements.txt") <= read_pins("constraints.txt")


def test_the_lock_of_the_image_is_complete():
    """The lock has every dependency except torch, and those of what the image can do beside: `make lock` updates it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    held = ("serve", "formulas", "onnx", "s3", "https", "otel", "mlflow", "signatures")
    dependencies = [*project["dependencies"], *chain.from_iterable(extras[extra] for extra in held)]
    names = {canonicalize_name(Requirement(dependency).name) for dependency in dependencies} - {"kanscope"}
    assert names - {name for name, _ in read_pins("requirements.txt")} == {"torch"}


def test_the_image_is_pinned():
    """Its base by a digest, and torch's CPU build by hashes, in a version that the project takes."""
    assert re.search(r"^ARG PYTHON_IMAGE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.M)
    lock = (ROOT / ".ci" / "torch-requirements.txt").read_text()
    (pin,) = re.findall(r"^(torch==\S+) ", lock, re.M)
    assert len(set(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", lock))) == 2
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (needed,) = (each for each in map(Requirement, project["dependencies"]) if each.name == "torch")
    assert str(Requirement(pin).specifier).removeprefix("==") in needed.specifier


def test_debian_is_that_of_the_day_of_the_base(tmp_path):
    """The sources of the base lead to the snapshot that they name, and others stay as they are."""
    (command,) = re.findall(r"^RUN (sources=.*?) \\\n {4}&& apt-get", DOCKERFILE, re.M | re.S)
    file = tmp_path / "debian.sources"
    place, rest = "URIs: http://deb.debian.org/debian\n", "Suites: trixie trixie-updates\n"
    snapshot = "http://snapshot.debian.org/archive/debian/20260803T000000Z\n"
    texts = {
        f"Types: deb\n# {snapshot}{place}{rest}": f"Types: deb\nURIs: {snapshot}{rest}",
        f"Types: deb\n{place}{rest}": f"Types: deb\n{place}{rest}",
    }
    for before, after in texts.items():
        file.write_text(before)
        script = command.replace("/etc/apt/sources.list.d/debian.sources", str(file))
        subprocess.run(["sh", "-euc", script], check=True)
        assert file.read_text() == after
