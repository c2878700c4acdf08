"""Models in a bucket, on a website, in memory: mirrored once for all processes, and served through an outage."""

from __future__ import annotations

import functools
import http.server
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest
from factories import make_model, make_windows
from hypothesis import given
from hypothesis import strategies as st
from processes import run_process, start_process
from waiting import poll, repeating

from kanmodel.checkpoint import save_checkpoint
from kanmodel.errors import ConfigError
from service.commands.repeat import _find_model as find_model
from service.models import stores, watching
from service.models.registry import Registry
from service.models.stores import Mirror, Remote, Stored, follow
from service.settings import Settings

s3_backends = pytest.importorskip("moto.s3.models").s3_backends
S3Response = pytest.importorskip("moto.s3.responses").S3Response
boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
BODY = {"instances": make_windows(make_model("head"), 2).tolist()}
LIMIT = 1 << 30


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The bytes of a checkpoint file, another for each seed."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @functools.cache
    def read(seed):
        save_checkpoint(make_model("head", seed=seed, n_reference=20), folder / f"{seed}.safetensors")
        return (folder / f"{seed}.safetensors").read_bytes()

    return read


class Bucket:
    """A bucket of a real server of S3, which can be stopped and started again."""

    def __init__(self, name):
        self.name, self.url, self.port, self.server = name, f"s3://{name}/models", 0, None
        self.start()

    def start(self):
        self.server = moto.ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self.server.start()
        self.port = self.server.get_host_and_port()[1]

    def stop(self):
        self.server.stop()

    @functools.cached_property
    def client(self):
        return boto3.client("s3")

    def put(self, path, content):
        self.client.put_object(Bucket=self.name, Key=f"models/{path}", Body=content)

    def delete(self, path):
        self.client.delete_object(Bucket=self.name, Key=f"models/{path}")


@pytest.fixture
def bucket(request, monkeypatch):
    bucket = Bucket(re.sub(r"\W|_", "-", request.node.name)[:60].strip("-"))
    for name, value in {
        "AWS_ACCESS_KEY_ID": "who",
        "AWS_SECRET_ACCESS_KEY": "hidden",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{bucket.port}",
        "AWS_MAX_ATTEMPTS": "1",  # or an outage takes seconds to be seen
    }.items():
        monkeypatch.setenv(name, value)
    bucket.client.create_bucket(Bucket=bucket.name)
    yield bucket
    bucket.stop()


class Shelf:
    """A store in memory, with faults."""

    name, secrets = "shelf://tests", ("hidden",)

    def __init__(self, **files):
        self.files = {path.replace("_", "/"): content for path, content in files.items()}
        self.is_down, self.broken, self.n_downloads = False, set(), 0
        self.before_end = lambda: None  # of a download

    def list(self):
        if self.is_down:
            raise OSError("the token hidden has expired")
        return {path: Stored(path, str(hash(content)), len(content)) for path, content in self.files.items()}

    def download(self, stored, target):
        self.n_downloads += 1
        target.write_bytes(self.files[stored.name])
        if stored.name in self.broken:
            raise OSError("broken pipe")
        self.before_end()


def read(mirror):
    """What is in the folder of a mirror."""
    files = [path for path in mirror.folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(mirror.folder)): path.read_bytes() for path in files}


def mirror_of(store, cache, limit=LIMIT):
    mirror = Mirror(store, cache, limit)
    mirror.sync()
    return mirror


def test_a_bucket_is_served_as_a_folder_is(serve, bucket, checkpoint, tmp_path):
    """New versions, replaced ones, a choice among them and deletions take effect at the next scans."""
    bucket.put("m/1.safetensors", checkpoint(1))
    bucket.put("m/1.results", b"{}")
    bucket.put("m/other.txt", b"")
    with serve(models=bucket.url, downloads=tmp_path, poll_seconds=0.05) as client:

        def version():
            return client.post("/v1/models/m:predict", json=BODY).json()["version"]

        assert version() == "1"
        first = client.get("/v1/models/m").json()["checkpoint"]
        bucket.put("m/2.safetensors", checkpoint(2))
        poll(lambda: version() == "2")
        bucket.put("m/versions.json", b'{"default": "1"}')
        poll(lambda: version() == "1")
        bucket.put("m/1.safetensors", checkpoint(3))
        poll(lambda: client.get("/v1/models/m").json()["checkpoint"] != first)
        assert version() == "1"
        bucket.delete("m/versions.json")
        poll(lambda: version() == "2")
        bucket.delete("m/2.safetensors")
        poll(lambda: len(client.get("/v1/models/m").json()["versions"]) == 1)
        assert "problem" not in client.get("/v1/models").json()
    (folder,) = tmp_path.glob("*/models")
    assert sorted(path.name for path in (folder / "m").iterdir()) == ["1.results", "1.safetensors"]


