"""Runs the image of build.sh as its user, on a read-only root without a shell, and sends it four requests.

usage: check.py STORE
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

IMAGE = "localhost/kanscope:test"
USER = "10001"
LAYERS = (
    "Debian and Python",
    "torch and the other dependencies",
    "Kanscope",
)  # one COPY each, at the end of the Dockerfile
MAX_BYTES = 1_350_000_000
WINDOW = Path(__file__).parent.parent / "examples" / "window.json"
MODEL = "/v1/models/nyc-weather"

# In a process namespace the server is process 1, as in a container; its root is read-only, and its shell is disabled.
ISOLATE = """
mount --bind "$1" "$1"
mount --bind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount --bind /dev/null "$1/bin/sh"
mount -o remount,bind,ro "$1"
"""


def main(store: str) -> None:
    """Checks the image and prints the results."""

    def buildah(*arguments: str) -> str:
        command = ["buildah", "--root", f"{store}/images", "--runroot", f"{store}/run", *arguments]
        return subprocess.check_output(command, text=True).strip()

    image = json.loads(buildah("inspect", "--type", "image", IMAGE))
    print_layers(image)
    container = buildah("from", "--pull-never", IMAGE)
    try:
        check_labels(image["Docker"]["config"]["Labels"])
        root = Path(buildah("mount", container))
        check_running(root, image["Docker"]["config"])
        check_clients(root, image["Docker"]["config"])
        shutil.copy(root / "var/lib/dpkg/status", f"{store}/dpkg-status")
    finally:
        buildah("rm", container)


def print_layers(image: dict[str, Any]) -> None:
    """Prints the uncompressed size of each layer."""
    sizes = [layer["size"] for layer in json.loads(image["Manifest"])["layers"]]
    for name, size in zip((*LAYERS, "in all"), (*sizes, sum(sizes)), strict=True):
        print(f"{size / 1e6:8.1f} MB  {name}")
    assert sum(sizes) <= MAX_BYTES, (
        f"more than {MAX_BYTES / 1e6:.0f} MB; is torch a CPU build? See TORCH in the Makefile"
    )


def check_labels(labels: dict[str, str]) -> None:
    """Checks that the image says what it is, of which version, and on which base."""
    stated = {name.removeprefix("org.opencontainers.image."): text for name, text in labels.items()}
    given = {"version": "1.2.3", "revision": "abc", "base.name": "localhost/python-base"}  # by build.sh
    assert stated.items() >= given.items() and stated["title"] == "Kanscope", labels
    print(f"its labels: {', '.join(stated)}")


def check_running(root: Path, config: dict[str, Any]) -> None:
    """Checks that the server answers, as which user, and how it stops."""
    left = [str(path) for name in ("pip", "gcc", "cc") for path in root.glob(f"**/bin/{name}")]
    assert not left, left
    assert config["User"].partition(":")[0] == USER
    port = free_port()
    environment = dict(entry.split("=", 1) for entry in config["Env"])
    environment |= {"KANSCOPE_PORT": str(port), "KANSCOPE_NO_AUTH": "true", "KANSCOPE_MODELS": ""}
    with run_in(root, config["User"], environment, config["Cmd"]) as (run, server):
        wait_for(lambda: ask(port, "GET", "/readyz")[0] == 200)
        window = WINDOW.read_bytes()
        assert len(ask(port, "POST", f"{MODEL}:predict", window)[1]["predictions"]) == 1
        (explanation,) = ask(port, "POST", f"{MODEL}:explain", window)[1]["explanations"]
        assert explanation["converged"]
        wait_for(lambda: ask(port, "GET", f"{MODEL}/topology")[0] == 200)  # 503 while results are computed
        assert ask(port, "GET", f"{MODEL}/topology")[1]["edges"]
        print("ready, predicted, explained, drew the topology")
        users = Path(f"/proc/{server}/status").read_text().partition("Uid:")[2].split()[:4]
        assert users == [USER] * 4, users
        assert os.statvfs(f"/proc/{server}/root").f_flag & os.ST_RDONLY
        print(f"runs as user {USER} on a read-only root")
        kind, *command = config["Healthcheck"]["Test"]
        assert kind == "CMD"
        subprocess.run(within(root, config["User"], environment, command), check=True)
        print("its health check passes")
        os.kill(server, signal.SIGTERM)
        assert run.wait(timeout=30) == 0, run.returncode
        print("ends on SIGTERM with status 0")


def check_clients(root: Path, config: dict[str, Any]) -> None:
    """Checks that the image sends spans to a collector, and asks MLflow for the model that an alias names."""
    asked: set[str] = set()

    class Peer(BaseHTTPRequestHandler):
        """A collector and a registry of models, as far as that they are asked."""

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self) -> None:
            asked.add(self.path.partition("?")[0])
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keeps the output to the results."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Peer) as peer:
        Thread(target=peer.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{peer.server_port}"
        environment = dict(entry.split("=", 1) for entry in config["Env"]) | {"KANSCOPE_NO_AUTH": "true"}
        traced = {"KANSCOPE_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": address, "KANSCOPE_MODELS": ""}
        with run_in(
            root, config["User"], environment | traced | {"KANSCOPE_PORT": str(port := free_port())}, config["Cmd"]
        ):
            wait_for(lambda: ask(port, "GET", "/readyz")[0] == 200)
            ask(port, "POST", f"{MODEL}:predict", WINDOW.read_bytes())
            wait_for(lambda: "/v1/traces" in asked)
        followed = {"KANSCOPE_MODELS": "models:/load@champion", "MLFLOW_TRACKING_URI": address}
        followed |= {"KANSCOPE_PORT": str(free_port())}
        with run_in(root, config["User"], environment | followed, config["Cmd"], temporary=True):
            wait_for(lambda: any(path.endswith("/registered-models/alias") for path in asked))
        peer.shutdown()
    print("sends spans to a collector, asks MLflow for an alias")


def within(root: Path, user: str, environment: dict[str, str], command: list[str]) -> list[str]:
    """A command inside the image: with its files, environment and user."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    return ["env", "-i", *variables, shutil.which("chroot") or "chroot", f"--userspec={user}", str(root), *command]


@contextmanager
def run_in(
    root: Path, user: str, environment: dict[str, str], command: list[str], *, temporary: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Runs a command as process 1 of an image, with a volume at /tmp if it needs one.

    Returns the waiting process and the id outside.
    """
    volume = 'mount -t tmpfs tmpfs "$1/tmp"\n' * temporary
    isolated = [
        "sh",
        "-euc",
        f'{ISOLATE}{volume}shift; exec "$@"',
        "sh",
        str(root),
        *within(root, user, environment, command),
    ]
    run = subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child", *isolated])
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    try:
        wait_for(lambda: children.read_text())
        yield run, int(children.read_text())
    finally:
        if run.poll() is None:  # a change of user undoes --kill-child
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        run.kill()
        run.wait()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    """Status and JSON of a response."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def wait_for(condition: Callable[[], object]) -> None:
    """Waits for a condition, for a minute at most."""
    deadline = time.monotonic() + 60
    while True:
        try:
            if condition():
                return
        except (OSError, HTTPException):
            pass
        assert time.monotonic() < deadline, "it does not start"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
