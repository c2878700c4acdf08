"""A body is parsed once; one that is refused is so by its text, in bounded memory, off the event loop if large."""

from __future__ import annotations

import asyncio
import json
import threading
import tracemalloc
from math import inf, isfinite, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from kanmodel.arrays import N_LISTED
from kanmodel.errors import DataError
from service.room import Deadline, Room
from service.settings import Settings
from service.wire import bodies
from service.wire.bodies import LARGE, PARSED, Limits, parse_json, parse_object, parse_windows, read_body
from service.wire.errors import NOT_FINITE, find_code
from service.wire.windows import Axis, read_array

LIMITS = Limits(depth=32, windows=50, window_shape=(1, 2))
LARGE_LIMITS = Limits(depth=64, windows=4096, window_shape=(24, 8))
TWO = 2 << 20  # bytes
JSON = {"Content-Type": "application/json"}
WINDOW = b'{"instances": [[[0.5, 1.5]]], '


def refuse(read, *arguments):
    """The error of a body."""
    with pytest.raises(DataError) as refused:
        read(*arguments)
    return refused.value


@pytest.mark.parametrize("read", [parse_windows, parse_object])
@pytest.mark.parametrize(
    ("text", "path"),
    [
        (WINDOW + b'"instances": [[[0.5, 1.5]]]}', "instances"),
        (WINDOW + b'"tolerance": 1, "tolerance": 1}', "tolerance"),
        (WINDOW + b'"baseline": {"values": {"a": 1, "\\u0061": 2}}}', "baseline.values.a"),
        (WINDOW + b'"x": {"a:b": 1, "c": {"d": "::", "d": ":"}}}', "x.c.d"),
        (b'{"inputs": [{"name": 1}, {"name": 1, "name": 2}]}', "inputs[1].name"),
        (b'{"x": [0, [{"": 1, "y": 0, "": 2}]]}', "x[1][0]."),
    ],
)
def test_a_name_twice_in_one_object_is_refused(read, text, path):
    """The error has the path of the member, however its name is escaped and wherever the object is."""
    assert str(refuse(read, text, LIMITS)) == f"{path} is given twice"


@pytest.mark.parametrize("text", [b'{"instances": [[[0.5, 1.5]]]}', b'{"columns": {"a": [[0.5]]}}'])
def test_a_byte_order_mark_is_no_part_of_a_body(text):
    """As some editors and shells begin a file with it."""
    assert repr(parse_windows(b"\xef\xbb\xbf" + text, LIMITS)) == repr(parse_windows(text, LIMITS))


names = st.sampled_from(["a", "b", "a:b", ":", '"', "é"])
members = st.recursive(
    st.sampled_from([0, "a:", ":"]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(names, inner), max_size=3).map(tuple),
    max_leaves=8,
)


def write(value):
    """JSON in which a tuple of pairs is an object; and whether one has a name twice."""
    if isinstance(value, tuple):
        parts = [(json.dumps(name), *write(item)) for name, item in value]
        twice = len({name for name, _ in value}) < len(value) or any(part[2] for part in parts)
        return "{" + ",".join(f"{name}:{text}" for name, text, _ in parts) + "}", twice
    if isinstance(value, list):
        parts = [write(item) for item in value]
        return "[" + ",".join(text for text, _ in parts) + "]", any(twice for _, twice in parts)
    return json.dumps(value), False


@given(st.lists(st.tuples(names, members), max_size=3).map(tuple))
def test_a_name_is_refused_only_where_one_object_has_it_twice(value):
    """The same name in other objects, and colons in names and strings, are no repetition."""
    text, twice = write(value)
    if twice:
        assert "is given twice" in str(refuse(parse_object, text.encode(), LIMITS))
    else:
        assert parse_object(text.encode(), LIMITS) == json.loads(text)


