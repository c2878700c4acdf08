import io
import json
import pickle
import pickletools
import resource
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections import OrderedDict
from contextlib import suppress
from functools import cache
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from factories import make_model, repack, saved
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from thorough import examples

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.errors import CheckpointError, ConfigError, DataError
from kanmodel.forecaster import Forecaster
from kanmodel.importers.files.exported import open_file
from kanmodel.importers.files.manifest import read_manifest
from kanmodel.importers.files.source import Source
from kanmodel.importers.from_file import Imported, describe_file, import_checkpoint

CONTAINERS = ("zip", "legacy", "safetensors", "training")


def make_state_dict():
    """An LSTM with 2 features and 3 units, and a fast-kan [3, 2, 1]."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "lstm.weight_ih_l0": (12, 2),
        "lstm.weight_hh_l0": (12, 3),
        "lstm.bias_ih_l0": (12,),
        "lstm.bias_hh_l0": (12,),
    }
    for layer, (n_in, n_out) in enumerate(((3, 2), (2, 1))):
        shapes |= {
            f"kan.layers.{layer}.layernorm.weight": (n_in,),
            f"kan.layers.{layer}.layernorm.bias": (n_in,),
            f"kan.layers.{layer}.spline_linear.weight": (n_out, n_in * 4),
            f"kan.layers.{layer}.base_linear.weight": (n_out, n_in),
            f"kan.layers.{layer}.base_linear.bias": (n_out,),
        }
    state_dict = OrderedDict((key, torch.randn(shape, generator=generator)) for key, shape in shapes.items())
    grids = {f"kan.layers.{layer}.rbf.grid": torch.linspace(-2, 2, 4) for layer in (0, 1)}
    return OrderedDict(state_dict | grids)


MANIFEST = {
    "library": "fast_kan",
    "lstm": "lstm",
    "head": "kan",
    "readout": "last",
    "features": ["a", {"name": "b", "unit": "K"}],
    "targets": ["y"],
    "lookback": 4,
    "horizon": 1,
    "base_activation": "silu",
    "scaling": {"mean": [1.0, 2.0], "std": [1.0, 3.0], "target_mean": [0.0], "target_std": [2.0]},
    "reference": "windows.npz:reference",
    "reference_targets": "windows.npz:targets",
    "space": "scaled",
}


def in_container(container, state_dict):
    if container == "safetensors":
        return save_safetensors(dict(state_dict))
    if container == "training":
        return saved({"epoch": 3, "model": state_dict, "loss": 0.5})
    return saved(state_dict, _use_new_zipfile_serialization=container == "zip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A manifest and its windows, to which a file of weights is added; shared, since cases only overwrite that file."""
    folder = tmp_path_factory.mktemp("import")
    rng = np.random.default_rng(0)
    np.savez(folder / "windows.npz", reference=rng.normal(size=(8, 4, 2)), targets=rng.normal(size=(8, 1)))
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    return folder


@cache
def weights_in(container):
    """The same weights in every container."""
    return in_container(container, make_state_dict())


def put(path, data):
    """Writes the file anew, so that nothing of a longer one remains."""
    path.write_bytes(data)
    return path


def import_by(weights, manifest):
    return import_checkpoint(weights, read_manifest(manifest))


def refuse_or(kind, call, *arguments):
    """The result of a call, or its refusal: one printable sentence of limited length."""
    try:
        found = call(*arguments)
    except (CheckpointError, ConfigError, DataError) as error:
        message = str(error)
        assert message
        assert message.isprintable()
        assert len(message) < 1000
        return message
    assert isinstance(found, kind)
    return None


def import_from(folder):
    return import_by(folder / "weights.pt", folder / "manifest.json")


