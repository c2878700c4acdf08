"""What-if, counterfactuals and formulas.

    python tests/benchmarks/questions.py [--windows 200] [--dice 20] [--planted 20]

- `:whatif` of 21 points of one feature, on a real server.
- Counterfactuals of windows of the bundled model, beside a random search with 100 times the forecasts, and beside
  dice-ml if installed (in `.venv/peers`, which `make bench` sets up).
- Planted formulas: KANs [n, m, 1] trained on tables of the Feynman set (Udrescu and Tegmark 2020, arXiv
  1905.11481), and the formulas found in them, with R2 on held-out windows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import perf_counter, process_time, sleep
from types import FunctionType
from typing import Any

import numpy as np
import torch
from fastapi.testclient import TestClient
from serving import PEERS
from table import Row, print_table

import kanmodel
from kanmodel.alternatives.changeable import Goal, SearchOptions, ShiftableWindow
from kanmodel.alternatives.counterfactual import Counterfactual
from kanmodel.alternatives.search import count_forecasts
from kanmodel.arrays import Array
from service.app import create_app
from service.models.repository import BUNDLED
from service.settings import Settings

NAME = "nyc-weather"
CHECKPOINT = BUNDLED / f"{NAME}.safetensors"
POINTS = 21
REQUESTS = 200
MOST = 2  # features that may change together
TIMES = 100  # as many random changes as our search takes forecasts
TOGETHER = 1024  # changes per batch
N_ROWS = 4000
R2 = 0.999
# Without noise, like the tables.
TRAINING: Mapping[str, Any] = {"lookback": 1, "hidden": 0, "noise": 0.0, "lamb": 1e-4, "epochs": 200, "patience": 200}
# The name in the set, its formula, and the ranges of its variables from the set.
PLANTED: Mapping[str, tuple[Callable[..., Array], Mapping[str, tuple[float, float]]]] = {
    "I.6.20a": (lambda t: np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi), {"t": (1, 3)}),
    "I.6.20": (lambda s, t: np.exp(-((t / s) ** 2) / 2) / (np.sqrt(2 * np.pi) * s), {"s": (1, 3), "t": (1, 3)}),
    "I.10.7": (lambda m, v, c: m / np.sqrt(1 - (v / c) ** 2), {"m": (1, 5), "v": (1, 2), "c": (3, 10)}),
    "I.12.1": (lambda mu, n: mu * n, {"mu": (1, 5), "n": (1, 5)}),
    "I.12.4": (lambda q, r: q / (4 * np.pi * r**2), {"q": (1, 5), "r": (1, 5)}),
    "I.12.5": (lambda q, e: q * e, {"q": (1, 5), "e": (1, 5)}),
    "I.14.3": (lambda m, g, z: m * g * z, {"m": (1, 5), "g": (1, 5), "z": (1, 5)}),
    "I.14.4": (lambda k, x: k * x**2 / 2, {"k": (1, 5), "x": (1, 5)}),
    "I.16.6": (lambda u, v, c: (u + v) / (1 + u * v / c**2), {"u": (1, 5), "v": (1, 5), "c": (1, 5)}),
    "I.18.12": (lambda r, f, a: r * f * np.sin(a), {"r": (1, 5), "f": (1, 5), "a": (0, 5)}),
    "I.25.13": (lambda q, c: q / c, {"q": (1, 5), "c": (1, 5)}),
    "I.26.2": (lambda n, a: np.arcsin(n * np.sin(a)), {"n": (0, 1), "a": (1, 5)}),
    "I.27.6": (lambda a, b, n: 1 / (1 / a + n / b), {"a": (1, 5), "b": (1, 5), "n": (1, 5)}),
    "I.29.4": (lambda w, c: w / c, {"w": (1, 10), "c": (1, 10)}),
    "I.29.16": (
        lambda a, b, d: np.sqrt(a**2 + b**2 - 2 * a * b * np.cos(d)),
        {"a": (1, 5), "b": (1, 5), "d": (1, 5)},
    ),
    "I.30.5": (lambda w, d, n: np.arcsin(w / (n * d)), {"w": (1, 2), "d": (2, 5), "n": (1, 5)}),
    "I.34.14": (lambda w, v, c: (1 + v / c) / np.sqrt(1 - (v / c) ** 2) * w, {"w": (1, 5), "v": (1, 2), "c": (3, 10)}),
    "I.37.4": (lambda a, b, d: a + b + 2 * np.sqrt(a * b) * np.cos(d), {"a": (1, 5), "b": (1, 5), "d": (1, 5)}),
    "I.39.1": (lambda p, v: 1.5 * p * v, {"p": (1, 5), "v": (1, 5)}),
    "I.48.2": (lambda m, v, c: m * c**2 / np.sqrt(1 - (v / c) ** 2), {"m": (1, 5), "v": (1, 2), "c": (3, 10)}),
}


def rows(
    n_windows: int = 20, n_random: int | None = None, n_dice: int = 20, n_planted: int = 3, python: Path = PEERS
) -> Iterator[Row]:
    """Each question in turn, with one torch thread."""
    torch.set_num_threads(1)
    model = kanmodel.load(CHECKPOINT)
    if n_windows:
        yield what_if(model)
        yield counterfactuals(model, n_windows, n_random)
    if n_dice and python.exists():
        yield from beside_dice(model, n_dice, python)
    for name in list(PLANTED)[:n_planted]:
        yield planted(name)


def what_if(model: kanmodel.Model) -> Row:
    """A slider over one feature, through the whole application."""
    window = model.reference.windows[:1].tolist()
    body = {"instances": window, "features": ["wind_u_ms"], "shift": {"from": -10, "to": 10, "points": POINTS}}
    seconds = np.empty(REQUESTS)
    with TestClient(create_app(Settings(models=None, log_level="error")), base_url="http://127.0.0.1") as client:
        while client.get("/readyz").status_code != 200:
            sleep(0.2)
        client.get(f"/v1/models/{NAME}/report")  # background results are done then
        for number in range(REQUESTS):
            start = perf_counter()
            assert client.post(f"/v1/models/{NAME}:whatif", json=body).status_code == 200
            seconds[number] = perf_counter() - start
    p50, p99 = np.percentile(seconds * 1e3, (50, 99))
    return Row(f":whatif, {POINTS} points of one feature", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms", "goal: below 50 ms")


def counterfactuals(model: kanmodel.Model, n_windows: int, n_random: int | None = None) -> Row:
    """One standard deviation up or down with up to two features, beside a random search; processor seconds.

    Ctrl-C ends the loop; the row then covers the windows before it.
    """
    rng = np.random.default_rng(0)
    n_random = n_random or TIMES * count_forecasts(len(model.features), MOST)
    distances: list[tuple[float, float]] = []  # inf if the goal is not reached
    ours, theirs = 0.0, 0.0
    try:
        for window, goal in goals(model, n_windows):
            times = [process_time()]
            found = Counterfactual.of(model, window, 0, goal, SearchOptions(max_features=MOST))
            times.append(process_time())
            best = search_randomly(model, window, goal, n_random, rng)
            times.append(process_time())
            distances.append((found.distance if found.reached else np.inf, best))
            ours, theirs = ours + times[1] - times[0], theirs + times[2] - times[1]
    except KeyboardInterrupt:
        n_windows = len(distances)
    return Row(
        f"counterfactuals of {n_windows} windows, up to {MOST} features",
        f"{ours / n_windows:.2f} s of the processor a window; {compare(distances)}",
        f"{n_random} random changes: {theirs / n_windows:.1f} s a window",
        f"{theirs / ours:.0f}x",
    )


def beside_dice(model: kanmodel.Model, n_windows: int, python: Path) -> Iterator[Row]:
    """The same goals with any number of features, beside each method of dice-ml; processor seconds."""
    asked = list(goals(model, n_windows))
    with NamedTemporaryFile(suffix=".npz") as file:
        windows, bounds = zip(*((window, (goal.low, goal.high)) for window, goal in asked), strict=True)
        np.savez(file, windows=np.array(windows), goals=np.array(bounds))
        file.flush()
        command = [str(python), str(Path(__file__).with_name("peer_dice.py")), str(CHECKPOINT), file.name]
        paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, **paths})
    every = SearchOptions(max_features=len(model.features))
    start = process_time()
    found = [Counterfactual.of(model, window, 0, goal, every) for window, goal in asked]
    ours = (process_time() - start) / n_windows
    for method, answers in json.loads(done.stdout).items():
        distances = [
            (one.distance if one.reached else np.inf, np.inf if theirs is None else theirs)
            for one, (theirs, _) in zip(found, answers, strict=True)
        ]
        seconds = sum(seconds for _, seconds in answers) / n_windows
        yield Row(
            f"counterfactuals of {n_windows} windows, any number of features",
            f"{ours:.2f} s of the processor a window; {compare(distances)}",
            f"dice-ml, {method}: {seconds:.1f} s a window",
            f"{seconds / ours:.0f}x",
        )


def goals(model: kanmodel.Model, n_windows: int) -> Iterator[tuple[Array, Goal]]:
    """Random reference windows, each with a goal one standard deviation above or below its forecast."""
    rng = np.random.default_rng(1)
    windows, std = model.reference.windows, model.output_std[0]
    for index in rng.permutation(len(windows))[:n_windows]:
        forecast = model.predict(windows[index])[0, 0]
        yield windows[index], Goal(low=forecast + std) if rng.random() < 0.5 else Goal(high=forecast - std)


def compare(distances: Sequence[tuple[float, float]]) -> str:
    """Our distances beside a peer's; inf if a goal is not reached."""
    ours, theirs = np.array(distances).T
    reached, by_peer = np.isfinite(ours), np.isfinite(theirs)
    both = reached & by_peer
    said = (
        f"reaches {both.sum()} of the {by_peer.sum()} goals that the peer reaches and {(reached & ~by_peer).sum()} more"
    )
    if both.any():
        ratios = ours[both] / theirs[both]
        said += f"; distance at most {ratios.max():.3f} of the peer's, in the median {np.median(ratios):.3f}"
    return said


