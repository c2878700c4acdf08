import hashlib
import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from factories import make_chain, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from strategies import model_configs
from thorough import examples

import kanmodel.checkpoint
from kanmodel.attribution.ledger import explain_windows
from kanmodel.checkpoint import load_checkpoint, parse_checkpoint, save_checkpoint
from kanmodel.errors import CheckpointError, NonFiniteError
from kanmodel.forecaster import Forecaster

options = st.fixed_dictionaries(
    {},
    optional={
        "product": st.booleans(),
        "num_layers": st.integers(1, 2),
        "bidirectional": st.booleans(),
        "bias": st.booleans(),
        "cell": st.sampled_from(["lstm", "gru"]),
        "readout": st.sampled_from(["last", "mean"]),
        "targets": st.sampled_from([("y",), ("a", "b")]),
        "horizon": st.integers(1, 2),
        "base_activation": st.sampled_from(["silu", "identity", "zero"]),
        "spline_order": st.integers(0, 3),
        "with_targets": st.booleans(),
        "dtype": st.sampled_from(["float32", "float64"]),
        "n_reference": st.integers(1, 8),
    },
)


@pytest.fixture(scope="module")
def model():
    return make_model(n_reference=4, lookback=3, hidden_size=2, n_hidden=2, n_features=2)


@pytest.fixture(scope="module")
def data(model, tmp_path_factory):
    """The bytes of a small checkpoint."""
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    save_checkpoint(model, path)
    return path.read_bytes()


def split(data):
    """A safetensors file as its header and the bytes of its tensors."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(header, body):
    """A safetensors file of a header, which may be bytes, and tensor data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def with_document(data, change):
    """The file after `change` modified its JSON document."""
    header, body = split(data)
    document = json.loads(header["__metadata__"]["kanscope"])
    change(document)
    header["__metadata__"]["kanscope"] = json.dumps(document)
    return join(header, body)


def with_tensors(model, data, change):
    """A file with the document of `data` and the tensors of `model` after `change`."""
    tensors = {name: tensor.contiguous().clone() for name, tensor in model.network.state_dict().items()}
    tensors["reference.windows"] = model.reference.scaled.clone()
    tensors["reference.targets"] = torch.from_numpy(model.reference.targets.copy())
    change(tensors)
    return save(tensors, metadata=split(data)[0]["__metadata__"])


def refusal(data):
    with pytest.raises(CheckpointError) as caught:
        parse_checkpoint(data)
    return str(caught.value)


@given(st.sampled_from(["lstm", "head", "front", "flat"]), st.integers(0, 2**16), options)
def test_save_then_load_is_identity(tmp_path_factory, shape, seed, options):
    """A saved and loaded model has bitwise the same tensors, units, reference windows and results."""
    model = make_model(shape, seed, **options)
    path = tmp_path_factory.mktemp("identity") / "model.safetensors"
    sha256 = save_checkpoint(model, path)
    loaded = load_checkpoint(path)
    assert sha256 == loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.config == model.config
    assert (loaded.metrics, loaded.provenance) == (model.metrics, model.provenance)
    assert loaded.reference.times == model.reference.times
    assert torch.equal(loaded.reference.scaled, model.reference.scaled)
    np.testing.assert_array_equal(loaded.reference.targets, model.reference.targets)
    torch.testing.assert_close(loaded.network.state_dict(), model.network.state_dict(), rtol=0, atol=0)
    assert torch.equal(loaded.reference_outputs, model.reference_outputs)
    assert not any(tensor.requires_grad for tensor in loaded.network.parameters())


