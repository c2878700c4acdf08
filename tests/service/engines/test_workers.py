"""Several processes at one address, told apart by their process ids in /metrics and in the log."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from itertools import count, cycle, islice, pairwise
from pathlib import Path
from typing import ClassVar

import httpx2
import pytest
import uvicorn
from processes import is_running, run_process, start_process
from sockets import connect, head, read_answer, sum_samples
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import SIGNALS
from waiting import poll, repeating

from service.engines import workers as engine
from service.engines.turns import create_shares
from service.engines.workers import GRACE, HEALTH_TIMEOUT, HEALTHY, LONGEST, Worker
from service.telemetry.metrics import SHARED

NUMBERS = count()
COUNTED = "batch_windows_count"
BODY = json.dumps({"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}).encode()  # fits model "two"
TWO = ("--workers", "2")


@pytest.fixture
def start_workers(launch, folder):
    """Starts two worker processes, for a test that ends them."""
    return partial(launch, folder / "two.safetensors", *TWO, KANSCOPE_LOG_FORMAT="json")


@pytest.fixture(scope="module")
def workers(folder, tmp_path_factory):
    """Two worker processes, whose supervisor lives through the tests; a killed worker is replaced."""
    log = tmp_path_factory.mktemp("workers") / "log"
    settings = {"KANSCOPE_LOG_FORMAT": "json", "KANSCOPE_MAX_WINDOWS": "2"}
    with run_process(log, folder / "two.safetensors", *TWO, **settings) as process:
        yield process


def ask(process, method, path, **options):
    """The response to a request on a new connection, and the id of the process that gave it, from the log."""
    name = f"ask-{next(NUMBERS)}"
    with httpx2.Client(base_url=process.client.base_url, timeout=60, headers={"X-Request-Id": name}) as one:
        answer = one.request(method, path, **options)
    return answer, read_process(process, name)


def process_of(process, connection):
    """The id of the process that has a connection."""
    name = f"ask-{next(NUMBERS)}"
    connection.sendall(head("GET", "/healthz", f"X-Request-Id: {name}"))
    read_answer(connection)
    return read_process(process, name)


def read_process(process, name):
    """The id of the process that has answered a request, from the log."""

    def lines():
        return [line for line in process.lines() if line.get("id") == name]

    poll(lines)
    return lines()[0]["process"]


def find_processes(process, n=2):
    """The ids of the processes that answer, once there are n."""
    found = set()

    def complete():
        found.add(ask(process, "GET", "/healthz")[1])
        return len(found) >= n

    poll(complete)
    return found


@pytest.mark.thorough("starts two processes for their log")
def test_log_lines_say_which_process_they_are_of(workers):
    """Each line has the process id, whether it is of a request or of a library."""
    pids = find_processes(workers)
    lines = workers.lines()
    assert {line["process"] for line in lines} == {*pids, workers.popen.pid}
    assert {line["process"] for line in lines if line["event"] == "request"} == pids


def test_log_lines_of_a_single_process_leave_it_out(launch, folder):
    """With one process, log lines have no process id."""
    with launch(folder / "two.safetensors", KANSCOPE_LOG_FORMAT="json") as process:
        assert not any("process" in line for line in process.lines())


def test_two_processes_answer_alike(workers):
    """Both predict and explain, and have the settings of the command line and of the environment."""
    pids = find_processes(workers)
    assert len(pids) == 2 and workers.popen.pid not in pids
    seen = {}
    body = json.loads(BODY)

    def ask_each():
        ready, pid = ask(workers, "GET", "/readyz")
        answers = [
            ask(workers, "POST", "/v1/models/two:predict", json=body),
            ask(workers, "POST", "/v1/models/two:explain", json={**body, "output": "a+1"}),
            ask(workers, "POST", "/v1/models/two:predict", json={"instances": [[]] * 3}),
        ]
        ask(workers, "GET", "/healthz")  # they take turns: after five requests the other one is asked first
        for place, (answer, by) in enumerate([(ready, pid), *answers]):
            seen.setdefault(by, {})[place] = {**answer.json(), "request_id": ""}
        return len(seen) == 2 and all(len(of_one) == 4 for of_one in seen.values())

    poll(ask_each)
    (first, second) = seen.values()
    assert first == second
    assert first[0]["ready"] is True and "1 to 2 instances (max_windows)" in first[3]["error"]


@pytest.mark.thorough("a busy machine may not run a process in its turn", alone=True)
def test_connections_are_shared_evenly(workers):
    """The process with the fewest open connections gets the next one, whether they come one by one or at once."""
    pids = find_processes(workers)
    with ExitStack() as stack:
        for is_answered in (True, False):  # before the next one comes
            opened = []
            for _ in range(10):
                opened.append(stack.enter_context(connect(workers.client)))
                if is_answered:
                    process_of(workers, opened[-1])
            by = Counter(process_of(workers, connection) for connection in opened)
            assert by.keys() == pids
            assert max(by.values()) <= 6, "the client of the fixture may have one too"


@pytest.mark.thorough("starts two processes to stop one", alone=True)
def test_a_process_that_hangs_keeps_no_connection_waiting(start_workers):
    """The other one accepts in its place, and gives the turns back."""
    with start_workers() as process:
        stopped, other = find_processes(process)
        os.kill(stopped, signal.SIGSTOP)
        try:
            with ExitStack() as stack:
                opened = [stack.enter_context(connect(process.client)) for _ in range(20)]
                began = time.monotonic()
                assert {process_of(process, connection) for connection in opened} == {other}
                assert time.monotonic() - began < 10
                os.kill(stopped, signal.SIGCONT)
                poll(lambda: ask(process, "GET", "/healthz")[1] == stopped)
                opened = [stack.enter_context(connect(process.client)) for _ in range(10)]
                assert {process_of(process, connection) for connection in opened} == {stopped}
        finally:
            os.kill(stopped, signal.SIGCONT)


def count_files(pid):
    """How many files and connections a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.thorough("starts two processes that run out of file descriptors", alone=True)