def search_randomly(
    model: kanmodel.Model, window: Array, goal: Goal, n_forecasts: int, rng: np.random.Generator
) -> float:
    """The smallest distance of random changes of up to `MOST` features that reaches the goal; inf if none does.

    A change larger than the best so far is scaled down, so that no forecast is wasted.
    """
    loaded, best = model, np.inf
    shifts = ShiftableWindow(loaded, window, 0, SearchOptions())
    movable = shifts.movable
    start = loaded.to_model_units(window[None])
    for _ in range(0, n_forecasts, TOGETHER):
        chosen = rng.uniform(size=(TOGETHER, len(movable))).argpartition(MOST, axis=1)[:, :MOST]
        features = movable[chosen]
        place = rng.uniform(shifts.low[features], shifts.high[features]) * rng.uniform(size=(TOGETHER, 1))
        place[:, 1:] *= rng.uniform(size=(TOGETHER, 1)) < 0.9  # otherwise a single feature
        distance = np.abs(place).sum(axis=1)
        if np.isfinite(best):
            factor = np.where(distance < best, 1.0, best * rng.uniform(size=TOGETHER) / distance)
            place, distance = place * factor[:, None], distance * factor
        moved = np.zeros((TOGETHER, 1, len(shifts.low)), np.float32)  # a training standard deviation is one model unit
        np.put_along_axis(moved[:, 0], features, place, axis=1)
        forecasts = loaded.scaling.outputs_to_original(loaded.frozen.forward(start + torch.from_numpy(moved)))[:, 0]
        best = min(best, distance[goal.miss(forecasts) == 0].min(initial=np.inf))
    return float(best)