@given(model_configs(symbolic=True), st.integers(0, 99))
def test_every_chain_survives_a_file(config, seed):
    """A saved and loaded chain of any kind has bitwise the same tensors and forecasts."""
    model = make_chain(config, seed, n_reference=3)
    targets = np.nan_to_num(model.reference.targets)  # a random chain may overflow
    model = replace(model, reference=replace(model.reference, targets=targets))
    with TemporaryDirectory() as folder:
        save_checkpoint(model, Path(folder) / "model.safetensors")
        loaded = load_checkpoint(Path(folder) / "model.safetensors")
    assert loaded.config == model.config
    torch.testing.assert_close(loaded.network.state_dict(), model.network.state_dict(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(loaded.reference_outputs, model.reference_outputs, rtol=0, atol=0, equal_nan=True)


def test_the_same_model_has_the_same_hash(tmp_path):
    """Files of the same model are bytewise equal; changing one weight changes the hash."""
    first, second = make_model(seed=5), make_model(seed=5)
    assert save_checkpoint(first, tmp_path / "a") == save_checkpoint(second, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    second.network.head[0].coef[0, 0, 0] += 1e-9
    assert save_checkpoint(second, tmp_path / "b") != save_checkpoint(first, tmp_path / "a")


def test_tensors_that_are_views_are_stored_by_value(tmp_path):
    """A transposed view of a larger workspace is stored with its own values only."""
    model = make_model(n_reference=4)
    layer = model.network.head[0]
    workspace = torch.randn(100, *layer.coef.shape[::-1], dtype=torch.float64)
    layer.coef.data = workspace[3].permute(2, 1, 0)
    save_checkpoint(model, tmp_path / "view.safetensors")
    assert (tmp_path / "view.safetensors").stat().st_size < 50_000
    assert torch.equal(load_checkpoint(tmp_path / "view.safetensors").network.head[0].coef, layer.coef)


@st.composite
def damages(draw):
    """What makes other bytes of a checkpoint's: bits flipped, characters of its header replaced, a part spliced in."""
    start, end, first, last = (draw(st.floats(0, 1, exclude_max=True)) for _ in range(4))
    kind, bit = draw(st.sampled_from(["flip", "flip in the header", "characters", "splice"])), draw(st.integers(0, 7))
    characters = draw(st.lists(st.sampled_from(b'0123456789eE.,:"[]{}-nulx '), max_size=4))
    other = draw(st.none() | st.binary(max_size=64))

    def damage(data):
        size = len(data) if kind in ("flip", "splice") else 8 + int.from_bytes(data[:8], "little")
        changed, places = bytearray(data), [int(share * size) for share in (start, end, first, last)]
        if kind == "splice":
            put_in = data[places[2] : places[3]] if other is None else other
            return data[: places[0]] + put_in + data[places[1] :]
        if kind == "characters":
            for place, character in zip(places, characters, strict=False):
                changed[max(place, 8)] = character
        else:
            changed[places[0]] ^= 1 << bit
        return bytes(changed)

    return damage


@settings(max_examples=examples(900))
@given(damages())
def test_any_damage_loads_or_is_refused(data, damage):
    """Whatever bits, characters or stretches of a file are others, it either loads or is refused."""
    with suppress(CheckpointError):
        assert isinstance(parse_checkpoint(damage(data)), Forecaster)


@settings(max_examples=examples(300))
@given(st.floats(0, 1, exclude_max=True), st.binary(max_size=300))
def test_truncated_or_foreign_bytes(data, fraction, noise):
    """A file truncated at any byte, any bytes, also after a plausible length, and a file with bytes after its end."""
    for damaged in (data[: int(len(data) * fraction)], noise, join(noise, b""), data + (noise or b"\0")):
        refusal(damaged)


def test_truncated_around_its_seams(data):
    """A file truncated in its length, its header or its last byte is refused, with the reason where it is known."""
    header_end = 8 + int.from_bytes(data[:8], "little")
    for end in (0, 1, 7, 8, 9, header_end - 1, header_end, header_end + 1, len(data) - 1):
        message = refusal(data[:end])
        assert "truncated" in message if end >= 8 else "is not a safetensors file" in message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=examples(300))
@given(part=st.data())
def test_any_value_in_the_document(data, part):
    """A document or header with one value replaced by any JSON value loads or is refused."""
    header, body = split(data)
    document = json.loads(header["__metadata__"]["kanscope"])
    whole = part.draw(st.sampled_from([header, document]))
    owner, key = whole, part.draw(st.sampled_from(sorted(whole)))
    while isinstance(owner[key], (dict, list)) and owner[key] and part.draw(st.booleans()):
        owner = owner[key]
        key = part.draw(st.sampled_from(sorted(owner) if isinstance(owner, dict) else range(len(owner))))
    owner[key] = part.draw(json_values)
    if whole is document:
        header["__metadata__"]["kanscope"] = json.dumps(document)
    with suppress(CheckpointError):
        assert isinstance(parse_checkpoint(join(header, body)), Forecaster)


def test_foreign_files(tmp_path):
    """Another safetensors file, a pickle, an empty file, a folder and a missing file are each refused by name."""
    (tmp_path / "other.safetensors").write_bytes(save({"weight": torch.zeros(2)}))
    torch.save({"weight": torch.zeros(2)}, tmp_path / "model.pt")
    (tmp_path / "empty").touch()
    for name, reason in {
        "other.safetensors": r"other\.safetensors is a safetensors file of something else",
        "model.pt": r"model\.pt is not a safetensors file",
        "empty": "empty is not a safetensors file",
        ".": "cannot read",
        "missing.safetensors": r"cannot read missing\.safetensors: No such file",
    }.items():
        with pytest.raises(CheckpointError, match=reason):
            load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("version", [1, 3, 0, None, "2"])
def test_another_format_version(data, version):
    """A file of a newer format is refused with both versions."""
    message = refusal(with_document(data, lambda document: document.update(format_version=version)))
    assert message == f"has format version {version!r}, but this version of Kanscope reads 2"


@pytest.mark.parametrize(
    ("name", "shape", "found", "implied"),
    [
        ("head.1.coef", (1, 2, 9), "F64 and shape [1, 2, 9]", "F64 and [1, 2, 8]"),
        ("head.0.mask", (2, 2), "F32 and shape [2, 2]", "F64 and [2, 2]"),
        ("reference.windows", (4, 2, 2), "F64 and shape [4, 2, 2]", "F64 and [4, 3, 2]"),
        ("reference.targets", (3, 1), "F64 and shape [3, 1]", "F64 and [4, 1]"),
    ],
)
def test_a_tensor_of_another_shape_or_type_is_named(model, data, name, shape, found, implied):
    """The error has what it is and what the config implies; without reference windows a file is refused too."""
    tensor = torch.zeros(shape, dtype=torch.float32 if "F32" in found else torch.float64)
    message = refusal(with_tensors(model, data, lambda tensors: tensors.update({name: tensor})))
    assert message == f"has tensor {name} of type {found}, but its config implies {implied}"
    assert "reference.windows" in refusal(with_tensors(model, data, lambda tensors: tensors.pop("reference.windows")))
    none = {"reference.windows": torch.zeros(0, 3, 2), "reference.targets": torch.zeros(0, 1)}
    none = {name: tensor.double() for name, tensor in none.items()}
    untimed = with_document(data, lambda document: document.update(reference_times=None))
    refusal(with_tensors(model, untimed, lambda tensors: tensors.update(none)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop("recurrent.bias_hh_l0"),
            "lacks tensor recurrent.bias_hh_l0, which its config needs",
        ),
        (
            lambda tensors: tensors.update({"head.2.coef": torch.zeros(1)}),
            "has tensor head.2.coef, which its config does not know",
        ),
        (
            lambda tensors: [tensors["recurrent.weight_hh_l0"].resize_(1), tensors.pop("head.0.grid")],
            "has tensor recurrent.weight_hh_l0 of type F64 and shape [1], but its config implies F64 and [8, 2]",
        ),
        (
            lambda tensors: tensors["head.0.coef"][1, 0, 2:4].fill_(float("nan")),
            "has a value that is not finite in tensor head.0.coef",
        ),
        (
            lambda tensors: tensors["reference.targets"][2].fill_(float("inf")),
            "has a value that is not finite in tensor reference.targets",
        ),
        (
            lambda tensors: tensors["reference.windows"][0, 0].fill_(-1e76),
            "has a value that is above 1e+75 in magnitude in tensor reference.windows",
        ),
    ],
)
def test_the_first_tensor_that_differs_is_named(model, data, change, message):
    """The error has the first tensor that is missing, extra, or with NaN."""
    assert refusal(with_tensors(model, data, change)) == message


BAD = "a\ud800"  # half a surrogate pair


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("reference_times", ["2026-01-01T00:00:00Z"]),
        ("reference_times", 4),
        ("metrics", None),
        ("metrics", {"test_r2": "good"}),
        ("provenance", {"source": "train"}),
        ("config", {}),
        ("config/features/0/name", BAD),
        ("config/targets/0/unit", BAD),
        ("config/targets/0/name", BAD),
        ("config/groups", {BAD: ["f0"]}),
        ("metrics", {BAD: 1.0}),
        ("reference_times", [BAD] * 4),
        ("provenance/source", BAD),
        ("provenance/not_told_apart", [BAD]),
    ],
)
def test_a_document_that_describes_no_model(data, path, value):
    """A missing or invalid part, or a text that no label or log could hold, is refused in one printable sentence."""

    def change(document):
        *owners, key = path.split("/")
        for owner in owners:
            document = document[int(owner) if owner.isdigit() else owner]
        document[key] = value

    message = refusal(with_document(data, change))
    assert message.isprintable() and ("must be printable text of at most" in message or "ud800" not in repr(value))


