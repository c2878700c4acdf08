"""Several processes at one address: real ones, told apart by their ids in /metrics."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import pytest
import uvicorn
from processes import is_running, start_process
from sockets import connect, head, read_answer
from uvicorn.config import STARTUP_FAILURE
from waiting import poll

from service.engines.workers import Worker

BODY = json.dumps({"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}).encode()  # fits model "two"


@pytest.fixture
def workers(launch, folder):
    """Starts two of them."""

    def start(**variables):
        return launch(folder / "two.safetensors", "--workers", "2", KANSCOPE_LOG_FORMAT="json", **variables)

    return start


def read_metrics(client):
    """The metrics of whichever process answers a new connection, and its id."""
    with httpx2.Client(base_url=client.base_url, timeout=60) as one:
        text = one.get("/metrics").text
    (pid,) = set(re.findall(r'pid="(\d+)"', text))
    return int(pid), text


def find_processes(client, n=2):
    """The ids of the processes that answer, once there are n."""
    found = set()

    def complete():
        found.add(read_metrics(client)[0])
        return len(found) >= n

    poll(complete)
    return found


def test_two_processes_answer_alike(workers):
    """Both forecast and explain, and settings of the command line and of the environment have reached both."""
    with workers(KANSCOPE_MAX_WINDOWS="2") as process:
        pids = find_processes(process.client)
        assert len(pids) == 2 and process.popen.pid not in pids
        seen = {}

        def ask():
            with httpx2.Client(base_url=process.client.base_url, timeout=60) as one:  # one connection is one process's
                pid = int(re.search(r'pid="(\d+)"', one.get("/metrics").text)[1])
                body = json.loads(BODY)
                seen[pid] = (
                    one.get("/readyz").json()["ready"],
                    one.post("/v1/models/two:predict", json=body).json(),
                    one.post("/v1/models/two:explain", json={**body, "output": "a+1"}).json()["explanations"],
                    one.post("/v1/models/two:predict", json={"instances": [[]] * 3}).json()["error"],
                )
            return len(seen) == 2

        poll(ask)
    (first, second) = seen.values()
    assert first == second
    assert first[0] is True and "at most" not in first[3] and "1 to 2 instances (max_windows)" in first[3]


def test_log_lines_say_which_process_they_are_of(workers):
    """Each line has its id, that of a request and that of a library."""
    with workers() as process:
        pids = find_processes(process.client)
        lines = process.lines()
        assert {line["process"] for line in lines} == {*pids, process.popen.pid}
        assert {line["process"] for line in lines if line["event"] == "request"} == pids


def test_log_lines_of_a_single_process_leave_it_out(launch, folder):
    """Where there is one, nothing is to be told apart."""
    with launch(folder / "two.safetensors", KANSCOPE_LOG_FORMAT="json") as process:
        assert not any("process" in line for line in process.lines())


def test_one_that_is_killed_is_replaced(workers):
    """After kill -9 the other answers every request until a third is there, which has its models before it answers."""
    with workers() as process:
        killed, other = find_processes(process.client)
        os.kill(killed, signal.SIGKILL)
        answered = set()

        def ask():
            with httpx2.Client(base_url=process.client.base_url, timeout=60) as one:
                pid = int(re.search(r'pid="(\d+)"', one.get("/metrics").text)[1])
                assert one.post("/v1/models/two:predict", json=json.loads(BODY)).status_code == 200
            answered.add(pid)
            return len(answered) == 2

        poll(lambda: not is_running(killed))
        poll(ask)
        assert other in answered and killed not in answered


class Silent(Worker):
    """A worker that answers no health check."""

    def target(self, sockets=None):
        time.sleep(600)


def test_one_that_is_killed_during_a_health_check_is_missed_at_once():
    """The check ends with the process, not with the time that a busy one has."""
    worker = Silent(uvicorn.Config("none"), [])
    worker.start()
    threading.Timer(1, worker.process.kill).start()
    begun = time.monotonic()
    assert not worker.is_alive(timeout=300)
    assert time.monotonic() - begun < 150
    worker.join()


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_sigterm_ends_the_first_load(tmp_path, folder, arguments):
    """A process that is still loading a large folder ends with the file that it reads, not with the last one."""
    models, log = tmp_path / "models", tmp_path / "log"
    models.mkdir()
    n_models = 3000
    for number in range(n_models):
        (models / f"{number}.safetensors").symlink_to(models / "first")
    (models / "first").write_bytes((folder / "two.safetensors").read_bytes())
    with start_process(log, models, *arguments, KANSCOPE_LOG_FORMAT="json") as process:
        poll(lambda: " serves " in log.read_text())
        process.popen.send_signal(signal.SIGTERM)
        process.popen.wait(100)
        assert log.read_text().count(" serves ") < n_models


@pytest.mark.alone
def test_sigterm_under_load_lets_accepted_requests_end(workers):
    """Forecasts and explanations that either process has begun to read are answered, and no answer is an error."""
    with workers() as process:
        client = process.client
        find_processes(client)
        explain = json.dumps({"instances": json.loads(BODY)["instances"] * 40, "output": ["a+1", "b+2"]}).encode()
        requests = [post("predict", BODY)] * 16 + [post("explain", explain)] * 8
        statuses = []
        load = [threading.Thread(target=ask_until_closed, args=(client, statuses)) for _ in range(4)]
        connections = [connect(client) for _ in requests]
        for connection, request in zip(connections, requests, strict=True):
            connection.sendall(request[:-1])
        in_flight = {}

        def all_begun():
            pid, text = read_metrics(client)
            in_flight[pid] = float(re.search(r"kanscope_requests_in_flight{\S+ (\S+)", text)[1]) - 1  # but for this one
            return sum(in_flight.values()) == len(requests)

        poll(all_begun)
        for thread in load:
            thread.start()
        poll(lambda: len(statuses) > 20)
        process.popen.send_signal(signal.SIGTERM)
        for thread in load:
            thread.join(60)
        for connection, request in zip(connections, requests, strict=True):
            connection.sendall(request[-1:])
        for connection, request in zip(connections, requests, strict=True):
            with connection:
                answer, body = read_answer(connection)
                assert (answer.status, body["model_name"]) == (200, "two")
                assert len(body.get("explanations", ())) == (80 if b":explain" in request[:100] else 0)
        assert process.popen.wait(60) == 0
        assert set(statuses) == {200}


def test_none_outlives_its_supervisor(workers):
    """Where that is killed, the processes end, and the address is free for the next one."""
    with workers() as process:
        pids = find_processes(process.client)
        process.popen.kill()
        process.popen.wait(30)
        poll(lambda: not any(map(is_running, pids)))
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((process.client.base_url.host, process.client.base_url.port))
            listening.listen()


def test_an_address_that_is_taken_ends_the_command():
    """It is logged, and the exit code says that nothing was served."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "service.cli", "serve", "--workers", "2", "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == STARTUP_FAILURE
    assert "Address already in use" in ended.stderr


def post(verb, body):
    """A request to model "two"."""
    length = f"Content-Length: {len(body)}"
    return head("POST", f"/v1/models/two:{verb}", "Content-Type: application/json", length) + body


def ask_until_closed(client, statuses):
    """Forecasts on connections of their own until the address takes none; one that nobody has read from is reset."""
    while True:
        try:
            with connect(client) as connection:
                connection.sendall(post("predict", BODY))
                if first := connection.recv(1024):
                    statuses.append(int(first.split()[1]))
        except ConnectionRefusedError:
            return
        except (ConnectionResetError, BrokenPipeError):
            continue