def test_an_outage_fails_no_request_and_is_said_once(serve, bucket, checkpoint, tmp_path, caplog):
    """While the server of the bucket is stopped, clients ask without a pause; once it is back, changes are followed."""
    caplog.set_level(logging.INFO, "service.models.stores")
    bucket.put("m.safetensors", checkpoint(1))
    with (
        serve(models=bucket.url, downloads=tmp_path, poll_seconds=0.02, model_bytes=1) as client,
        repeating(lambda: client.post("/v1/models/m:predict", json=BODY).status_code, 1) as answers,
    ):
        bucket.stop()
        poll(lambda: "problem" in client.get("/v1/models").json())
        n = len(answers)
        poll(lambda: len(answers) > n + 20)
        problem = client.get("/v1/models").json()["problem"]
        assert "\nkanscope_models_outdated 1.0\n" in client.get("/metrics").text
        bucket.start()
        poll(lambda: "problem" not in client.get("/v1/models").json())
        bucket.put("m/2.safetensors", checkpoint(2))
        poll(lambda: client.get("/v1/models/m").json()["version"] == "2")
    assert set(answers) == {200}
    assert problem.startswith(
        f"{bucket.url} cannot be read, and the models stay as they are: EndpointConnectionError: "
    )
    said = [record.getMessage() for record in caplog.records]
    assert said.count(f"{problem}; the next scan tries again: mend that if it lasts") == 1
    assert said.count(f"the models are those of {bucket.url}") == 1


@pytest.mark.thorough("starts three processes")
def test_processes_download_a_file_once_and_start_during_an_outage(bucket, checkpoint, tmp_path, caplog):
    """The second of two serves what the first has downloaded; a third starts while the server is stopped."""
    caplog.set_level(logging.INFO, "werkzeug")
    bucket.put("m/1.safetensors", checkpoint(1))
    settings = {"KANSCOPE_MODELS": bucket.url, "KANSCOPE_DOWNLOADS": str(tmp_path / "cache")}
    settings |= {"KANSCOPE_POLL_SECONDS": "0.1", "KANSCOPE_LOG_FORMAT": "json", "KANSCOPE_LOG_LEVEL": "debug"}
    logs = [tmp_path / name for name in ("first", "second", "third")]
    with run_process(logs[0], **settings) as first, run_process(logs[1], **settings) as second:
        bucket.put("m/2.safetensors", checkpoint(2))
        for process in (first, second):
            poll(lambda process=process: process.client.get("/v1/models/m").json()["version"] == "2")
    read = [record.getMessage() for record in caplog.records if '"GET' in record.getMessage()]
    assert [sum(f"/models/m/{version}.safetensors" in line for line in read) for version in (1, 2)] == [1, 1]
    bucket.stop()
    with run_process(logs[2], **settings) as third:
        poll(lambda: third.client.get("/readyz").status_code == 200)
        assert third.client.post("/v1/models/m:predict", json=BODY).json()["version"] == "2"
        assert "cannot be read" in third.client.get("/v1/models").json()["problem"]
    bucket.start()
    assert not any("hidden" in log.read_text() for log in logs)


