from __future__ import annotations

import pytest
from factories import make_model

from kanmodel.checkpoint import save_checkpoint
from kanmodel.errors import UnknownNameError
from service.errors import NotReadyError
from service.registry import Registry


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.safetensors"
    save_checkpoint(make_model(), path)
    return path


def test_one_file_is_served_under_its_stem(good):
    """A path to a file serves that file alone."""
    registry = Registry(good)
    registry.load()
    assert [entry.name for entry in registry.entries] == ["good"]
    assert registry.get("good").checkpoint.startswith("sha256:")
    assert registry.ready


def test_only_visible_checkpoints_of_the_folder_count(good):
    """Other files, hidden ones and folders below are not models."""
    folder = good.parent
    (folder / "README.md").write_text("about")
    (folder / ".hidden.safetensors").write_bytes(good.read_bytes())
    (folder / "below").mkdir()
    (folder / "below" / "deep.safetensors").write_bytes(good.read_bytes())
    assert [entry.name for entry in Registry(folder).entries] == ["good"]


def test_a_bad_file_leaves_the_others_to_serve(good):
    """Foreign, truncated and unreadable files fail with their reason."""
    folder = good.parent
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "cut.safetensors").write_bytes(good.read_bytes()[:-1])
    (folder / "folder.safetensors").mkdir()
    (folder / "gone.safetensors").symlink_to(folder / "nowhere")
    registry = Registry(folder)
    registry.load()
    reasons = {entry.name: entry.reason for entry in registry.entries}
    assert reasons.pop("good") is None
    assert set(reasons) == {"empty", "cut", "folder", "gone"}
    assert "truncated" in reasons["cut"]
    assert "directory" in reasons["folder"]
    assert "No such file" in reasons["gone"]
    assert registry.ready
    with pytest.raises(NotReadyError, match=r"model 'cut' failed: cut\.safetensors is truncated"):
        registry.get("cut")


def test_a_failure_that_nobody_expected_leaves_the_others_to_serve(good, monkeypatch, caplog):
    """An error of another kind fails one model, and the log has it."""
    from kanmodel.checkpoint import load_checkpoint

    (good.parent / "odd.safetensors").write_bytes(good.read_bytes())

    def load(path):
        if path.stem == "odd":
            raise MemoryError("too much")
        return load_checkpoint(path)

    monkeypatch.setattr("service.registry.load_checkpoint", load)
    registry = Registry(good.parent)
    registry.load()
    states = {entry.name: entry.state for entry in registry.entries}
    assert states == {"good": "ready", "odd": "failed"}
    assert "too much" in caplog.text


@pytest.mark.parametrize("name", ["with space", "a" * 65, "näme"])
def test_a_name_that_no_path_can_hold_fails(good, name):
    """A file whose stem is no model name is listed as failed, and says why."""
    good.rename(good.with_name(f"{name}.safetensors"))
    registry = Registry(good.parent)
    registry.load()
    (entry,) = registry.entries
    assert entry.state == "failed"
    assert "must match [A-Za-z0-9._-]{1,64}" in entry.reason
    assert not registry.ready


def test_names_are_looked_up_and_never_become_paths(good):
    """A name that would be a path to a checkpoint is unknown, and the error lists what exists."""
    registry = Registry(good.parent)
    registry.load()
    for name in ("../good", "./good", "good.safetensors", str(good)):
        with pytest.raises(UnknownNameError, match="the models are good"):
            registry.get(name)
