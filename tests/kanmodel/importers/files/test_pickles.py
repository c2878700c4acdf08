"""The pickle reader builds values and never runs code of a hostile file."""

import copyreg
import functools
import io
import json
import os
import pickle
import pickletools
import random
import subprocess
import sys
import textwrap
import time
import zipfile
from collections import OrderedDict, deque
from fractions import Fraction

import pytest
import torch
from factories import repack, saved
from goldens import FOLDER
from hypothesis import given
from hypothesis import strategies as st
from thorough import examples

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.archives import BUILDERS, tensor_functions
from kanmodel.importers.files.pickles import MAX_CHOSEN_KEYS, GlobalName, Placeholder, read_pickle

FILES = FOLDER / "import"
N_MUTATED = examples(400)


def read(data):
    """Reads a pickle outside an archive, with persistent ids as values."""
    return read_pickle(io.BytesIO(data), tensor_functions(), BUILDERS, lambda key: key)


hashable = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
values = st.recursive(
    hashable | st.frozensets(st.text() | st.integers(-9, 9)) | st.sets(st.text()) | st.tuples(hashable, hashable),
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(hashable | st.tuples(hashable, hashable), inner)
    ),
)


@given(values, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_of_every_protocol(value, protocol):
    """Values without objects equal those of pickle.loads."""
    assert read(pickle.dumps(value, protocol)) == value


class Slotted:
    __slots__ = ("a",)

    def __init__(self):
        self.a = 1


class Dictionary(dict):
    pass


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_objects_are_placeholders(protocol):
    """A class becomes its name; an object becomes the name with arguments, attributes, items and entries."""
    partial = functools.partial(print, "7", sep="8")
    entries = Dictionary(a=1)
    entries.note = "x"
    found = read(pickle.dumps([torch.nn.GELU, partial, Fraction(1, 3), deque([1, 2]), entries], protocol))
    kind, call, fraction, items, subclass = found
    assert kind == GlobalName("torch.nn.modules.activation.GELU")
    assert (call.name, call.arguments) == ("functools.partial", (GlobalName("builtins.print"),))
    assert call.state == (GlobalName("builtins.print"), ("7",), {"sep": "8"}, None)
    assert fraction.name == "fractions.Fraction"
    assert (items.name, items.items) == ("collections.deque", [1, 2])
    assert (subclass.name.rpartition(".")[2], subclass.entries, subclass.state) == (
        "Dictionary",
        {"a": 1},
        {"note": "x"},
    )
    if protocol >= 2:
        slotted = read(pickle.dumps(Slotted(), protocol))
        assert slotted.state == (None, {"a": 1})
    assert repr(found[1:]).startswith("[<functools.partial>, <fractions.Fraction>")


def test_values_that_contain_themselves():
    """Recursive values are read as recursive, and can be printed."""
    values = [{}, Dictionary()]
    values[0]["self"] = values
    values[1]["self"] = values[1]
    found = read(pickle.dumps(values, 2))
    assert found[0]["self"] is found
    assert found[1].entries["self"] is found[1]
    assert "Dictionary" in repr(found)


GLOBAL = b"cos\nsystem\n"
COMMAND = b"X\x04\x00\x00\x00true"
CALLS = {
    "reduce": GLOBAL + COMMAND + b"\x85R.",
    "reduce of a list": b"cos\nmakedirs\n(X\x01\x00\x00\x00aK\x00tR.",
    "inst": b"(X\x04\x00\x00\x00trueios\nsystem\n.",
    "obj": b"(" + GLOBAL + COMMAND + b"o.",
    "newobj": b"csubprocess\nPopen\n" + COMMAND + b"\x85\x81.",
    "newobj_ex": b"\x80\x04csubprocess\nPopen\n" + COMMAND + b"\x85}\x92.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + COMMAND + b"\x85R.",
    "stack global from the memo": b"\x80\x04\x8c\x06system\x94\x8c\x02os\x94h\x01h\x00\x93" + COMMAND + b"\x85R.",
    "stack global of a dotted name": b"\x80\x04\x8c\x02os\x8c\x0bpath.exists\x93" + COMMAND + b"\x85R.",
    "a memo that is written twice": b"cbuiltins\nlen\nq\x00" + GLOBAL + b"q\x00h\x00" + COMMAND + b"\x85R.",
    "setstate": b"ctorch.nn.modules.module\nModule\n)\x81}X\x01\x00\x00\x00acos\ngetcwd\n)Rsb.",
    "setstate of a class": b"clogging\nHandler\n)\x81}X\x05\x00\x00\x00levelK\x01sb.",
    "build of a class": b"cpydoc\nTextDoc\n}b.",
    "eval": b"cbuiltins\neval\nX\x0e\x00\x00\x00open('/etc/x')\n\x85R."[:-5] + b"\x85R.",
    "exec": b"c__builtin__\nexec\nX\x08\x00\x00\x00import x\x85R.",
    "getattr": b"cbuiltins\ngetattr\ncos\nsystem\nX\x08\x00\x00\x00__call__\x86R" + COMMAND + b"\x85R.",
    "import": b"cbuiltins\n__import__\nX\x0b\x00\x00\x00antigravity\x85R.",
    "a name alone imports": b"cantigravity\nfly\n.",
    "a name of a submodule": b"cidlelib.idle\nx\n.",
    "open": b"cio\nopen\nX\x0b\x00\x00\x00/etc/passwd\x85R.",
    "code": b"ctypes\nCodeType\n)R.",
    "load from bytes": b"ctorch.storage\n_load_from_bytes\nC\x04PK\x03\x04\x85R.",
    "load of pickle": b"cpickle\nloads\nC\x0acos\ngetpid\n\x85R."[:-5] + b"\x85R.",
    "extension of one byte": b"\x80\x02\x82\x05" + COMMAND + b"\x85R.",
    "extension of two bytes": b"\x80\x02\x83\x05\x00" + COMMAND + b"\x85R.",
    "extension of four bytes": b"\x80\x02\x84\x05\x00\x00\x00" + COMMAND + b"\x85R.",
    "append to an object": b"cimaplib\nIMAP4\n)\x81K\x01a.",
    "items of an object": b"cshelve\nShelf\n)\x81(K\x01K\x02u.",
    "a codec": b"V\\u0041\n0c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
    "a type of numpy": b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NNNK\x00K\x00K?tb.",
    "a wrapper of torch": b"ctorch._tensor\n_rebuild_from_type_v2\n(" + GLOBAL + GLOBAL + COMMAND + b"\x85NtR.",
    "a default factory": b"ccollections\ndefaultdict\n" + GLOBAL + b"\x85RX\x01\x00\x00\x00aK\x01s.",
    "a key with a hash of its own": b"}cpathlib\nPath\n)RK\x01s.",
    "reconstructor": b"ccopy_reg\n_reconstructor\n(csubprocess\nPopen\nc__builtin__\nobject\nNtR.",
}  # fmt: skip
PERSISTENT = {
    "any persistent id": b"(X\x07\x00\x00\x00storagecos\nsystem\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x07tQ.",
    "a persistent id of text": b"Pos.system\n.",
    "a persistent id of a module": b"(X\x06\x00\x00\x00modulecos\nsystem\nX\x01\x00\x00\x00aX\x01\x00\x00\x00btQ)R.",
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_placeholders(name):
    """Each opcode that calls something gives a placeholder or a container of one, or is refused."""
    try:
        found = read(CALLS[name])
    except CheckpointError as error:
        assert str(error).startswith(("has ", "is "))
    else:
        assert isinstance(found, Placeholder | GlobalName | dict)


def in_zip(data):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", bytes(28))
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def in_legacy(data):
    stream = io.BytesIO()
    torch.save({}, stream, _use_new_zipfile_serialization=False)
    head = stream.getvalue().removesuffix(pickle.dumps({}, 2) + pickle.dumps([], 2))
    assert len(head) < len(stream.getvalue())
    return head + data + pickle.dumps([], 2)


def nested():
    """A torch file in a tensor's bytes in a torch file, and one among the members."""
    inner = in_zip(CALLS["reduce"])
    stream = io.BytesIO()
    torch.save({"a": torch.frombuffer(bytearray(inner), dtype=torch.uint8), "b": torch.ones(2)}, stream)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("archive/code/inner.pt", inner)
    return stream.getvalue()


def mutated(count):
    """Golden files with random bytes changed, anywhere or in their pickles with correct checksums."""
    rng = random.Random(0)
    files = [path.read_bytes() for path in sorted(FILES.rglob("*.*t")) if path.stat().st_size < 30_000]
    zips = [data for data in files if data.startswith(b"PK")]
    beside = {"state_dict": {"a": torch.ones(2)}, "x": [os.getcwd, functools.partial(print, 1), OrderedDict(b=2)]}
    zips += [saved(beside, pickle_protocol=protocol) for protocol in range(2, 6)] * 5
    for number in range(count):
        if number % 3 == 0:
            yield damage(rng, rng.choice(files))
        else:
            yield repack(rng.choice(zips), lambda name, data: damage(rng, data) if name.endswith("data.pkl") else data)


def damage(rng, data):
    """Changes bytes, inserts opcodes, or deletes bytes."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at, kind = rng.randrange(len(data)), rng.randrange(4)
        if kind == 0:
            data[at:at] = rng.choice(list(CALLS.values()))[:-1]
        elif kind == 1:
            del data[at : at + rng.randint(1, 4)]
        else:
            data[at] = rng.randrange(256)
    return bytes(data)


WATCHED = """
    import copyreg, json, os, sys
    from pathlib import Path
    from kanmodel.errors import CheckpointError
    from kanmodel.importers.files.exported import open_file

    copyreg.add_extension("os", "system", 5)  # so that an extension code of the files would run something
    events, path = [], None

    def watch(event, arguments):
        if path is not None and not (event == "open" and arguments[0] == str(path)):
            events.append((path.name, event, str(arguments)[:200]))

    sys.addaudithook(watch)
    outcomes = {}
    for found in sorted(Path(sys.argv[1]).iterdir()):
        path = found
        try:
            open_file(path)
            outcome = "read"
        except CheckpointError as error:
            outcome = str(error)
        except BaseException as error:
            outcome = f"RAISED {type(error).__name__} {error}"
        path = None
        outcomes[found.name] = outcome
    print(json.dumps([outcomes, events]))
"""


def watch(folder):
    """The outcome of each file in a folder, and all audit events except opening the file itself."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WATCHED), str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_hostile_files_only_get_read(tmp_path):
    """A process that reads hostile files, and files damaged at random, has only the audit events of opening each."""
    pickles = CALLS | PERSISTENT
    for number, data in enumerate(pickles.values()):
        (tmp_path / f"{number}.zip.pt").write_bytes(in_zip(data))
        (tmp_path / f"{number}.legacy.pt").write_bytes(in_legacy(data))
        (tmp_path / f"{number}.pkl").write_bytes(b"\x80\x02" + data)
    (tmp_path / "nested.pt").write_bytes(nested())
    for name in ("malicious_plain.pkl", "malicious_state_dict.pt", "scaler.joblib", "lightning_like.ckpt"):
        (tmp_path / name).write_bytes((FILES / "pykan_head" / name).read_bytes())
    for number, data in enumerate(mutated(N_MUTATED)):
        (tmp_path / f"mutated {number}.pt").write_bytes(data)
    outcomes, events = watch(tmp_path)
    assert events == []
    assert len(outcomes) == 3 * len(pickles) + 5 + N_MUTATED
    assert not [outcome for outcome in outcomes.values() if outcome.startswith("RAISED") or len(outcome) > 1000]
    read = {name for name, outcome in outcomes.items() if outcome == "read"}
    damaged = {name for name in read if name.startswith("mutated")}
    assert read - damaged == {"lightning_like.ckpt", "nested.pt"} and len(damaged) > N_MUTATED / 50


UNSAFE = """
    import copyreg, json, pickle, sys

    copyreg.add_extension("os", "system", 5)
    events, watching = [], False

    def refuse(event, arguments):
        if watching and event not in ("object.__getattr__", "pickle.find_class"):
            events.append(event)
            raise PermissionError(event)
        if watching:
            events.append(event)

    sys.addaudithook(refuse)
    seen = {}
    for name, text in json.load(sys.stdin).items():
        events.clear()
        watching = True
        try:
            pickle.loads(bytes.fromhex(text))
        except BaseException:
            pass
        watching = False
        seen[name] = list(events)
    print(json.dumps(seen))
"""


def test_python_would_have_run_them():
    """Python's unpickler looks up, imports or calls the names in these pickles, which the audit shows."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(UNSAFE)],
        input=json.dumps({name: data.hex() for name, data in CALLS.items()}),
        capture_output=True,
        text=True,
    )
    seen = json.loads(done.stdout)
    assert [name for name, events in seen.items() if not events] == []


def laughs():
    """Fifty nested lists of ten times the same list: 10^50 entries if expanded."""
    lines = [b"]q\x00"] + [
        b"](" + b"h" + bytes([n]) + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1]) for n in range(50)
    ]
    return b"\x80\x02" + b"".join(lines) + b"."


MODULUS = (1 << 61) - 1


def colliding(count):
    """Integers with equal hashes, as keys of a dictionary."""
    keys = [(number * MODULUS).to_bytes(12, "little") for number in range(count)]
    return b"\x80\x02}(" + b"".join(b"\x8a\x0c" + key + b"N" for key in keys) + b"u."


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def numbered(count):
    """A dictionary with that many integer keys, in memo 0."""
    return b"}q\x00(" + b"".join(b"J" + number.to_bytes(4, "little") + b"N" for number in range(count)) + b"u"


BOMBS = {
    "laughs": (laughs, None),
    "colliding keys": (lambda: colliding(200_000), f"more than {MAX_CHOSEN_KEYS} keys"),
    "memo of colliding numbers": (
        lambda: b"".join(b"Np%d\n0" % (number * MODULUS) for number in range(1, 100_000)) + b"N.",
        "memo of more than",
    ),
    "tuples as deep as can be, as a key": (lambda: b"\x80\x02})" + b"\x85" * 900_000 + b"Ns.", "as a key"),
    "tuples of themselves as a key": (lambda: b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns.", "as a key"),
    "a set again and again": (
        lambda: b"c__builtin__\nset\nq\x00](" + b"K\x01" * 100_000 + b"e\x85q\x01" + b"0h\x00h\x01R" * 100_000 + b".",
        "repeats itself",
    ),
    "bytes again and again": (
        lambda: b"c_codecs\nencode\nq\x00" + text("a" * (1 << 20)) + b"\x85q\x01" + b"0h\x00h\x01R" * 100_000 + b".",
        "repeats itself",
    ),
    "a long name again and again": (
        lambda: b"\x80\x04" + text("a" * (1 << 20)) + b"q\x00" + b"h\x00h\x00\x93" * 100_000 + b".",
        "too long name",
    ),
    "a state again and again": (
        lambda: numbered(100_000) + b"cx\ny\n)\x81" + b"h\x00b" * 100_000 + b".",
        "sets the state",
    ),
    "marks": (lambda: b"(" * 100_000 + b".", "nested deeper"),
    "instructions": (lambda: b"N" * (1 << 21) + b".", "more than 1048576 instructions"),
    "the same dictionary built again and again": (
        lambda: numbered(100_000) + b"}h\x00b0" * 100_000 + b"N.",
        None,
    ),
    "a number of a million digits": (lambda: b"L" + b"9" * (1 << 20) + b"L\n.", "cannot be read"),
    "lists in lists": (lambda: b"]" * 250_000 + b"a" * 249_999 + b".", None),
    "sets": (lambda: b"\x8f" * 1_000_000 + b".", "more than 262144 objects"),
}  # fmt: skip


@pytest.mark.thorough("exhausts its budgets of time and memory on purpose")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name):
    """A pickle that would exhaust time or memory is read in linear size or refused, within seconds."""
    make, reason = BOMBS[name]
    data, start = make(), time.process_time()
    if reason is None:
        read(data)
    else:
        with pytest.raises(CheckpointError, match=reason):
            read(data)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "data",
    [b"", b".", b"N", b"0.", b"e.", b"(N.", b"]NN.", b"h\x00.", b"Na.", b"(K\x01d.", b"]K\x01R.", b"K\x01K\x02b.",
     b"\x80\x06N.", b"\x80\x05\x97.", b"}]Ns.", b"\xff", b"cos\n", b"(1tt.", b"](e(.", b"I99x\n.", b"}(K\x01u."],
)  # fmt: skip
def test_invalid_pickles_are_refused(data):
    """A pickle with missing operands or a missing end is refused."""
    if data in (b"]NN.", b"(N."):
        assert read(data) is None  # as in Python, other items on the stack are ignored
        return
    with pytest.raises(CheckpointError):
        read(data)


def test_random_programs():
    """Random opcodes give a value or are refused."""
    rng, outcomes = random.Random(0), set()
    values = (1, "a", (1, 2), [1], {"a": 1}, torch.nn.GELU, {1}, b"x", 2.5, 10**30)
    pieces = [pickle.dumps(value, protocol)[2:-1] for value in values for protocol in range(2, 5)]
    pieces += [call[:-1] for call in CALLS.values()]
    pieces += 3 * [opcode.code.encode("latin-1") for opcode in pickletools.opcodes if opcode.arg is None]
    for _ in range(examples(2000)):
        program = b"".join(rng.choices(pieces, k=rng.randint(1, 30))) + b"."
        try:
            read(program)
            outcomes.add("read")
        except CheckpointError as error:
            outcomes.add("refused")
            assert len(str(error)) < 900
    assert outcomes == {"read", "refused"}


def test_extension_codes_are_not_looked_up():
    """An extension code stays a number, whatever this process has registered for it."""
    copyreg.add_extension("collections", "OrderedDict", 77)
    try:
        data = pickle.dumps(OrderedDict, 2)
        assert b"\x82M" in data
        assert read(data) == GlobalName("copyreg.extension_77")
    finally:
        copyreg.remove_extension("collections", "OrderedDict", 77)