def test_connections_wait_while_there_are_no_file_descriptors(start_workers):
    """The log says so, and once there are some, each is answered; those that are reset at once change nothing."""
    with start_workers() as process, ExitStack() as stack:
        for pid in (pids := find_processes(process)):
            soft = count_files(pid) + 2
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, 4096))
        opened = [stack.enter_context(connect(process.client)) for _ in range(12)]
        poll(lambda: any("no connection is accepted" in line["event"] for line in process.lines()))
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (4096, 4096))
        by = Counter(process_of(process, connection) for connection in opened)
        assert by.keys() == pids
        fewer = min(pids, key=by.__getitem__)
        poll(lambda: ask(process, "GET", "/healthz")[1] == fewer)  # which accepts again
        before = {pid: count_files(pid) for pid in pids}
        for _ in range(300):
            with connect(process.client) as reset:
                reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        poll(lambda: all(count_files(pid) <= before[pid] for pid in pids))
        poll(lambda: ask(process, "GET", "/healthz")[1] == fewer)  # the other one knows how many it has
        opened = [stack.enter_context(connect(process.client)) for _ in range(20)]
        by += Counter(process_of(process, connection) for connection in opened)
        assert max(by.values()) - min(by.values()) <= 2, "the next ones went to the process with fewer"
        assert not any("Task exception" in str(line) for line in process.lines())


def test_one_scrape_covers_all_processes(workers):
    """Counts and times are summed, models are those of any process, memory is per process."""
    pids = find_processes(workers)
    before = sum_samples(ask(workers, "GET", "/metrics")[0].text, COUNTED)
    with ExitStack() as stack:
        opened, of = [], set()

        def are_of_both():
            opened.append(stack.enter_context(connect(workers.client)))
            of.add(process_of(workers, opened[-1]))
            return of == pids

        poll(are_of_both)
        for connection in islice(cycle(opened), 40):
            connection.sendall(post("predict", BODY))
            assert read_answer(connection)[0].status == 200
    texts = {}
    while len(texts) < 2:
        answer, pid = ask(workers, "GET", "/metrics")
        texts[pid] = answer.text
    for text in texts.values():
        assert sum_samples(text, COUNTED) - before == 40
        assert re.search(r'^kanscope_models{state="ready"} 1.0$', text, re.MULTILINE)
        assert "kanscope_build_info{" in text
        memory = re.findall(r'^process_resident_memory_bytes{pid="(\d+)"} (\S+)$', text, re.MULTILINE)
        assert {int(pid) for pid, _ in memory} == pids and min(float(size) for _, size in memory) > 1e8
    poll(lambda: sum_samples(ask(workers, "GET", "/metrics")[0].text, "requests_in_flight") == 1)


