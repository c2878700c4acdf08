"""Replicas on Ray, beyond the tests of `each_service`. Each cluster runs in its own process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import httpx2
import pytest
import yaml
from factories import make_model, make_windows
from processes import is_running
from sockets import connect, head, read_answer
from waiting import poll

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.errors import ConfigError
from service.settings import choose_settings

ON_RAY = pytest.mark.thorough("starts a Ray cluster")
KEYS = "reader read reader-key-0123456789; owner admin owner-key-0123456789"
OWNER = {"Authorization": "Bearer owner-key-0123456789"}
PATH = "/v1/models/head:predict"
TYPE = "Content-Type: application/json"
N_CLIENTS = 4
N_HELD = 4  # requests whose bodies are sent late


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with one model."""
    path = tmp_path_factory.mktemp("models")
    save_checkpoint(make_model("head"), path / "head.safetensors")
    return path


@pytest.fixture(scope="module")
def replicas(launch_on_ray, models):
    """Two replicas with keys, which load a new checkpoint soon."""
    variables = {
        "KANSCOPE_KEYS": KEYS,
        "KANSCOPE_POLL_SECONDS": "0.2",
        "KANSCOPE_MAX_CONCURRENT": "8",
        "KANSCOPE_REPOSITORY_API": "true",
    }
    with launch_on_ray(models, KANSCOPE_MIN_REPLICAS="2", KANSCOPE_MAX_REPLICAS="2", **variables) as process:
        process.client.headers.update(OWNER)
        yield process


def ask(client, path, **options):
    """Sends a request on a new connection."""
    with httpx2.Client(base_url=client.base_url, headers=client.headers, timeout=60) as one:
        return one.request("POST" if "json" in options else "GET", path, **options)


def find_replica(client):
    """Name and process of the replica that answers."""
    labels = ask(client, "/metrics").text
    (found,) = set(re.findall(r'pid="(\d+)",replica="(\w+)"', labels))
    return found[1], int(found[0])


def find_replicas(client, n):
    """The processes of n replicas by name, once n of them answer."""
    found = {}

    def complete():
        name, pid = find_replica(client)
        found[name] = pid
        return len(found) >= n

    poll(complete)
    return found


def make_body(model, n=3):
    return {"instances": make_windows(model, n).tolist()}


class Traffic:
    """Clients that repeat a request until they are stopped; their responses in order of arrival."""

    def __init__(self, client, body):
        self.answers = []
        self._client, self._body = client, body
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(N_CLIENTS)]

    def _ask(self):
        with httpx2.Client(base_url=self._client.base_url, headers=self._client.headers, timeout=60) as one:
            while not self._stopping.is_set():
                self.answers.append(one.post(PATH, json=self._body))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, n):
        """Waits for n further responses."""
        enough = len(self.answers) + n
        poll(lambda: len(self.answers) >= enough)


@ON_RAY
def test_each_replica_has_its_own_labels(replicas):
    """Every sample has the replica's name and process, and every log line its process."""
    found = find_replicas(replicas.client, 2)
    assert len(set(found.values())) == 2 and replicas.popen.pid not in found.values()

    def processes():
        lines = [line for line in replicas.log.read_text().splitlines() if '"event":"request"' in line]
        return {json.loads(line[line.index("{") :])["process"] for line in lines}

    poll(lambda: processes() == set(found.values()))


@ON_RAY
def test_keys_have_the_same_access(replicas):
    """No key gives 401, a key without the scope 403, and health needs none."""
    body = {"instances": [[[0.0] * 4]]}
    with httpx2.Client(base_url=replicas.client.base_url, timeout=60) as one:
        assert one.get("/readyz").status_code == 200
        assert (answer := one.get("/v1/models")).status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        one.headers["Authorization"] = "Bearer reader-key-0123456789"
        assert one.get("/v1/models").status_code == 200
        assert one.post("/v1/models/head:explain", json=body).status_code == 403


@ON_RAY
def test_no_model_is_loaded_by_command(replicas):
    """The command would reach only one of the replicas."""
    answer = replicas.client.post("/v2/repository/models/head/unload")
    assert (answer.status_code, "(workers, or the engine ray)" in answer.json()["error"]) == (501, True)


@ON_RAY
def test_requests_above_the_limit_are_refused(replicas):
    """If every replica is full, a request is refused with the common error schema; health is always answered."""
    client = replicas.client
    find_replicas(client, 2)
    held = []

    def are_full():
        """Sends one more request, and returns whether both replicas are full."""
        held.append(connect(client))
        key = f"Authorization: {OWNER['Authorization']}"
        held[-1].sendall(head("POST", PATH, key, TYPE, "Content-Length: 9"))
        return [ask(client, "/v1/models").status_code for _ in range(8)] == [503] * 8

    try:
        poll(are_full)
        answer = ask(client, "/v1/models")
        assert int(answer.headers["retry-after"]) > 0
        assert "(max_concurrent)" in answer.json()["error"]
        assert ask(client, "/healthz").status_code == ask(client, "/readyz").status_code == 200
    finally:
        for connection in held:
            connection.close()
    poll(lambda: [ask(client, "/v1/models").status_code for _ in range(8)] == [200] * 8)


