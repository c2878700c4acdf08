from __future__ import annotations

import re
import threading
from shutil import copytree

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from waiting import poll

import kanmodel
from service.pages import FOLDER, ExplorerFiles

FILES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file())
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}  # names, not addresses


def test_health_is_ok(service):
    """/healthz returns ok."""
    answer = service.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_is_ready_although_one_file_failed(service):
    """/readyz is 200 once a model is ready, and names the file that failed."""
    answer = service.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    states = {model["name"]: model["state"] for model in answer.json()["models"]}
    assert states["broken"] == "failed"
    assert states["nyc-weather"] == "ready"


def test_is_not_ready_where_no_model_is(serve, tmp_path):
    """/readyz is 503 with the reason if every file failed."""
    (tmp_path / "bad.safetensors").write_bytes(b"no checkpoint")
    with serve(models=tmp_path) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["errors"][0]["path"] == "bad"
        assert "is not a safetensors file" in answer.json()["errors"][0]["message"]
        assert client.get("/healthz").status_code == 200


METER, READER = {"Authorization": f"Bearer {'m' * 16}"}, {"Authorization": f"Bearer {'r' * 16}"}
KEYS = f"prometheus metrics {'m' * 16};reader read {'r' * 16}"
STRANGERS = ({}, METER, {"Authorization": f"Bearer {'x' * 16}"})  # without a key that may know names


def test_only_keys_learn_names_when_ready(serve, folder):
    """Where the service has keys, /readyz says to others that it is ready, and names no model, version or reason."""
    with serve(models=folder, keys=KEYS) as client:
        for headers in STRANGERS:
            answer = client.get("/readyz", headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"ready": True})
        states = {one["name"]: one["state"] for one in client.get("/readyz", headers=READER).json()["models"]}
        assert (states["broken"], states["nyc-weather"]) == ("failed", "ready")


@pytest.mark.parametrize("path", ["/readyz", "/v2/health/ready"])
def test_only_keys_learn_names_when_not_ready(serve, tmp_path, path):
    """The 503 of both protocols likewise: its error, detail and errors name nothing to those without a key."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "17.safetensors").write_bytes(b"no checkpoint")
    with serve(models=tmp_path, keys=KEYS, wait=False) as client:
        poll(lambda: "is not a safetensors file" in client.get(path, headers=READER).text)
        named = client.get(path, headers=READER).json()
        assert (named["code"], named["errors"][0]["path"]) == ("not_ready", "secret")
        for headers in STRANGERS:
            answer = client.get(path, headers=headers)
            body = answer.json()
            assert (answer.status_code, body["code"], body["errors"]) == (503, "not_ready", [])
            assert body["error"] == body["detail"] == "the service is not ready"
            assert "secret" not in answer.text and "17" not in answer.text.replace(body["request_id"], "")


@pytest.fixture
def slow_version(monkeypatch):
    """Files named 1 block until this is set."""
    go_on = threading.Event()

    def load_slowly(path):
        if path.stem == "1":
            go_on.wait(300)
        return kanmodel.load(path)

    monkeypatch.setattr("service.models.registry.load", load_slowly)
    yield go_on
    go_on.set()


def test_answers_while_it_loads(serve, folder, tmp_path, slow_version):
    """While the only model loads, /healthz is 200, /readyz is 503 and names it, and a request for it waits."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "1.safetensors").write_bytes((folder / "two.safetensors").read_bytes())
    with serve(models=tmp_path, wait=False) as client:
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["errors"] == [{"path": "m", "message": "version 1 is loading"}]
        assert client.get("/v1/models").json()["details"][0]["state"] == "loading"
        answer = client.get("/v1/models/m/ready")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"] == "model 'm' is loading"
        answer = client.get("/v1/models/m", headers={"X-Request-Timeout": "0.05"})
        assert (answer.status_code, answer.json()["code"]) == (503, "deadline_exceeded")
        slow_version.set()
        assert client.get("/v1/models/m").status_code == 200


def test_is_ready_before_every_version_is_loaded(serve, folder, tmp_path, wait_until, slow_version):
    """/readyz is 200 once one version is loaded; a request for the other waits until that is loaded too."""
    (tmp_path / "m").mkdir()
    for version in ("1", "2"):
        (tmp_path / "m" / f"{version}.safetensors").write_bytes((folder / "two.safetensors").read_bytes())
    with serve(models=tmp_path, wait=False) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        versions = client.get("/readyz").json()["models"][0]["versions"]
        assert [(one["version"], one["state"], one["loaded"]) for one in versions] == [
            ("2", "ready", True),
            ("1", "loading", False),
        ]
        assert client.get("/v1/models/m").json()["version"] == "2"
        slow_version.set()
        assert client.get("/v1/models/m?version=1").json()["version"] == "1"


