"""The files of the explorer, and the policy they are served under."""

from __future__ import annotations

import re
from shutil import copytree

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from service.pages import FOLDER, ExplorerFiles

FILES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file())


NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1998/Math/MathML"}  # names, not addresses
MODULE = re.compile(r'<link rel="modulepreload" fetchpriority="(high|low)" href="\w+/(.*?)" />')


def test_the_explorer_redirects_to_its_folder(service):
    """/explorer redirects to the page at /explorer/ by a relative URL, which also works behind a proxy."""
    answer = service.get("/explorer", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "explorer/")
    page = service.get("/explorer/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    written = re.sub(r"\b[0-9a-f]{16}/", "release/", page.text)
    assert MODULE.sub("", written) == (FOLDER / "index.html").read_text(encoding="utf-8")


def test_the_page_names_what_comes_first_first(service):
    """All modules are fetched at once, and those before others without which no sentence can be shown."""
    named = MODULE.findall(service.get("/explorer/").text)
    assert sorted(name for _, name in named) == sorted(file for file in FILES if file.endswith((".js", ".mjs")))
    first = [name for urgency, name in named if urgency == "high"]
    assert [name for _, name in named][: len(first)] == first
    assert {"app.js", "lib.js", "forecast/sentence.js", "vendor/d3.min.js", "vendor/preact.mjs"} <= {*first}
    assert not {"model/page.js", "history/history.js", "flow/flow.js", "vendor/plot.umd.min.js"} & {*first}


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
