from __future__ import annotations

import pytest

from service.http.errors import NotAcceptableError
from service.http.negotiation import choose_media_type

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
def test_no_acceptable_type_is_an_error(accept):
    """A client that accepts none of the types gets an error."""
    with pytest.raises(NotAcceptableError, match="the response is application/json"):
        choose_media_type(accept, ("application/json",))