def test_the_same_content_again_is_not_downloaded(bucket, checkpoint, tmp_path, monkeypatch):
    """An upload of the same bytes changes only the time of a file, and a mark is what the store says of its content."""
    bucket.put("m.safetensors", checkpoint(1))
    mirror, calls = follow(bucket.url, tmp_path, LIMIT), []
    mirror.sync()
    before = (mirror.folder / "m.safetensors").stat()
    monkeypatch.setattr(Remote, "download", lambda *arguments: calls.append(arguments))
    bucket.put("m.safetensors", checkpoint(1))
    mirror.sync()
    assert calls == [] and (mirror.folder / "m.safetensors").stat() == before


def test_half_a_listing_deletes_nothing(bucket, tmp_path, monkeypatch):
    """A bucket lists a thousand files at a time; if the server fails at the second page, there is no listing."""
    bucket.put("m/1.safetensors", b"x")
    mirror = mirror_of(Remote(bucket.url), tmp_path)
    for number in range(1000):  # within the server, since as many requests take seconds
        s3_backends["123456789012"]["aws"].put_object(bucket.name, f"models/a/{number}.txt", b"")
    mirror.sync()
    assert mirror.problem is None and list(read(mirror)) == ["m/1.safetensors"]  # which stands on the second page
    answer = S3Response.list_objects_v2

    def fail(self):
        if "continuation-token" in self.querystring:
            raise RuntimeError  # answered by 500
        return answer(self)

    monkeypatch.setattr(S3Response, "list_objects_v2", fail)
    mirror.sync()
    assert "cannot be read" in mirror.problem and list(read(mirror)) == ["m/1.safetensors"]


def test_a_url_of_one_file_is_one_model(bucket, checkpoint, tmp_path, monkeypatch):
    """Of a bucket as of a path, and so for the command that finds the checkpoint of a receipt."""
    bucket.put("m/7.safetensors", checkpoint(1))
    mirror = follow(f"{bucket.url}/m/7.safetensors", tmp_path, LIMIT)
    registry = Registry(mirror)
    registry.load()
    assert list(registry.index()) == ["7"]
    monkeypatch.setenv("KANSCOPE_MODELS", mirror.name)
    monkeypatch.setenv("KANSCOPE_DOWNLOADS", str(tmp_path))
    assert find_model(None, "").checkpoint == f"sha256:{sha256(checkpoint(1)).hexdigest()}"


@pytest.mark.parametrize("seconds", [0.05, 0])
def test_nothing_at_the_start_is_a_reason_not_to_be_ready(serve, bucket, tmp_path, monkeypatch, checkpoint, seconds):
    """A bucket that is not there, or has no checkpoints, is asked again, although scans may be off; none stands in."""
    monkeypatch.setattr(watching, "RETRY", 0.05)
    bucket.name, bucket.url = f"{bucket.name}-late", f"s3://{bucket.name}-late/models"
    with serve(wait=False, models=bucket.url, downloads=tmp_path, poll_seconds=seconds) as client:

        def why():
            return client.get("/readyz").json()["error"]

        poll(lambda: f"the service is not ready: {bucket.url} cannot be read, and there are no models yet: " in why())
        bucket.client.create_bucket(Bucket=bucket.name)
        poll(lambda: "there is no file name.safetensors" in why())
        answer = client.post("/v1/models/m:predict", json=BODY)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "there is no file name.safetensors" in answer.json()["error"]
        bucket.put("m.safetensors", checkpoint(1))
        poll(lambda: client.get("/readyz").status_code == 200)
        assert client.post("/v1/models/m:predict", json=BODY).status_code == 200


ODD = ["../up.safetensors", "m/../../up.safetensors", "/etc/up.safetensors", ".hidden.safetensors", "m/.h.safetensors"]
ODD += ["a/b/c.safetensors", "m//1.safetensors", "..safetensors", "./m.safetensors", "versions.json", "m/notes.txt", ""]


def test_keys_never_leave_the_folder(tmp_path):
    """Those with dots, empty parts or other names are ignored; odd names are models that fail with a reason."""
    good = {"a b\n.safetensors": b"1", "ä?*[.safetensors": b"", "m/1.safetensors": b"2", "m/versions.json": b"3"}
    shelf = Shelf()
    shelf.files = {**good, **dict.fromkeys(ODD, b"evil")}
    mirror = mirror_of(shelf, tmp_path / "cache")
    assert read(mirror) == good and mirror.problem is None
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    registry = Registry(mirror)
    registry.load()
    assert {entry.state for entry in registry.entries} == {"failed"}


