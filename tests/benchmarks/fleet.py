"""How many processes answer how many explanations: a model of pods behind a balancer, with measured service times.

A discrete-event simulation, compared with one and with two processes on this machine, then of up to sixteen pods.

python tests/benchmarks/fleet.py
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from time import sleep

import numpy as np
from load import drive, keep_busy, offer, post_windows, repeat_requests
from models import NAME, large_model, original_windows, save_large_model
from servers import CLIENT_CORE, Server, finish_background, free_server, measure, our_server, pin
from table import machine

from kanmodel.forecaster import Forecaster
from service.operations.explanations import BATCH_EXPLANATIONS

SIZES = (1, 2, 4, 8, 16, BATCH_EXPLANATIONS)  # of batches
WARM_UP, REST = 1.0, 0.5  # seconds
CONNECTIONS, N_BODIES = 64, 64
SHARES, FULL_SHARES = (0.3, 0.5, 0.7), (0.3, 0.5, 0.7, 0.9)  # of the capacity
BUSY = 0.7  # share of the capacity that a fleet is sized for
N_PODS = (2, 4, 8, 16)
N_SIMULATED, N_SEARCHED, N_HALVINGS = 200_000, 40_000, 6  # requests, requests of each step of a search, its steps
N_RUNS = 20  # simulations of the same arrivals
GOAL = 1_000_000  # explanations per second
TOGETHER = 32  # windows of a request


@dataclass(frozen=True)
class Service:
    """How long one pod takes for a batch.

    Attributes:
        seconds: mean of a batch of 1, 2, 3, ... requests; the last is the largest batch.
        scatter: seconds that are added to it, one drawn for each batch; their mean is 0.
    """

    seconds: np.ndarray
    scatter: np.ndarray

    @property
    def capacity(self) -> float:
        """The most requests per second."""
        return float((np.arange(1, len(self.seconds) + 1) / self.seconds).max())


# Chooses a pod from the number of a request, a random number in [0, 1) and the number of requests that each pod holds.
Policy = Callable[[int, float, list[int]], int]


def _choose_fewest(number: int, chance: float, held: list[int]) -> int:
    fewest = min(held)
    pods = [pod for pod, n in enumerate(held) if n == fewest]
    return pods[int(chance * len(pods))]


POLICIES: Mapping[str, Policy] = {
    "random": lambda number, chance, held: int(chance * len(held)),
    "round robin": lambda number, chance, held: number % len(held),
    "fewest": _choose_fewest,
}


def arrive(rate: float, n: int, seed: int) -> np.ndarray:
    """The times of so many Poisson arrivals."""
    return np.random.default_rng(seed).exponential(1 / rate, n).cumsum()


def simulate(
    service: Service, arrivals: np.ndarray, n_pods: int, choose: Policy, seed: int
) -> tuple[np.ndarray, list[int]]:
    """Pods behind a balancer; each takes all that waits there, up to the largest batch, whenever it is free.

    Returns:
        Seconds from the arrival to the response of each request, in the order of arrival, and the sizes of the batches.
    """
    generator = np.random.default_rng((seed, 1))  # not that of the arrivals
    chances = generator.random(len(arrivals)).tolist()
    scatter = iter(generator.choice(service.scatter, len(arrivals)).tolist())
    seconds, largest = service.seconds.tolist(), len(service.seconds)
    waiting: list[list[int]] = [[] for _ in range(n_pods)]
    held = [0] * n_pods  # requests that wait or run
    ends: list[tuple[float, int, int]] = []  # of the running batches, with their pods and sizes
    latencies, sizes = np.empty(len(arrivals)), []

    def begin(pod: int, now: float) -> None:
        batch = waiting[pod][:largest]
        del waiting[pod][:largest]
        end = now + seconds[len(batch) - 1] + next(scatter)
        latencies[batch] = end - arrivals[batch]
        sizes.append(len(batch))
        heappush(ends, (end, pod, len(batch)))

    def finish() -> None:
        end, pod, size = heappop(ends)
        held[pod] -= size
        if waiting[pod]:
            begin(pod, end)

    for number, now in enumerate(arrivals.tolist()):
        while ends and ends[0][0] <= now:
            finish()
        pod = choose(number, chances[number], held)
        waiting[pod].append(number)
        held[pod] += 1
        if held[pod] == 1:
            begin(pod, now)
    while ends:
        finish()
    return latencies, sizes


def percentiles(service: Service, rate: float, n_pods: int, policy: str, n: int = N_SIMULATED) -> np.ndarray:
    """The simulated p50 and p99 with Poisson arrivals, seconds."""
    return np.percentile(simulate(service, arrive(rate, n, 0), n_pods, POLICIES[policy], 0)[0], (50, 99))


def find_share(service: Service, n_pods: int, policy: str, bound: float) -> float:
    """The largest share of the capacity at which the p99 stays below a bound, seconds; by bisection."""
    low, high = 0.0, 1.0
    for _ in range(N_HALVINGS):
        share = (low + high) / 2
        rate = share * n_pods * service.capacity
        low, high = (share, high) if percentiles(service, rate, n_pods, policy, N_SEARCHED)[1] < bound else (low, share)
    return low


def make_requests(model: Forecaster, windows: int) -> list[bytes]:
    """Different requests for explanations of so many windows each."""
    return post_windows(f"/v1/models/{NAME}:explain", original_windows(model), windows, N_BODIES)


def measure_service(server: Server, requests: list[bytes], n_pods: int, duration: float) -> Service:
    """Times batches in closed loops; several processes share the connections evenly.

    With k + 1 connections to a process, the first request after a batch forms the next one alone; the others arrive
    meanwhile and form the one after it. So k + 1 requests take S(1) + S(k), and two connections have the rate of one.
    """
    drive(server.port, requests, n_pods, WARM_UP)
    sleep(REST)  # until all connections are closed: a new one goes to the process with the fewest
    alone = np.array(repeat_requests(server.port, requests, n_pods, duration)[0])
    times: list[float] = []
    for size in SIZES:
        n = n_pods * (size + 1)
        sleep(REST)
        keep_busy(server.port, requests, n, WARM_UP)
        sleep(REST)
        both = n / keep_busy(server.port, requests, n, duration).rate
        times.append(both - times[0] if times else both / 2)
    return Service(np.interp(np.arange(1, SIZES[-1] + 1), SIZES, times), alone - alone.mean())


def validate(server: Server, requests: list[bytes], n_pods: int, duration: float) -> tuple[Service, list[str]]:
    """How long batches take, and rows of measured latencies beside those simulated with the same arrivals.

    Batches are timed before and after, as the speed of a shared machine changes within minutes.
    """
    before = measure_service(server, requests, n_pods, duration * 3 / 8)
    offered = []
    for share in SHARES:
        rate = share * n_pods * before.capacity
        arrivals = arrive(rate, round(rate * duration), 0)
        sleep(REST)
        offered.append((rate, arrivals, offer(server.port, requests, CONNECTIONS, arrivals)))
    after = measure_service(server, requests, n_pods, duration * 3 / 8)
    service = Service((before.seconds + after.seconds) / 2, np.concatenate([before.scatter, after.scatter]))
    for size in SIZES:
        told = [f"{each.seconds[size - 1] * 1e3:.1f} ms" for each in (before, after)]
        print_row(n_pods, size, *told, f"{size / service.seconds[size - 1]:.0f}")
    rows = []
    for rate, arrivals, latencies in offered:
        share, measured = rate / n_pods / service.capacity, np.percentile(latencies, (50, 99)) * 1e3
        runs = [simulate(service, arrivals, n_pods, POLICIES["random"], seed)[0] for seed in range(N_RUNS)]
        simulated = np.percentile(runs, (50, 99)) * 1e3
        cells = [f"{a:.1f} ms | {b:.1f} ms | {b / a - 1:+.0%}" for a, b in zip(measured, simulated, strict=True)]
        rows.append(" | ".join([str(n_pods), f"{share:.0%}", f"{rate:.0f}", *cells]))
    return service, rows


def predict(service: Service, bound: float) -> None:
    """Prints what pods can take within a bound, seconds, and the latencies of the largest fleet."""
    within = f"per second, p99 below {bound * 1e3:.0f} ms"
    print_row("pods", "policy", within, "per pod", "of the capacity", head=True)
    for n_pods in N_PODS:
        for policy in POLICIES:
            share = find_share(service, n_pods, policy, bound)
            rate = share * service.capacity
            print_row(n_pods, policy, f"{n_pods * rate:.0f}", f"{rate:.0f}", f"{share:.0%}")
    print_row(f"{N_PODS[-1]} pods at", "per second", *(f"p50, p99, {name}" for name in POLICIES), head=True)
    for share in FULL_SHARES:
        rate = share * N_PODS[-1] * service.capacity
        found = [percentiles(service, rate, N_PODS[-1], policy) * 1e3 for policy in POLICIES]
        print_row(f"{share:.0%}", f"{rate:.0f}", *(f"{p50:.1f} ms, {p99:.1f} ms" for p50, p99 in found))


def price(per_core: Mapping[str, float], dollars: float, watts: float) -> None:
    """Prints what `GOAL` explanations per second cost, from the windows per second of one core."""
    print(f"\n{GOAL:,} explanations per second; assumed: {dollars} dollars per core and hour, {watts} W per core")
    sized = f"pods of one core, at {BUSY:.0%}"
    print_row("explained", "windows per second and core", "cores, if always busy", sized, "dollars/h", "kW", head=True)
    for work, rate in per_core.items():
        pods = GOAL / rate / BUSY
        print_row(work, *(f"{n:,.0f}" for n in (rate, GOAL / rate, pods, pods * dollars, pods * watts / 1e3)))


def print_row(*cells: object, head: bool = False) -> None:
    """Prints a row of a Markdown table, or its head."""
    row = f"| {' | '.join(map(str, cells))} |"
    print(f"\n{row}\n|{'---|' * len(cells)}" if head else row, flush=True)


def main(options: Namespace) -> None:
    """Measures, compares, predicts and prices."""
    print(f"\n{machine()}")
    duration, model = options.seconds, large_model()
    requests = make_requests(model, 1)
    with tempfile.TemporaryDirectory() as folder:
        save_large_model(Path(folder))
        pin(0, CLIENT_CORE)
        with our_server(Path(folder)) as server:
            finish_background(server.port, NAME)
            print_row("processes", "batch", "before", "after", "windows per second and process", head=True)
            service, compared = validate(server, requests, 1, duration)
            together = measure(server, make_requests(model, TOGETHER), 1, duration * 3 / 8, WARM_UP).cpu / TOGETHER
        pin(0, None)
        with free_server(Path(folder), 2) as server:  # their batches take longer, as the client shares their cores
            finish_background(server.port, NAME, 2)
            compared += validate(server, requests, 2, duration)[1]
    print_row("processes", "load", "per second", *("p50", "simulated", "", "p99", "simulated", ""), head=True)
    for row in compared:
        print_row(row)
    predict(service, options.bound / 1e3)
    rates = {"1 window per request": service.capacity, f"{TOGETHER} windows per request": 1 / together}
    price(rates, options.dollars, options.watts)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.splitlines()[0], formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measured load")
    parser.add_argument("--bound", type=float, default=50.0, help="of the p99, ms")
    parser.add_argument("--dollars", type=float, default=0.04, help="a core and hour costs")
    parser.add_argument("--watts", type=float, default=5.0, help="a core takes, with all that it needs")
    main(parser.parse_args())
