from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import DataError
from service.wire.bodies import Limits, parse_object, parse_windows
from service.wire.errors import cause_of
from service.wire.windows import Axis, read_array

LIMITS = Limits(depth=32, windows=50, window_shape=(1, 2))
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
    assert cause_of(error)[1] == "not_finite"


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
