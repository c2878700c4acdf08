"""Reading files of `torch.save`, compared with `torch.load`, in both containers and for every type."""

import gzip
import io
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from factories import repack, saved
from goldens import FOLDER
from hypothesis import assume, given
from hypothesis import strategies as st

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.archives import STORAGE_DTYPES, read_archive
from kanmodel.importers.files.exported import open_file
from kanmodel.importers.files.pickles import GlobalName, Placeholder
from kanmodel.importers.files.source import is_module, read_module

FILES = FOLDER / "import"
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
LEGACY = {"_use_new_zipfile_serialization": False}
CONTAINERS = {"zip": {}, "legacy": LEGACY}


def as_bytes(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def assert_same(found, expected):
    """Equal to torch's result: tensors bitwise, and a class name in place of every object."""
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert as_bytes(found) == as_bytes(expected.detach())
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert isinstance(found, list if isinstance(expected, list) else tuple)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, np.ndarray):
        assert (found.shape, found.dtype.newbyteorder("=")) == (expected.shape, expected.dtype.newbyteorder("="))
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, np.generic):
        assert found == expected.item()
    elif isinstance(expected, type | torch.dtype) or callable(expected):
        assert isinstance(found, GlobalName)
    elif expected is None or isinstance(expected, bool | int | float | str | bytes | set | frozenset):
        assert type(found) is type(expected) or isinstance(expected, frozenset)
        assert found == expected or expected != expected
    else:
        assert isinstance(found, Placeholder)
        assert found.name.endswith(type(expected).__name__)


dtypes = st.sampled_from([*STORAGE_DTYPES.values(), *UNSIGNED])


@st.composite
def tensors(draw):
    """A tensor of any type, or a view: transposed, sliced, strided or expanded."""
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    seed = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    whole = torch.randint(-9, 99, shape, generator=seed).to(draw(dtypes))
    view = draw(st.sampled_from(["whole", "transposed", "sliced", "stepped", "repeated", "parameter"]))
    if view == "parameter" and whole.is_floating_point():
        return torch.nn.Parameter(whole, requires_grad=draw(st.booleans()))
    if view == "repeated":
        return whole[None].expand(3, *whole.shape)
    if whole.ndim == 0:
        return whole
    return {"transposed": whole.movedim(0, -1), "sliced": whole[1:], "stepped": whole[::2]}.get(view, whole)


plain = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
    | st.sampled_from([torch.nn.GELU, torch.float32, {"a", "b"}, frozenset({1}), torch.Size([2]), print])
    | st.sampled_from([np.float64(0.5), np.int32(3), np.arange(6.0).reshape(2, 3).T, np.array([1, 2], ">i2")])
)  # fmt: skip
objects = st.recursive(
    plain | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=6,
)


@given(objects, st.sampled_from(sorted(CONTAINERS)), st.integers(2, 5))
def test_any_saved_value_is_read(found, container, protocol):
    """Values and tensors of any type, view and nesting equal those of torch.load."""
    if container == "legacy":
        assume(not any(tensor.dtype in UNSIGNED for tensor in tensors_in(found)))  # torch cannot save it either
    data = saved(found, pickle_protocol=protocol, **CONTAINERS[container])
    assert_same(read_archive(data), torch.load(io.BytesIO(data), weights_only=False))


def tensors_in(found):
    if isinstance(found, torch.Tensor):
        yield found
    elif isinstance(found, dict | list | tuple):
        for part in found.values() if isinstance(found, dict) else found:
            yield from tensors_in(part)


@pytest.mark.parametrize("container", CONTAINERS)
def test_tensors_of_one_storage_share_it(container):
    """Views of one storage stay views, and no data is copied."""
    whole = torch.arange(12.0).reshape(3, 4)
    data = saved([whole, whole[1], whole.T], **CONTAINERS[container])
    found = read_archive(data)
    assert_same(found, [whole, whole[1], whole.T])
    found[0][1] = 9
    assert bool((found[1] == 9).all()) and bool((found[2][:, 1] == 9).all())


@pytest.mark.parametrize("dtype", [*STORAGE_DTYPES.values()], ids=str)
def test_a_file_of_a_big_endian_machine(dtype):
    """The bytes of each value are swapped, for complex values per part."""
    tensor = torch.randint(-9, 99, (3, 5)).to(dtype)
    size = dtype.itemsize // (2 if dtype.is_complex else 1)

    def turn(name, content):
        if name.endswith("/byteorder"):
            return {name: b"big"}
        if "/data/" in name:
            return {name: b"".join(content[at : at + size][::-1] for at in range(0, len(content), size))}
        return {name: content}

    data = repack(saved(tensor), turn)
    assert_same(read_archive(data), tensor)
    assert_same(torch.load(io.BytesIO(data)), tensor)


