from __future__ import annotations

import asyncio
import errno
import os
import re

import pytest
from factories import make_model, make_windows
from hypothesis import given
from hypothesis import strategies as st
from sockets import connect, head, is_closed, read_answer
from waiting import poll

from kanmodel.errors import ConfigError
from service.app import create_app
from service.models.repository import BUNDLED
from service.settings import Settings
from service.wire import security
from service.wire.errors import RequestError
from service.wire.security import HEALTH, KeyFile, RateLimits, owner_of, parse_keys

METER, READ, EXPLAIN, ADMIN, OTHER = (name * 8 for name in ("metr", "read", "expl", "admi", "othr"))
KEYS = (
    f"prometheus metrics {METER}; dashboard read {READ}; notebook explain {EXPLAIN} \n# the operator\nops admin {ADMIN}"
)
PREDICT, ASK = ("POST", "/v1/models/two:predict"), ("POST", "/v1/models/two:explain")
MODELS, METRICS = ("GET", "/v1/models"), ("GET", "/metrics")
LOAD = ("POST", "/v2/repository/models/two/load")


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module", autouse=True)
def no_limit():
    """Most tests here send unknown keys from one address, more of them than the limit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(security, "UNKNOWN_PER_MINUTE", 1_000_000)
        yield


@pytest.fixture(scope="module")
def client(serve, folder):
    """A client of a server that requires keys."""
    with serve(models=folder / "two.safetensors", keys=KEYS) as client:
        yield client


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic cmVhZDpyZWFk", READ, f"Token {READ}"])
def test_a_401_names_the_scheme(client, authorization):
    """The 401 names the scheme in WWW-Authenticate and has the common error schema."""
    answer = client.get("/v1/models", headers={} if authorization is None else {"Authorization": authorization})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "API key" in answer.json()["error"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_key_with_a_lower_scope_gets_the_required_one(client):
    """The 403 names the required scope."""
    answer = client.post("/v1/models/two:explain", headers=bearer(READ))
    assert answer.json()["error"] == "this needs an API key with the scope explain"


def test_distances_from_the_reference_windows_need_the_scope_of_these(client):
    """With `trust`, a forecast needs the scope explain."""
    body = {"instances": make_windows(make_model(targets=("a", "b")), 1).tolist()}
    for key, trust, status in ((READ, False, 200), (READ, True, 403), (EXPLAIN, True, 200)):
        answer = client.post("/v1/models/two:predict", json={**body, "trust": trust}, headers=bearer(key))
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/docs", "/openapi.json", "/docs/assets/favicon.png"])
def test_health_and_documentation_need_no_key(client, path):
    """Health and documentation contain no data of models."""
    assert client.get(path).status_code in (200, 307)


ROUTES = [  # method, path and declared scopes
    (route.stated.method, route.path_format, () if route.stated.scope is None else (route.stated.scope,))
    for route in create_app(Settings(models=BUNDLED / "nyc-weather.safetensors")).state.routes
]
VALUES = {"model": "two", "version": "1", "layer": "0", "i": "0", "j": "0", "index": "0"}


def test_every_route_declares_one_scope():
    """Every route except health declares a scope; without one it would be public."""
    assert len(ROUTES) == 38
    for method, path, scopes in ROUTES:
        if path in HEALTH:
            assert scopes == ()
        elif path.startswith("/v2/repository"):
            assert scopes == ("admin",), path
        else:
            computes = path.endswith((":explain", ":whatif", ":counterfactual", ":ablate", ":compare"))
            shows = computes or "/reference" in path or path.endswith("/drift")
            needed = "explain" if shows else "metrics" if path == "/metrics" else "read"
            assert scopes == (needed,), (method, path)


@pytest.mark.parametrize(("method", "path", "scopes"), ROUTES)
@pytest.mark.parametrize("version", [None, "1"])
def test_every_route_and_version_needs_its_scope(client, method, path, scopes, version):
    """With its scope the request reaches the app; a key with a lower scope gets 403, and no key 401."""
    url = re.sub(r"\{(\w+)[^}]*\}", lambda name: VALUES[name[1]], path)
    order = ["metrics", "read", "explain", "admin"]
    at_once = {"X-Request-Timeout": "0.001"}  # access is what counts here: results take seconds
    for number, key in enumerate((METER, READ, EXPLAIN, ADMIN), start=1):
        opens = set(order[:number])
        query = {"output": "a+1", **({"version": version} if version and path.startswith("/v1/models/{") else {})}
        answer = client.request(method, url, params=query if method == "GET" else None, headers=bearer(key) | at_once)
        code = answer.json().get("code") if answer.headers["content-type"] == "application/json" else None
        if set(scopes) <= opens:
            assert answer.status_code != 401 and code not in ("scope_missing", "path_not_found"), answer.text
        else:
            assert (answer.status_code, code) == (403, "scope_missing")
    for headers, code in (({}, "key_missing"), (bearer(OTHER), "key_unknown")):
        answer = client.request(method, url, headers=headers)
        if scopes:
            assert (answer.status_code, answer.json()["code"]) == (401, code)
        else:
            assert answer.status_code == 200


def test_an_answer_that_is_kept_needs_the_key_too(client):
    """The key is checked before the cache of responses is read."""
    path = "/v1/models/two/report?output=a%2B1"
    assert {client.get(path, headers=bearer(READ)).status_code for _ in range(3)} == {200}
    assert client.get(path).json()["code"] == "key_missing"
    assert client.get(path, headers=bearer(OTHER)).json()["code"] == "key_unknown"


@pytest.mark.parametrize("path", ["reference", "reference/0"])
def test_training_windows_need_the_scope_explain(client, path):
    """A key with the scope read does not get them, nor from the cache once another key has asked."""
    for _ in range(2):
        assert client.get(f"/v1/models/two/{path}", headers=bearer(READ)).json()["code"] == "scope_missing"
        assert client.get(f"/v1/models/two/{path}", headers=bearer(EXPLAIN)).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v1/nothing", "/v2/repository/models", "/metrics/all", "/v1/models/two:train"])
def test_unknown_paths_need_a_key(client, method, path):
    """Without a key the response is 401 rather than 404, so that it does not reveal what exists."""
    assert client.request(method, path).status_code == 401
    assert client.request(method, path, headers=bearer(OTHER)).status_code == 401
    assert client.request(method, path, headers=bearer(READ)).status_code == 404
    assert client.get("/explorer/nothing").status_code == 404  # static files are public


@pytest.mark.parametrize("path", ["/docs/../v1/models", "//v1/models", "/V1/models", "/explorer%2f..%2fv1/models"])
def test_no_spelling_of_a_path_avoids_the_key(client, path):
    """No spelling of a path reaches a model's data without a key."""
    with connect(client) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert read_answer(connection)[0].status in (401, 404)


