"""Cached responses equal computed ones, are compressed if the client accepts it, and revalidate by ETag."""

from __future__ import annotations

import gzip
import tracemalloc
import weakref

import pytest
from factories import make_model
from fastapi import Response
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.checkpoint import save_checkpoint
from service.models.registry import Registry
from service.wire.headers import takes_gzip
from service.wire.json import JSON
from service.work.cache import OVERHEAD, Answer, Answers, names_etag

REGISTRY = Registry(None)
PATHS = ("attributions", "topology", "topology/fidelity", "edges", "edges/0/0/0", "report")


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_is_the_same_each_time(service, path):
    """Repeated requests get the same bytes, and 304 for a client that sends the ETag."""
    first, second = (service.get(f"/v1/models/nyc-weather/{path}") for _ in range(2))
    assert first.content == second.content and first.headers["etag"] == second.headers["etag"]
    assert first.headers["vary"] == "Accept, Accept-Encoding, Authorization"
    known = service.get(f"/v1/models/nyc-weather/{path}", headers={"If-None-Match": first.headers["etag"]})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", first.headers["etag"])


def test_responses_are_compressed_if_accepted(service):
    """The compressed body decompresses to the plain one, and has its own ETag."""
    url = "/v1/models/nyc-weather/topology"
    plain = service.get(url, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    with service.client.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as answer:
        compressed = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["etag"] != plain.headers["etag"]
    assert gzip.decompress(compressed) == plain.content
    assert len(compressed) < len(plain.content) / 2


def test_query_and_media_type_are_part_of_the_key(service):
    """The query and the media type are part of the cache key."""
    url = "/v1/models/nyc-weather/"
    answers = [
        service.get(url + "topology?fidelity=0.9"),
        service.get(url + "topology?fidelity=0.99"),
        service.get(url + "report"),
        service.get(url + "report", headers={"Accept": "text/markdown"}),
        service.get(url + "report", headers={"Accept": "application/json"}),
    ]
    assert len({answer.content for answer in answers}) == 4
    assert answers[2].content == answers[4].content
    assert answers[3].headers["content-type"].startswith("text/markdown")


def test_an_error_is_not_cached(service):
    """An error is not cached: each response has its own request id."""
    first, second = (service.get("/v1/models/nyc-weather/topology?fidelity=2") for _ in range(2))
    assert first.status_code == second.status_code == 422
    assert first.json()["request_id"] != second.json()["request_id"]
    assert "etag" not in first.headers


@pytest.mark.parametrize(
    ("url", "accepts"),
    [
        (
            "report",
            [
                "text/html",
                "text/html;q=0.9,*/*;q=0.1",
                "text/html, application/json;q=0.2",
                "text/markdown;q=0, text/html ;q=1",
                "TEXT/HTML",
            ],
        ),
        ("attributions", ["application/json", "*/*", "application/*;q=0.3", "", "image/svg+xml;q=0.1, */*"]),
    ],
)
def test_an_answer_is_cached_by_its_media_type_however_accept_spells_it(serve, folder, url, accepts):
    """Different headers that choose the same form have one answer, which is computed once."""
    written = []
    path = f"/v1/models/head/{url}"
    with serve(models=folder / "head.safetensors") as client, pytest.MonkeyPatch.context() as patched:
        make = Answer.of
        patched.setattr(Answer, "of", lambda response: written.append(response.media_type) or make(response))
        answers = [client.get(path, headers={"Accept": accept}) for accept in accepts]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["etag"] for answer in answers}) == len(written) == 1


def kept(*pairs, size, registry=REGISTRY):
    """A cache to which responses of given lengths were added one after the other."""
    cache = Answers(size, registry.index)
    for name, length in pairs:
        keep(cache, name, length, registry)
    return cache


def keep(cache, name, length, registry=REGISTRY):
    cache.keep(asking(name), JSON, registry.index(), Answer.of(Response(bytes(length))))