def test_a_header_that_claims_gigabytes(data, monkeypatch):
    """A header, or a config, or both, that claim more than the file has are refused before allocation."""
    for name in ("Network", "load_tensors"):
        monkeypatch.setattr(kanmodel.checkpoint, name, lambda *_: pytest.fail("a network was built"))
    assert refusal((1 << 40).to_bytes(8, "little") + data[8:]) == "is not a safetensors file"

    def refuse(change):
        header, body = split(data)
        document = json.loads(header["__metadata__"]["kanscope"])
        change(header, document["config"])
        header["__metadata__"]["kanscope"] = json.dumps(document)
        return refusal(join(header, body))

    def enlarge_both(header, config):
        for layer, n_sub in ((0, 2), (1, 1)):
            config["head"][layer]["basis"]["grid_size"] = 60_000
            header[f"head.{layer}.coef"]["shape"] = [n_sub, 2, 60_003]
            header[f"head.{layer}.grid"]["shape"] = [2, 60_007]

    name = "recurrent.weight_hh_l0"
    assert "truncated" in refuse(lambda header, _: header[name].update(data_offsets=[0, 10**12]))
    assert name in refuse(lambda header, _: header[name].update(shape=[1 << 20, 1 << 20]))
    refuse(lambda header, _: header["reference.windows"].update(shape=[1 << 40, 3, 2]))
    for size in (40_000, 10**10):
        refuse(lambda _, config, size=size: config["recurrent"].update(hidden_size=size))
        refuse(lambda _, config, size=size: config["head"][0]["basis"].update(order=size))
    monkeypatch.undo()
    assert "damaged" in refuse(enlarge_both)