def test_the_explorer_redirects_to_its_folder(service):
    """/explorer redirects to the page at /explorer/ by a relative URL, which also works behind a proxy."""
    answer = service.get("/explorer", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "explorer/")
    page = service.get("/explorer/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    written, modules = (
        re.sub(r"\b[0-9a-f]{16}/", "release/", page.text),
        re.compile('<link rel="modulepreload" href="release/(.*?)" />'),
    )
    assert modules.sub("", written) == (FOLDER / "index.html").read_text(encoding="utf-8")
    assert sorted(modules.findall(written)) == sorted(file for file in FILES if file.endswith((".js", ".mjs")))


@pytest.mark.parametrize("file", [file for file in FILES if file != "index.html"])
def test_each_file_is_served_under_the_policy(service, file):
    """The policy forbids foreign scripts, styles and connections, and media types are not guessed."""
    answer = service.get(f"/explorer/{file}")
    assert answer.content == (FOLDER / file).read_bytes()
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert re.fullmatch(r"'self' 'sha256-[A-Za-z0-9+/]{43}='", policy["script-src"])  # that of the import map
    assert re.fullmatch(r"'self'( 'sha256-[A-Za-z0-9+/]{43}=')+", policy["style-src"])
    assert {policy[name] for name in ("object-src", "base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    if file.endswith((".js", ".mjs")):
        assert answer.headers["content-type"].startswith("text/javascript")


def test_a_cached_file_is_not_sent_again(service):
    """A file revalidates by its ETag; below the hash of all files, which the page has, browsers need not ask."""
    first = service.get("/explorer/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = service.get("/explorer/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    page = service.get("/explorer/")
    assert page.headers["cache-control"] == "no-cache"  # so that a new release is seen at once
    (release,) = set(re.findall(r"\b[0-9a-f]{16}(?=/)", page.text))
    kept = service.get(f"/explorer/{release}/app.js")
    assert (kept.content, kept.headers["content-encoding"]) == (first.content, "gzip")
    assert "immutable" in kept.headers["cache-control"]
    other = service.get("/explorer/0123456789abcdef/app.js")  # of a page that was loaded from another release
    assert (other.content, other.headers["cache-control"]) == (first.content, "no-cache")


def test_a_changed_file_changes_the_release(tmp_path):
    """Files that are changed while the service runs, as by who develops the page, are seen when it is loaded again."""
    folder = tmp_path / "explorer"
    copytree(FOLDER, folder)
    app = Starlette(routes=[Mount("/", ExplorerFiles(folder))])
    with TestClient(app) as client:
        before = client.get("/").text
        assert client.get("/").text == before
        (folder / "app.js").write_text("// changed", encoding="utf-8")
        page = client.get("/").text
        assert page != before
        name = re.findall(r'src="([^"]+app.js)"', page)[0]
        assert client.get(f"/{name}").text == "// changed"


def test_the_style_sheets_are_one(service):
    """Each sheet is in it, apart from that for paper."""
    sheets = service.get("/explorer/all.css").text
    assert {
        name for name in FILES if name.endswith(".css") and (FOLDER / name).read_text(encoding="utf-8") not in sheets
    } == {"print.css"}


def test_the_page_names_nothing_but_its_own_files(service):
    """The explorer loads nothing from other hosts, and every file that the page names exists."""
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    named = re.findall(r'(?:src|href)="([^#"][^"]*)"', page)
    assert {
        name for name in named if service.get(f"/explorer/{name.removeprefix('release/')}").status_code != 200
    } == set()
    for file in FILES:
        if not file.startswith("vendor/") and file.endswith((".js", ".html", ".css")):
            addresses = re.findall(r"https?://[^\s\"']+", (FOLDER / file).read_text(encoding="utf-8"))
            assert set(addresses) <= NAMESPACES, file


@pytest.mark.parametrize(
    "path", ["nothing.js", "views", "vendor/", "..%2fapp.py", "%2e%2e/app.py", "views/../../app.py"]
)
def test_an_unknown_file_is_404(service, path):
    """404 with the common error schema, and paths outside the folder cannot be reached."""
    answer = service.get(f"/explorer/{path}")
    assert answer.status_code == 404
    assert answer.json()["status"] == 404


def test_other_methods_are_refused(service):
    """HEAD is supported; POST gives 405."""
    head = service.client.head("/explorer/app.js", headers={"Accept-Encoding": "identity"})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str((FOLDER / "app.js").stat().st_size)
    assert service.post("/explorer/app.js", {}).status_code == 405


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v2"])
def test_a_query_is_refused_where_none_is_expected(service, path):
    """An operation without parameters refuses a query, naming its member."""
    answer = service.get(path, params={"x": "1"})
    assert answer.status_code == (400 if path == "/v2" else 422)
    assert answer.json()["error"] == "x is unknown; none is expected"