def asking(name):
    return {"path": f"/{name}", "query_string": b"", "headers": []}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), max_size=60), st.integers(0, 5 * OVERHEAD))
def test_the_cache_holds_no_more_than_its_size(pairs, size):
    """The cached bytes stay within the bound, and each key has its latest value."""
    cache = kept(*pairs, size=size)
    there = {name: answer for name in range(10) if (answer := cache.get(asking(name), JSON)) is not None}
    assert sum(answer.size + OVERHEAD for answer in there.values()) <= size
    assert all(answer.size == dict(pairs)[name] for name, answer in there.items())


def test_cached_responses_stay_within_the_memory_bound():
    """Keys and the overhead of small objects count towards the bound."""
    size = 4 << 20
    tracemalloc.start(8)
    try:
        cache = Answers(size, REGISTRY.index)
        for number in range(6000):
            query = b"fidelity=0." + str(number).encode() * (1 if number % 2 else 2000)
            scope = {"path": f"/v1/models/m/topology/{number}", "query_string": query, "headers": []}
            cache.keep(scope, JSON, REGISTRY.index(), Answer.of(Response(bytes(number % 3000))))
            del scope, query
        own = tracemalloc.Filter(inclusive=True, filename_pattern=__file__, all_frames=True)  # not of other threads
        held = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([own]).traces)
    finally:
        tracemalloc.stop()
    assert size / 4 < held <= size


def test_the_least_recently_used_response_is_evicted():
    """The least recently used responses are evicted first."""
    cache = kept(("a", 10), ("b", 10), size=2 * (10 + OVERHEAD + 8 + len(JSON)))
    cache.get(asking("a"), JSON)
    keep(cache, "c", 10)
    assert [cache.get(asking(name), JSON) is not None for name in "abc"] == [True, False, True]


def test_a_change_of_models_clears_the_cache(tmp_path):
    """After a change of the models, responses cached before are not sent."""
    save_checkpoint(make_model("head"), tmp_path / "a.safetensors")
    registry = Registry(tmp_path)
    registry.load()
    before = registry.index()
    cache = kept(("a", 10), size=2 * OVERHEAD, registry=registry)
    assert cache.get(asking("a"), JSON) is not None
    registry.unload_model("a")
    assert cache.get(asking("a"), JSON) is None
    cache.keep(asking("a"), JSON, before, Answer.of(Response(b"a")))  # computed from the old models
    assert cache.get(asking("a"), JSON) is None


def test_cached_responses_do_not_keep_models_alive(tmp_path):
    """Cached responses do not keep the checkpoint that they were computed from in memory."""
    save_checkpoint(make_model("head"), tmp_path / "a.safetensors")
    registry = Registry(tmp_path)
    registry.load()
    gone = weakref.ref(registry.get("a").model)
    cache = kept(("a", 10), size=2 * OVERHEAD, registry=registry)
    registry.unload_model("a")
    assert cache.get(asking("b"), JSON) is None
    assert gone() is None  # at once: objects frozen out of garbage collection would never be freed


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        ("gzip", True),
        ("GZip", True),
        ("br, gzip;q=0.5", True),
        ("*", True),
        ("*;q=0, gzip", True),
        ("gzip, *;q=0", True),
        ("gzip ;q=0.001", True),
        ("br;q=1, *;q=0.1", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("gzip;q=0, *", False),
        ("*, gzip;q=0", False),
        ("*;q=0", False),
        ("br", False),
        ("", False),
    ],
)
def test_accepts_gzip(accepted, taken):
    """gzip is accepted by its own quality if listed, in any order, otherwise by that of *."""
    assert takes_gzip(accepted) is taken


@pytest.mark.parametrize(
    ("header", "named"), [(b'"a"', True), (b'"b", W/"a"', True), (b"*", True), (b'"ab"', False), (b"", False)]
)
def test_matches_etag(header, named):
    """ETags match by value, weak or strong, in a list, or by *."""
    assert names_etag(header, b'"a"') is named
