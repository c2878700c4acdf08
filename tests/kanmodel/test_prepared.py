"""Results that are read beside a checkpoint are those that are computed, bit by bit; a file that is not is not used.

``PYTHONPATH=tests python tests/kanmodel/test_prepared.py`` writes the golden figures anew, once METHOD is raised.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import make_model, with_intervals
from goldens import FOLDER
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from thorough import examples
from wired import read

import kanmodel
from kanmodel import prepared
from kanmodel.checkpoint import save_checkpoint
from kanmodel.errors import CheckpointError, NonFiniteError
from kanmodel.forecaster import Forecaster
from kanmodel.structure.pruning import PruningRule
from kanmodel.structure.questions import measure, prune

GOLDEN = FOLDER / "results.json"
SMALL = {"n_features": 3, "lookback": 3, "n_reference": 130}


def grouped(model: Forecaster) -> Forecaster:
    return model.with_config(replace(model.config, groups={"pair": ("f0", "f2"), "all": ("pair", "f1")}))


MAKE = {
    "outputs": lambda: make_model("lstm", product=True, targets=("a", "b"), horizon=2, **SMALL),
    "front": lambda: make_model("front", n_features=2, lookback=3, n_reference=20, with_targets=False, dtype="float32"),
    "groups": lambda: grouped(make_model("flat", cell="gru", **SMALL)),
    "classes": lambda: classify(make_model("head", targets=("a", "b"), **SMALL)),
    "intervals": lambda: with_intervals(make_model("lstm", n_features=2, lookback=3, n_reference=20), "constant"),
    "graph": lambda: read("SkipAroundHead"),
    "normed": lambda: read("RevIN"),
}


def classify(model: Forecaster) -> Forecaster:
    model.network.config = replace(model.config, output_function="softmax")
    return model


@cache
def make(name: str) -> tuple[Forecaster, bytes, bytes]:
    """A model, its checkpoint and its results."""
    path = Path(os.environ["PYTEST_TMP"]) / f"{name}.safetensors"
    save_checkpoint(MAKE[name](), path)
    kanmodel.prepare(path)
    return kanmodel.load(path), path.read_bytes(), path.with_suffix(".results").read_bytes()


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_TMP", str(tmp_path_factory.mktemp("models")))
        yield
    make.cache_clear()


@pytest.fixture
def place(tmp_path):
    """A small model's checkpoint with its results in a folder of the test's own."""
    _, checkpoint, results = make("classes")
    (tmp_path / "m.safetensors").write_bytes(checkpoint)
    (tmp_path / "m.results").write_bytes(results)
    return tmp_path / "m.safetensors"


def assert_same(one, other, at=""):
    """Both have the same types and bits, mappings in the same order."""
    assert type(one) is type(other), at
    if is_dataclass(one):
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name), f"{at}.{field.name}")
    elif isinstance(one, dict):
        assert list(one) == list(other), at
        for key in one:
            assert_same(one[key], other[key], f"{at}[{key}]")
    elif isinstance(one, tuple | list):
        assert len(one) == len(other), at
        for number, both in enumerate(zip(one, other, strict=True)):
            assert_same(*both, f"{at}[{number}]")
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), at
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, at


@pytest.mark.parametrize("name", MAKE)
def test_what_is_read_is_what_is_computed(name, tmp_path, monkeypatch):
    """Importance with groups, and the default pruning, of every output; nothing of it is computed again."""
    loaded, checkpoint, results = make(name)
    plain, path = kanmodel.Model.of(loaded), tmp_path / "m.safetensors"
    wanted = [(plain.importance(output), plain.topology(output)) for output in plain.outputs]
    path.write_bytes(checkpoint)
    path.with_suffix(".results").write_bytes(results)
    kept = kanmodel.Model.of(kanmodel.load(path), plain.name)
    assert (kept.prepared is not None, kept.unprepared) == (True, None)
    monkeypatch.setattr("kanmodel.structure.questions.measure_importance", None)
    monkeypatch.setattr("kanmodel.structure.questions.pruning.prune_by_rule", None)
    monkeypatch.setattr("kanmodel.structure.importance.permute_features", None)
    for output, (importance, topology) in zip(kept.outputs, wanted, strict=True):
        assert_same(kept.importance(output), importance)
        assert_same(kept.topology(output), topology)
        number = kept.outputs.index(output)
        assert_same(prune(kept, number, PruningRule()), prune(plain, number, PruningRule()))


def test_other_questions_are_computed_as_ever(place):
    """Another rule, other groups, other baselines, and the report are those of a model without results."""
    loaded, kept = make("classes")[0], kanmodel.load(place)
    plain = kanmodel.Model.of(loaded, kept.name)
    rules = {"fidelity": 0.9}, {"fill": "zero"}, {"thresholds": {"edge": 0.1}}, {"without": ["head:0:0:0"]}
    for rule in rules:
        assert_same(kept.topology(**rule), plain.topology(**rule))
    pairs = {"pair": ["f0", "f2"]}
    assert_same(kept.importance(groups=pairs), plain.importance(groups=pairs))
    assert kept.agreement() == plain.agreement()
    assert kept.report().markdown() == plain.report().markdown()


def test_bounds_are_computed_as_ever(tmp_path):
    """The outputs of an interval have no prepared results."""
    loaded, checkpoint, results = make("intervals")
    path = tmp_path / "m.safetensors"
    path.write_bytes(checkpoint)
    path.with_suffix(".results").write_bytes(results)
    kept, plain = kanmodel.load(path), kanmodel.Model.of(loaded, "m")
    assert_same(kept.importance("y+1:upper@0.8"), plain.importance("y+1:upper@0.8"))


def test_current_results_are_left_as_they_are(place):
    """They are written once; a new checkpoint gets new ones, and nothing temporary stays."""
    results, _ = place.with_suffix(".results"), kanmodel.prepare(place)
    before = results.stat()
    kanmodel.prepare(place)
    assert results.stat().st_mtime_ns == before.st_mtime_ns and results.stat().st_ino == before.st_ino
    save_checkpoint(classify(make_model("head", seed=5, targets=("a", "b"), **SMALL)), place)
    assert kanmodel.load(place).unprepared == "m.results is of another checkpoint"
    shares: list[float] = []
    assert kanmodel.prepare(place, progress=shares.append).unprepared is None
    assert (shares[0], shares[-1]) == (0, 1)
    assert sorted(os.listdir(place.parent)) == ["m.results", "m.safetensors"]


def test_a_folder_that_cannot_be_written_to_is_an_error(place, monkeypatch):
    """The sentence names the file."""
    place.with_suffix(".results").unlink()
    monkeypatch.setattr("kanmodel.files.tempfile.mkstemp", refuse)
    with pytest.raises(CheckpointError, match=r"cannot write .*m\.results: Read-only file system"):
        kanmodel.prepare(place)


def refuse(*_, **__):
    raise OSError(30, "Read-only file system")


def test_a_checkpoint_is_not_replaced_by_its_results(place):
    """Whatever its name."""
    named = place.rename(place.with_suffix(".results"))
    with pytest.raises(CheckpointError, match="would replace it"):
        kanmodel.prepare(named)
    assert kanmodel.load(named).outputs


def test_results_that_are_not_finite_are_not_written(place, monkeypatch):
    """They could not be read."""
    measure, results = prepared.measure_importance, place.with_suffix(".results")
    results.unlink()

    def overflow(model, output):
        return replace(measure(model, output), baseline_prediction=float("inf"))

    monkeypatch.setattr(prepared, "measure_importance", overflow)
    with pytest.raises(NonFiniteError, match=r"a value of outputs/measured/baseline_prediction is not finite"):
        kanmodel.prepare(place)
    assert not results.exists()


def rewrite(path: Path, change) -> None:
    """Changes arrays and document of results, and states the right hash of the arrays."""
    arrays = load_file(path)
    document = {name: value for name, value in read_document(path).items() if name != "hash"}
    change(arrays, document)
    order = [name for name in document["tensors"] or arrays if name in arrays]
    document = {"hash": prepared._hash({name: arrays[name] for name in order})} | document
    save_file(arrays, path, metadata={prepared.DOCUMENT_KEY: json.dumps(document)})


def read_document(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    document: dict[str, Any] = json.loads(header["__metadata__"][prepared.DOCUMENT_KEY])
    return document


def set_value(name, value):
    def change(arrays, document):
        arrays[name] = np.array(arrays[name])
        arrays[name].flat[0] = value

    return change


def change_array(name, function):
    return lambda arrays, document: arrays.update({name: function(arrays[name])})


def restate(change):
    """A change that the document states too, as who writes both can."""

    def change_both(arrays, document):
        change(arrays, document)
        document["tensors"] = prepared._describe(arrays)

    return change_both


def rename(old, new):
    return lambda arrays, document: arrays.update({new: arrays.pop(old)})


WRONG = {
    "no results of this model": restate(
        change_array("outputs/measured/contributions", lambda array: np.ascontiguousarray(array[:, 1:]))
    ),
    "that are no results of this model": restate(rename("profiles/errors/('head', 1)", "profiles/errors/" + "(" * 900)),
    "has tensors that are no results of this model": restate(lambda arrays, document: arrays.clear()),
    "m.results has tensors that are no results": restate(set_value("outputs/metric", 77)),
    "of another checkpoint": lambda arrays, document: document.update(checkpoint="0" * 64),
    "of version 0 of the method, which is now": lambda arrays, document: document.update(method=0),
    "of version None of the method": lambda arrays, document: document.pop("method"),
    "damaged: its tensors have another hash": lambda arrays, document: document.update(hash="0"),
    "a value that is not finite in tensor outputs/measured/contributions": set_value(
        "outputs/measured/contributions", np.nan
    ),
    "a value that is not finite in tensor profiles/errors": set_value("profiles/errors/('head', 1)", -np.inf),
    "other tensors than were written: outputs/measured/predictions is ['float32', [2, 130]]": change_array(
        "outputs/measured/predictions", lambda array: array.astype(np.float32)
    ),
    "other tensors than were written: outputs/measured/residual is ['float64', [2, 129]]": change_array(
        "outputs/measured/residual", lambda array: np.ascontiguousarray(array[:, 1:])
    ),
    "other tensors than were written: outputs/metric is missing": lambda arrays, document: arrays.pop("outputs/metric"),
    "other tensors than were written: more is": lambda arrays, document: arrays.update(more=np.zeros(1)),
    "has other tensors than were written": lambda arrays, document: document.update(tensors=None),
}


@pytest.mark.parametrize("reason", WRONG)
def test_results_that_are_old_or_wrong_are_not_used(place, reason):
    """The model is loaded without them, and says why."""
    rewrite(place.with_suffix(".results"), WRONG[reason])
    model = kanmodel.load(place)
    assert model.prepared is None and reason in model.unprepared and model.unprepared.startswith("m.results ")


def test_a_file_that_is_too_large_is_not_read(place):
    """However it came to be."""
    os.truncate(place.with_suffix(".results"), prepared.MAX_BYTES + 1)
    assert "is larger than" in kanmodel.load(place).unprepared


def test_what_is_no_file_is_not_opened(place, tmp_path_factory):
    """A pipe, a folder and a link out of the folder are refused; a link within it is followed."""
    results, elsewhere = place.with_suffix(".results"), tmp_path_factory.mktemp("other") / "m.results"
    results.rename(elsewhere)
    assert kanmodel.load(place).unprepared == "there is no m.results"
    results.symlink_to(elsewhere)
    assert kanmodel.load(place).unprepared == "m.results is a link that leaves the folder"
    results.unlink()
    os.mkfifo(results)
    assert kanmodel.load(place).unprepared == "m.results is not a regular file"
    results.unlink()
    results.mkdir()
    assert kanmodel.load(place).unprepared == "m.results is not a regular file"
    results.rmdir()
    (place.parent / "data").mkdir()
    elsewhere.rename(place.parent / "data" / "real")
    results.symlink_to(Path("data") / "real")
    assert kanmodel.load(place).prepared is not None


@settings(max_examples=examples(100))
@given(st.data())
def test_any_damage_leaves_the_right_results_or_none(tmp_path_factory, data):
    """Bytes that are changed, cut off, put in or added never raise, nor change a result."""
    loaded, checkpoint, results = make("classes")
    size = len(results)
    at = data.draw(st.one_of(st.integers(0, 4000), st.integers(0, size - 1)))
    kind = data.draw(st.sampled_from(["change", "cut", "insert", "repeat"]))
    value = data.draw(st.binary(min_size=1, max_size=3))
    end = {"change": at + len(value), "cut": size, "insert": at, "repeat": at}[kind]
    damaged = results[:at] + (b"" if kind == "cut" else value) + results[end:]
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(checkpoint)
    path.with_suffix(".results").write_bytes(damaged * (2 if kind == "repeat" else 1))
    found = kanmodel.load(path)
    if found.prepared is None:
        assert found.unprepared
    else:
        assert_same(found.prepared.importance(loaded, 1), measure(kanmodel.Model.of(loaded), 1))


def measure_figures(name: str) -> dict[str, list[float]]:
    """The sum of each kept array, of its magnitudes, and of its values by place."""
    make(name)
    path = Path(os.environ["PYTEST_TMP"]) / f"{name}.results"
    found = {}
    for key, array in load_file(path).items():
        values = array.astype(np.float64).ravel()
        found[key] = [float(values.sum()), float(np.abs(values).sum()), float(values @ np.arange(len(values)))]
    return found


IN_GOLDEN = ("outputs", "groups", "normed")


@pytest.mark.parametrize("name", IN_GOLDEN)
def test_other_results_need_another_version_of_the_method(name):
    """Results are those of METHOD; where they are meant to change, it is raised, so that no old file is used."""
    golden = json.loads(GOLDEN.read_text())
    advice = (
        "results have changed: raise METHOD in kanmodel/prepared.py, then run python tests/kanmodel/test_prepared.py"
    )
    assert golden["method"] == prepared.METHOD, advice
    found = measure_figures(name)
    assert found.keys() == golden["figures"][name].keys(), advice
    for key, figures in found.items():
        assert figures == pytest.approx(golden["figures"][name][key], rel=1e-5, abs=1e-6), f"{key}: {advice}"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTEST_TMP"] = folder
        figures = {name: measure_figures(name) for name in IN_GOLDEN}
    if GOLDEN.exists() and json.loads(GOLDEN.read_text())["method"] == prepared.METHOD:
        sys.exit("raise METHOD in kanmodel/prepared.py first")
    document = {"method": prepared.METHOD, "figures": figures}
    GOLDEN.write_text(
        json.dumps(document, separators=(",", ":")).replace('"],"', '"],\n"').replace('],"', '],\n"') + "\n"
    )
