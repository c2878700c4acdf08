import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

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
    assert (loaded.reference.targets is None) == (model.reference.targets is None)
    if model.reference.targets is not None:
        np.testing.assert_array_equal(loaded.reference.targets, model.reference.targets)
    before, after = model.network.state_dict(), loaded.network.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor), name
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
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor), name
    outputs = loaded.reference_outputs, model.reference_outputs
    torch.testing.assert_close(*outputs, rtol=0, atol=0, equal_nan=True)


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


@settings(max_examples=examples(300))
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_truncated_at_any_byte(data, fraction):
    """A truncated file is refused."""
    refusal(data[: int(len(data) * fraction)])


def test_truncated_around_its_seams(data):
    """A file truncated in its length, its header or its last byte is refused, with the reason where it is known."""
    header_end = 8 + int.from_bytes(data[:8], "little")
    for end in (0, 1, 7, 8, 9, header_end - 1, header_end, header_end + 1, len(data) - 1):
        message = refusal(data[:end])
        assert "truncated" in message if end >= 8 else "is not a safetensors file" in message


@settings(max_examples=examples(300))
@given(bit=st.data())
def test_any_flipped_bit(data, bit):
    """A file with one flipped bit either loads or is refused."""
    header_end = 8 + int.from_bytes(data[:8], "little")
    place = bit.draw(st.integers(0, header_end - 1) | st.integers(0, len(data) - 1))
    flipped = bytearray(data)
    flipped[place] ^= 1 << bit.draw(st.integers(0, 7))
    with suppress(CheckpointError):
        assert isinstance(parse_checkpoint(bytes(flipped)), Forecaster)


@settings(max_examples=examples(300))
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(b'0123456789eE.,:"[]{}-nulx ')), max_size=4
    )
)
def test_any_other_characters_in_the_header(data, changes):
    """A header with some characters replaced by others of JSON either loads or is refused."""
    changed = bytearray(data)
    for fraction, character in changes:
        changed[8 + int(fraction * int.from_bytes(data[:8], "little"))] = character
    with suppress(CheckpointError):
        assert isinstance(parse_checkpoint(bytes(changed)), Forecaster)


@settings(max_examples=examples(300))
@given(cuts=st.lists(st.floats(0, 1), min_size=4, max_size=4), other=st.none() | st.binary(max_size=64))
def test_any_splice(data, cuts, other):
    """A file with a part replaced by any bytes either loads or is refused."""
    start, end, first, last = (int(fraction * len(data)) for fraction in cuts)
    with suppress(CheckpointError):
        spliced = data[:start] + (data[first:last] if other is None else other) + data[end:]
        assert isinstance(parse_checkpoint(spliced), Forecaster)


@settings(max_examples=examples(300))
@given(st.binary(max_size=300))
def test_any_bytes(noise):
    """Bytes that are not a checkpoint are refused, also after a plausible length."""
    refusal(noise)
    refusal(join(noise, b""))


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


