from __future__ import annotations

import json
import re
from math import inf

import numpy as np
import pytest
from factories import make_windows
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from kanmodel.errors import DataError
from service.wire.bodies import Limits, parse_object, parse_windows

JSON = {"Content-Type": "application/json"}
N_WINDOWS = 2
LIMITS = Limits(depth=32, windows=50, window_shape=(3, 2))
MODERATE = 1e6  # numbers up to this are finite in any unit and type

numbers = st.integers(-(10**400), 10**400) | st.floats() | st.sampled_from([1e39, -0.0, 5e-324, 2**63, 2**64])
others = st.none() | st.booleans() | st.text(max_size=4) | numbers
anything = st.recursive(
    others,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
verbs = st.sampled_from(["predict", "explain"])


@pytest.fixture(scope="module")
def ask(service):
    """Sends a body to the model `two` and checks that the response is one of the documented ones."""

    def ask(verb, body):
        answer = service.client.post(f"/v1/models/two:{verb}", content=body, headers=JSON)
        document = answer.json()
        assert answer.status_code in (200, 404, 422), document
        assert ("predictions" in document) == (answer.status_code == 200)
        return answer

    return ask


@pytest.fixture(scope="module", params=["instances", "columns", "series"])
def document(request, service):
    """A valid request to explain, in each form."""
    model = service.models["two"]
    windows = make_windows(model, N_WINDOWS)
    names, lookback = model.config.feature_names, model.config.lookback
    columns = {name: windows[..., f].tolist() for f, name in enumerate(names)}
    series = {name: windows[..., f].ravel()[: lookback + N_WINDOWS - 1].tolist() for f, name in enumerate(names)}
    return {
        request.param: {"instances": windows.tolist(), "columns": columns, "series": series}[request.param],
        "output": ["a+1", "b+2"],
        "detail": "steps",
        "baseline": {"values": dict.fromkeys(model.config.feature_names, 0.5)},
        "tolerance": 0.01,
    }


def write(value):
    """JSON as Python writes it, with NaN, infinities, long numbers and lone surrogates."""
    return json.dumps(value).encode()


def fits(value, shape, limit):
    """Whether a JSON value is a nested list of this shape with numbers up to a limit."""
    if not shape:
        return type(value) in (int, float) and abs(value) <= limit
    return type(value) is list and len(value) == shape[0] and all(fits(item, shape[1:], limit) for item in value)


@settings(max_examples=examples(40))
@given(verbs, st.binary(max_size=200))
def test_any_bytes(ask, verb, body):
    """Bytes that are not a JSON object of windows are refused."""
    assert ask(verb, body).status_code == 422


@settings(max_examples=examples(40))
@given(verbs, anything)
def test_any_json(ask, verb, value):
    """JSON that is not an object of windows is refused."""
    assert ask(verb, write(value)).status_code == 422


@settings(max_examples=examples(60))
@given(part=st.data())
def test_any_value_in_any_place(ask, document, part):
    """A request with one value replaced by any other is answered or refused."""
    changed = json.loads(write(document))
    owner, key = changed, part.draw(st.sampled_from(sorted(changed)))
    while isinstance(owner[key], (dict, list)) and owner[key] and part.draw(st.booleans()):
        owner = owner[key]
        key = part.draw(st.sampled_from(sorted(owner) if isinstance(owner, dict) else range(len(owner))))
    owner[key] = part.draw(anything)
    ask("explain", write(changed))


@settings(max_examples=examples(60))
@given(part=st.data())
def test_windows_are_read_where_they_fit_and_refused_else(ask, service, part):
    """Windows are forecast exactly if they are numbers in the model's shape, and refused otherwise."""
    windows = make_windows(service.models["two"], N_WINDOWS).tolist()
    shape = (len(windows), len(windows[0]), len(windows[0][0]))
    owner, key = windows, part.draw(st.integers(0, shape[0] - 1))
    for size in shape[1 : part.draw(st.integers(1, 3))]:
        owner, key = owner[key], part.draw(st.integers(0, size - 1))
    owner[key] = part.draw(anything | st.floats(-MODERATE, MODERATE) | st.just([]))
    answer = ask("predict", write({"instances": windows}))
    if fits(windows, shape, MODERATE):
        assert answer.status_code == 200
        assert len(answer.json()["predictions"]) == N_WINDOWS
    elif not fits(windows, shape, inf):
        assert answer.status_code == 422


@settings(max_examples=examples(40))
@given(
    members=st.lists(st.tuples(st.sampled_from(["a", "b", "instances"]), anything), max_size=4), at=st.integers(0, 4)
)
def test_both_readers_agree_on_other_members(members, at):
    """Both readers agree on the other members, and on which of two members of one name is refused."""
    instances = [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]
    members.insert(at, ("instances", instances))
    body = b"{%s}" % b",".join(write(name) + b":" + write(value) for name, value in members)
    try:
        expected = parse_object(body, LIMITS)
    except DataError as error:
        with pytest.raises(DataError, match=re.escape(str(error))):
            parse_windows(body, LIMITS)
    else:
        read = parse_windows(body, LIMITS)
        if isinstance(read["instances"], np.ndarray):
            read["instances"] = read["instances"].tolist()
        assert read == expected


@settings(max_examples=examples(30))
@given(cuts=st.lists(st.floats(0, 1), min_size=4, max_size=4), other=st.none() | st.binary(max_size=16))
def test_any_splice(ask, document, cuts, other):
    """A request with a part of its text replaced is answered or refused."""
    body = write(document)
    start, end, first, last = (int(fraction * len(body)) for fraction in cuts)
    ask("explain", body[:start] + (body[first:last] if other is None else other) + body[end:])
