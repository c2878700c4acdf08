from __future__ import annotations

import ast
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

import httpx2
import pytest
from factories import make_windows
from sockets import sum_samples
from waiting import poll

import service
from service.settings import Settings
from service.telemetry.logs import PIPE_BUF, LogWriter, RequestLog


def write(state=None, **settings):
    """One request's log line."""
    stream = io.TextIOWrapper(io.BytesIO())
    log = RequestLog(Settings(**settings), stream=stream)
    log.write({"request_id": "1", **(state or {})}, "GET", "/v1/models/{model}", 200, 0.0123456789)
    log.close()
    return stream.buffer.getvalue().decode()


def test_each_request_is_one_line_of_json(launch, folder, service):
    """The line has method, path, model, duration and the code of an error, and nothing of the body."""
    model = service.models["two"]
    windows = make_windows(model, 3)
    windows[0, 0, 0] = 12345.678
    key = "k" * 32
    headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "mine"}
    with launch(folder / "two.safetensors", KANSCOPE_KEYS=f"ann read {'r' * 32};bob admin {key}") as process:
        client = process.client
        client.headers = headers
        client.post("/v1/models/two:predict", json={"instances": windows.tolist()})
        client.post("/v1/models/two:explain", json={"instances": windows.tolist(), "output": "a+1"})
        client.post("/v1/models/two:predict", json={"instances": "12345.678"})
        client.post("/v1/models/two:predict?secret=query")  # refused before its model is found
        client.get("/v1/models/12345.678")
        poll(lambda: process.log.read_text().count('"mine"') == 5)  # the line is written after the response
        lines = [line for line in process.lines() if line.get("id") == "mine"]
        text = process.log.read_text()
    bob = {"address": "127.0.0.1", "client": "bob"}
    stated = {**bob, "model": "two", "checkpoint": f"sha256:{model.sha256}"}
    expected = [
        ("/v1/models/{model}:predict", 200, {**stated, "windows": 3}),
        ("/v1/models/{model}:explain", 200, {**stated, "windows": 3}),
        ("/v1/models/{model}:predict", 422, {**stated, "code": "invalid_value"}),
        ("/v1/models/{model}:predict", 422, {**bob, "code": "invalid_value"}),
        ("/v1/models/{model}", 404, {**bob, "code": "model_not_found"}),
    ]
    assert len(lines) == len(expected)
    for line, (route, status, rest) in zip(lines, expected, strict=True):
        assert (line["event"], line["level"], line["route"], line["status"]) == ("request", "info", route, status)
        assert line["method"] == ("GET" if status == 404 else "POST") and 0 < line["seconds"] < 60
        common = {"event", "level", "timestamp", "id", "method", "route", "status", "seconds"}
        assert {name: value for name, value in line.items() if name not in common} == rest
    assert "12345.678" not in text and "secret" not in text and key not in text and "r" * 32 not in text


def test_lines_are_written_whole():
    """Lines that wait are written together, in pieces that other processes' lines cannot split."""
    written = []

    class Stream(io.RawIOBase):
        def writable(self):
            return True

        def write(self, text):
            written.append(bytes(text))
            return len(text)

    stream = io.TextIOWrapper(io.BufferedWriter(Stream()))
    log = RequestLog(Settings(), stream=stream)
    for number in range(100):
        log.write({"request_id": str(number)}, "GET", "/v1/models", 200, 0.1)
    log.close()
    assert all(piece.endswith(b"\n") and len(piece) <= PIPE_BUF for piece in written) and len(written) < 10
    assert [json.loads(line)["id"] for line in b"".join(written).splitlines()] == [str(n) for n in range(100)]


def test_libraries_log_in_the_same_form(launch, folder):
    """uvicorn's messages are JSON as well, and its access log is off."""
    with launch(folder, KANSCOPE_LOG_FORMAT="json") as process:
        lines = process.lines()
    assert any("running on" in line["event"] and line["logger"] == "uvicorn.error" for line in lines)
    assert any(line["level"] == "warning" and "model broken, version 1 failed" in line["event"] for line in lines)
    assert not [line for line in lines if line.get("logger") == "uvicorn.access"]
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)