@ON_RAY
def test_a_checkpoint_is_replaced_without_a_failed_or_mixed_answer(replicas, models):
    """Each response is the forecast of the checkpoint it names, and finally both replicas have the new one."""
    file = models / "head.safetensors"
    before = load_checkpoint(file)
    body = make_body(before)
    windows = make_windows(before, 3)
    expected = {f"sha256:{before.sha256}": before.predict(windows)}
    find_replicas(replicas.client, 2)
    with Traffic(replicas.client, body) as traffic:
        traffic.wait_for(50)
        for seed in (1, 2):
            save_checkpoint(make_model("head", seed=seed), file)
            after = load_checkpoint(file)
            expected[new := f"sha256:{after.sha256}"] = after.predict(windows)
            serving = {}

            def both_have_it(new=new, serving=serving):
                name, _ = find_replica(replicas.client)
                serving[name] = ask(replicas.client, "/v1/models/head").json()["checkpoint"]
                recent = {answer.json()["checkpoint"] for answer in traffic.answers[-50:]}
                return recent == {new}

            poll(both_have_it)
            traffic.wait_for(50)
    assert {answer.status_code for answer in traffic.answers} == {200}
    seen = {answer.json()["checkpoint"] for answer in traffic.answers}
    assert seen == set(expected) and len(seen) == 3
    for answer in traffic.answers:
        document = answer.json()
        assert document["predictions"] == pytest.approx(expected[document["checkpoint"]], rel=1e-5, abs=1e-6)


@ON_RAY
def test_a_replica_that_is_killed_is_replaced(replicas, models):
    """Its requests fail with 503 in the common error schema, at most one per client; another replica replaces it."""
    before = find_replicas(replicas.client, 2)
    killed = next(iter(before))
    body = make_body(load_checkpoint(models / "head.safetensors"))
    with Traffic(replicas.client, body) as traffic:
        traffic.wait_for(50)
        os.kill(before[killed], signal.SIGKILL)
        after = set()

        def replaced():
            after.add(find_replica_or_none(replicas.client))
            return len(after - {None, *before}) == 1 and set(before) - {killed} <= after

        poll(replaced)
        traffic.wait_for(50)
    failed = [answer for answer in traffic.answers if answer.status_code != 200]
    assert len(failed) <= N_CLIENTS
    for answer in failed:
        document = answer.json()
        assert (answer.status_code, document["status"]) == (503, 503)
        assert document["request_id"] == answer.headers["x-request-id"] and answer.headers["retry-after"] == "1"
    assert {answer.status_code for answer in traffic.answers[-50:]} == {200}


def find_replica_or_none(client):
    answer = ask(client, "/metrics")
    return re.findall(r'replica="(\w+)"', answer.text)[0] if answer.status_code == 200 else None


@ON_RAY
def test_sigterm_lets_accepted_requests_end(replicas, models):
    """Requests that replicas have begun to read are answered before the process ends. Runs after the other tests."""
    body = json.dumps(make_body(load_checkpoint(models / "head.safetensors"))).encode()
    key = f"Authorization: {OWNER['Authorization']}"
    held = []

    def is_held():  # Serve asks the replica with fewer requests for its metrics, so both must hold some
        if len(held) < N_HELD:
            held.append(stack.enter_context(connect(replicas.client)))
            held[-1].sendall(head("POST", PATH, key, TYPE, f"Content-Length: {len(body)}") + body[:10])
        text = ask(replicas.client, "/metrics").text
        return len(held) == N_HELD and 'in_flight{pid="' in text and in_flight(text) > 1

    with ExitStack() as stack:
        poll(is_held)
        replicas.popen.send_signal(signal.SIGTERM)
        poll(lambda: "Removing 2 replicas" in replicas.log.read_text())
        for connection in held:
            connection.sendall(body[10:])
            answer, document = read_answer(connection)
            assert (answer.status, document["model_name"]) == (200, "head")
        assert replicas.popen.wait(300) == 0


@ON_RAY
def test_replicas_scale_up_and_end_with_the_process(launch_on_ray, models):
    """More concurrent requests than a replica should have start another one; killing the process ends them all."""
    with launch_on_ray(models, KANSCOPE_MAX_REPLICAS="2", KANSCOPE_REPLICA_REQUESTS="1") as process:
        assert len(find_replicas(process.client, 1)) == 1
        held = [connect(process.client) for _ in range(6)]
        for connection in held:
            connection.sendall(head("POST", PATH, TYPE, "Content-Length: 9"))
        found = find_replicas(process.client, 2)
        process.popen.kill()
        process.popen.wait(300)
        poll(lambda: not any(map(is_running, found.values())))
        for connection in held:
            connection.close()
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            poll(lambda: can_bind(listening, process.client))


