"""Real servers on real ports, and the models that they serve."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import fastapi.dependencies.models
import httpx2
import pytest
import uvicorn
from factories import make_model
from fastapi import FastAPI
from processes import Process, is_loaded, run_process
from waiting import poll

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.forecaster import Forecaster
from kanmodel.onnx import accelerate
from kanmodel.structure.importance import Attribution, measure_importance
from service.app import create_app
from service.cli import main
from service.models.repository import BUNDLED
from service.settings import Settings
from service.wire.connections import server_options

NAMES = ("front", "head", "nyc-weather", "two")
PATIENCE = 300  # seconds that a request may take on a machine that is busy with other things

Serve = Callable[..., AbstractContextManager[httpx2.Client]]


@dataclass(frozen=True)
class Service:
    """A running server and its models."""

    client: httpx2.Client
    models: dict[str, Forecaster]
    importances: dict[tuple[str, int], Attribution] = field(default_factory=dict)

    def get(self, path: str, **options: object) -> httpx2.Response:
        return self.client.get(path, **options)  # type: ignore[arg-type]

    def post(self, path: str, body: object, **options: object) -> httpx2.Response:
        return self.client.post(path, json=body, **options)  # type: ignore[arg-type]

    def importance(self, name: str, output: int = 0) -> Attribution:
        """What the library measures of a model, once for all tests."""
        if (name, output) not in self.importances:
            self.importances[name, output] = measure_importance(self.models[name], output)
        return self.importances[name, output]


@contextmanager
def run_server(app: FastAPI, wait: bool = True) -> Iterator[httpx2.Client]:
    """A client of a real server of an app; with `wait`, once its models are loaded."""
    config = uvicorn.Config(app, **{**server_options(app.state.parts.settings), "port": 0})
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        poll(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            if wait:
                registry = app.state.parts.registry  # as /readyz names nothing to those without a key
                poll(lambda: is_loaded(client) and not registry.count("loading"))
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module", autouse=True)
def forget_apps() -> Iterator[None]:
    """Removes a file's apps and models from FastAPI's caches, which would keep them alive."""
    yield
    for cached in vars(fastapi.dependencies.models).values():
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process and returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., AbstractContextManager[Process]]:
    """Starts the command with settings by their variables, such as ``KANSCOPE_LOG_FORMAT="json"``."""
    return partial(
        run_process, tmp_path / "log", KANSCOPE_CACHED_RESULTS=str(QUICK["cached_results"]), KANSCOPE_MONITOR_SHARE="0"
    )


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Starts a server: ``with serve(models=folder) as client``."""

    def start(wait: bool = True, **settings: object) -> AbstractContextManager[httpx2.Client]:
        return run_server(create_app(Settings(**{**QUICK, **settings})), wait)  # type: ignore[arg-type]

    return start


@pytest.fixture(scope="session")
def serve_app() -> Callable[[FastAPI], AbstractContextManager[httpx2.Client]]:
    """Starts a server of an app of the test's own."""
    return run_server


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Waits for a condition: ``wait_until(lambda: …)``."""
    return poll


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, one model of each other shape, and an invalid file."""
    path = tmp_path_factory.mktemp("models")
    save_checkpoint(
        make_model("lstm", seed=2, targets=("a", "b"), horizon=2, n_reference=130), path / "two.safetensors"
    )
    front = make_model("front", seed=1, product=True, with_targets=False, n_reference=130)
    save_checkpoint(front, path / "front.safetensors")
    save_checkpoint(make_model("head", dtype="float32", n_reference=130), path / "head.safetensors")
    (path / "nyc-weather.safetensors").write_bytes((BUNDLED / "nyc-weather.safetensors").read_bytes())
    (path / "broken.safetensors").write_bytes((path / "two.safetensors").read_bytes()[:-100])
    return path


# Too small a cache for results that are computed in advance, which take each server seconds, and no samples, of which
# the first takes as long.
QUICK = {"request_timeout": PATIENCE, "cached_results": 4, "monitor_share": 0}
LIMITS = {
    "max_body_bytes": 100_000,
    "max_windows": 50,
    "max_points": 500,
    "request_timeout": PATIENCE,
    "monitor_share": 0,
}


@pytest.fixture(scope="session")
def local_service(folder: Path) -> Iterator[Service]:
    """One server in this process, shared by all tests that only read from it."""
    # accelerated as by the registry, for bitwise equal numbers
    models = {name: accelerate(load_checkpoint(folder / f"{name}.safetensors")) for name in NAMES}
    with run_server(create_app(Settings(models=folder, **LIMITS))) as client:  # type: ignore[arg-type]
        service = Service(client, models)
        for name, model in models.items():  # or threads that prepare these would disturb tests that measure memory
            for output in model.config.outputs:
                assert service.get(f"/v1/models/{name}/report", params={"output": output}).status_code == 200
        yield service


@pytest.fixture(scope="session", params=["process"])  # an id, by which one worker has all tests of the server
def service(local_service: Service) -> Service:
    """The server in this process."""
    return local_service


@pytest.fixture
def saved(tmp_path):
    """Writes a model and returns its path."""

    def write(model, name="m"):
        save_checkpoint(model, tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    return write