def planted(name: str) -> Row:
    """Trains a KAN on a formula, and searches formulas in it."""
    function, ranges = PLANTED[name]
    rng = np.random.default_rng(0)
    columns = {variable: rng.uniform(low, high, N_ROWS) for variable, (low, high) in ranges.items()}
    table = {**columns, "y": function(**columns)}
    width = (len(ranges), 5, 1)
    start = perf_counter()
    model = kanmodel.train(table, "y", features=list(ranges), width=width, progress=False, **TRAINING)
    trained = perf_counter() - start
    start = perf_counter()
    front = model.formula()
    searched = perf_counter() - start
    fresh = {variable: rng.uniform(low, high, N_ROWS) for variable, (low, high) in ranges.items()}
    truth = function(**fresh)
    scores = [r2(truth, evaluate(one, fresh)) for one in front]
    good = next((one.complexity for one, score in zip(front, scores, strict=True) if score >= R2), None)
    return Row(
        f"planted {name}, KAN {list(width)}",
        f"R2 {max(scores):.5f} on {N_ROWS} fresh rows, "
        + (f"{R2} from complexity {good}" if good else f"{R2} is not reached")
        + f"; search {searched:.1f} s",
        f"the model itself: R2 {model.metrics['test_r2']:.5f}, trained in {trained:.0f} s",
    )


def evaluate(formula: Any, columns: Mapping[str, Array]) -> Array:
    """The value of a formula's Python text."""
    scope: dict[str, Any] = {}
    exec(formula.python, scope)
    (function,) = (value for value in scope.values() if isinstance(value, FunctionType))
    names = [variable.node.removeprefix("feature:") for variable in formula.variables.values()]
    return np.broadcast_to(function(*(columns[name] for name in names)), N_ROWS)


def r2(truth: Array, found: Array) -> float:
    """Coefficient of determination."""
    return float(1 - ((truth - found) ** 2).mean() / truth.var())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=20, help="of the counterfactuals")
    parser.add_argument("--random", type=int, help=f"random changes of each; without, {TIMES} times our forecasts")
    parser.add_argument("--dice", type=int, default=20, help="of them, beside dice-ml")
    parser.add_argument("--python", type=Path, default=PEERS, help="one that has dice-ml")
    parser.add_argument("--planted", type=int, default=3, help=f"formulas that are trained, up to {len(PLANTED)}")
    given = parser.parse_args()
    print_table(rows(given.windows, given.random, given.dice, given.planted, given.python))
