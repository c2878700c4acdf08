"""Forecasts under a mixed load, compared with forecasts alone, and peak memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from threading import Event, Thread

import numpy as np
from load import keep_busy, post
from models import LARGE, NAME, large_model, original_windows
from servers import CLIENT_CORE, finish_background, our_server, peak_memory, pin, resident_memory
from table import Row, name_model, print_table

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.forecaster import Forecaster
from service.settings import Settings

DURATION, WARM_UP = 10.0, 2.0  # seconds
N_CLIENTS, N_EXPLAINING = 64, 8
EXPLAINED = 32  # windows per explanation
N_CHECKPOINTS = 2  # models that are swapped
SWAP_SECONDS, POLL_SECONDS = 2.0, 0.5
PATH = f"/v1/models/{NAME}"
JSON = {"Content-Type": "application/json"}
NAN_BODY = b'{"instances": [[[' + b"0.25," * ((8 << 20) // 5 - 10) + b"NaN]]]}"
ALLOCATOR = 1.1  # factor on what is held, for memory that the allocator keeps


def rows() -> Iterator[Row]:
    """Each forecast is compared with the checkpoint that its response names: none fails or is mixed."""
    pin(0, CLIENT_CORE)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield from name_model(LARGE, _measure(Path(folder)))
    finally:
        pin(0, None)


def _measure(folder: Path) -> Iterator[Row]:
    models = folder / "models"
    models.mkdir()
    for seed in range(N_CHECKPOINTS):
        save_checkpoint(large_model(seed), folder / f"{seed}.safetensors")
    swap = _Swap([folder / f"{seed}.safetensors" for seed in range(N_CHECKPOINTS)], models / f"{NAME}.safetensors")
    swap()
    loaded = [load_checkpoint(path) for path in swap.files]
    windows = original_windows(loaded[0])
    requests = [post(f"{PATH}:predict", _body(windows[number : number + 1])) for number in range(N_CLIENTS)]
    check = _Check(loaded, requests, windows)
    variables = {"KANSCOPE_POLL_SECONDS": str(POLL_SECONDS), "KANSCOPE_REQUEST_TIMEOUT": "120"}
    with our_server(models, **variables) as server:
        finish_background(server.port, NAME)
        keep_busy(server.port, requests, N_CLIENTS, WARM_UP, check)
        at_rest = resident_memory(server.pid)
        alone = keep_busy(server.port, requests, N_CLIENTS, DURATION, check)
        explain = _body(windows[:EXPLAINED])
        fidelities = count()
        others: list[tuple[Callable[[HTTPConnection], None], int]] = [
            (lambda connection: _ask(connection, "POST", f"{PATH}:explain", explain, (200,)), N_EXPLAINING),
            (lambda connection: _ask(connection, "POST", f"{PATH}:predict", NAN_BODY, (422, 503)), 1),
            (lambda connection: _ask_fidelity(connection, next(fidelities)), 1),
        ]
        with _doing(server.port, others, swap):
            beside = keep_busy(server.port, requests, N_CLIENTS, DURATION, check)
        peak = peak_memory(server.pid)
    work = (
        f":predict of 1 window, {N_CLIENTS} connections, while {N_EXPLAINING} have {EXPLAINED} windows explained, one "
        "sends 8 MB that end in NaN, one varies `fidelity`, and checkpoints are swapped"
    )
    yield Row(work, str(beside), f"without: {alone}", f"p99 {beside.p99 / alone.p99:.1f}x")
    settings = Settings()
    held = settings.max_work_bytes + settings.cached_answers + settings.max_concurrent * (64 << 10)
    bound = at_rest + ALLOCATOR * held / 1e6
    yield Row(
        "most memory meanwhile", f"{peak:.0f} MB", f"at rest {at_rest:.0f} MB, by its budgets at most {bound:.0f} MB"
    )


class _Swap:
    """Replaces the model's file by one checkpoint after the other."""

    def __init__(self, files: list[Path], place: Path) -> None:
        self.files, self._place = files, place
        self._turns = count()

    def __call__(self) -> None:
        new = self._place.with_suffix(".new")
        new.write_bytes(self.files[next(self._turns) % len(self.files)].read_bytes())
        new.replace(self._place)


class _Check:
    """Checks that each response is that of its own window, by the checkpoint that it names."""

    def __init__(self, models: list[Forecaster], requests: list[bytes], windows: np.ndarray) -> None:
        self._expected = {
            (f"sha256:{model.sha256}", request): model.predict(windows[number : number + 1])
            for model in models
            for number, request in enumerate(requests)
        }

    def __call__(self, request: bytes, body: bytes) -> None:
        answer = json.loads(body)
        np.testing.assert_allclose(
            answer["predictions"], self._expected[answer["checkpoint"], request], rtol=1e-4, atol=1e-5
        )


def _body(windows: np.ndarray) -> bytes:
    return json.dumps({"instances": windows.tolist()}).encode()


def _ask(connection: HTTPConnection, method: str, path: str, body: bytes, statuses: tuple[int, ...]) -> None:
    connection.request(method, path, body, JSON)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status not in statuses:
        raise RuntimeError(f"the server answered {answer.status} {content[:200]!r}")


def _ask_fidelity(connection: HTTPConnection, number: int) -> None:
    """One of many distinct requests, every second one with a deadline of half a millisecond."""
    headers = {"X-Request-Timeout": "0.0005"} if number % 2 else {}
    connection.request("GET", f"{PATH}/topology?fidelity={0.5 + number % 50_000 / 100_000}", headers=headers)
    connection.getresponse().read()


@contextmanager
def _doing(
    port: int, others: list[tuple[Callable[[HTTPConnection], None], int]], swap: Callable[[], None]
) -> Iterator[None]:
    """Clients of each kind that keep sending, and a folder that changes; failures are raised at the end."""
    ended, errors = Event(), []

    def go_on(ask: Callable[[HTTPConnection], None]) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        while not ended.is_set():
            try:
                ask(connection)
            except (OSError, RuntimeError) as error:
                errors.append(error)
                connection.close()

    def change() -> None:
        while not ended.wait(SWAP_SECONDS):
            swap()

    threads = [Thread(target=go_on, args=(ask,)) for ask, number in others for _ in range(number)]
    threads.append(Thread(target=change))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


if __name__ == "__main__":
    print_table(rows())