def flip(data, draw):
    flipped = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        flipped[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(flipped)


@pytest.mark.parametrize("container", CONTAINERS)
def test_nothing_is_wrong_with_the_files(folder, container):
    """Undamaged, every container is imported with the same predictions."""
    put(folder / "weights.pt", weights_in(container))
    model = import_from(folder).model
    put(folder / "weights.pt", weights_in("zip"))
    assert torch.equal(model.reference_outputs, import_from(folder).model.reference_outputs)


@settings(max_examples=examples(20))
@given(st.sampled_from(CONTAINERS), st.floats(0, 1, exclude_max=True))
def test_truncated_anywhere(folder, container, fraction):
    """A truncated file of weights is refused, whatever its container."""
    data = weights_in(container)[: int(len(weights_in(container)) * fraction)]
    assert refuse_or(Source, open_file, put(folder / "truncated.pt", data))


@settings(max_examples=examples(40))
@given(st.sampled_from(CONTAINERS), st.data())
def test_flipped_bits(folder, container, data):
    """A file with flipped bits is imported or refused."""
    put(folder / "weights.pt", flip(weights_in(container), data.draw))
    refuse_or(Imported, import_from, folder)


@settings(max_examples=examples(40))
@given(st.data())
def test_flipped_bits_behind_right_checksums(folder, data):
    """With correct checksums the damage reaches torch and the readers, and is imported or refused."""
    changed = data.draw(st.sampled_from(["data.pkl", "data.pkl", "data.pkl", "data/0", "version", "byteorder"]))
    damaged = repack(
        weights_in("zip"), lambda name, member: flip(member, data.draw) if name.endswith(f"/{changed}") else member
    )
    put(folder / "weights.pt", damaged)
    refuse_or(Imported, import_from, folder)


@settings(max_examples=examples(20))
@given(st.binary(max_size=200), st.sampled_from(["", "PK\x03\x04", "\x80\x02", "\x93NUMPY"]))
def test_any_bytes(folder, noise, start):
    """Random bytes are refused, also after the start of a valid file."""
    path = put(folder / "noise.pt", start.encode("latin-1") + noise)
    assert refuse_or(Source, open_file, path)
    assert refuse_or(Forecaster, load_checkpoint, path)
    assert refuse_or(object, describe_file, path)


tensors = st.builds(
    lambda shape, dtype, value: torch.full(shape, value).to(dtype),
    st.lists(st.integers(0, 5), max_size=4),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64]),
    st.sampled_from([0.0, 1.0, float("nan"), float("inf"), 1e38]),
)
plain = st.none() | st.booleans() | st.integers(-2, 2**70) | st.just(10**5000) | st.floats() | st.text(max_size=3)
wrong_values = plain | tensors | st.lists(plain | tensors, max_size=2) | st.dictionaries(plain, tensors, max_size=2)


@settings(max_examples=examples(40))
@given(st.data())
def test_values_of_another_type(folder, data):
    """A state_dict with values of other types or shapes, or with missing or extra keys, is imported or refused."""
    state_dict = make_state_dict()
    for _ in range(data.draw(st.integers(1, 2))):
        key = data.draw(st.sampled_from(sorted(state_dict)) | st.text(max_size=3) | st.just("kan.layers.9.rbf.grid"))
        if key in state_dict and data.draw(st.booleans()):
            del state_dict[key]
        else:
            state_dict[key] = data.draw(wrong_values)
    whole = data.draw(st.sampled_from([state_dict, {"model": state_dict}, {"model": 1, "state_dict": state_dict}]))
    put(folder / "weights.pt", saved(whole))
    refuse_or(Imported, import_from, folder)
    refuse_or(object, describe_file, folder / "weights.pt")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=examples(30))
@given(st.data())
def test_any_value_in_the_manifest(folder, data):
    """A manifest with one value changed, or one key missing or extra, is parsed or refused."""
    manifest = json.loads(json.dumps(MANIFEST))
    others = ("denominator", "mult_arity", "input_id", "check", "front", "name", "batch_first", "pykan_config")
    key = data.draw(st.sampled_from([*MANIFEST, *others]) | st.text(max_size=3))
    owner = manifest
    if key in owner and isinstance(owner[key], dict) and data.draw(st.booleans()):
        owner, key = owner[key], data.draw(st.sampled_from(sorted(owner[key])))
    if key in owner and data.draw(st.booleans()):
        del owner[key]
    else:
        owner[key] = data.draw(json_values)
    put(folder / "weights.pt", weights_in("zip"))
    other = put(folder / "other.json", json.dumps(manifest).encode())
    refuse_or(Imported, import_by, folder / "weights.pt", other)