def test_a_root_path_does_not_change_access(serve, folder):
    """Behind a root path, routes require the same scopes."""
    with serve(models=folder / "two.safetensors", keys=KEYS, root_path="/kanscope", wait=False) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.post("/v1/models/two:explain", headers=bearer(READ)).status_code == 403
        assert client.get("/v1/models", headers=bearer(READ)).status_code == 200


def test_keys_change_while_the_service_runs(serve, folder, tmp_path, caplog):
    """Removed keys stop working and new ones work; a broken file changes nothing, and a deleted one revokes all."""
    file = tmp_path / "keys"
    file.write_text(f"old read {READ}\n")

    def ask(client):
        return [client.get("/v1/models", headers=bearer(key)).status_code for key in (READ, OTHER)]

    with (
        caplog.at_level("INFO", security.__name__),
        serve(models=folder / "two.safetensors", keys_file=file, wait=False) as client,
    ):
        assert ask(client) == [200, 401]
        file.write_text(f"# rotated\nnew read {OTHER}\n")
        poll(lambda: ask(client) == [401, 200])
        for number, broken in enumerate(("new read", "", f"new write {OTHER}"), start=1):
            file.write_text(broken)
            poll(lambda number=number: caplog.text.count("the keys are unchanged") == number)
            assert ask(client) == [401, 200]
        file.unlink()
        poll(lambda: ask(client) == [401, 401])
        assert "keys is deleted: its keys are revoked" in caplog.text
        file.write_text(f"new read {OTHER}\n")
        poll(lambda: ask(client) == [401, 200])