def test_names_that_no_file_can_have_are_said(tmp_path):
    """One that is too long, holds a zero byte or is a folder too; the others are followed."""
    shelf = Shelf()
    for name in ("x" * 300, "zero\0", "m.safetensors/1"):
        shelf.files = {"m.safetensors": b"m", f"{name}.safetensors": b"x", "z.safetensors": b"z"}
        mirror = mirror_of(shelf, tmp_path)
        assert read(mirror) == {"m.safetensors": b"m", "z.safetensors": b"z"}
        assert " cannot be downloaded: " in mirror.problem and "\0" not in mirror.problem
    shelf.files = {"m.safetensors/1.safetensors": b"x", "z.safetensors": b"z"}
    mirror.sync()
    mirror.sync()
    assert read(mirror) == shelf.files and mirror.problem is None


def test_a_listing_that_fails_or_is_empty_deletes_nothing(tmp_path):
    """Neither does one with nothing but other files; the reason is without secrets."""
    shelf = Shelf(**{"m_1.safetensors": b"1", "m_versions.json": b"{}"})
    mirror = mirror_of(shelf, tmp_path)
    files = dict(shelf.files)
    shelf.is_down = True
    mirror.sync()
    assert mirror.problem.endswith(
        "cannot be read, and the models stay as they are: OSError: the token *** has expired"
    )
    shelf.is_down = False
    for listed in ({}, {"m/versions.json": b"{}"}):
        shelf.files = listed
        mirror.sync()
        assert "there is no file name.safetensors" in mirror.problem
    assert read(mirror) == files


def test_a_file_that_changes_while_it_is_downloaded_is_taken_at_the_next_scan(tmp_path):
    """Never in between: nor one of which the connection breaks."""
    shelf = Shelf(**{"m_1.safetensors": b"1", "m_2.safetensors": b"2"})
    mirror = mirror_of(shelf, tmp_path)
    shelf.files["m/2.safetensors"] = b"3"
    shelf.before_end = lambda: shelf.files.update({"m/2.safetensors": b"4"})
    mirror.sync()
    assert read(mirror)["m/2.safetensors"] == b"2"
    assert mirror.problem.endswith("m/2.safetensors cannot be downloaded: it changed meanwhile")
    shelf.broken = {"m/2.safetensors"}
    mirror.sync()
    assert read(mirror)["m/2.safetensors"] == b"2" and mirror.problem.endswith("OSError: broken pipe")
    shelf.broken = set()
    mirror.sync()
    assert read(mirror) == shelf.files and mirror.problem is None