def test_a_file_beyond_the_largest_size(data, tmp_path, monkeypatch):
    """A file above the size limit is refused without reading it."""
    monkeypatch.setattr(kanmodel.checkpoint, "MAX_BYTES", len(data) - 1)
    (tmp_path / "large.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"large\.safetensors is larger than {len(data) - 1} bytes"):
        load_checkpoint(tmp_path / "large.safetensors")


@pytest.mark.parametrize("function", ["replace", "fsync", "fdopen", "chmod", "interrupt"])
def test_a_failed_save_leaves_the_old_file(model, tmp_path, monkeypatch, function):
    """If writing fails or is interrupted, the old file is unchanged, and no temporary file remains."""
    path = tmp_path / "model.safetensors"
    sha256 = save_checkpoint(model, path)
    error = KeyboardInterrupt() if function == "interrupt" else OSError(28, "No space left on device")
    message = None if function == "interrupt" else r"cannot write .*: No space left on device"
    monkeypatch.setattr(os, function.replace("interrupt", "replace"), Mock(side_effect=error))
    with pytest.raises((CheckpointError, KeyboardInterrupt), match=message):
        save_checkpoint(replace(model, metrics={"test_r2": 0.9}), path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_model_that_could_not_be_loaded_is_not_saved(model, tmp_path):
    """A weight, a reference window or a target that is not finite is refused by name, and the old file stays."""
    path = tmp_path / "m.safetensors"
    sha256 = save_checkpoint(model, path)
    targets, windows = np.full_like(model.reference.targets, np.inf), torch.full_like(model.reference.scaled, np.nan)
    for name, changed in (("targets", {"targets": targets}), ("windows", {"scaled": windows})):
        diverged = replace(model, reference=replace(model.reference, **changed))
        message = rf"^cannot save m\.safetensors: a value of tensor reference\.{name} is not finite$"
        with pytest.raises(CheckpointError, match=message):
            save_checkpoint(diverged, path)
    other = make_model(n_reference=4)
    with torch.no_grad():
        for value, reason in ((torch.nan, "is not finite"), (1e76, "is above 1e\\+75 in magnitude")):
            other.network.head[0].coef[0, 0, 0] = value
            with pytest.raises(CheckpointError, match=rf"tensor head\.0\.coef {reason}"):
                save_checkpoint(other, path)
    assert load_checkpoint(path).sha256 == sha256


def test_a_folder_that_does_not_exist(model, tmp_path):
    """Saving to a missing folder is refused with the path and the reason."""
    with pytest.raises(CheckpointError, match=r"cannot write .*nowhere.*: No such file or directory"):
        save_checkpoint(model, tmp_path / "nowhere" / "model.safetensors")
    with pytest.raises(CheckpointError, match="cannot write"):
        save_checkpoint(model, tmp_path)
    assert os.listdir(tmp_path) == []


def test_forecasts_that_are_not_finite(data):
    """A forecast that overflows raises an error with the window and the output."""
    loaded = parse_checkpoint(data)
    with torch.no_grad():
        loaded.network.head[1].node_bias.fill_(1.7e308)
    with pytest.raises(NonFiniteError) as caught:
        replace(loaded).predict(np.zeros((2, 3, 2)))
    assert [problem.path for problem in caught.value.problems] == ["outputs[0][0]", "outputs[1][0]"]


def test_a_model_that_is_first_asked_in_inference_mode(model):
    """After forecasts in torch's inference mode, a model can be explained outside of it."""
    expected = explain_windows(model, model.reference.scaled[:2], 0)
    fresh = replace(model)
    with torch.inference_mode():
        windows = fresh.scaling.features_to_original(fresh.reference.scaled[:2])
        assert np.array_equal(fresh.predict(windows), model.predict(windows))
        assert (fresh.output_std > 0).all() and fresh.frozen_float64 is not None
    found = explain_windows(fresh, fresh.reference.scaled[:2], 0)
    np.testing.assert_array_equal(found.steps, expected.steps)
