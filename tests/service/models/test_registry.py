from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_model, make_windows
from hypothesis import given
from hypothesis import strategies as st

import kanmodel
from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.errors import CheckpointError, UnknownNameError
from service.models.registry import Registry, Served
from service.wire.errors import NotReadyError


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good.safetensors")


def write(path, seed=0):
    """Writes a different checkpoint for each seed."""
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(make_model("head", seed=seed), path)
    return path


def loaded(path):
    registry = Registry(path)
    registry.load()
    return registry


def hash_of(path):
    return f"sha256:{load_checkpoint(path).sha256}"


def states(registry):
    return {(entry.name, entry.version): entry.state for entry in registry.entries}


def test_one_file_is_served_under_its_stem(good):
    """A path to a file serves only that file, as version 1."""
    write(good.with_name("other.safetensors"))
    registry = loaded(good)
    assert states(registry) == {("good", "1"): "ready"}
    assert registry.get("good").checkpoint == hash_of(good)
    assert registry.ready


def test_the_highest_version_is_the_default(tmp_path):
    """Versions are compared as numbers: 10 is above 9."""
    files = {version: write(tmp_path / "m" / f"{version}.safetensors", int(version)) for version in ("9", "10", "2")}
    registry = loaded(tmp_path)
    assert registry.get("m").version == "10"
    for version, file in files.items():
        served = registry.get("m", version)
        assert (served.name, served.version, served.checkpoint) == ("m", version, hash_of(file))
    assert [entry.version for entry in registry.index()["m"]] == ["10", "9", "2"]


def test_the_highest_version_that_can_answer_serves(tmp_path):
    """If the highest version failed, a lower one is served; the failed one, requested by number, gives the reason."""
    write(tmp_path / "m" / "1.safetensors")
    (tmp_path / "m" / "2.safetensors").write_bytes(b"")
    registry = loaded(tmp_path)
    assert registry.get("m").version == "1"
    with pytest.raises(NotReadyError, match=r"version 2 of model 'm' failed: 2\.safetensors is not a safetensors file"):
        registry.get("m", "2")


def test_a_bad_file_does_not_affect_the_others(good):
    """Foreign, truncated, unreadable and refused files fail with their reason, and the others are served."""
    folder = good.parent
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "cut.safetensors").write_bytes(good.read_bytes()[:-1])
    (folder / "folder.safetensors").mkdir()
    (folder / "gone.safetensors").symlink_to(folder / "nowhere")
    (folder / "with space.safetensors").write_bytes(good.read_bytes())
    registry = loaded(folder)
    reasons = {entry.name: entry.reason for entry in registry.entries}
    assert reasons.pop("good") is None
    assert set(reasons) == {"empty", "cut", "folder", "gone", "with space"}
    assert "truncated" in reasons["cut"]
    assert "not a regular file" in reasons["folder"]
    assert "No such file" in reasons["gone"]
    assert "must match" in reasons["with space"]
    assert registry.ready
    with pytest.raises(NotReadyError, match=r"model 'cut' failed: cut\.safetensors is truncated"):
        registry.get("cut")


def test_a_model_is_ready_only_once_it_is_loaded(good, monkeypatch):
    """Whenever another thread asks: it is in memory before it is said to be ready."""
    registry, seen = Registry(good), []

    def make(*given):
        seen.append(*(entry.state for entry in registry.entries))
        return Served(*given)

    monkeypatch.setattr("service.models.registry.Served", make)
    registry.load()
    assert seen == ["loading"] and [entry.state for entry in registry.entries] == ["ready"]


def test_an_unexpected_error_fails_one_model_only(good, monkeypatch, caplog):
    """An unexpected exception fails only its model and is logged."""
    (good.parent / "odd.safetensors").write_bytes(good.read_bytes())

    def load(path):
        if path.stem == "odd":
            raise MemoryError("too much")
        return kanmodel.load(path)

    monkeypatch.setattr("service.models.registry.load", load)
    registry = loaded(good.parent)
    assert states(registry) == {("good", "1"): "ready", ("odd", "1"): "failed"}
    assert "too much" in caplog.text


def test_a_model_without_an_answer_for_its_own_data_fails(tmp_path):
    """A model whose forecast for its own reference windows is not finite fails to load."""
    model = make_model("head", dtype="float32")
    for tensor in (model.network.head[-1].subnode_bias, model.network.head[-1].node_scale):
        tensor.fill_(1e30)
    reference = replace(model.reference, targets=None)
    save_checkpoint(replace(model, reference=reference), tmp_path / "huge.safetensors")
    (entry,) = loaded(tmp_path).entries
    assert entry.state == "failed"
    assert "huge.safetensors has no answer for its own reference window: outputs[0][0]" in entry.reason