def test_foreign_files(tmp_path, data):
    """Another safetensors file, a pickle, an empty file, a folder and a missing file are each refused by name."""
    foreign = tmp_path / "other.safetensors"
    foreign.write_bytes(save({"weight": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"other\.safetensors is a safetensors file of something else"):
        load_checkpoint(foreign)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt is not a safetensors file"):
        load_checkpoint(tmp_path / "model.pt")
    (tmp_path / "empty").touch()
    with pytest.raises(CheckpointError, match="empty is not a safetensors file"):
        load_checkpoint(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot read missing\.safetensors: No such file"):
        load_checkpoint(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("version", [1, 3, 0, None, "2"])
def test_another_format_version(data, version):
    """A file of a newer format is refused with both versions."""
    message = refusal(with_document(data, lambda document: document.update(format_version=version)))
    assert message == f"has format version {version!r}, but this version of Kanscope reads 2"


def test_more_than_the_end(data):
    """A file with bytes after its last tensor is refused."""
    refusal(data + b"\0")


def set_tensor(name, tensor):
    return lambda tensors: tensors.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            set_tensor("head.1.coef", torch.zeros(1, 2, 9, dtype=torch.float64)),
            "has tensor head.1.coef of type F64 and shape [1, 2, 9], but its config implies F64 and [1, 2, 8]",
        ),
        (
            set_tensor("head.0.mask", torch.ones(2, 2)),
            "has tensor head.0.mask of type F32 and shape [2, 2], but its config implies F64 and [2, 2]",
        ),
        (
            set_tensor("reference.windows", torch.zeros(4, 2, 2, dtype=torch.float64)),
            "has tensor reference.windows of type F64 and shape [4, 2, 2], but its config implies F64 and [4, 3, 2]",
        ),
        (
            set_tensor("reference.targets", torch.zeros(3, 1, dtype=torch.float64)),
            "has tensor reference.targets of type F64 and shape [3, 1], but its config implies F64 and [4, 1]",
        ),
        (
            lambda tensors: tensors.pop("recurrent.bias_hh_l0"),
            "lacks tensor recurrent.bias_hh_l0, which its config needs",
        ),
        (
            set_tensor("head.2.coef", torch.zeros(1)),
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
    """The error has the first tensor with a wrong shape or type, missing, extra, or with NaN."""
    assert refusal(with_tensors(model, data, change)) == message


def test_a_tensor_without_windows(model, data):
    """A file without reference windows is refused."""
    assert "reference.windows" in refusal(with_tensors(model, data, lambda tensors: tensors.pop("reference.windows")))


def test_no_reference_windows(model, data):
    """A file with zero reference windows is refused, as explanations need them."""

    def empty(tensors):
        tensors["reference.windows"] = tensors["reference.windows"][:0]
        tensors["reference.targets"] = tensors["reference.targets"][:0]

    refusal(with_tensors(model, with_document(data, lambda document: document.update(reference_times=None)), empty))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reference_times", ["2026-01-01T00:00:00Z"]),
        ("reference_times", 4),
        ("metrics", None),
        ("metrics", {"test_r2": "good"}),
        ("provenance", {"source": "train"}),
        ("config", {}),
    ],
)
def test_a_document_that_describes_no_model(data, key, value):
    """A document with a missing or invalid part is refused."""
    refusal(with_document(data, lambda document: document.update({key: value})))


def set_name(part):
    """A change that gives a checkpoint's document a name with half a surrogate pair."""
    bad = "a\ud800"
    return {
        "feature": lambda document: document["config"]["features"][0].update(name=bad),
        "unit": lambda document: document["config"]["targets"][0].update(unit=bad),
        "target": lambda document: document["config"]["targets"][0].update(name=bad),
        "group": lambda document: document["config"].update(groups={bad: ["f0"]}),
        "metric": lambda document: document.update(metrics={bad: 1.0}),
        "time": lambda document: document.update(reference_times=[bad] * 4),
        "source": lambda document: document["provenance"].update(source=bad),
        "reading": lambda document: document["provenance"].update(not_told_apart=[bad]),
    }[part]


@pytest.mark.parametrize("part", ["feature", "unit", "target", "group", "metric", "time", "source", "reading"])
def test_a_text_that_cannot_be_shown(data, part):
    """A checkpoint with a text that no label, picture or log could hold is refused, in one printable sentence."""
    message = refusal(with_document(data, set_name(part)))
    assert "must be printable text of at most" in message and message.isprintable()


def refuse_to_build(*_):
    raise AssertionError("a network was built")


def test_a_header_that_claims_gigabytes(data, monkeypatch):
    """A header that claims more than the file or its config has is refused before allocation."""
    monkeypatch.setattr(kanmodel.checkpoint, "Network", refuse_to_build)
    monkeypatch.setattr(kanmodel.checkpoint, "load_tensors", refuse_to_build)
    header, body = split(data)
    header["recurrent.weight_hh_l0"]["data_offsets"][1] = 10**12
    assert "truncated" in refusal(join(header, body))
    assert refusal((1 << 40).to_bytes(8, "little") + data[8:]) == "is not a safetensors file"
    header, body = split(data)
    header["recurrent.weight_hh_l0"]["shape"] = [1 << 20, 1 << 20]
    assert "recurrent.weight_hh_l0" in refusal(join(header, body))
    header, body = split(data)
    header["reference.windows"]["shape"][0] = 1 << 40
    refusal(join(header, body))
    header, body = split(data)
    for size in (40_000, 10**10):
        document = json.loads(split(data)[0]["__metadata__"]["kanscope"])
        config = document["config"]
        for place, key in ((config["recurrent"], "hidden_size"), (config["head"][0]["basis"], "order")):
            place[key] = size
            header["__metadata__"]["kanscope"] = json.dumps(document)
            refusal(join(header, body))


def test_shapes_that_claim_more_than_their_bytes(data):
    """A header and a config that both claim gigabytes are refused if the file is smaller."""
    header, body = split(data)
    document = json.loads(header["__metadata__"]["kanscope"])
    for layer in document["config"]["head"]:
        layer["basis"]["grid_size"] = 60_000
    header["__metadata__"]["kanscope"] = json.dumps(document)
    for layer, n_sub in ((0, 2), (1, 1)):
        header[f"head.{layer}.coef"]["shape"] = [n_sub, 2, 60_003]
        header[f"head.{layer}.grid"]["shape"] = [2, 60_007]
    assert "damaged" in refusal(join(header, body))


def test_a_file_beyond_the_largest_size(data, tmp_path, monkeypatch):
    """A file above the size limit is refused without reading it."""
    monkeypatch.setattr(kanmodel.checkpoint, "MAX_BYTES", len(data) - 1)
    (tmp_path / "large.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"large\.safetensors is larger than {len(data) - 1} bytes"):
        load_checkpoint(tmp_path / "large.safetensors")


@pytest.mark.parametrize("function", ["replace", "fsync", "fdopen", "chmod"])
def test_a_failed_save_leaves_the_old_file(model, tmp_path, monkeypatch, function):
    """If writing fails, the old file is unchanged, and no temporary file remains."""
    path = tmp_path / "model.safetensors"
    sha256 = save_checkpoint(model, path)

    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(CheckpointError, match=r"cannot write .*: No space left on device"):
        save_checkpoint(replace(model, metrics={"test_r2": 0.9}), path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_model_that_could_not_be_loaded_is_not_saved(model, tmp_path):
    """A weight, a reference window or a target that is not finite is refused by name, and the old file stays."""
    path = tmp_path / "m.safetensors"
    sha256 = save_checkpoint(model, path)
    targets, windows = np.full_like(model.reference.targets, np.inf), torch.full_like(model.reference.scaled, np.nan)
    for name, values in (("targets", targets), ("scaled", windows)):
        diverged = replace(model, reference=replace(model.reference, **{name: values}))
        message = (
            f"cannot save m.safetensors: a value of tensor reference.{name.replace('scaled', 'windows')} is not finite"
        )
        with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
            save_checkpoint(diverged, path)
    other = make_model(n_reference=4)
    with torch.no_grad():
        for value, reason in ((torch.nan, "is not finite"), (1e76, "is above 1e\\+75 in magnitude")):
            other.network.head[0].coef[0, 0, 0] = value
            with pytest.raises(CheckpointError, match=rf"tensor head\.0\.coef {reason}"):
                save_checkpoint(other, path)
    assert load_checkpoint(path).sha256 == sha256


def test_an_interrupted_save_leaves_the_old_file(model, tmp_path, monkeypatch):
    """On an interrupt the old file is unchanged, and no temporary file remains."""
    path = tmp_path / "model.safetensors"
    sha256 = save_checkpoint(model, path)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(model, path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert os.listdir(tmp_path) == ["model.safetensors"]


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