def can_bind(listening, client):
    try:
        listening.bind((client.base_url.host, client.base_url.port))
    except OSError:
        return False
    return True


@ON_RAY
@pytest.mark.parametrize("told", [False, True])
def test_the_command_ends_where_its_cluster_does(launch_on_ray, models, told):
    """By itself with an error, and on SIGTERM too, as if a supervisor ends all processes at once."""
    with launch_on_ray(models, KANSCOPE_SHUTDOWN_TIMEOUT="0") as process:
        (raylet,) = find_children(process.popen.pid, "raylet")
        os.kill(raylet, signal.SIGKILL)
        if told:
            process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(120) == (0 if told else 1)
        assert ("no node of the cluster is alive" in process.log.read_text()) is not told


def find_children(pid, name):
    """The child processes of a process with a given name."""
    stats = [stat.read_text() for stat in Path("/proc").glob("[0-9]*/stat") if stat.exists()]
    fields = [re.fullmatch(r"(\d+) \((.*)\) \S (\d+) .*", stat, re.DOTALL).groups() for stat in stats]
    return [int(child) for child, called, parent in fields if called == name and int(parent) == pid]


def in_flight(text):
    return float(re.search(r"kanscope_requests_in_flight{\S+ (\S+)", text)[1])


def fail_to_start(home, *arguments):
    """The last line of output of a command that must exit by itself, as after a user error."""
    command = [sys.executable, "-m", "service.cli", "serve", *map(str, arguments), "--engine", "ray"]
    variables = {**os.environ, "RAY_ADDRESS": "local", "HOME": str(home), "KANSCOPE_REPLICA_CPUS": "0"}
    ended = subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2, ended.stderr
    return ended.stderr.splitlines()[-1]


@ON_RAY
def test_where_no_model_answers_the_command_ends(tmp_path):
    """Ray retries a few times, then the reason is given in one sentence."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "broken.safetensors").write_bytes(b"no checkpoint")
    last = fail_to_start(tmp_path, "models", "--port", 1)
    assert last.startswith("kanscope: the replicas do not start: ") and "no model is ready: broken failed: " in last


@ON_RAY
def test_where_another_process_listens_the_command_ends(tmp_path):
    """The error names the address."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        last = fail_to_start(tmp_path, "--port", port)
    assert last.startswith("kanscope: the proxies do not start: ") and f"'127.0.0.1:{port}'" in last


def test_serve_run_takes_settings_and_requires_keys(models, monkeypatch):
    """`serve run service.engines.ray:app models=…` deploys what `kanscope serve` does, and requires keys."""
    from ray.serve import Application  # imported here, as Ray takes 100 MB in every process

    from service.engines.ray import app

    monkeypatch.delenv("KANSCOPE_KEYS", raising=False)
    with pytest.raises(ConfigError, match="set KANSCOPE_KEYS_FILE or KANSCOPE_KEYS, or KANSCOPE_NO_AUTH=true"):
        app({"models": str(models)})
    with pytest.raises(ConfigError, match="KANSCOPE_MODEL is "):
        app({"model": str(models)})
    with pytest.raises(ConfigError, match="max_replicas is 1, less than min_replicas, 2"):
        app({"models": str(models), "no_auth": "true", "min_replicas": "2", "max_replicas": "1"})
    assert isinstance(app({"models": str(models), "no_auth": "true"}), Application)


def test_the_port_must_be_one_that_every_proxy_can_take(run):
    """Port 0 would be a different port on every node."""
    code, _, err = run("serve", "--engine", "ray", "--port", "0")
    assert (code, err) == (2, "kanscope: the engine ray needs a port above 0\n")


def test_without_ray_the_error_says_how_to_install_it(run, monkeypatch):
    """Ray is imported only on request."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "service.engines.ray", raising=False)
    code, _, err = run("serve", "--engine", "ray")
    assert (code, err) == (2, "kanscope: the engine ray needs Ray: pip install 'kanscope[ray]'\n")


def test_the_config_of_serve_deploys_the_app():
    """It has Serve's format; its import path exists, and its arguments are settings."""
    from ray.serve.schema import ServeDeploySchema  # imported here, as Ray takes 100 MB in every process

    file = Path(__file__).parents[2] / "examples" / "ray" / "serve.yaml"
    config = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    (application,) = config.applications
    module, name = application.import_path.split(":")
    assert callable(getattr(import_module(module), name))
    assert choose_settings(**application.args)
    middlewares = config.controller_options.runtime_env["env_vars"]["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    module, name = middlewares.split(":")
    assert callable(getattr(import_module(module), name))