@settings(max_examples=examples(20))
@given(st.data())
def test_damaged_windows(folder, data):
    """Damaged reference windows are refused, unless they are still valid windows."""
    whole = (folder / "windows.npz").read_bytes()
    end = data.draw(st.integers(0, len(whole)) | st.just(len(whole)))
    manifest = MANIFEST | {"reference": "damaged.npz:reference", "reference_targets": None}
    put(folder / "weights.pt", weights_in("zip"))
    put(folder / "damaged.npz", flip(whole, data.draw)[:end])
    other = put(folder / "other.json", json.dumps(manifest).encode())
    message = refuse_or(Imported, import_by, folder / "weights.pt", other)
    assert message or end == len(whole)


def fifth_pickle(state_dict, evil):
    """A file of torch before 1.6 with another pickle as its list of storages."""
    data = saved(state_dict, _use_new_zipfile_serialization=False)
    stream = io.BytesIO(data)
    for _ in range(4):
        list(pickletools.genops(stream))
    start = stream.tell()
    list(pickletools.genops(stream))
    return data[:start] + evil + data[stream.tell() :]


def with_build(state_dict, attributes):
    """A state_dict that sets attributes on itself when unpickled, as one with `_metadata` does."""
    state = pickle.dumps(attributes, 2)[2:-1]
    return repack(
        saved(state_dict), lambda name, data: data[:-1] + state + b"b." if name.endswith("data.pkl") else data
    )


def with_attribute(name, value):
    parameter = torch.nn.Parameter(torch.ones(3))
    setattr(parameter, name, value)
    return parameter


@pytest.mark.parametrize("name", ["values", "items", "keys", "get"])
def test_a_dictionary_with_other_methods(folder, name):
    """A state_dict whose pickle replaces its methods by numbers is refused."""
    assert refuse_or(Source, open_file, put(folder / "covered.pt", with_build(make_state_dict(), {name: 5})))


@pytest.mark.parametrize("name", ["numel", "element_size", "untyped_storage", "detach"])
def test_a_tensor_with_other_methods(folder, name):
    """A parameter with replaced methods is refused too; other attributes are allowed."""
    covered = make_state_dict() | {"x": with_attribute(name, 5)}
    assert refuse_or(Source, open_file, put(folder / "covered.pt", saved(covered)))
    harmless = make_state_dict() | {"x": with_attribute("note", 5)}
    assert "x" in open_file(put(folder / "covered.pt", saved(harmless))).tensors


@pytest.mark.parametrize("key", ["\x1b[2Ja", "a\nb", "k" * 100_000])
def test_keys_that_are_no_names(folder, key):
    """A key with control characters, or a very long one, is refused and shown escaped and shortened."""
    for container in CONTAINERS:
        path = put(folder / "keys.pt", in_container(container, {key: torch.full((2,), torch.nan)}))
        assert refuse_or(Source, open_file, path)


MIB = 1 << 20


def split_zip(data):
    """Members, directory and end record of an archive without comment."""
    size, start = struct.unpack("<II", data[-10:-2])
    return data[:start], bytearray(data[start : start + size]), bytearray(data[-22:])


def two_directories(bomb, harmless):
    """An archive that Python reads as `harmless` and torch as `bomb`: the end record has the offset of one directory
    and follows the other."""
    members, directory, end = split_zip(bomb)
    other_members, other_directory, _ = split_zip(harmless)
    assert len(directory) == len(other_directory)
    entry = 0
    while entry < len(other_directory):
        lengths = struct.unpack_from("<HHH", other_directory, entry + 28)
        (start,) = struct.unpack_from("<I", other_directory, entry + 42)
        struct.pack_into("<I", other_directory, entry + 42, start + len(members) - len(other_members))
        entry += 46 + sum(lengths)
    struct.pack_into("<I", end, 16, len(members))
    return bytes(members + directory + other_members + other_directory + end)


def with_storage_size(data, old, size):
    """A file of torch before 1.6 whose storage of `old` values claims to have `size`."""
    before, after = b"K" + bytes([old]) + b"Nt", b"\x8a\x07" + size.to_bytes(7, "little", signed=True) + b"Nt"
    assert before in data
    return data.replace(before, after)