@pytest.mark.thorough("waits for two processes that start")
def test_a_process_that_is_killed_is_in_no_gauge_and_stays_in_the_counts(workers):
    """Its current work is subtracted, its completed work is not."""
    find_processes(workers)
    with connect(workers.client) as connection:
        connection.sendall(post("predict", BODY)[:-1])  # in flight, in one of them
        poll(lambda: sum_samples(workers.client.get("/metrics").text, "requests_in_flight") == 2)
        total = sum_samples(workers.client.get("/metrics").text, COUNTED)
        for pid in find_processes(workers):
            os.kill(pid, signal.SIGKILL)
            poll(lambda pid=pid: pid not in memory_of(workers))
        poll(lambda: len(memory_of(workers)) == 2)
        poll(lambda: sum_samples(workers.client.get("/metrics").text, "requests_in_flight") == 1)
        text = workers.client.get("/metrics").text
    assert sum_samples(text, COUNTED) == total


def memory_of(process):
    """The ids of the processes whose memory is in the metrics."""
    try:
        text = ask(process, "GET", "/metrics")[0].text
    except httpx2.HTTPError:
        return set()
    return {int(pid) for pid in re.findall(r'^process_resident_memory_bytes{pid="(\d+)"}', text, re.MULTILINE)}


def test_one_that_is_killed_is_replaced(workers):
    """After kill -9 the other process answers all requests until a third has loaded its models."""
    killed, other = find_processes(workers)
    os.kill(killed, signal.SIGKILL)
    answered = set()

    def both_answer():
        answer, pid = ask(workers, "POST", "/v1/models/two:predict", json=json.loads(BODY))
        assert answer.status_code == 200
        answered.add(pid)
        return len(answered) == 2

    poll(lambda: not is_running(killed))
    poll(both_answer)
    assert other in answered and killed not in answered


@pytest.mark.thorough("starts its own processes")
def test_sighup_replaces_the_processes_in_turn(start_workers):
    """Each request is answered meanwhile, and the gauges are those of the new processes."""
    with start_workers() as process:
        before = find_processes(process)
        process.popen.send_signal(signal.SIGHUP)
        poll(
            lambda: (
                ask(process, "POST", "/v1/models/two:predict", json=json.loads(BODY))[0].status_code == 200
                and not any(map(is_running, before))
            )
        )
        after = find_processes(process)
        poll(lambda: memory_of(process) == after)
        assert not after & before


@pytest.mark.thorough("starts its own processes", alone=True)
def test_while_the_folder_is_missing_the_others_serve_and_each_attempt_is_one_line(launch, folder, tmp_path):
    """Later and later; so is a reload that fails. Once the folder is back, all serve again, and a reload succeeds."""
    models = shutil.copytree(folder, tmp_path / "models", ignore=shutil.ignore_patterns("[!t]*"))
    with launch(models, *TWO, KANSCOPE_LOG_FORMAT="json", KANSCOPE_POLL_SECONDS="0.2") as process:

        def said(text, level="error"):
            return [line["event"] for line in process.lines() if text in line["event"] and line["level"] == level]

        asking = threading.Lock()  # held while a process is killed, as that breaks its connections

        def predict():
            time.sleep(0.1)
            with asking:
                return ask(process, "POST", "/v1/models/two:predict", json=json.loads(BODY))

        killed, left = find_processes(process)
        with repeating(predict, 1) as answers:
            models.rename(tmp_path / "away")
            poll(lambda: len(said("the models cannot be scanned")) == 2)
            with asking:
                os.kill(killed, signal.SIGKILL)
                poll(lambda: said("was ended by SIGKILL"))
            poll(lambda: len(said("did not start")) >= 2)
            process.popen.send_signal(signal.SIGHUP)
            poll(lambda: said("no reload"))
            n = len(answers)
            poll(lambda: len(answers) > n)
            (tmp_path / "away").rename(models)
            poll(lambda: said("all 2 worker processes serve again", "info"))
            assert left in find_processes(process)
            process.popen.send_signal(signal.SIGHUP)
            poll(lambda: not is_running(left))
            find_processes(process)
        assert {answer.status_code for answer, _ in answers} == {200}
        assert {pid for _, pid in answers[:n]} <= {killed, left}
        assert said("was ended by SIGKILL")[0].startswith(f"worker process {killed} was ended by SIGKILL; if nobody")
        cause = f"did not start: there is no file or folder {models}; mend that"
        what = rf"worker process \d+ {re.escape(cause)}. Another one is started in (\d+) s; 1 of 2 serve"
        seconds = [int(re.fullmatch(what, event)[1]) for event in said("Another one")[1:]]
        assert len(seconds) >= 2 and all(later == min(2 * earlier, LONGEST) for earlier, later in pairwise(seconds))
        (refused,) = said("no reload")
        kept = "the processes that serve are kept"
        assert re.fullmatch(
            rf"no reload, {kept}: worker process \d+ {re.escape(cause)}, and send SIGHUP again", refused
        )
        assert len(said("the models are scanned again", "info")) >= 1
        assert not any("exception" in line or "Traceback" in line["event"] for line in process.lines())