def test_views_of_torch_before_0_4():
    """A storage that is a view of another, in the old format, is read as torch reads it."""
    data = saved(torch.arange(6.0)[2:5], **LEGACY)
    # (storage, FloatStorage, key, cpu, 6, None) -> (..., 6, ("view", 2, 3)), and the tensor begins at 0 of it
    assert data.count(b"K\x06Nt") == 1
    data = data.replace(b"K\x06Nt", b"K\x06X\x04\x00\x00\x00viewK\x02K\x03\x87t", 1)
    assert data.count(b"QK\x02K\x03\x85") == 1 or data.count(b"QK\x02") == 1
    data = data.replace(b"QK\x02", b"QK\x00", 1)
    assert_same(read_archive(data), torch.load(io.BytesIO(data), weights_only=False))
    assert_same(read_archive(data), torch.tensor([2.0, 3.0, 4.0]))


STUBS = """
    import sys, types
    from pathlib import Path
    import torch

    job = torch.load(sys.argv[1], weights_only=True)
    for name in job["classes"]:
        module, _, kind = name.rpartition(".")
        if not module.startswith("torch."):
            for end in range(len(parts := module.split("."))):
                package = ".".join(parts[: end + 1])
                sys.modules.setdefault(package, types.ModuleType(package)).__path__ = []
            setattr(sys.modules[module], kind, type(kind, (torch.nn.Module,), {"__module__": module}))
    states = {}
    for name, data in job["files"].items():
        (path := Path(sys.argv[1]).with_name("one.pt")).write_bytes(data)
        found = torch.load(path, weights_only=False)
        states[name] = found.state_dict() if isinstance(found, torch.nn.Module) else found
    torch.save(states, sys.argv[2])
"""


def golden_files():
    """The goldens that were written by torch.save, unpacked, except those that contain code."""
    for path in sorted(FILES.rglob("*")):
        torchs = path.name.removesuffix(".gz").endswith((".pt", ".ckpt", "_state", "cache_data"))
        if torchs and not path.name.startswith("malicious"):
            data = path.read_bytes()
            yield str(path.relative_to(FILES)), gzip.decompress(data) if path.suffix == ".gz" else data


