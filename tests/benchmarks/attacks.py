"""Attacks while honest clients ask for forecasts: their p99, the memory of the server, and how each attack ends.

An attack is a function of a `Target` that goes on until its time is over and returns what became of it. They run in a
process of their own, one after the other, against a server whose attacker has a key, which many do not use.
"""

from __future__ import annotations

import argparse
import json
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, sleep

from load import Load, keep_busy, post
from models import NAME, large_model, original_windows
from servers import CLIENT_CORE, PATIENCE, our_server, peak_memory, pin, resident_memory
from table import Row, print_table

from kanmodel.checkpoint import save_checkpoint

SECONDS = 7.0  # of each attack; longer than an answered message may last
N_CLIENTS, N_ATTACKING = 64, 8
OTHER = "other"  # a second model, for comparisons
HONEST, ATTACKER, THIRD = "honest-0mBq3bTzY1sD5vX8", "attacker-Wd7Lr2QeJ9uHc4G", "third-8Mi1oKp3SbEj0UwTx5Vy"
BLOCK = 64 << 10
PATH = f"/v1/models/{NAME}"


@dataclass(frozen=True)
class Target:
    """What is attacked.

    Attributes:
        port: of the server on 127.0.0.1.
        seconds: of an attack.
        window: JSON of one window of the model.
    """

    port: int
    seconds: float
    window: str

    def connect(self) -> socket.socket:
        """A new connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=self.seconds + PATIENCE)

    def ask(self, method: str, path: str, body: str | None = None, key: str = ATTACKER, **headers: str) -> str:
        """The status of a request on a connection of its own, or `closed`."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=self.seconds + PATIENCE)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(
                method, path, body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **names}
            )
            answer = connection.getresponse()
            answer.read()
            return str(answer.status)
        except (OSError, HTTPException):
            return "closed"
        finally:
            connection.close()

    def explain(self) -> str:
        """How an explanation of a third key goes meanwhile."""
        start = perf_counter()
        status = self.ask("POST", f"{PATH}:explain", f'{{"instances": [{self.window}]}}', THIRD)
        return f"a third key's :explain {status} after {perf_counter() - start:.1f} s"


Attack = Callable[[Target], str]