def test_keys_that_are_replaced_while_they_are_read_are_read_again(tmp_path, monkeypatch):
    """A file that changes within the tick of the clock in which it was read, at the same size, is not missed."""
    file = tmp_path / "keys"
    file.write_text(f"old read {READ}\n")
    known = KeyFile(file)
    file.write_text(f"new read {OTHER}\n")
    monkeypatch.setattr(security, "_describe", lambda _: known._stamp)
    known.refresh()
    assert [key.name for key in known.keys] == ["new"]


def test_an_unreadable_key_file_changes_nothing(tmp_path, monkeypatch, caplog):
    """Where its disk fails, the keys stay as they are, and the log says so once."""
    file = tmp_path / "keys"
    file.write_text(f"old read {READ}\n")
    known = KeyFile(file)

    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(security.os, "stat", fail)
    monkeypatch.setattr(type(file), "open", lambda path, **options: fail(path))
    for _ in range(3):
        known.refresh()
    assert [key.name for key in known.keys] == ["old"]
    assert caplog.text.count("the keys are unchanged: cannot read the keys of") == 1


def test_the_key_file_is_not_read_on_the_event_loop(serve, folder, tmp_path, monkeypatch):
    """Requests do not look at the file; a thread does."""
    file = tmp_path / "keys"
    file.write_text(f"old read {READ}\n")
    looks = []
    stat = os.stat

    def record(path, *arguments, **options):
        if path == file:
            looks.append(asyncio._get_running_loop())
        return stat(path, *arguments, **options)

    with serve(models=folder / "two.safetensors", keys_file=file, wait=False) as client:
        monkeypatch.setattr(os, "stat", record)
        for _ in range(20):
            assert client.get("/v1/models", headers=bearer(READ)).status_code == 200
        poll(lambda: bool(looks))
    assert set(looks) == {None}


def test_unknown_keys_are_limited(serve, folder, monkeypatch):
    """Past the limit an unknown key gets 429, and its connection ends; known keys, no key and health are as before."""
    monkeypatch.setattr(security, "UNKNOWN_PER_MINUTE", 5)
    with serve(models=folder / "two.safetensors", keys=KEYS, wait=False) as client:
        with connect(client) as connection:
            guess = head("POST", ASK[1], f"Authorization: Bearer {OTHER}", "Content-Length: 0")
            for _ in range(5):
                connection.sendall(guess)
                assert read_answer(connection)[0].status == 401
            connection.sendall(guess * 3)
            refused, body = read_answer(connection)
            assert (refused.status, body["code"]) == (429, "rate_limited")
            assert refused.headers["connection"] == "close" and 1 <= int(refused.headers["retry-after"]) <= 60
            assert is_closed(connection)
        assert client.get("/v1/models", headers=bearer(OTHER)).status_code == 429
        assert client.get("/v1/models", headers=bearer(READ)).status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.get("/healthz", headers=bearer(OTHER)).status_code == 200


def test_the_limit_on_unknown_keys_is_by_address_and_bounded():
    """Other addresses are not affected, a minute later a request passes again, and no more addresses are kept."""
    now = 0.0
    limits = RateLimits(lambda: now)
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        limits.admit(address, 2, "too many")
    now = 20.5
    with pytest.raises(RequestError, match="too many") as refused:
        limits.admit("192.0.2.1", 2, "too many", {"Connection": "close"})
    assert refused.value.headers == {"Retry-After": "40", "Connection": "close"}
    limits.admit("192.0.2.2", 2, "too many")
    now = 60.0
    limits.admit("192.0.2.1", 2, "too many")
    for number in range(3 * security.MAX_CLIENTS):
        limits.admit(f"address {number}", 2, "too many")
    assert len(limits._times) <= security.MAX_CLIENTS


