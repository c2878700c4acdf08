import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def read_pins(name):
    """Names and versions of a lock file, whose lines may continue with hashes."""
    lines = (ROOT / ".ci" / name).read_text().splitlines()
    pins = [Requirement(line.removesuffix("\\")) for line in lines if line[0].isalnum()]
    return {(canonicalize_name(pin.name), str(pin.specifier)) for pin in pins}


def test_the_image_has_the_versions_of_the_tests():
    """Each version in the image's lock is that of the development lock."""
    assert read_pins("requirements.txt") <= read_pins("constraints.txt")


def test_the_lock_of_the_image_is_complete():
    """The lock has every dependency except torch, and those for models in buckets; `make lock` updates it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    dependencies = [*project["dependencies"], *extras["s3"], *extras["https"]]
    names = {canonicalize_name(Requirement(dependency).name) for dependency in dependencies}
    assert names - {name for name, _ in read_pins("requirements.txt")} == {"torch"}