@pytest.mark.parametrize("read", [parse_windows, parse_object])
@pytest.mark.parametrize("number", [b"1" * 5000, b"-" + b"9" * 5000, b"9" * 310, b"1e400", b"1e" + b"9" * 5000])
def test_a_number_out_of_range_is_named(read, number):
    """A number that is too large for a double is refused at its place, not as text that is not JSON."""
    error = refuse(read, b'{"a": "\xc3\xa9", "instances": [[[0.5, %s]]]}' % number, LIMITS)
    assert str(error).startswith("instances[0][0][1] must be finite")
    assert find_code(error) == "not_finite"


def test_a_long_number_within_the_range_is_read():
    """Digits are no reason for a refusal: 300 of them, or 5,000 after a point, are a double."""
    text = b'{"instances": [[[%s, 0.%s]]]}' % (b"1" * 300, b"1" * 5000)
    windows = read_array(parse_windows(text, LIMITS)["instances"], [Axis(1, ""), Axis(1, ""), Axis(2, "")], "instances")
    assert windows == pytest.approx(np.array([[[1.1111111111111112e299, 0.1111111111111111]]]))


def test_the_strings_of_the_largest_request_are_read():
    """A body may have every name in every place that takes it, of V1 and of V2 at once."""
    features, steps, outputs = ([f"{kind}{number}" for number in range(40)] for kind in "fso")
    inputs = [
        {"name": name, "datatype": "FP64", "shape": [1, 40], "parameters": {"binary_data_size": 1}} for name in features
    ]
    body = {
        "inputs": inputs,
        "columns": {name: [[0]] for name in features},
        "baseline": {"values": dict.fromkeys(features, 0)},
        "features": features,
        "groups": {f"g{name}": [name] for name in features} | {"all": [f"g{name}" for name in features]},
        "segments": {name: [0, 0] for name in steps},
        "output": outputs,
        "without": [f"head:0:{number}:0" for number in range(400)],
    }
    limits = Limits(depth=32, windows=1, window_shape=(40, 40), outputs=40)
    assert parse_object(json.dumps(body).encode(), limits) == body


@pytest.mark.parametrize(
    ("value", "places", "n"),
    [
        (
            [[1], [1, 2, 3], [1, "x"]],
            {"x[0]": "must have 2 items, but has 1", "x[1]": "must have 2 items, but has 3"},
            2,
        ),
        ([[1, None], [True, 2]], {"x[0][1]": "but is null", "x[1][0]": "but is a boolean"}, 2),
        ([[1, 2], 3], {"x[1]": "must be a list of 2 items, but is a number"}, 1),
        ([[None] * 2] * 500, {f"x[{n // 2}][{n % 2}]": "must be a number, but is null" for n in range(20)}, 1000),
    ],
)
def test_sizes_are_checked_before_values(value, places, n):
    """The problems of one depth are named, the outermost first; all are counted, and twenty are made."""
    error = refuse(read_array, value, [Axis(None, "rows"), Axis(2, "items")], "x")
    assert [problem.path for problem in error.problems] == [*places]
    assert all(message in problem.message for problem, message in zip(error.problems, places.values(), strict=True))
    assert n == 1 or str(error).endswith(f"; {n} values cannot be used")


any_names = st.text(alphabet='ab"\\[]{},:NIe\ud800\u00e9', max_size=5)
values = st.recursive(
    st.none() | st.integers(-9, 9) | st.floats() | any_names | st.sampled_from([nan, inf, -inf, 1e300]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(any_names, inner, max_size=4),
    max_leaves=40,
)


def find_non_finite(value, path=""):
    """The paths of the numbers that are not finite, in reading order."""
    if isinstance(value, float):
        return [] if isfinite(value) else [path.removeprefix(".").encode(errors="replace").decode() or "body"]
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in find_non_finite(item, f"{path}[{index}]")]
    items = value.items() if isinstance(value, dict) else ()
    return [found for name, item in items for found in find_non_finite(item, f"{path}.{name}")]


