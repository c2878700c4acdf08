"""`kanscope serve` for generated clients, and with the repository API for existing ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from factories import make_model
from processes import run_process, start_command

from kanmodel.checkpoint import save_checkpoint

BUNDLED = Path(__file__).parents[2] / "service" / "bundled" / "nyc-weather.safetensors"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of the command, which serves the bundled model, one of two outputs, and a file that is none."""
    folder = tmp_path_factory.mktemp("server")
    models = folder / "models"
    models.mkdir()
    shutil.copy(BUNDLED, models)
    save_checkpoint(make_model("lstm", targets=("load",), horizon=2), models / "pair.safetensors")
    (models / "broken.safetensors").write_bytes(b"no checkpoint")
    with run_process(folder / "log", by=start_command, KANSCOPE_MODELS=str(models)) as process:
        yield process.client


@pytest.fixture(scope="session")
def inference_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """The same with the bundled model alone, which clients of the Open Inference Protocol load and unload."""
    log = tmp_path_factory.mktemp("inference") / "log"
    with run_process(log, by=start_command, KANSCOPE_REPOSITORY_API="true") as process:
        yield process.client
