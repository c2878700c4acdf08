from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sockets import connect, read_answer

from kanmodel.errors import ConfigError
from service.app import create_app
from service.http.security import KeyFile, needed_scope, parse_keys
from service.settings import Settings

READ, EXPLAIN, ADMIN, OTHER = ("".join(name * 8) for name in ("read", "expl", "admi", "othr"))
KEYS = f"dashboard read {READ}; notebook explain {EXPLAIN} \n# the operator\nops admin {ADMIN}"
PREDICT, ASK = ("POST", "/v1/models/two:predict"), ("POST", "/v1/models/two:explain")
MODELS, METRICS = ("GET", "/v1/models"), ("GET", "/metrics")
LOAD = ("POST", "/v2/repository/models/two/load")


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def client(serve, folder):
    """A client of a server that wants keys."""
    with serve(models=folder / "two.safetensors", keys=KEYS) as client:
        yield client


@pytest.mark.parametrize(
    ("key", "method", "path", "status"),
    [
        *((READ, *asked, status) for asked, status in ((MODELS, 200), (METRICS, 200), (PREDICT, 415), (ASK, 403))),
        *((EXPLAIN, *asked, status) for asked, status in ((MODELS, 200), (PREDICT, 415), (ASK, 415), (LOAD, 403))),
        *((ADMIN, *asked, status) for asked, status in ((MODELS, 200), (PREDICT, 415), (ASK, 415), (LOAD, 403))),
        *((OTHER, *asked, 401) for asked in (MODELS, METRICS, PREDICT, ASK, LOAD, ("GET", "/v1/nothing"))),
    ],
)
def test_a_key_opens_what_its_scopes_say(client, key, method, path, status):
    """A scope includes the lesser ones; 403 is for a lesser key, 401 for an unknown one, the rest is the app's own."""
    assert client.request(method, path, headers=bearer(key)).status_code == status


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic cmVhZDpyZWFk", READ, f"Token {READ}"])
def test_without_a_key_the_answer_says_how_to_send_one(client, authorization):
    """401 names the scheme in its header, and is an error as any other."""
    answer = client.get("/v1/models", headers={} if authorization is None else {"Authorization": authorization})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "API key" in answer.json()["error"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_lesser_key_is_told_the_scope(client):
    """403 names the scope that is needed."""
    answer = client.post("/v1/models/two:explain", headers=bearer(READ))
    assert answer.json()["error"] == "this needs an API key with the scope explain"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/docs", "/openapi.json", "/docs/assets/favicon.png"])
def test_health_and_documentation_need_no_key(client, path):
    """They say nothing about the models' data."""
    assert client.get(path).status_code in (200, 307)


@given(st.sampled_from(["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]), st.text())
def test_what_nobody_thought_of_needs_admin(method, path):
    """A route that the table of scopes doesn't know is closed to lesser keys, unless it only reads."""
    known = (":predict", "/infer", ":explain")
    assert needed_scope(method, f"/{path}") == "admin" or path.endswith(known)
    assert needed_scope("GET", f"/v1/{path}") == "read"


@pytest.mark.parametrize("path", ["/docs/../v1/models", "//v1/models", "/V1/models", "/explorer%2f..%2fv1/models"])
def test_no_spelling_of_a_path_avoids_the_key(client, path):
    """What needs no key by its path is no model's data, however the path is written."""
    with connect(client) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert read_answer(connection)[0].status in (401, 404)


def test_a_proxys_path_changes_nothing(serve, folder):
    """Under a root path the same routes need the same scopes."""
    with serve(models=folder / "two.safetensors", keys=KEYS, root_path="/kanscope", wait=False) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.post("/v1/models/two:explain", headers=bearer(READ)).status_code == 403
        assert client.get("/v1/models", headers=bearer(READ)).status_code == 200


def test_keys_change_while_the_service_runs(serve, folder, tmp_path):
    """A key that is taken out of the file is refused at once, a new one opens; a broken file changes nothing."""
    file = tmp_path / "keys"
    file.write_text(f"old read {READ}\n")

    def ask(client):
        return [client.get("/v1/models", headers=bearer(key)).status_code for key in (READ, OTHER)]

    with serve(models=folder / "two.safetensors", keys_file=file, wait=False) as client:
        assert ask(client) == [200, 401]
        file.write_text(f"# rotated\nnew read {OTHER}\n")
        assert ask(client) == [401, 200]
        for broken in ("new read", "", f"new write {OTHER}"):
            file.write_text(broken)
            assert ask(client) == [401, 200]
        file.unlink()
        assert ask(client) == [401, 200]


def test_no_key_is_in_an_answer_or_the_log(serve, folder, tmp_path, capfd, caplog):
    """Neither a known nor an unknown key is repeated anywhere, nor is one of a file that cannot be read."""
    file = tmp_path / "keys"
    file.write_text(f"dashboard read {READ}\n")
    answers = []
    with caplog.at_level("DEBUG"), serve(models=folder / "two.safetensors", keys_file=file, wait=False) as client:
        for key in (READ, OTHER):
            for method, path in (MODELS, PREDICT, ASK, LOAD):
                answers.append(client.request(method, path, headers=bearer(key)))
        file.write_text(f"dashboard read {READ} {OTHER}\n")
        client.get("/v1/models", headers=bearer(READ))
    said = "".join([*(f"{answer.headers}{answer.text}" for answer in answers), *capfd.readouterr(), caplog.text])
    assert "keys stay as they were: keys, line 1, must be: name scope[,scope] key" in said
    assert '"client":"dashboard"' in said
    assert READ not in said and OTHER not in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"a {READ}", "line 2, must be: name scope[,scope] key"),
        (f"a read {READ} more", "line 2, must be: name scope[,scope] key"),
        (f"a read,write {READ}", "line 2, has an unknown scope: there are read, explain, admin"),
        ("a read short", "line 2, has a key that is not 16 or more of"),
        (f"a read {READ}\N{SNOWMAN}", "line 2, has a key that is not 16 or more of"),
        (f"a read {ADMIN}", "line 2, has the key of ops again"),
    ],
)
def test_a_line_that_is_no_key_is_named(line, message):
    """The error says which line and why, and holds no key."""
    with pytest.raises(ConfigError) as refused:
        parse_keys([f"ops admin {ADMIN}", line], "keys")
    assert message in str(refused.value)
    assert READ not in str(refused.value) and "short" not in str(refused.value)


def test_a_file_without_keys_is_refused_at_the_start(tmp_path):
    """A service that wants keys has some."""
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ConfigError, match="keys holds no key"):
        KeyFile(tmp_path / "keys")
    with pytest.raises(ConfigError, match="No such file"):
        KeyFile(tmp_path / "none")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_an_address_that_others_reach_needs_keys(run, host, monkeypatch):
    """The command ends in one sentence unless there are keys or --no-auth is said; both together is a contradiction."""
    code, _, err = run("serve", "--host", host)
    assert code == 2
    assert (
        err == f"kanscope: {host} can be reached by others: set KANSCOPE_KEYS_FILE or KANSCOPE_KEYS, or say --no-auth\n"
    )
    assert create_app(Settings(host=host, no_auth=True))
    assert create_app(Settings(host=host, keys=KEYS))
    monkeypatch.setenv("KANSCOPE_KEYS", KEYS)
    code, _, err = run("serve", "--host", host, "--no-auth")
    assert code == 2 and "give one of them" in err and ADMIN not in err


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_an_address_of_this_machine_needs_none(host):
    """On loopback the service starts without keys."""
    assert create_app(Settings(host=host))


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
def test_on_loopback_other_hosts_are_refused(serve, folder, host, status):
    """A web page whose name leads to this machine asks for nothing; names of the setting do."""
    with serve(models=folder / "two.safetensors", allowed_hosts="kanscope.test, other.test", wait=False) as client:
        answer = client.get("/v1/models", headers={"Host": host})
    assert answer.status_code == status
    if status == 421:
        assert "allowed_hosts" in answer.json()["error"]


def test_elsewhere_any_host_is_served(serve, folder):
    """An address that others reach has names that the service can't know."""
    with serve(host="0.0.0.0", no_auth=True, models=folder / "two.safetensors", wait=False) as client:
        assert client.get("/v1/models", headers={"Host": "kanscope.example"}).status_code == 200