def test_other_addresses_do_not_clear_a_count():
    """A guesser at its limit stays there while others come, as long as it goes on guessing."""
    limits = RateLimits(lambda: 0.0)
    for address in ("192.0.2.1", "192.0.2.1"):
        limits.admit(address, 2, "too many")
    for number in range(3 * security.MAX_CLIENTS):
        limits.admit(f"address {number}", 2, "too many")
        if number % 100 == 0:
            with pytest.raises(RequestError, match="too many"):
                limits.admit("192.0.2.1", 2, "too many")


def test_no_key_is_in_an_answer_or_the_log(serve, folder, tmp_path, capfd, caplog):
    """No response and no log line contains a key, whether known, unknown or in an unreadable file."""
    file = tmp_path / "keys"
    file.write_text(f"dashboard read {READ}\n")
    answers = []
    with caplog.at_level("DEBUG"), serve(models=folder / "two.safetensors", keys_file=file, wait=False) as client:
        for key in (READ, OTHER):
            for method, path in (MODELS, PREDICT, ASK, LOAD):
                answers.append(client.request(method, path, headers=bearer(key)))
        file.write_text(f"dashboard read {READ} {OTHER}\n")
        poll(lambda: "keys are unchanged" in caplog.text)
    said = "".join([*(f"{answer.headers}{answer.text}" for answer in answers), *capfd.readouterr(), caplog.text])
    assert "keys are unchanged: keys, line 1, must be: name scope[,scope] key" in said
    assert '"client":"dashboard"' in said
    assert READ not in said and OTHER not in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"a {READ}", "line 2, must be: name scope[,scope] key"),
        (f"a read {READ} more", "line 2, must be: name scope[,scope] key"),
        (f"a read,write {READ}", "line 2, has an unknown scope: there are metrics, read, explain, admin"),
        ("a read short", "line 2, has a key that is not 16 or more of"),
        (f"a read {READ}\N{SNOWMAN}", "line 2, has a key that is not 16 or more of"),
        (f"a read {ADMIN}", "line 2, repeats the key of ops"),
    ],
)
def test_an_invalid_line_of_the_key_file_is_named(line, message):
    """The error has the line number and the reason, but no key."""
    with pytest.raises(ConfigError) as refused:
        parse_keys([f"ops admin {ADMIN}", line], "keys")
    assert message in str(refused.value)
    assert READ not in str(refused.value) and "short" not in str(refused.value)


def test_a_file_without_keys_is_refused_at_the_start(tmp_path):
    """A service that requires keys does not start with a file that has none."""
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ConfigError, match="keys has no key"):
        KeyFile(tmp_path / "keys")
    with pytest.raises(ConfigError, match="No such file"):
        KeyFile(tmp_path / "none")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_listening_beyond_loopback_needs_keys(run, host, monkeypatch):
    """The command needs keys or --no-auth to listen beyond loopback, and refuses both together."""
    code, _, err = run("serve", "--host", host)
    assert code == 2
    ways = "set KANSCOPE_KEYS_FILE or KANSCOPE_KEYS, or KANSCOPE_NO_AUTH=true (--no-auth)"
    assert err == f"kanscope: {host} can be reached by others: {ways}\n"
    assert create_app(Settings(host=host, no_auth=True))
    assert create_app(Settings(host=host, keys=KEYS))
    monkeypatch.setenv("KANSCOPE_KEYS", KEYS)
    code, _, err = run("serve", "--host", host, "--no-auth")
    assert code == 2 and "set one of them" in err and ADMIN not in err


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_keys(host):
    """On loopback the service starts without keys."""
    assert create_app(Settings(host=host))


@pytest.fixture(scope="module")
def local(serve, folder):
    """A client of a server on loopback with two names of its own."""
    with serve(models=folder / "two.safetensors", allowed_hosts="kanscope.test, other.test", wait=False) as client:
        yield client


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("kanscope.test", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("evil.example@localhost", 421),
        ("[::1].evil.example", 421),
        ("", 421),
    ],
)
def test_on_loopback_other_hosts_are_refused(local, host, status):
    """The Host header must name loopback or a host of the setting, which prevents DNS rebinding."""
    answer = local.get("/v1/models", headers={"Host": host})
    assert answer.status_code == status
    if status == 421:
        assert "allowed_hosts" in answer.json()["error"]