def start_unread(folder):
    """A server whose stderr is a pipe that nobody reads any more once it runs; its port, and what was read."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", str(folder / "two.safetensors")]
    environment = {**os.environ, "KANSCOPE_CACHED_RESULTS": "4", "KANSCOPE_MONITOR_SHARE": "0"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
    for line in process.stderr:
        if port := re.search(rb"running on http://[^:]+:(\d+)", line):
            return process, int(port[1])
    raise AssertionError("it does not start")


@pytest.mark.parametrize("is_read", [True, False])
def test_a_stderr_that_nobody_reads_stops_nothing(folder, is_read):
    """Requests are answered, lines are dropped and counted; it ends in time, and what waits is written if it can be."""
    process, port = start_unread(folder)
    try:
        url, asked = f"http://127.0.0.1:{port}", 0
        with httpx2.Client(base_url=url, timeout=30) as client:
            while sum_samples(client.get("/metrics").text, "log_lines_dropped_total") == 0:
                for _ in range(200):
                    assert client.get("/healthz", headers={"X-Request-Id": "x" * 100}).status_code == 200
                asked += 200
                assert asked < 40_000
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                    connection.sendall(b"no HTTP\r\n\r\n")  # which uvicorn logs
                    assert connection.recv(10_000).startswith(b"HTTP/1.1 400")
            assert client.get("/healthz").status_code == 200
            if is_read:
                read = []
                reader = Thread(target=lambda: read.extend(process.stderr))
                reader.start()
                poll(lambda: any(b"lines of the log are missing here" in line for line in tuple(read)))
                client.get("/healthz", headers={"X-Request-Id": "the-last"})
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == -signal.SIGTERM
                reader.join()
                lines = [json.loads(line) for line in read]
                assert any(line.get("id") == "the-last" for line in lines)
                assert "Finished server process" in lines[-1]["event"]
                assert sum(line["event"] == "request" for line in lines) > 200
            else:
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_the_log_takes_lines_while_it_takes_one():
    """Of a signal's handler, or of an object that is collected in the meantime: the same thread logs twice at once."""
    stream = io.TextIOWrapper(io.BytesIO())
    writer, n = LogWriter(stream), 0

    def log(*_):
        nonlocal n
        n += 1
        writer.put(b"signal\n")

    before = signal.signal(signal.SIGALRM, log)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    try:
        put = 0
        while n < 200:
            writer.put(b"line\n")
            put += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    writer.close()
    lines = stream.buffer.getvalue().split(b"\n")
    assert lines.count(b"signal") == n and lines.count(b"line") == put


def test_the_console_form_is_plain():
    """The console form has no braces, and no colours unless the stream is a terminal."""
    line = write(log_format="console", state={"model": "two"})
    assert "request" in line and "model=two" in line and "status=200" in line
    assert "{" not in line.replace("/v1/models/{model}", "") and "\x1b" not in line


@pytest.mark.parametrize(("log_format", "is_json"), [("auto", True), ("json", True), ("console", False)])
def test_the_setting_chooses_the_form(log_format, is_json):
    """`auto` is JSON unless the stream is a terminal."""
    assert write(log_format=log_format).startswith("{") == is_json


def test_the_level_holds_for_requests():
    """Their level is info."""
    assert json.loads(write(log_level="info"))["seconds"] == 0.012346
    assert write(log_level="warning") == ""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_values(log_format):
    """Neither form shows variables, which may be inputs."""
    script = """
import logging, sys
from service.telemetry.logs import configure_logging
from service.settings import Settings
configure_logging(Settings(log_format=sys.argv[1]))
secret = "".join(map(str, range(9)))
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("service").exception("failed")
"""
    said = subprocess.run(
        [sys.executable, "-c", script, log_format], capture_output=True, text=True, timeout=300
    ).stderr
    assert "failed" in said and "ZeroDivisionError: division by zero" in said
    assert "012345678" not in said


ADVICE = re.compile("[;,:] (and )?(please report this|mend|raise|replace|put|start|send|see|`kanscope prepare`)")
ELSEWHERE = {  # texts whose advice is an argument: of `Worker.describe_end`, and of `check_variables`
    "worker process %s %s. Another one is started %s; %d of %d serve",
    "%s",
}
LOUD = {"warning", "error", "exception", "critical", "fatal", "warn", "log"}


def read_warnings(path):
    """The texts of a file's calls that log at the level of a warning or above, directly or as `text`."""
    text = None
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "lineno")]
    for node in sorted(nodes, key=lambda node: node.lineno):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "text":
            text = node.value
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr in LOUD and "logge" in ast.unparse(called.value).lower():
            assert called.attr != "log", "its level cannot be seen here"
            first = text if ast.unparse(node.args[0]) == "text" else node.args[0]
            yield first.value if isinstance(first, ast.Constant) else ast.unparse(first)


def test_each_warning_says_what_to_do():
    """In its text, so that who reads it need not look for that; what needs nothing is no warning."""
    texts = [text for path in Path(service.__file__).parent.rglob("*.py") for text in read_warnings(path)]
    assert len(texts) > 25 and set(texts) >= ELSEWHERE
    assert [text for text in texts if not ADVICE.search(text) and text not in ELSEWHERE] == []
