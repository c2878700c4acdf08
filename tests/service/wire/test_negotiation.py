from __future__ import annotations

from time import process_time

import pytest
from sockets import connect, head, read_answer

from service.wire.headers import choose_media_type

OFFERED = ("application/json", "application/x-ndjson")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("Application/X-NDJSON", "application/x-ndjson"),
        ("application/x-ndjson, */*", "application/x-ndjson"),
        ("application/x-ndjson;q=0.5, application/json", "application/json"),
        ("application/json;q=0.5, application/x-ndjson;q=0.6", "application/x-ndjson"),
        ("application/json;q=0, */*", "application/x-ndjson"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("application/json; charset=utf-8", "application/json"),
        ("application/x-ndjson;q=none", "application/x-ndjson"),
    ],
)
def test_the_best_acceptable_type_is_chosen(accept, chosen):
    """The highest quality wins, then the most specific type, then the server's order."""
    assert choose_media_type(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "*/*;q=0", "json", ","])
def test_no_type_is_chosen_that_is_not_acceptable(accept):
    """None is chosen for a client that accepts none of the types."""
    assert choose_media_type(accept, ("application/json",)) is None


def measure(connection, path, name, value):
    """Least processor time of a request with a header, which differs each time, as caches would hold it."""
    seconds = []
    for number in range(10):
        start = process_time()
        connection.sendall(head("GET", path, f"{name}: {number}{value}"))
        assert read_answer(connection)[0].status in (200, 406)
        seconds.append(process_time() - start)
    return min(seconds)


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/v1/models", "Accept", ",*/*" + "," * 58_000),
        ("/healthz", "Accept", ",a" * 29_000),
        ("/v1/models/two/topology?output=a%2B1", "Accept", ",*/*" + "," * 58_000),
        ("/v1/models/two/topology?output=a%2B1", "Accept-Encoding", ",a" * 29_000),
        ("/v1/models/two/topology?output=a%2B1", "If-None-Match", ",a" * 29_000),
        ("/healthz", "Cookie", ";a" * 29_000),
    ],
)
def test_a_long_list_takes_no_time(service, path, name, value):
    """A header of 58 KB that would be parsed item by item takes no longer than one that is not read."""
    with connect(service.client) as connection:
        of_other = measure(connection, path, "X-Other", value)
        assert measure(connection, path, name, value) < 3 * of_other + 0.001


def test_a_long_list_is_disregarded(service):
    """Beyond 1024 bytes a list counts as absent; up to them it is read."""
    ranges = "text/html," * 102
    assert service.get("/v1/models", headers={"Accept": f"{ranges}a/b"}).status_code == 406
    assert service.get("/v1/models", headers={"Accept": f"{ranges}a/bcd"}).status_code == 200