def test_beyond_loopback_any_host_is_served(serve, folder):
    """Beyond loopback any Host header is accepted, since the service cannot know its names."""
    with serve(host="0.0.0.0", no_auth=True, models=folder / "two.safetensors", wait=False) as client:
        assert client.get("/v1/models", headers={"Host": "kanscope.example"}).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v1/nothing", "/docs", "/explorer/", "/metrics"])
def test_media_types_are_not_sniffed(service, path):
    """Every response has `X-Content-Type-Options: nosniff`."""
    assert service.get(path).headers.get_list("x-content-type-options") == ["nosniff"]


LINE = f"dashboard read {READ} 5/minute"


def test_a_key_may_have_a_rate_limit(serve, folder):
    """Above the limit the key gets 429 with Retry-After; health, other keys and other requests are not affected."""
    keys = f"{LINE}; notebook explain {EXPLAIN}"
    with serve(models=folder / "two.safetensors", keys=keys) as client:
        answers = [client.get("/v1/models", headers=bearer(READ)) for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
        refused = answers[-1]
        assert (refused.json()["code"], refused.json()["title"]) == ("rate_limited", "Too Many Requests")
        assert refused.json()["error"] == "the key dashboard is limited to 5 requests per minute"
        assert 50 <= int(refused.headers["retry-after"]) <= 60
        assert client.get("/v1/models", headers=bearer(EXPLAIN)).status_code == 200
        assert client.get("/healthz", headers=bearer(READ)).status_code == 200
        assert client.get("/metrics", headers=bearer(READ)).status_code == 429


def test_a_request_counts_once(serve, folder):
    """Cached responses, forecasts and explanations count once each; refused requests do not count."""
    with serve(models=folder / "two.safetensors", keys=f"dashboard read {READ} 6/minute") as client:
        report = "/v1/models/two/report?output=a%2B1"
        asked = [("POST", ASK[1]), ("GET", report), ("GET", report), PREDICT, MODELS, ("GET", "/v1/nothing"), METRICS]
        statuses = [client.request(*one, headers=bearer(READ)).status_code for one in asked]
        assert statuses == [403, 200, 200, 415, 200, 404, 200]
        assert client.get("/v1/models", headers=bearer(READ)).status_code == 429


@given(
    per_minute=st.integers(1, 6),
    waits=st.lists(st.integers(0, 160).map(lambda quarters: quarters / 4), min_size=1, max_size=60),
)
def test_the_rate_limit_holds_in_any_minute(per_minute, waits):
    """A request passes exactly if fewer than the limit passed in the minute before; Retry-After suffices."""
    now = 0.0
    limits = RateLimits(lambda: now)
    admitted = []
    for wait in waits:
        now += wait
        recent = sum(now - time < 60 for time in admitted)
        try:
            limits.admit("key", per_minute, "too many")
        except RequestError as error:
            assert recent == per_minute
            now += int(error.headers["Retry-After"])
            limits.admit("key", per_minute, "too many")
        else:
            assert recent < per_minute
        admitted.append(now)


@pytest.mark.parametrize(
    "rate", ["0/minute", "600", "600/hour", "-1/minute", "1e3/minute", "1000001/minute", "05/minute"]
)
def test_an_invalid_rate_limit_is_named(rate):
    """The error states the format of a line, and contains no key."""
    with pytest.raises(
        ConfigError, match=r"keys, line 1, must be: name scope\[,scope\] key \[requests/minute\]"
    ) as refused:
        parse_keys([f"a read {READ} {rate}"], "keys")
    assert READ not in str(refused.value)


def test_a_changed_rate_limit_holds(serve, folder, tmp_path, caplog):
    """Requests made before the change count."""
    file = tmp_path / "keys"
    file.write_text(f"dashboard read {READ} 4/minute\n")
    with (
        caplog.at_level("INFO", security.__name__),
        serve(models=folder / "two.safetensors", keys_file=file, wait=False) as client,
    ):

        def ask():
            return client.get("/v1/models", headers=bearer(READ)).status_code

        assert [ask() for _ in range(3)] == [200] * 3
        file.write_text(f"dashboard read {READ} 2/minute\n")
        poll(lambda: "read 1 keys" in caplog.text)
        assert ask() == 429
        file.write_text(f"dashboard read {READ} 30/minute\n")
        poll(lambda: ask() == 200)


UNLOAD = "/v2/repository/models/two/unload"
OWN = "http://127.0.0.1:{port}"


@pytest.fixture(scope="module", params=["127.0.0.1", "0.0.0.0"])
def repository(request, serve, folder):
    """A client of a server whose models browsers could load and unload."""
    options = {"no_auth": True, "host": request.param} if request.param == "0.0.0.0" else {}
    settings = {"models": folder / "two.safetensors", "repository_api": True, **options}
    with serve(**settings, allowed_origins="https://friend.example") as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # not a browser
        ({"Sec-Fetch-Site": "same-origin", "Origin": OWN}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": OWN}, 200),  # a browser that sends no Origin
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://other.127.0.0.1"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://friend.example"}, 200),  # listed in the setting
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://127.0.0.1.evil.example:8000"}, 403),
    ],
)
def test_cross_origin_requests_change_nothing(repository, headers, status):
    """Cross-origin requests that change state are refused, with and without keys (CSRF)."""
    sent = {name: value.format(port=repository.base_url.port) for name, value in headers.items()}
    answer = repository.post(UNLOAD, headers=sent)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert repository.post(LOAD[1], headers=sent).status_code == 200
        return
    assert answer.json()["code"] == "cross_site"
    assert repository.get("/v1/models/two", headers=sent).status_code == 200  # reading changes nothing
    for path in ("/v2/models/two/infer", "/v1/models/two:predict"):  # which a form may post without a preflight
        assert repository.post(path, headers=sent, content=b"{}").json()["code"] == "cross_site"