def head(method: str, path: str, *headers: str) -> bytes:
    """A request without body and key."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


def flood(target: Target, start: bytes, piece: bytes) -> str:
    """Connections that send a start and then a piece without end, and new ones for those that are closed."""
    block, end = piece * (BLOCK // len(piece)), perf_counter() + target.seconds

    def go_on(_: int) -> list[int]:
        taken = []
        while perf_counter() < end:
            taken.append(0)
            with target.connect() as connection:
                connection.settimeout(max(0.1, end - perf_counter()))
                try:
                    connection.sendall(start)
                    while perf_counter() < end:
                        taken[-1] += connection.send(block)
                except (OSError, TimeoutError):
                    pass
        return taken

    with ThreadPoolExecutor(N_ATTACKING) as pool:
        taken = [n_bytes for part in pool.map(go_on, range(N_ATTACKING)) for n_bytes in part]
    return f"{len(taken)} connections, at most {max(taken) / 1e6:.1f} MB of one taken"


def repeat(target: Target, ask: Callable[[], str], n_clients: int = 2) -> str:
    """Clients that ask again and again: the number of each status, and the longest time of one."""
    statuses, slowest, end = Counter[str](), [0.0], perf_counter() + target.seconds

    def go_on(_: int) -> None:
        while (start := perf_counter()) < end:
            statuses[ask()] += 1
            slowest.append(perf_counter() - start)

    with ThreadPoolExecutor(n_clients) as pool:
        list(pool.map(go_on, range(n_clients)))
    return f"{describe(statuses)}, the slowest after {max(slowest):.2f} s"


def describe(statuses: Counter[str]) -> str:
    """``422 (5 times), closed (once)``."""
    return ", ".join(f"{status} ({n} times)" if n > 1 else f"{status} (once)" for status, n in statuses.most_common())


def is_open(connection: socket.socket) -> bool:
    """Whether the server has left a connection open, whose answers are read."""
    connection.setblocking(False)
    try:
        while connection.recv(BLOCK):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def send_to_all(connections: Collection[socket.socket], piece: bytes) -> None:
    """Sends a piece to those that are open."""
    for connection in connections:
        try:
            connection.send(piece)
        except OSError:
            continue


def unended(target: Target) -> str:
    """400 answered messages that never end, a byte of each a second."""
    with ExitStack() as stack:
        connections = [stack.enter_context(target.connect()) for _ in range(400)]
        send_to_all(connections, head("POST", "/healthz", "Content-Length: 1000000000"))
        end = perf_counter() + target.seconds
        while perf_counter() < end:
            send_to_all(connections, b"x")
            sleep(1)
        return f"{sum(map(is_open, connections))} of {len(connections)} are open"


def pipelined(target: Target) -> str:
    """50 connections that send 14,000 requests at once, and read nothing."""
    with ExitStack() as stack:
        connections = [stack.enter_context(target.connect()) for _ in range(50)]
        for connection in connections:
            connection.setblocking(False)
        send_to_all(connections, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 14_000)
        sleep(target.seconds)
        return f"{sum(map(is_open, connections))} of {len(connections)} are open"


def slow_bodies(target: Target) -> str:
    """512 bodies of one key that do not arrive."""
    request = head(
        *("POST", f"{PATH}:predict", f"Authorization: Bearer {ATTACKER}", "Content-Type: application/json"),
        "Content-Length: 9999",
    )
    with ExitStack() as stack:
        connections = [stack.enter_context(target.connect()) for _ in range(512)]
        send_to_all(connections, request + b'{"instances": [')
        sleep(target.seconds / 2)
        seen = f"meanwhile /metrics {target.ask('GET', '/metrics', key=THIRD)}, {target.explain()}"
        sleep(target.seconds / 2)
        return f"{sum(map(is_open, connections))} of {len(connections)} are open, {seen}"


def comparisons(target: Target) -> str:
    """64 comparisons of one key, each of another fidelity, with a deadline of an hour."""
    numbers = count()

    def compare() -> str:
        query = f"against_model={OTHER}&fidelity=0.9{next(numbers):05d}"
        connection = HTTPConnection("127.0.0.1", target.port, timeout=target.seconds)  # then it is given up
        headers = {"Authorization": f"Bearer {ATTACKER}", "X-Request-Timeout": "3600"}
        try:
            connection.request("GET", f"{PATH}/comparison?{query}", headers=headers)
            return str(connection.getresponse().status)
        except (OSError, HTTPException):
            return "not answered yet"
        finally:
            connection.close()

    with ThreadPoolExecutor(65) as pool:
        all_of_them = [pool.submit(compare) for _ in range(64)]
        sleep(target.seconds / 2)
        seen = target.explain()
        return f"{describe(Counter(one.result() for one in all_of_them))}, {seen}"


def wrong_keys(target: Target) -> str:
    """Unknown keys, on connections that stay open if they can."""
    end, headers = perf_counter() + target.seconds, {"Authorization": "Bearer unknown-unknown-unknown"}

    def guess(_: int) -> Counter[str]:
        statuses = Counter[str]()
        connection = HTTPConnection("127.0.0.1", target.port, timeout=target.seconds)  # reconnects where it is closed
        while perf_counter() < end:
            try:
                connection.request("GET", PATH, headers=headers)
                answer = connection.getresponse()
                answer.read()
                statuses[str(answer.status)] += 1
            except (OSError, HTTPException):
                statuses["closed"] += 1
                connection.close()
        return statuses

    with ThreadPoolExecutor(N_ATTACKING) as pool:
        return describe(sum(pool.map(guess, range(N_ATTACKING)), Counter[str]()))


def send(operation: str, members: Callable[[], str], target: Target) -> str:
    """A body of one window and further members, again and again."""
    body = f'{{"instances": [{target.window}], {members()}}}'
    return repeat(target, lambda: target.ask("POST", f"{PATH}:{operation}", body))


def send_series(columns: Callable[[int], str], target: Target) -> str:
    """A series of some columns, written from the number of features, again and again."""
    body = f'{{"series": {{{columns(len(json.loads(target.window)[0]))}}}}}'
    return repeat(target, lambda: target.ask("POST", f"{PATH}:predict", body))


def most_rows(n_features: int) -> str:
    """The columns of a series from which 4,096 windows are cut, with times that take long to read."""
    days = (f"{day:02}.{month:02}.2024" for month in range(1, 13) for day in range(1, 29))
    times = [f'"{day} {hour:02}:00"' for day in days for hour in range(24)][:4143]
    cells = ",".join(["0.5"] * len(times))
    return ",".join([f'"time":[{",".join(times)}]', *(f'"feature_{number}":[{cells}]' for number in range(n_features))])


def windows_out_of_range(target: Target) -> str:
    """2,000 windows, each value of which is out of the training range."""
    window = json.loads(target.window)
    body = json.dumps({"instances": [[[99] * len(window[0])] * len(window)] * 2000}, separators=(",", ":"))
    return repeat(target, lambda: target.ask("POST", f"{PATH}:predict", body))


def large_accept(target: Target) -> str:
    """An `Accept` of 60 KB."""
    accept = ",".join(f"a/{number};q=0.{number % 10}" for number in range(5000))[: 60 << 10]
    return repeat(target, lambda: target.ask("GET", f"{PATH}/topology", Accept=accept), N_ATTACKING)


def names(n: int) -> Iterator[str]:
    """Distinct names of a few bytes, quoted."""
    return (f'"{number}"' for number in range(n))


CHUNKED = head("GET", "/healthz", "Transfer-Encoding: chunked")
ATTACKS: dict[str, Attack] = {
    "an endless trailer, no key": partial(flood, start=CHUNKED + b"0\r\nx: ", piece=b"x"),
    "endless trailers, no key": partial(flood, start=CHUNKED + b"0\r\n", piece=b"a:b\r\n"),
    "an endless chunk extension, no key": partial(flood, start=CHUNKED + b"5;x=", piece=b"x"),
    "chunks of one byte, no key": partial(flood, start=CHUNKED, piece=b"1\r\nx\r\n"),
    "empty lines before a request, no key": partial(flood, start=b"", piece=b"\r\n"),
    "short headers, no key": partial(flood, start=b"GET / HTTP/1.1\r\n", piece=b"a:b\r\n"),
    "400 answered messages that do not end, no key": unended,
    "14,000 requests at once on 50 connections, no key": pipelined,
    "unknown keys": wrong_keys,
    "512 slow bodies of one key": slow_bodies,
    ":whatif of 900,000 features": partial(send, "whatif", lambda: f'"features": [{",".join(names(900_000))}]'),
    ":explain, a baseline of 300,000 names": partial(
        send, "explain", lambda: f'"baseline": {{"values": {{{",".join(f"{name}:0" for name in names(300_000))}}}}}'
    ),
    ":explain of 100,000 groups": partial(
        send, "explain", lambda: f'"groups": {{{",".join(f"{name}:[{name}]" for name in names(100_000))}}}'
    ),
    ":predict, 700,000 unknown members": partial(
        send, "predict", lambda: ",".join(f"{name}:0" for name in names(700_000))
    ),
    ":predict, a member name of 8 MB": partial(send, "predict", lambda: f'"{"x" * 8_000_000}": 0'),
    ":predict, a series of 900,000 cells": partial(
        send_series, lambda n: ",".join(f'"feature_{number}":[{",".join("0" * (900_000 // n))}]' for number in range(n))
    ),
    ":predict, a series of 600,000 unknown columns": partial(
        send_series, lambda _: ",".join(f"{name}:[]" for name in names(600_000))
    ),
    ":predict, a series of 4,096 windows": partial(send_series, most_rows),
    ":predict of 2,000 windows out of range": windows_out_of_range,
    "an Accept of 60 KB": large_accept,
    "64 comparisons of one key": comparisons,
}


def run(work: str, target: Target) -> str:
    """Runs an attack by its name, which another process can be given."""
    return ATTACKS[work](target)


def rows(seconds: float = SECONDS, only: str = "") -> Iterator[Row]:
    """A row for each attack; a server that has ended, or honest clients that are refused, show in it."""
    pin(0, CLIENT_CORE)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for seed, name in enumerate((NAME, OTHER)):
                save_checkpoint(large_model(seed), Path(folder) / f"{name}.safetensors")
            keys = f"honest explain {HONEST};attacker explain {ATTACKER};third explain {THIRD}"
            with our_server(Path(folder), KANSCOPE_KEYS=keys) as server:
                yield from _measure(server.port, server.pid, seconds, only)
    finally:
        pin(0, None)


def _measure(port: int, pid: int, seconds: float, only: str) -> Iterator[Row]:
    model = large_model()
    windows = original_windows(model)[:N_CLIENTS]
    target = Target(port, seconds, json.dumps(windows[0].tolist()))
    end = perf_counter() + PATIENCE
    while target.ask("GET", f"{PATH}/report", key=HONEST) != "200" and perf_counter() < end:
        sleep(0.1)  # until the last background result is there
    bodies = [json.dumps({"instances": [window.tolist()]}).encode() for window in windows]
    key = f"\r\nAuthorization: Bearer {HONEST}\r\n".encode()
    requests = [post(f"{PATH}:predict", body).replace(b"\r\n", key, 1) for body in bodies]
    keep_busy(port, requests, N_CLIENTS, min(seconds, 2.0))
    alone = keep_busy(port, requests, N_CLIENTS, seconds)
    for work in ATTACKS:
        if only not in work:
            continue
        at_rest = resident_memory(pid)
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts here
        with ProcessPoolExecutor(1, get_context("fork")) as pool:
            attacking = pool.submit(run, work, target)
            sleep(0.2)
            try:
                beside: Load | None = keep_busy(port, requests, N_CLIENTS, seconds)
            except (OSError, RuntimeError) as error:
                beside, refused = None, f"refused: {str(error)[:80]}"
            except IndexError:
                beside, refused = None, "no answer"
            ended = attacking.result()
        memory = f"memory {at_rest:.0f} MB, at most {peak_memory(pid):.0f} MB"
        figures = f"p99 {beside.p99 * 1e3:.1f} ms" if beside else refused
        ratio = f"p99 {beside.p99 / alone.p99:.1f}x" if beside else ""
        yield Row(f"{work}: {ended}", f":predict, {N_CLIENTS} connections: {figures}; {memory}", str(alone), ratio)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each attack")
    parser.add_argument("--only", default="", help="attacks whose name has this text")
    given = parser.parse_args()
    print_table(rows(given.seconds, given.only))