@pytest.mark.thorough("starts its own processes")
def test_the_command_ends_if_no_process_can_start(folder, tmp_path):
    """As when the folder goes after the command has looked at it: with the cause in the log, and not with 0."""
    models = shutil.copytree(folder, tmp_path / "models")
    with start_process(tmp_path / "log", models, *TWO, KANSCOPE_LOG_FORMAT="json") as process:
        models.rename(tmp_path / "away")
        assert process.popen.wait(120) == STARTUP_FAILURE
        (line,) = [line for line in process.lines() if line["level"] == "error"]
        cause = f"did not start: there is no file or folder {models}; mend that, and start it again"
        assert line["event"].startswith("the service ends: worker process ") and line["event"].endswith(cause)


class Scripted:
    """A worker whose test says when it is ready and when it ends."""

    made: ClassVar[list[Scripted]] = []
    exitcode = 1

    def __init__(self, *_):
        self.ready, self.is_running, self.pid = None, True, 100 + len(self.made)
        self.made.append(self)

    def start(self):
        pass

    def is_alive(self, timeout):
        return self.is_running

    def describe_end(self):
        return "ended"

    kill = join = terminate = start


@pytest.fixture
def supervise(monkeypatch, caplog):
    """A supervisor of two scripted workers, and its clock, which a step moves on by a second."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    now = [1000.0]
    monkeypatch.setattr(engine, "Worker", Scripted)
    monkeypatch.setattr(engine, "monotonic", lambda: now[0])
    monkeypatch.setattr(Scripted, "made", [])
    supervisor = engine._Supervisor(uvicorn.Config("none", port=0, workers=2), create_shares(3), lambda: None)

    def step(seconds=1.0):
        now[0] += seconds
        supervisor.keep_subprocess_alive()
        return now[0]

    supervisor.init_processes()
    for worker in supervisor.processes:
        worker.ready = now[0]
    step()
    yield supervisor, step
    for listening in supervisor.sockets:
        listening.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_back_off_doubles_up_to_a_bound_and_ends_after_a_healthy_time(supervise):
    """However often it fails; of two that are missing one is tried, and both are there once that serves."""
    supervisor, step = supervise
    step(HEALTHY)
    for worker in supervisor.processes:
        worker.is_running = False
    times, n = [step()], 2
    assert len(Scripted.made) == 4, "they had served long, so both are replaced at once"
    for worker in supervisor.processes:
        worker.is_running = False
    step()
    for _ in range(12):
        n_made = len(Scripted.made)
        while len(Scripted.made) == n_made:
            time = step()
        times.append(time)
        assert len(supervisor.processes) == 1
        supervisor.processes[0].is_running = False
    gaps = [later - earlier for earlier, later in pairwise(times[1:])]
    assert gaps[:3] == [5, 9, 17] and set(gaps[4:]) == {LONGEST + 1}
    n = len(Scripted.made)
    while len(Scripted.made) == n:
        step()
    supervisor.processes[0].ready = step()
    step()
    assert len(supervisor.processes) == 2, "one serves, so the other is started"
    supervisor.processes[1].ready = step()
    step(HEALTHY)
    supervisor.processes[1].is_running = False
    n = len(Scripted.made)
    step()
    assert len(Scripted.made) == n + 1


def test_a_signal_for_one_process_more_or_less_changes_nothing_that_fails(supervise):
    """SIGTTIN goes up to the number of the start; SIGTTOU leaves one, and waits while one is missing."""
    supervisor, step = supervise
    supervisor.handle_ttin()
    step()
    assert len(supervisor.processes) == 2
    supervisor.processes[0].is_running = False
    step()
    supervisor.handle_ttou()
    assert (len(supervisor.processes), supervisor.processes_num) == (1, 2)
    step(LONGEST)
    supervisor.handle_ttou()
    supervisor.handle_ttou()
    assert len(supervisor.processes) == supervisor.processes_num == 1
    supervisor.handle_ttin()
    supervisor.processes[0].ready = step()
    step(LONGEST)
    assert len(supervisor.processes) == 2


@pytest.mark.thorough("starts its own processes")
def test_sigterm_ends_a_restart(start_workers):
    """SIGTERM while a process does not become ready ends the command, as at any other time."""
    with start_workers(KANSCOPE_SHUTDOWN_TIMEOUT="1") as process:
        find_processes(process)
        before = children_of(process.popen.pid)
        process.popen.send_signal(signal.SIGHUP)
        poll(lambda: children_of(process.popen.pid) - before)
        (new,) = children_of(process.popen.pid) - before
        poll(lambda: b"spawn_main" in Path(f"/proc/{new}/cmdline").read_bytes())  # until then vfork holds its parent
        os.kill(new, signal.SIGSTOP)
        begun = time.monotonic()
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(100) == 0
        assert time.monotonic() - begun < HEALTH_TIMEOUT / 2
        assert not is_running(new)


def children_of(pid):
    """The child processes of a process."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