def test_names_and_versions_never_become_paths(good):
    """Names and versions that would be paths are unknown, and the error lists the existing ones."""
    registry = loaded(good.parent)
    for name in ("../good", "./good", "good.safetensors", str(good), ""):
        with pytest.raises(UnknownNameError, match="the models are good"):
            registry.get(name)
    for version in ("2", "01", "1.0", "../1", "¹", ""):
        with pytest.raises(UnknownNameError, match=r"the versions are 1$"):
            registry.get("good", version)


def test_a_new_file_serves_after_two_scans(good):
    """A new file is loaded by the second scan that sees it unchanged, which returns the model once."""
    registry = loaded(good.parent)
    file = write(good.with_name("new.safetensors"), seed=1)
    assert registry.poll() == ()
    assert ("new", "1") not in states(registry)
    assert registry.poll() == (hash_of(file),)
    assert registry.get("new").checkpoint == hash_of(file)
    assert registry.poll() == ()


def test_a_file_that_is_being_written_waits(good):
    """A file that changes between two scans is not opened."""
    registry = loaded(good.parent)
    data = write(good.with_name("new.safetensors"), seed=1).read_bytes()
    with good.with_name("slow.safetensors").open("wb") as file:
        for first in range(0, len(data), len(data) // 4):
            file.write(data[first : first + len(data) // 4])
            file.flush()
            registry.poll()
            assert ("slow", "1") not in states(registry)
    registry.poll()
    assert states(registry)["slow", "1"] == "ready"


def test_a_replaced_file_serves_new_requests(good):
    """Requests in flight finish on the model that they started with."""
    registry = loaded(good.parent)
    old = registry.get("good")
    windows = make_windows(old.model, 3)
    before = old.model.predict(windows)
    file = write(good, seed=1)
    registry.poll()
    assert registry.get("good") is old
    (checkpoint,) = registry.poll()
    new = registry.get("good")
    assert new.checkpoint == checkpoint
    assert new.checkpoint == hash_of(file) != old.checkpoint
    assert (old.model.predict(windows) == before).all()
    assert (new.model.predict(windows) != before).all()


@given(kept=st.floats(0, 1, exclude_max=True), in_place=st.booleans())
def test_a_truncated_file_never_replaces_a_good_one(tmp_path_factory, kept, in_place):
    """The previous version stays ready, with the reason of the failure, until the file is whole again."""
    file = write(tmp_path_factory.mktemp("models") / "m.safetensors")
    data = file.read_bytes()
    registry = loaded(file.parent)
    old = registry.get("m")
    part = data[: int(kept * len(data))]
    if in_place:
        os.truncate(file, len(part))
    else:
        file.with_name("other").write_bytes(part)
        file.with_name("other").replace(file)
    assert registry.poll() == registry.poll() == ()
    assert registry.get("m") is old
    (entry,) = registry.entries
    assert entry.state == "ready"
    assert entry.reason.startswith("m.safetensors is")
    file.write_bytes(data)
    assert registry.poll() == registry.poll() == ()
    assert registry.get("m").checkpoint == old.checkpoint
    assert registry.entries[0].reason is None


def test_a_file_that_changes_while_it_is_read_does_not_serve(good, monkeypatch):
    """A file that changes while it is read is not served; the next scans load it."""
    registry = loaded(good.parent)
    old = registry.get("good")

    def load_late(path):
        model = kanmodel.load(path)
        path.touch()
        return model

    write(good, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr("service.models.registry.load", load_late)
        assert registry.poll() == registry.poll() == ()
    assert registry.get("good") is old
    assert registry.entries[0].reason == "good.safetensors changed while it was read"
    registry.poll()
    assert registry.poll() == (registry.get("good").checkpoint,)


def test_a_deleted_file_no_longer_serves(good, caplog):
    """Once two scans in a row have missed the file, its model is unknown; there is nothing to warn of."""
    registry = loaded(write(good.with_name("other.safetensors")).parent)
    good.unlink()
    registry.poll()
    assert registry.get("good")
    registry.poll()
    with pytest.raises(UnknownNameError, match="the models are other"):
        registry.get("good")
    assert not [one for one in caplog.records if one.levelname == "WARNING"]


def test_a_version_replaced_by_a_higher_one_leaves_no_gap(tmp_path):
    """A version that is deleted when a higher one appears is served until that one is ready."""
    first, second = tmp_path / "m" / "1.safetensors", tmp_path / "m" / "2.safetensors"
    registry = loaded(write(first).parent.parent)
    first.unlink()
    write(second, seed=1)
    registry.poll()
    assert registry.get("m").version == "1"
    assert registry.poll() == (registry.get("m").checkpoint,)
    assert states(registry) == {("m", "2"): "ready"}


def test_a_lower_version_serves_when_the_highest_is_deleted(tmp_path):
    """The lower version is served, and the scan returns it as changed."""
    first = write(tmp_path / "m" / "1.safetensors")
    second = write(tmp_path / "m" / "2.safetensors", seed=1)
    registry = loaded(tmp_path)
    second.unlink()
    registry.poll()
    assert registry.poll() == (hash_of(first),)


def test_a_missing_folder_changes_nothing(good):
    """Scanning a missing folder is an error; the served models stay, also when the folder is back."""
    registry = loaded(good.parent)
    old = registry.get("good")
    away = good.parent.rename(good.parent.with_name("away"))
    for _ in range(3):
        with pytest.raises(CheckpointError, match="there is no file or folder"):
            registry.poll()
    away.rename(good.parent)
    for _ in range(3):
        assert registry.poll() == ()
    assert registry.get("good") is old


def test_an_emptied_folder_has_no_models(tmp_path):
    """Nothing takes the place of models whose files were all deleted, until there is a file again."""
    file = write(tmp_path / "m.safetensors")
    registry = loaded(tmp_path)
    content = file.read_bytes()
    file.unlink()
    for _ in range(3):
        assert registry.poll() == ()
    assert states(registry) == {} and not registry.ready
    file.write_bytes(content)
    registry.poll()
    registry.poll()
    assert states(registry) == {("m", "1"): "ready"}


def test_a_read_error_is_retried(good, monkeypatch, caplog):
    """A read error is logged once, and a later scan loads the file."""
    fails = [True]
    read = Path.open

    def open_or_fail(path, *arguments, **options):
        if fails and path == good:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_or_fail)
    registry = loaded(good.parent)
    for _ in range(3):
        assert registry.poll() == ()
        assert states(registry) == {("good", "1"): "failed"}
    assert caplog.text.count("failed: cannot read good.safetensors: Input/output error") == 1
    fails.clear()
    assert registry.poll() == (registry.get("good").checkpoint,)
    write(good, seed=1)
    registry.poll()
    served = registry.get("good")
    fails.append(True)
    for _ in range(2):
        registry.poll()
        assert registry.get("good") is served  # the served model stays
    fails.clear()
    registry.poll()
    assert registry.get("good") is not served


def test_closing_reads_no_further_file(good, monkeypatch):
    """Closing during the first load stops after the current file."""
    for name in "abc":
        write(good.with_name(f"{name}.safetensors"))
    registry, read = Registry(good.parent), []

    def load(path):
        read.append(path.stem)
        registry.stop()
        return kanmodel.load(path)

    monkeypatch.setattr("service.models.registry.load", load)
    registry.load()
    assert read == ["a"]


def test_an_unloaded_model_stays_so_until_it_is_loaded(tmp_path):
    """Scans ignore an unloaded model and its new files; loading it reads all its versions."""
    write(tmp_path / "m" / "1.safetensors")
    write(tmp_path / "n.safetensors")
    registry = loaded(tmp_path)
    held = registry.get("m")
    registry.unload_model("m")
    write(tmp_path / "m" / "1.safetensors", seed=1)
    write(tmp_path / "m" / "2.safetensors", seed=2)
    for _ in range(3):
        assert registry.poll() == ()
        with pytest.raises(NotReadyError, match="model 'm' is unloaded"):
            registry.get("m")
    assert states(registry) == {("m", "2"): "unloaded", ("m", "1"): "unloaded", ("n", "1"): "ready"}
    assert registry.ready
    assert registry.load_model("m") == (registry.get("m").checkpoint,)
    assert states(registry) == {("m", "2"): "ready", ("m", "1"): "ready", ("n", "1"): "ready"}
    assert registry.get("m", "1").checkpoint != held.checkpoint
    assert registry.load_model("m") == ()


def test_loading_a_model_retries_a_failed_file(good, monkeypatch):
    """The cause of a failure may be gone although the file has not changed."""

    def fail(path):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("service.models.registry.load", fail)
        registry = loaded(good.parent)
    assert registry.poll() == registry.poll() == ()
    assert states(registry) == {("good", "1"): "failed"}
    assert registry.load_model("good") == (registry.get("good").checkpoint,)


def test_readers_never_see_a_half_made_change(tmp_path, wait_until):
    """While versions are added, replaced and removed, every read of the index finds the model complete."""
    first, second = tmp_path / "m" / "1.safetensors", tmp_path / "m" / "2.safetensors"
    registry = loaded(write(first).parent.parent)
    looks, wrong, stop = ["1"], [], threading.Event()

    def read():
        while not stop.is_set():
            looks.append(registry.get("m").version)
            wrong.extend(entry for entry in registry.index()["m"] if entry.state != "ready")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for seed in range(1, 4):
            write(first, seed)
            write(second, seed + 10)
            registry.poll()
            registry.poll()
            wait_until(lambda: looks[-1] == "2")
            second.unlink()
            registry.poll()
            registry.poll()
            wait_until(lambda: looks[-1] == "1")
    finally:
        stop.set()
        reader.join()
    assert wrong == []