def with_config(data, change):
    """A checkpoint with another config in its document."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    document = json.loads(header["__metadata__"]["kanscope"])
    change(document["config"])
    header["__metadata__"]["kanscope"] = json.dumps(document)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[end:]


def write_hostile_weights(folder):
    """Files of a few hundred kilobytes at most that claim gigabytes or unbounded work."""
    tensor = {"a": torch.zeros(7)}
    legacy = saved(tensor, _use_new_zipfile_serialization=False)
    bomb = repack(saved({"a": torch.zeros(75 * MIB)}), compression=zipfile.ZIP_DEFLATED)
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}).encode()
    huge = bytes([0x8A, 5]) + (1 << 36).to_bytes(5, "little")
    files = {
        "bomb": bomb,
        "two_directories": two_directories(bomb, repack(saved({"a": torch.zeros(7)}))),
        "expanded": saved({"a": torch.zeros(1).expand(1 << 40)}),
        "legacy_expanded": saved({"a": torch.zeros(1).expand(1 << 40)}, _use_new_zipfile_serialization=False),
        "legacy_claim": with_storage_size(legacy, 7, 1 << 36),
        "legacy_negative": with_storage_size(legacy, 7, -(1 << 36)),
        "legacy_bytearray": fifth_pickle(tensor, b"\x80\x02cbuiltins\nbytearray\n" + huge + b"\x85R."),
        "zip_bytearray": repack(
            saved(tensor),
            lambda name, data: (
                b"\x80\x02cbuiltins\nbytearray\n" + huge + b"\x85R." if name.endswith("data.pkl") else data
            ),
        ),
        "placeholders": with_pickle(b"cx\ny\nq\x00)q\x01" + b"h\x00h\x01R" * 300_000 + b"."),
        "sets": with_pickle(b"\x8f" * 1_000_000 + b"."),
        "lists_in_the_memo": with_pickle(b"".join(b"]r" + n.to_bytes(4, "little") for n in range(250_000)) + b"."),
        "tensors": with_pickle(many_tensors(100_000)),
        "members": with_members(200_000),
        "safetensors_claim": len(header).to_bytes(8, "little") + header,
        "safetensors_header": (1 << 40).to_bytes(8, "little") + b"{}",
    }
    for name, data in files.items():
        put(folder / f"{name}.pt", data)
    with (folder / "sparse.pt").open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(1 << 36)
    return [f"open_file {name}.pt" for name in (*files, "sparse")]


def with_pickle(instructions):
    """An archive of a state_dict with another pickle."""
    state_dict = saved({"a": torch.zeros(7)})
    return repack(state_dict, lambda name, data: instructions if name.endswith("data.pkl") else data)


def many_tensors(count):
    """A pickle that creates tensors in a long sequence and keeps all of them."""
    with zipfile.ZipFile(io.BytesIO(saved(torch.zeros(7)))) as archive:
        one = archive.read("archive/data.pkl")
    assert one.endswith(b"q\x0aRq\x0b.")  # the arguments are memo 10, the function memo 0
    return one[:-3] + b"h\x00h\x0aR" * count + b"."


def with_members(count):
    """An archive whose directory lists the same members many times."""
    members, directory, end = split_zip(repack(saved({"a": torch.zeros(7)})))
    directory = bytes(directory) * (count // directory.count(b"PK\x01\x02"))
    return members + directory + bytes(end[:12]) + struct.pack("<II", len(directory), len(members)) + b"\0\0"


def write_hostile_checkpoints(folder):
    """Checkpoints that describe more than their file contains."""
    model = make_model(n_reference=4, lookback=3, hidden_size=2, n_hidden=2, n_features=2)
    save_checkpoint(model, folder / "plain.safetensors")
    data = (folder / "plain.safetensors").read_bytes()
    depth = 20_000
    names = [{"name": str(number)} for number in range(100_000)]
    changes = {
        "names": lambda config: config.update(features=names),
        "outputs": lambda config: config.update(targets=names[:9000], horizon=1 << 16),
        "depth": lambda config: config.update(head=config["head"][:1] * depth),
        "steps": lambda config: config["head"][0].update(before=[{"kind": "relu"}] * depth),
        "factors": lambda config: config["head"][0].update(mult_arity=[1 << 16] * 2),
        "layers": lambda config: config["recurrent"].update(num_layers=1 << 16),
        "grid": lambda config: config["head"][0]["basis"].update(grid_size=1 << 16),
    }
    for name, change in changes.items():
        put(folder / f"{name}.safetensors", with_config(data, change))
    with (folder / "sparse.safetensors").open("wb") as file:
        file.write(data)
        file.truncate(1 << 36)
    return [f"load_checkpoint {name}.safetensors" for name in (*changes, "sparse")]


def write_hostile_documents(folder):
    """Manifests and arrays that claim gigabytes; each manifest is imported with valid weights."""
    put(folder / "weights.pt", saved(make_state_dict()))
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 4, 2)})
        archive.writestr("reference.npy", stream.getvalue())
    put(folder / "claim.npy", stream.getvalue())
    with (folder / "sparse.npy").open("wb") as file:
        file.write(stream.getvalue())
        file.truncate(1 << 36)
    put(folder / "deep.json", b"[" * 1_000_000)
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    texts = {
        "npz_claim": json.dumps(MANIFEST | {"reference": "bomb.npz:reference"}),
        "npy_claim": json.dumps(MANIFEST | {"reference": "claim.npy"}),
        "npy_sparse": json.dumps(MANIFEST | {"reference": "sparse.npy"}),
        "json_deep": json.dumps(MANIFEST | {"reference": "deep.json:"}),
        "lookback": json.dumps(MANIFEST | {"lookback": 1 << 40}),
        "horizon": json.dumps(MANIFEST | {"horizon": 1 << 40}),
        "laughs": laughs,
        "features_laugh": laughs + "features: *a11\n",
        "deep": "[" * 100_000,
        "names": json.dumps(MANIFEST | {"features": [str(number) for number in range(100_000)]}),
        "integer": "lookback: " + "9" * 100_000,
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return [f"import_manifest {name}.yaml" for name in texts]


CHILD = """
    import resource, sys, time
    from pathlib import Path
    import torch
    from kanmodel.checkpoint import load_checkpoint
    from kanmodel.errors import CheckpointError, ConfigError, DataError
    from kanmodel.importers.from_file import import_checkpoint
    from kanmodel.importers.files.manifest import read_manifest
    from kanmodel.importers.files.exported import open_file

    torch.set_num_threads(1)
    folder, headroom = Path(sys.argv[1]), int(sys.argv[2])
    calls = {
        "open_file": open_file,
        "load_checkpoint": load_checkpoint,
        "import_manifest": lambda path: import_checkpoint(folder / "weights.pt", read_manifest(path)),
    }
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + headroom
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in sys.stdin.read().splitlines():
        call, name = line.split()
        start = time.process_time()
        try:
            calls[call](folder / name)
            outcome = "loaded"
        except (CheckpointError, ConfigError, DataError) as error:
            outcome = "refused " + str(error)
        except BaseException as error:
            outcome = f"raised {type(error).__name__}"
        print(line, f"{time.process_time() - start:.1f}", outcome, sep="\\t", flush=True)