class Silent(Worker):
    """A worker that does not answer health checks."""

    def target(self, sockets=None):
        time.sleep(600)


@pytest.fixture
def silent(monkeypatch, tmp_path):
    monkeypatch.setenv(SHARED, str(tmp_path))
    worker = Silent(uvicorn.Config("none", timeout_graceful_shutdown=0), [], create_shares(1))
    worker.start()
    yield worker
    worker.kill()
    worker.join()


def test_a_health_check_does_not_wait(silent):
    """Without an answer it passes until the timeout, and does not block; it fails at once when the process is dead."""
    assert silent.is_alive(timeout=300) and silent.is_alive(timeout=300)
    assert not silent.is_alive(timeout=0)
    assert silent.describe_end().startswith(f"was not ready within {HEALTH_TIMEOUT} seconds; see ")
    silent.process.kill()
    poll(lambda: not silent.is_alive(timeout=300))


def fail():
    raise ValueError("first\nsecond" * 1000)


def test_a_process_says_why_it_cannot_serve(monkeypatch, tmp_path):
    """On one line that is not too long; one that the system does not start, and one that is told to end, too."""
    monkeypatch.setenv(SHARED, str(tmp_path))
    shares = create_shares(1)
    worker = Worker(uvicorn.Config(fail, factory=True), [], shares)
    worker.start()
    poll(lambda: not worker.is_alive(timeout=300))
    worker.join()
    assert worker.exitcode == STARTUP_FAILURE
    assert re.fullmatch("did not start: (first second)+[a-z ]*; mend that", worker.describe_end())
    assert len(worker.describe_end()) < 1100
    worker = Worker(uvicorn.Config(fail, factory=True), [], shares)
    monkeypatch.setattr(worker.process, "start", lambda: os.listdir(tmp_path / "none"))
    worker.start()
    assert not worker.is_alive() and "did not start: [Errno 2]" in worker.describe_end()
    worker.kill()
    worker.join()
    assert not shares[0].taken
    worker = Silent(uvicorn.Config("none"), [], shares)
    worker.start()
    worker.process.terminate()
    worker.process.join()
    assert not worker.is_alive() and worker.describe_end() == "ended by SIGTERM; see its lines in the log"
    worker.join()


@pytest.mark.thorough("starts its own processes three times")
@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGTTOU, signal.SIGTERM)])
def test_a_process_that_hangs_is_killed_when_the_others_have_ended(start_workers, signals):
    """SIGTERM ends the command within the time to drain and a few seconds, whichever of the processes are stopped."""
    with start_workers(KANSCOPE_SHUTDOWN_TIMEOUT="1") as process:
        pids = find_processes(process)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        for number in signals:
            process.popen.send_signal(number)
        assert process.popen.wait(100) == 0
        assert 1 + GRACE <= time.monotonic() - begun < HEALTH_TIMEOUT
        assert not any(map(is_running, pids))
        killed = [line for line in process.lines() if "did not end in time and is killed" in line["event"]]
        assert len(killed) == len(pids)


@pytest.mark.thorough("starts its own processes twice")
@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_sigterm_ends_the_first_load(tmp_path, folder, arguments):
    """A process that is loading a large folder ends after the current file."""
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


@pytest.mark.thorough("starts its own processes")
def test_workers_end_with_their_supervisor(start_workers):
    """If the supervisor is killed, the processes end, and the address becomes free."""
    with start_workers() as process:
        pids = find_processes(process)
        process.popen.kill()
        process.popen.wait(300)
        poll(lambda: not any(map(is_running, pids)))
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((process.client.base_url.host, process.client.base_url.port))
            listening.listen()


def post(verb, body):
    """A request to model "two"."""
    length = f"Content-Length: {len(body)}"
    return head("POST", f"/v1/models/two:{verb}", "Content-Type: application/json", length) + body