@pytest.mark.thorough("starts a process that reads all files")
def test_every_golden_file_is_read_as_by_torch(tmp_path):
    """Each golden file equals torch.load's bitwise; whole modules equal those of a process with the classes."""
    files = dict(golden_files())
    found = {name: read_archive(data) for name, data in files.items()}
    trees = {name: read_module(value) for name, value in found.items() if is_module(value)}
    assert len(files) > 50 and len(trees) >= 6
    classes = sorted({module.class_name for tree in trees.values() for _, module in tree.walk()})
    torch.save({"classes": classes, "files": files}, tmp_path / "job.pt")
    arguments = [sys.executable, "-c", textwrap.dedent(STUBS), str(tmp_path / "job.pt"), str(tmp_path / "states.pt")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = torch.load(tmp_path / "states.pt", weights_only=False)
    assert expected.keys() == files.keys()
    for name, value in expected.items():
        assert_same(trees[name].state_dict() if name in trees else found[name], value)


def renamed(old, new):
    return lambda name, content: {name.replace(old, new): content}


TENSOR = {"a": torch.arange(7.0)}
DAMAGED = {
    "compressed": (
        lambda: repack(saved({"a": torch.randn(99)}), compression=zipfile.ZIP_DEFLATED),
        r"would unpack to|compressed or encrypted",
    ),
    "no pickle": (lambda: repack(saved(TENSOR), renamed("data.pkl", "data.txt")), "not one of torch.save"),
    "two pickles": (
        lambda: repack(saved(TENSOR), lambda name, data: {name: data, f"x/{name}": data}),
        "not one of torch.save",
    ),
    "TorchScript": (lambda: repack(saved(TENSOR), renamed("version", "constants.pkl")), "TorchScript"),
    "a missing storage": (lambda: repack(saved(TENSOR), renamed("data/0", "data/1")), "has no archive/data/0"),
    "a short storage": (
        lambda: repack(saved(TENSOR), lambda name, data: {name: data[:-4] if "/data/" in name else data}),
        "storage 0 has 24 bytes for 7 values|claims a storage of 7 values",
    ),
    "a long storage": (
        lambda: repack(saved(TENSOR), lambda name, data: {name: data + data if "/data/" in name else data}),
        "storage 0 has 56 bytes for 7 values",
    ),
    "another byte order": (
        lambda: repack(saved(TENSOR), lambda name, data: {name: b"middle" if "order" in name else data}),
        "neither little nor big",
    ),
    "tar": (lambda: bytes(257) + b"ustar" + bytes(800), "tar archive, as torch before 0.1.10"),
    "a storage that is not there": (lambda: saved(TENSOR, **LEGACY)[:-3], "another number of values"),
    "a sparse tensor": (lambda: saved({"a": torch.eye(2).to_sparse()}), None),
    "a quantized tensor": (
        lambda: saved({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}),
        "QInt8Storage type, which is not of plain numbers",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.filterwarnings("ignore")
def test_other_archives_are_refused(name):
    """The error names how an archive differs from those of torch.save."""
    make, reason = DAMAGED[name]
    if reason is None:
        assert isinstance(read_archive(make())["a"], Placeholder)
        return
    with pytest.raises(CheckpointError, match=reason):
        read_archive(make())


def test_members_compressed_without_becoming_smaller():
    """A compressed member is refused even if compression does not save space."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(torch.arange(3.0)))) as before, zipfile.ZipFile(stream, "w") as after:
        for name in before.namelist():
            packed = zipfile.ZIP_DEFLATED if "/data/" in name else zipfile.ZIP_STORED
            after.writestr(name, before.read(name), packed)
        after.writestr("padding", bytes(range(256)))
    with pytest.raises(CheckpointError, match="has archive/data/0 compressed or encrypted"):
        read_archive(stream.getvalue())


def test_two_members_of_one_name():
    """Readers differ in which of two members they use, so both are refused."""
    stream = io.BytesIO(saved(TENSOR))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("archive/data/0", bytes(28))
    with pytest.raises(CheckpointError, match="two members of the same name"):
        read_archive(stream.getvalue())


def test_names_that_leave_the_archive(tmp_path, monkeypatch):
    """Names such as ../../x are ordinary names: nothing outside the file is written or read."""
    monkeypatch.chdir(tmp_path)
    data = saved(TENSOR)
    traversing = repack(data, lambda name, content: {name: content, f"../../{name}.txt": content})
    assert_same(read_archive(traversing), TENSOR)
    outside = tmp_path / "outside"
    outside.write_bytes(bytes(28))
    changed = repack(
        data, lambda name, content: {name: content.replace(b"X\x01\x00\x00\x000", b"X\x0a\x00\x00\x00../outside")}
    )
    with pytest.raises(CheckpointError, match=r"it has no archive/data/\.\./outside"):
        read_archive(changed)
    assert list(tmp_path.iterdir()) == [outside]


def tensor_of(shape, stride, offset):
    """A file whose tensor of 7 values claims another shape, stride and offset."""
    before = b"QK\x00K\x07\x85q\x06K\x01\x85q\x07"
    parts = (offset, shape, stride)
    data = saved(torch.arange(7.0))

    def change(name, content):
        if not name.endswith("data.pkl"):
            return {name: content}
        assert before in content
        new = b"Q" + b"".join(dump(part) for part in parts)
        return {name: content.replace(before, new)}

    return repack(data, change)


def dump(value):
    if isinstance(value, tuple):
        return b"(" + b"".join(map(dump, value)) + b"t"
    length = value.bit_length() // 8 + 1
    return bytes([0x8A, length]) + value.to_bytes(length, "little", signed=True)


@pytest.mark.parametrize(
    ("shape", "stride", "offset", "fits"),
    [
        ((7,), (1,), 0, True),
        ((3,), (3,), 0, True),
        ((3,), (2,), 2, True),
        ((0,), (1,), 99, True),
        ((), (), 6, True),
        ((1 << 20,), (0,), 6, True),
        ((8,), (1,), 0, False),
        ((7,), (1,), 1, False),
        ((3,), (2,), 3, False),
        ((), (), 7, False),
        ((-1,), (1,), 0, False),
        ((2,), (-1,), 1, False),
        ((2,), (1,), -1, False),
        ((2, 2), (1,), 0, False),
        (((1 << 20) + 1,), (0,), 0, False),
        ((1 << 40, 1 << 40), (0, 0), 0, False),
        ((2,), (1 << 62,), 0, False),
        ((2,), (1 << 80,), 0, False),
        ((1,) * 17, (1,) * 17, 0, False),
        ((0, 1 << 61, 1 << 61), (1, 1, 1), 0, False),
    ],
)
def test_shapes_and_strides(shape, stride, offset, fits):
    """A tensor must lie inside its storage, and may repeat it at most a million times."""
    data = tensor_of(shape, stride, offset)
    if fits:
        expected = torch.arange(7.0).as_strided(shape, stride, offset) if 0 not in shape else torch.empty(shape)
        assert torch.equal(read_archive(data), expected)
    else:
        with pytest.raises(CheckpointError):
            read_archive(data)


@pytest.mark.parametrize("container", CONTAINERS)
def test_storages_are_copied_once(tmp_path, container):
    """Reading 16 MiB takes that memory once for the file and once for the tensors."""
    size = 1 << 24
    (tmp_path / "large.pt").write_bytes(saved({"a": torch.zeros(size // 4)}, **CONTAINERS[container]))
    tracemalloc.start()
    tensors = open_file(tmp_path / "large.pt").tensors
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tensors["a"].untyped_storage().nbytes() == size
    assert peak < 2.1 * size