"""


@pytest.mark.thorough("writes and reads files that claim gigabytes")
def test_hostile_files_take_neither_memory_nor_time(tmp_path):
    """Files that claim gigabytes or unbounded work are refused within seconds and 200 MiB."""
    writers = (write_hostile_weights, write_hostile_checkpoints, write_hostile_documents)
    with get_context("fork").Pool(1) as pool:  # some are large while they are created
        cases = [case for write in writers for case in pool.apply(write, (tmp_path,))]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path), str(200 * MIB)],
        input="\n".join(cases),
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (100, 100)),
    )
    outcomes = [line.split("\t") for line in done.stdout.splitlines()]
    assert [outcome[0] for outcome in outcomes] == cases, done.stderr[-2000:]
    wrong = [
        (case, seconds, outcome[:200])
        for case, seconds, outcome in outcomes
        if not (outcome.startswith("refused") or (case == "open_file two_directories.pt" and outcome == "loaded"))
        or "alloc" in outcome
        or "memory" in outcome
        or float(seconds) > 5
        or len(outcome) > 1000
    ]
    assert not wrong


def test_two_directories_are_read_as_one(tmp_path):
    """torch gets the directory of an archive that was checked, not the other one."""
    data = two_directories(
        repack(saved({"a": torch.zeros(100_000)}), compression=zipfile.ZIP_DEFLATED),
        repack(saved({"a": torch.ones(7)})),
    )
    assert torch.load(io.BytesIO(data), weights_only=True)["a"].numel() == 100_000
    with suppress(CheckpointError):
        assert torch.equal(open_file(put(tmp_path / "two.pt", data)).tensors["a"], torch.ones(7))
