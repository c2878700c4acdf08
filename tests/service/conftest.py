"""Real servers on real ports, and the models they serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import uvicorn
from factories import make_model
from fastapi import FastAPI

from kanmodel.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from service.app import create_app
from service.cli import main
from service.repository import BUNDLED
from service.settings import Settings

NAMES = ("front", "head", "nyc-weather", "two")

Serve = Callable[..., AbstractContextManager[httpx2.Client]]


@dataclass(frozen=True)
class Service:
    """A running server, and the models it was given."""

    client: httpx2.Client
    models: dict[str, LoadedModel]

    def get(self, path: str, **options: object) -> httpx2.Response:
        return self.client.get(path, **options)  # type: ignore[arg-type]

    def post(self, path: str, body: object, **options: object) -> httpx2.Response:
        return self.client.post(path, json=body, **options)  # type: ignore[arg-type]


@contextmanager
def run_server(app: FastAPI, wait: bool = True) -> Iterator[httpx2.Client]:
    """A client of an app that a real server serves; `wait` until its models are loaded."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        _wait(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            if wait:
                _wait(lambda: '"loading"' not in client.get("/v1/models").text)
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs one command in this process; gives exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def serve() -> Serve:
    """Starts a server: ``with serve(models=folder) as client``."""

    def start(wait: bool = True, **settings: object) -> AbstractContextManager[httpx2.Client]:
        return run_server(create_app(Settings(**settings)), wait)  # type: ignore[arg-type]

    return start


@pytest.fixture
def serve_app() -> Callable[[FastAPI], AbstractContextManager[httpx2.Client]]:
    """Starts a server of an app of the test's own."""
    return run_server


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Waits for a condition: ``wait_until(lambda: …)``."""
    return _wait


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, one of each other shape, and a file that is none."""
    path = tmp_path_factory.mktemp("models")
    save_checkpoint(make_model("lstm", targets=("a", "b"), horizon=2), path / "two.safetensors")
    save_checkpoint(make_model("front", product=True, with_targets=False), path / "front.safetensors")
    save_checkpoint(make_model("head", dtype="float32"), path / "head.safetensors")
    (path / "nyc-weather.safetensors").write_bytes((BUNDLED / "nyc-weather.safetensors").read_bytes())
    (path / "broken.safetensors").write_bytes((path / "two.safetensors").read_bytes()[:-100])
    return path


@pytest.fixture(scope="session")
def service(folder: Path) -> Iterator[Service]:
    """One server for all tests that only ask."""
    models = {name: load_checkpoint(folder / f"{name}.safetensors") for name in NAMES}
    settings = Settings(models=folder, max_body_bytes=100_000, max_windows=50, max_points=500)
    with run_server(create_app(settings)) as client:
        yield Service(client, models)


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "what is waited for is not there after 30 s"
        time.sleep(0.01)
