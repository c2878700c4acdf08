"""Refusing a large body reads its text only, off the event loop, in bounded memory."""

from __future__ import annotations

import json
import threading
import tracemalloc
from itertools import islice
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.data import N_LISTED
from kanmodel.errors import DataError
from service.wire import bodies, scanning
from service.wire.bodies import LARGE, Limits, parse_object, parse_windows
from service.wire.json import non_finite_places
from service.work.estimates import PARSED

LIMITS = Limits(depth=64, windows=4096, window_shape=(24, 8))
TWO = 2 << 20  # bytes
JSON = {"Content-Type": "application/json"}

names = st.text(alphabet='ab"\\[]{},:NIe\ud800\u00e9', max_size=5)
values = st.recursive(
    st.none() | st.integers(-9, 9) | st.floats() | names | st.sampled_from([nan, inf, -inf, 1e300]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(names, inner, max_size=4),
    max_leaves=40,
)


def find_paths(text):
    """The paths that an error names; empty if there is no error."""
    try:
        scanning.refuse_non_finite(text, 64)
    except DataError as error:
        return [problem.path for problem in error.problems]
    return []


def test_a_text_is_scanned_only_for_a_reason(monkeypatch):
    """The letter e in names and in small exponents does not trigger a scan."""
    monkeypatch.setattr(scanning, "_Text", None)
    scanning.refuse_non_finite(b'{"instances": [1e-05, 2E+10, 3e99, true], "e12": "e1"}', 64)
    with pytest.raises(TypeError):
        scanning.refuse_non_finite(b"[1E+100]", 64)


@given(values, st.sampled_from([None, 1]), st.booleans())
def test_places_are_those_of_the_parsed_document(value, indent, ascii_only):
    """NaN and infinities have the same paths as in the document parsed by Python's lenient parser."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    document = json.loads(text.decode(errors="surrogatepass"))
    expected = [path.encode(errors="replace").decode() or "body" for path in non_finite_places(document)]
    assert find_paths(text) == expected[:N_LISTED]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (b"[1e400, -1E+999, 1e300, 12e-400]", ["[0]", "[1]"]),
        (b'{"a": [0, {"NaN": Infinity}], "b": "NaN, 1e999"}', ["a[1].NaN"]),
        (b"-Infinity", ["body"]),
        (b'{"e": "Infinity", "I": 1e-5}', []),
        (b"]]]NaN", ["body"]),
        (b'{"a" NaN', [""]),
        (b'"NaN', []),
        (b"", []),
        (b"[" * 100 + b"NaN" + b"]" * 100, []),  # refused for its depth
    ],
)
def test_places_in_text_by_hand(text, paths):
    """Numbers too large for a double are found, text in strings is ignored, and broken text is accepted."""
    assert [path or "body" for path in paths] == find_paths(text)


@given(st.binary(max_size=60) | st.text(alphabet='[]{},:"\\NaInfinity1e+-. ', max_size=60).map(str.encode))
def test_any_text_can_be_scanned(text):
    """Scanning any bytes returns a result."""
    find_paths(text)


def fill(start, unit, end, n_bytes=TWO):
    """A body of a given size that repeats a unit between its ends."""
    return start + unit * ((n_bytes - len(start) - len(end)) // len(unit)) + end


ATTACKS = {
    "NaN at the end of one window": ((b'{"instances": [[[', b"0.12345678901,", b"NaN]]]}"), "instances[0][0]["),
    "infinity in a name's place": ((b'{"instances": [', b"0.12345678901,", b'0], "x": 1e999}'), "x must be"),
    "empty lists": ((b'{"instances": [', b"[],", b"[]]}"), "body holds"),
    "empty lists in one window": ((b'{"instances": [[', b"[],", b"[]]]}"), "body holds"),
    "zeros and NaN": ((b'{"instances": [', b"0,", b"NaN]}"), "body holds"),
    "objects": ((b'{"columns": [', b"{},", b"{}]}"), "body holds"),
    "depth": ((b'{"instances": ', b"[", b""), "body holds"),
}


@pytest.mark.parametrize("reader", [parse_windows, parse_object])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_large_body_that_is_refused_costs_little(name, reader, monkeypatch):
    """2 MB are refused in one sentence, without a parser, in memory bounded by a multiple of the body."""
    parts, message = ATTACKS[name]
    body = fill(*parts)
    paths = []
    monkeypatch.setattr(scanning, "format_path", lambda parts: paths.append(parts) or format_path(parts))
    for parser in ("orjson", "simdjson"):
        monkeypatch.delattr(bodies, parser)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as refused:
            reader(body, LIMITS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(refused.value).startswith(message), str(refused.value)
    assert len(paths) <= N_LISTED + 1
    assert peak <= PARSED * len(body)


format_path = scanning.format_path


def test_a_body_of_as_many_windows_as_may_be_is_read():
    """The largest allowed request in either form is not refused by its text."""
    limits = Limits(depth=64, windows=500, window_shape=(6, 4))
    windows = [[[0.5] * 4] * 6] * 500
    assert len(json.dumps({"instances": windows})) > LARGE
    assert parse_windows(json.dumps({"instances": windows}).encode(), limits)["instances"].shape == (500, 6, 4)
    columns = {name: [[0.5] * 6] * 500 for name in "abcd"}
    assert parse_windows(json.dumps({"columns": columns}).encode(), limits) == {"columns": columns}


def test_large_bodies_are_parsed_off_the_event_loop(serve, folder, monkeypatch):
    """Bodies above some thousand bytes are parsed off the event loop; small ones on it, which is faster."""
    from service.operations import predict as predictions

    threads = {}
    read = predictions.read_prediction

    def record(body, *arguments):
        threads[len(body) > LARGE] = threading.current_thread().name
        return read(body, *arguments)

    monkeypatch.setattr(predictions, "read_prediction", record)
    with serve(models=folder / "two.safetensors") as client:
        for body in (b"{}", fill(*ATTACKS["NaN at the end of one window"][0])[:-1] + b" " * 8 + b"}"):
            answer = client.post("/v1/models/two:predict", content=body[:TWO], headers=JSON)
            assert answer.status_code == 422, answer.text
    assert threads[True].startswith("work") and not threads[False].startswith("work")


def test_the_first_places_are_found_without_the_others():
    """A body full of NaN is refused by its first places, and the error says that there are more."""
    text = fill(b'{"instances": [', b"NaN,", b"NaN]}", 1 << 20)
    with pytest.raises(DataError, match="more than 20 values are not finite") as refused:
        scanning.refuse_non_finite(text, 64)
    assert [problem.path for problem in refused.value.problems] == list(
        islice((f"instances[{number}]" for number in range(99)), N_LISTED)
    )