def test_cors_is_off_unless_origins_are_listed(serve, folder):
    """CORS is off by default; listed origins get it with the headers that clients need, and preflight without a key."""
    asks = {"Origin": "https://friend.example"}
    preflight = {**asks, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with serve(models=folder / "two.safetensors", wait=False) as client:
        for answer in (client.get("/v1/models", headers=asks), client.options(PREDICT[1], headers=preflight)):
            assert not any(name.startswith("access-control") for name in answer.headers)
    settings = {"models": folder / "two.safetensors", "keys": KEYS, "allowed_origins": "https://friend.example"}
    with serve(**settings, wait=False) as client:
        answer = client.options(PREDICT[1], headers=preflight)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, asks["Origin"])
        assert "Authorization" in answer.headers["access-control-allow-headers"]
        answer = client.get("/v1/models", headers={**asks, **bearer(READ)})
        assert answer.headers["access-control-allow-origin"] == asks["Origin"]
        assert {"ETag", "Retry-After", "X-Request-Id"} <= set(
            answer.headers["access-control-expose-headers"].split(", ")
        )
        other = {"Origin": "https://evil.example", **bearer(READ)}
        assert "access-control-allow-origin" not in client.get("/v1/models", headers=other).headers
        assert client.options(PREDICT[1], headers={**preflight, **other}).status_code == 400


@pytest.mark.parametrize("origins", ["*", "friend.example", "https://friend.example/page", "https://a.example b"])
def test_an_invalid_origin_is_refused_at_startup(origins):
    """The error is one sentence."""
    with pytest.raises(ConfigError, match=r"allowed_origins must be such as https://example\.org"):
        create_app(Settings(allowed_origins=origins))


@pytest.mark.parametrize(
    ("address", "owner"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("/run/kanscope.sock", "/run/kanscope.sock"),
    ],
)
def test_an_ipv6_client_is_its_network(address, owner):
    """A client has all addresses of its /64 network, so they are one owner."""
    assert owner_of(address) == owner
