from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import CheckpointError
from service.models.repository import BUNDLED, list_checkpoints

ANY_NAME = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=60)


@pytest.fixture
def write(tmp_path):
    """Writes a file into the folder, and creates the folders above it."""

    def write_file(path: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"checkpoint")
        return file

    return write_file


def refusals(folder):
    return {key: file.refusal for key, file in list_checkpoints(folder).items()}


def test_a_file_is_version_1_and_a_folder_holds_versions(write, tmp_path):
    """Models are listed by name, the highest version first, compared as numbers."""
    for path in ("b.safetensors", "a/9.safetensors", "a/10.safetensors", "a/1.safetensors"):
        write(path)
    assert refusals(tmp_path) == dict.fromkeys([("a", "10"), ("a", "9"), ("a", "1"), ("b", "1")])


def test_other_files_hidden_ones_and_deeper_folders_do_not_count(write, tmp_path):
    """Hidden files, other files and deeper folders are not listed."""
    for path in (
        "good.safetensors",
        "README.md",
        ".hidden.safetensors",
        ".hidden/1.safetensors",
        "notes/README.md",
        "m/.2.safetensors",
        "m/deep/1.safetensors",
    ):
        write(path)
    assert refusals(tmp_path) == {("good", "1"): None}


def test_the_bundled_model_is_the_default(tmp_path):
    """Without a folder the bundled model is listed, and with one that has no checkpoint nothing."""
    (tmp_path / "empty" / "nothing").mkdir(parents=True)
    assert [file.path.parent for file in list_checkpoints(None).values()] == [BUNDLED]
    assert list_checkpoints(tmp_path / "empty") == {}


def test_a_path_to_nothing_is_an_error(tmp_path):
    """The error names the missing path."""
    with pytest.raises(CheckpointError, match=r"there is no file or folder .*/none"):
        list_checkpoints(tmp_path / "none")


@pytest.mark.parametrize("name", ["with space", "a" * 65, "näme", "a:b", os.fsdecode(b"latin-\xe4")])
@pytest.mark.parametrize("path", ["{}.safetensors", "{}/1.safetensors"])
def test_a_name_that_no_path_of_the_api_can_hold_is_refused(write, tmp_path, name, path):
    """The listing escapes the name, and the error states the allowed characters."""
    write(path.format(name))
    ((listed, _), refusal) = next(iter(refusals(tmp_path).items()))
    assert listed == os.fsencode(name).decode(errors="backslashreplace")
    assert "must match [A-Za-z0-9._-]{1,64}" in refusal


@pytest.mark.parametrize("version", ["0", "01", "-1", "1.0", "v1", "latest", "1 ", "²", "١"])
def test_a_version_that_is_not_an_integer_is_refused(write, tmp_path, version):
    """Versions count from 1 without leading zeros; an invalid one sorts after the others."""
    write(f"m/{version}.safetensors")
    write("m/3.safetensors")
    (good, odd) = refusals(tmp_path).items()
    assert good == (("m", "3"), None)
    assert odd[0] == ("m", version)
    assert "must be a whole number from 1" in odd[1]


def test_two_files_of_one_version_are_refused(write, tmp_path):
    """Both files are refused, as the version is ambiguous."""
    write("m.safetensors")
    write("m/1.safetensors")
    write("m/2.safetensors")
    both = "m/1.safetensors and m.safetensors are both version 1 of the model"
    assert refusals(tmp_path) == {("m", "2"): None, ("m", "1"): both}


def test_names_with_control_characters_are_escaped(write, tmp_path):
    """Names and reasons are printable, also where two files have the same odd name."""
    for path in ("two\nlines.safetensors", "m/\x1b[31m.safetensors", os.fsdecode(b"\xff.safetensors")):
        write(path)
        write(path.replace(".", "/1."))
    listing = refusals(tmp_path)
    assert len(listing) >= 3
    for (name, version), refusal in listing.items():
        assert name.isprintable() and version.isprintable() and refusal.isprintable(), refusal


def test_links_may_point_around_in_the_folder(write, tmp_path):
    """Links within the folder are allowed, as Kubernetes mounts secrets and config maps by links."""
    write("..data/a.safetensors")
    (tmp_path / "a.safetensors").symlink_to("..data/a.safetensors")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.safetensors").symlink_to(tmp_path / "a.safetensors")
    assert refusals(tmp_path) == {("a", "1"): None, ("b", "1"): None}


@pytest.mark.parametrize("link", ["m.safetensors", "m"])
def test_a_link_that_leaves_the_folder_is_refused(write, tmp_path, link):
    """Links to files and folders outside are refused, absolute or relative."""
    outside = write("outside/1.safetensors")
    folder = tmp_path / "models"
    folder.mkdir()
    target = outside if link.endswith(".safetensors") else outside.parent
    (folder / link).symlink_to(os.path.relpath(target, folder))
    ((key, refusal),) = refusals(folder).items()
    assert key == ("m", "1")
    assert refusal.endswith("is a link that leaves the folder")


def test_other_than_regular_files_are_refused(tmp_path):
    """Opening a pipe would block."""
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert refusals(tmp_path) == {
        ("folder", "1"): "folder.safetensors is not a regular file",
        ("pipe", "1"): "pipe.safetensors is not a regular file",
    }


def test_the_listing_detects_a_changed_file(write, tmp_path):
    """The listing differs for a replaced file of equal size and time, and for one written in place."""
    file = write("m.safetensors")
    seen = [list_checkpoints(tmp_path)]
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    other = write("other")
    os.utime(other, ns=times)
    other.replace(file)
    seen.append(list_checkpoints(tmp_path))
    file.write_bytes(b"longer than before")
    os.utime(file, ns=times)
    seen.append(list_checkpoints(tmp_path))
    assert seen[-1] == list_checkpoints(tmp_path)
    assert len({listing["m", "1"] for listing in seen}) == 3


@given(names=st.lists(ANY_NAME, max_size=4), versions=st.lists(ANY_NAME, max_size=4))
def test_any_file_name_is_listed_or_refused(tmp_path_factory, names, versions):
    """For any file names the listing is sorted, and every path in it lies in the folder."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "m").mkdir()
    for name in names:
        (folder / f"{name}.safetensors").touch()
    for version in versions:
        (folder / "m" / f"{version}.safetensors").touch()
    listing = list_checkpoints(folder)
    assert [file.order for file in listing.values()] == sorted(file.order for file in listing.values())
    for file in listing.values():
        assert folder in file.path.parents or file.path.parent == BUNDLED