PATHS = ["a.safetensors", "m/1.safetensors", "m/versions.json"]


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(PATHS), st.binary(max_size=2)),
            st.booleans(),
            st.sampled_from([None, "a.safetensors", "m/versions.json"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_folder_is_as_the_last_listing_but_for_what_failed(tmp_path_factory, steps):
    """After any sequence of changes, outages and broken downloads."""
    shelf = Shelf(**{"a.safetensors": b"first"})
    mirror = mirror_of(shelf, tmp_path_factory.mktemp("cache"))
    expected = dict(shelf.files)
    for files, is_down, broken in steps:
        shelf.files, shelf.is_down, shelf.broken, n = files, is_down, {broken}, shelf.n_downloads
        mirror.sync()
        if not is_down and any(path.endswith(".safetensors") for path in files):
            after = read(mirror)
            if broken in files and after.get(broken) != files[broken]:
                assert mirror.problem is not None and after.get(broken) == expected.get(broken)
                expected = {**files, broken: expected.get(broken)}
                expected = {path: content for path, content in expected.items() if content is not None}
            else:
                assert mirror.problem is None
                expected = files
        else:
            assert mirror.problem is not None and n == shelf.n_downloads
        assert read(mirror) == expected


def test_a_store_that_hangs_delays_neither_scans_nor_the_end(serve, tmp_path, checkpoint, monkeypatch):
    """The scan goes on after a while, and there is no second thread until the first has an answer."""
    monkeypatch.setattr(stores, "PATIENCE", 0.05)
    shelf, hanging = Shelf(**{"m.safetensors": checkpoint(1)}), threading.Event()
    monkeypatch.setattr(stores, "Remote", lambda url: shelf)
    whole = shelf.list
    with serve(models="s3://any/where", downloads=tmp_path, poll_seconds=0.02) as client:
        shelf.list = lambda: hanging.wait() and whole()
        poll(lambda: "takes more than" in client.get("/v1/models").json().get("problem", ""))
        assert client.post("/v1/models/m:predict", json=BODY).status_code == 200
        assert sum(thread.name == "store" for thread in threading.enumerate()) == 1
    hanging.set()
    poll(lambda: not any(thread.name == "store" for thread in threading.enumerate()))


def test_mirrors_of_one_store_take_turns(tmp_path):
    """The one that waits for the other finds its files, however long that takes."""
    shelf = Shelf(**{f"m_{version}.safetensors": b"x" for version in range(1, 4)})
    shelf.before_end = lambda: time.sleep(0.05)
    mirrors = [Mirror(shelf, tmp_path, LIMIT) for _ in range(3)]
    threads = [threading.Thread(target=mirror.sync) for mirror in mirrors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shelf.n_downloads == 3 and [mirror.problem for mirror in mirrors] == [None] * 3


def test_the_first_download_is_waited_for(tmp_path, monkeypatch):
    """However long it takes, as there is nothing to serve; with files of an earlier time these are."""
    monkeypatch.setattr(stores, "PATIENCE", 0.01)
    shelf, slow = Shelf(**{"m.safetensors": b"1"}), threading.Event()
    shelf.before_end = lambda: slow.wait(0.2)
    first = mirror_of(shelf, tmp_path)
    assert read(first) == shelf.files
    shelf.files, shelf.before_end = {"m.safetensors": b"2"}, slow.wait
    second = mirror_of(shelf, tmp_path)
    assert read(second) == {"m.safetensors": b"1"}
    slow.set()
    poll(lambda: read(second) == shelf.files and second.problem is None)


def test_what_is_listed_is_kept_beyond_the_bound_and_the_rest_is_not(tmp_path):
    """First goes what no process serves, then what is not listed any more, the oldest first; listed files never."""
    foreign = tmp_path / "models--of-others" / "blobs" / "x"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"x" * 1000)
    left = Shelf(**{"m.safetensors": b"x" * 40})
    left.name = "shelf://left"
    mirror_of(left, tmp_path)  # nothing holds it
    used = Shelf(**{"m.safetensors": b"x" * 40})
    used.name = "shelf://used"
    other = mirror_of(used, tmp_path)
    shelf = Shelf(**{"m.safetensors": b"1" * 40})
    mirror = mirror_of(shelf, tmp_path, 120)
    foreign.unlink()
    assert len([*tmp_path.glob("*/blobs/*")]) == 3
    shelf.files = {"m.safetensors": b"2" * 40}
    mirror.sync()
    assert len([*tmp_path.glob("*/blobs/*")]) == 3 and len([*tmp_path.glob("*/models")]) == 2
    n = shelf.n_downloads
    shelf.files = {"m.safetensors": b"1" * 40}
    mirror.sync()
    assert shelf.n_downloads == n and read(mirror) == shelf.files  # a rollback to what is still there
    shelf.files = {"m.safetensors": b"3" * 90}
    mirror.sync()
    assert mirror.problem is None and len([*tmp_path.glob("*/blobs/*")]) == 2
    assert read(other) == used.files
    shelf.files = {"m.safetensors": b"4" * 130}
    mirror.sync()
    assert read(mirror) == shelf.files
    assert mirror.problem == "shelf://tests lists 130 bytes, more than KANSCOPE_DOWNLOAD_BYTES, 120; all are kept"


def test_what_others_delete_or_leave_in_the_cache_is_mended(tmp_path):
    """Parts of a download by a process that was killed, files that something removed, and the whole cache."""
    shelf = Shelf(**{"m_1.safetensors": b"1"})
    mirror = mirror_of(shelf, tmp_path / "cache")
    blobs = next(tmp_path.glob("cache/*/blobs"))
    (blobs / "half.tmp").write_bytes(b"")
    (mirror.folder / "m" / "1.safetensors").unlink()
    mirror.sync()
    assert read(mirror) == shelf.files and not [*blobs.glob("*.tmp")]
    shutil.rmtree(tmp_path / "cache")
    mirror.sync()
    assert read(mirror) == shelf.files


@contextmanager
def website(folder):
    """A real server of a folder with index pages; the paths in `failing` are 503, the files in `held` wait."""
    failing, seen, held = set(), [], set()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def send_head(self):
            seen.append((self.command, self.path, self.headers.get("Authorization")))
            if self.path in failing:
                return self.send_error(503)
            if self.command == "GET":
                poll(lambda: self.path not in held)
            return super().send_head()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"127.0.0.1:{server.server_port}", failing, seen, held
        finally:
            held.clear()
            server.shutdown()


def test_a_website_is_followed_by_its_index_pages(tmp_path, checkpoint):
    """Names are decoded, a page that fails deletes nothing, and passwords are sent, but said nowhere."""
    site = tmp_path / "site"
    (site / "models" / "m").mkdir(parents=True)
    (site / "models" / "m" / "1.safetensors").write_bytes(checkpoint(1))
    (site / "models" / "m" / "versions.json").write_text("{}")
    (site / "models" / "a b.safetensors").write_bytes(b"x")
    (site / "models" / "readme.txt").write_bytes(b"x")
    with website(site) as (address, failing, seen, _):
        mirror = follow(f"http://who:secret@{address}/models/?token=hidden", tmp_path / "cache", LIMIT)
        assert mirror.name == f"http://{address}/models/"
    with website(site) as (address, failing, seen, _):
        mirror = follow(f"http://who:secret@{address}/models/", tmp_path / "cache", LIMIT)
        mirror.sync()
        assert mirror.problem is None and {header for *_, header in seen} == {"Basic d2hvOnNlY3JldA=="}
        assert sorted(read(mirror)) == ["a b.safetensors", "m/1.safetensors", "m/versions.json"]
        assert not any("readme" in path for _, path, _ in seen)
        (site / "models" / "m" / "2.safetensors").write_bytes(checkpoint(2))
        os.utime(site / "models" / "m" / "versions.json", (1, 1))  # a clock may be wrong, or go backwards
        seen.clear()
        mirror.sync()
        got = {path for method, path, _ in seen if method == "GET" and not path.endswith("/")}
        assert got == {"/models/m/2.safetensors", "/models/m/versions.json"} and "m/2.safetensors" in read(mirror)
        for page in ("/models/", "/models/m/", "/models/m/1.safetensors"):
            failing.add(page)
            mirror.sync()
            assert f"http://{address}/models/ cannot be read" in mirror.problem and "secret" not in mirror.problem
            assert len(read(mirror)) == 4
            failing.clear()
        one = follow(f"http://{address}/models/m/1.safetensors?signature=hidden", tmp_path / "cache", LIMIT)
        one.sync()
        assert read(one) == {"1.safetensors": checkpoint(1)}
        assert any(path.endswith("signature=hidden") for _, path, _ in seen)


def test_the_service_answers_while_the_first_download_runs(serve, tmp_path, checkpoint):
    """It lives and is not ready, with the reason, and a model that may be among those to come is no error 404."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "m.safetensors").write_bytes(checkpoint(1))
    with website(tmp_path / "site") as (address, _, seen, held):
        held.add("/m.safetensors")
        url = f"http://{address}"
        with serve(wait=False, models=url, downloads=tmp_path / "cache") as client:
            poll(lambda: is_fetched("/m.safetensors", seen))
            assert client.get("/healthz").status_code == 200
            ready = client.get("/readyz")
            assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
            assert ready.json()["error"] == f"the service is not ready: downloading the models of {url}"
            assert client.get("/v2/health/ready").json()["ready"] is False
            answer = client.post("/v1/models/m:predict", json=BODY)
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert client.get("/v1/models").json()["problem"] == f"downloading the models of {url}"
            held.clear()
            poll(lambda: client.get("/readyz").status_code == 200)
            assert client.post("/v1/models/m:predict", json=BODY).status_code == 200
            assert "problem" not in client.get("/v1/models").json()


STARTS = pytest.mark.thorough("starts several processes")


@pytest.mark.parametrize("arguments", [(), pytest.param(("--workers", "2"), marks=STARTS)])
def test_a_process_that_is_killed_goes_on_with_what_it_has_downloaded(tmp_path, checkpoint, arguments):
    """It answers while it downloads, is killed between two files, and its successor downloads only the other one."""
    (tmp_path / "site").mkdir()
    for name in ("large", "small"):
        (tmp_path / "site" / f"{name}.safetensors").write_bytes(checkpoint(1))
    cache = tmp_path / "cache"
    with website(tmp_path / "site") as (address, _, seen, held):

        def start():
            seen.clear()
            return start_process(tmp_path / "log", f"http://{address}", *arguments, KANSCOPE_DOWNLOADS=str(cache))

        held.add("/large.safetensors")
        with start() as process:
            poll(lambda: is_fetched("/large.safetensors", seen))
            poll(lambda: any(path.suffix != ".tmp" for path in cache.glob("*/blobs/*")))
            poll(lambda: is_alive(process.client))
            assert "downloading" in process.client.get("/readyz").json()["error"]
        with start() as process:  # the other one was killed
            poll(lambda: is_fetched("/large.safetensors", seen))
            poll(lambda: is_alive(process.client))
            process.popen.send_signal(signal.SIGTERM)
            assert process.popen.wait(60) in (0, -signal.SIGTERM)
        with start() as process:
            held.clear()
            poll(lambda: is_alive(process.client))
            poll(lambda: process.client.get("/readyz").status_code == 200)
            poll(lambda: len(process.client.get("/v1/models").json()["models"]) == 2)
            assert is_fetched("/large.safetensors", seen) and not is_fetched("/small.safetensors", seen)


def is_alive(client):
    """Whether the process answers; workers listen a moment after their supervisor has said so."""
    try:
        return client.get("/healthz").status_code == 200
    except httpx2.ConnectError:
        return False


def is_fetched(path, seen):
    """Whether a file was asked for, as opposed to its headers."""
    return any(request[:2] == ("GET", path) for request in seen)


def test_a_file_of_another_size_than_listed_is_refused(tmp_path, checkpoint):
    """As from a proxy that cuts it off, or a page in its place."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "m.safetensors").write_bytes(checkpoint(1))
    with website(tmp_path / "site") as (address, *_):
        remote = Remote(f"http://{address}")
        (stored,) = remote.list().values()
        (tmp_path / "site" / "m.safetensors").write_bytes(checkpoint(1)[:-5])
        with pytest.raises(OSError, match=f"{stored.size - 5} bytes came instead of {stored.size}"):
            remote.download(stored, tmp_path / "file")


def test_a_scheme_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    """With what to install, or the schemes that there are."""
    for scheme, package in (("s3", "s3fs"), ("gs", "gcsfs"), ("hf", "huggingface_hub"), ("https", "aiohttp")):
        for name in [name for name in sys.modules if name.split(".")[0] in (package, "fsspec")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(
            ConfigError, match=re.escape(f"{scheme}:// needs a package: pip install 'kanscope[{scheme}]'")
        ):
            follow(f"{scheme}://a/b", tmp_path, LIMIT)
    with pytest.raises(ConfigError, match="only from s3, gs, hf, https"):
        follow("memory://a/b", tmp_path, LIMIT)


def test_the_folder_for_downloads_must_be_writable(tmp_path):
    """Or the sentence names the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="KANSCOPE_DOWNLOADS"):
        Mirror(Shelf(), tmp_path / "file", LIMIT)


def test_models_are_a_path_or_a_url(monkeypatch):
    """A URL keeps its slashes, and what only looks like one is a path."""
    assert Settings(models="s3://bucket/models").models == "s3://bucket/models"
    assert Settings(models="models").models == Path("models")
    assert Settings(models=Path("a:b")).models == Path("a:b")