def refused_paths(text):
    """The paths of the numbers that are not finite; empty if the text is refused for another reason, or not at all."""
    try:
        parse_json(text, LIMITS)
    except DataError as error:
        return [problem.path for problem in error.problems if problem.message == NOT_FINITE]
    return []


@given(values, st.sampled_from([None, 1]), st.booleans())
def test_places_are_those_of_the_parsed_document(value, indent, ascii_only):
    """NaN and infinities have the same paths as in the document parsed by Python's lenient parser."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    document = json.loads(text.decode(errors="surrogatepass"))
    assert refused_paths(text) == find_non_finite(document)[:N_LISTED]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (b"[1e400, -1E+999, 1e300, 12e-400]", ["[0]", "[1]"]),
        (b'{"a": [0, {"NaN": Infinity}], "b": "NaN, 1e999"}', ["a[1].NaN"]),
        (b"-Infinity", ["body"]),
        (b'{"\\ud800": NaN}', ["?"]),
        (b"]]]NaN", []),  # no JSON at all
        (b'"NaN', []),
        (b"", []),
        (b"[" * 100 + b"NaN" + b"]" * 100, []),  # refused for its depth
    ],
)
def test_places_in_text_by_hand(text, paths):
    """Numbers too large for a double are found, and text in strings is ignored."""
    assert refused_paths(text) == paths


def fill(start, unit, end, n_bytes=TWO):
    """A body of a given size that repeats a unit between its ends."""
    return start + unit * ((n_bytes - len(start) - len(end)) // len(unit)) + end


ATTACKS = {
    "NaN at the end of one window": ((b'{"instances": [[[', b"0.12345678901,", b"NaN]]]}"), "instances[0][0]["),
    "infinity in a name's place": ((b'{"instances": [', b"0.12345678901,", b'0], "x": 1e999}'), "x must be"),
    "NaN": (
        (b'{"instances": [[[', b"NaN,      ", b"NaN]]]}"),
        "instances[0][0][0] must be finite; more than 20 values",
    ),
    "integers and NaN": ((b'{"instances": [[[', b"10,", b"NaN]]]}"), "instances[0][0]["),
    "strings": ((b'{"features": [', b'"f",', b"0]}"), "body holds"),
    "empty lists": ((b'{"instances": [', b"[],", b"[]]}"), "body holds"),
    "empty lists in one window": ((b'{"instances": [[', b"[],", b"[]]]}"), "body holds"),
    "zeros and NaN": ((b'{"instances": [', b"0,", b"NaN]}"), "body holds"),
    "objects": ((b'{"columns": [', b"{},", b"{}]}"), "body holds"),
    "depth": ((b'{"instances": ', b"[", b""), "body holds"),
}


@pytest.mark.parametrize("reader", [parse_windows, parse_object])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_large_body_that_is_refused_costs_little(name, reader, monkeypatch):
    """2 MB are refused in memory bounded by a multiple of the body, and by their counts without a parser."""
    parts, message = ATTACKS[name]
    body = fill(*parts)
    if message.startswith("body"):
        for parser in ("json", "orjson", "simdjson"):
            monkeypatch.delattr(bodies, parser)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as refused:
            reader(body, LARGE_LIMITS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(refused.value).startswith(message), str(refused.value)
    assert peak <= PARSED * len(body)


def test_windows_are_the_same_without_simdjson(monkeypatch):
    """Python 3.14, for which it has no wheel, reads the same numbers and refuses the same ones."""
    body = b'{"instances": [[[0.1, -1e-7]], [[3, 2.5e300]]], "output": "y"}'
    fast = parse_windows(body, LIMITS)
    monkeypatch.setattr(bodies, "simdjson", None)
    slow = parse_windows(body, LIMITS)
    assert fast.pop("instances").tolist() == slow.pop("instances") and fast == slow
    assert str(refuse(parse_windows, b'{"instances": [[[1, 1e999]]]}', LIMITS)).startswith("instances[0][0][1] must be")


def test_a_body_of_as_many_windows_as_may_be_is_read():
    """The largest allowed request in either form is not refused by its text."""
    limits = Limits(depth=64, windows=500, window_shape=(6, 4))
    windows = [[[0.5] * 4] * 6] * 500
    assert len(json.dumps({"instances": windows})) > LARGE
    assert parse_windows(json.dumps({"instances": windows}).encode(), limits)["instances"].shape == (500, 6, 4)
    columns = {name: [[0.5] * 6] * 500 for name in "abcd"}
    assert parse_windows(json.dumps({"columns": columns}).encode(), limits) == {"columns": columns}


def test_strings_are_cells_of_a_series():
    """So many as its rows have, on both sides of a comparison, beside the names of a request, and no more elsewhere."""
    limits = Limits(depth=32, windows=1, window_shape=(1, 2), rows=2000, texts=2)
    side = {"time": ["31.12.2023 23:00"] * 2000, "sky": ['"a": 1'] * 500 + ["clear"] * 500}
    body = {"series": side, "against": {"series": side}}
    assert parse_windows(json.dumps(body).encode(), limits) == body
    for wrong in (
        body | {"groups": {f"g{number}": ["sky"] for number in range(600)}},
        {"series": side | {f"c{number}": [0] for number in range(1100)}},
        {"series": 1, "features": ["sky"] * 1100},
        {"series": [["x"] * 1100]},
    ):
        with pytest.raises(DataError, match=r"body holds \d+ names and strings, more than the 1064 of a request"):
            parse_windows(json.dumps(wrong).encode(), limits)
    with pytest.raises(DataError, match=r"body holds 9\d+ names and strings, more than the 9064 of a request"):
        parse_windows(json.dumps({"series": {"sky": ["x"] * 9100}}).encode(), limits)


def test_colons_in_strings_are_no_members():
    """A name that is given twice is found beside them, and only that."""
    times = '{"series": {"time": ["2024-03-01T00:00", "a\\":[{\\\\"]%s}}'
    assert parse_object((times % "").encode(), LIMITS)["series"]["time"][1] == 'a":[{\\'
    with pytest.raises(DataError, match=r"series\.time is given twice"):
        parse_object((times % ', "time": []').encode(), LIMITS)


def test_large_bodies_are_parsed_off_the_event_loop(serve, folder, monkeypatch):
    """Bodies above some thousand bytes are parsed off the event loop; small ones on it, which is faster."""
    from service.operations import predict as predictions

    threads = {}
    parse = predictions.parse_windows

    def record(body, *arguments):
        threads[len(body) > LARGE] = threading.current_thread().name
        return parse(body, *arguments)

    monkeypatch.setattr(predictions, "parse_windows", record)
    with serve(models=folder / "two.safetensors") as client:
        for body in (b"{}", fill(*ATTACKS["NaN at the end of one window"][0])[:-1] + b" " * 8 + b"}"):
            answer = client.post("/v1/models/two:predict", content=body[:TWO], headers=JSON)
            assert answer.status_code == 422, answer.text
    assert threads[True].startswith("work") and not threads[False].startswith("work")


def test_a_body_of_unknown_length_holds_what_it_has_once_it_is_whole():
    """Beyond LARGE it may become as large as any, and takes so much; what it does not need is given back."""
    settings, room = Settings(max_body_bytes=4 << 20), Room(2, 16 << 20, lambda: 1.0)
    pieces = [bytes(LARGE)] * 3

    async def receive() -> dict[str, object]:
        piece = pieces.pop()
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def read() -> tuple[int, int]:
        request = Request({"type": "http", "headers": [(b"content-type", b"application/json")], "state": {}}, receive)
        with room.enter(("a", None)) as hold:
            body = await read_body(request, settings, hold, Deadline(30, asyncio.get_running_loop().time() + 30))
            return len(body), hold.n_bytes

    assert asyncio.run(read()) == (3 * LARGE, 2 * LARGE)
    assert room.n_bytes == 0
