"""What if, what must change, and formulas: python tests/benchmarks/questions.py [--windows 200] [--planted 20].

- `:whatif` of 21 points of one feature, on a real server.
- Counterfactuals of windows of the bundled model, beside a random search with 100 times the forecasts.
- Planted formulas: KANs [n, m, 1] that are trained on tables of the Feynman set (Udrescu and Tegmark 2020, arXiv
  1905.11481), and the formulas that come back, with R2 on held-out windows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter, sleep
from types import FunctionType
from typing import Any

import numpy as np
import torch
from fastapi.testclient import TestClient
from table import Row, print_table

import kanmodel
from kanmodel.explain.alternatives.counterfactuals import count_forecasts, find_counterfactual
from kanmodel.explain.alternatives.shifts import Goal, Shifts
from kanmodel.scaling import Array
from service.app import create_app
from service.models.repository import BUNDLED
from service.settings import Settings

NAME = "nyc-weather"
POINTS = 21
REQUESTS = 200
TOGETHER = 1024  # random shifts of one batch
TIMES = 100  # as many forecasts as ours
N_ROWS = 4000
R2 = 0.999
# Without noise, as the tables have none.
TRAINING: Mapping[str, Any] = {"lookback": 1, "hidden": 0, "noise": 0.0, "lamb": 1e-4, "epochs": 200, "patience": 200}
# The name in the set, its formula, and the ranges of its variables, which are those of the set.
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


def rows(n_windows: int = 20, n_planted: int = 3) -> Iterator[Row]:
    """Each question in turn, one torch thread."""
    torch.set_num_threads(1)
    model = kanmodel.load(BUNDLED / f"{NAME}.safetensors")
    yield what_if(model)
    yield counterfactuals(model, n_windows)
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
        client.get(f"/v1/models/{NAME}/report")  # what is prepared is done then
        for number in range(REQUESTS):
            start = perf_counter()
            assert client.post(f"/v1/models/{NAME}:whatif", json=body).status_code == 200
            seconds[number] = perf_counter() - start
    p50, p99 = np.percentile(seconds * 1e3, (50, 99))
    return Row(f":whatif, {POINTS} points of one feature", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms", "goal: below 50 ms")


def counterfactuals(model: kanmodel.Model, n_windows: int) -> Row:
    """One standard deviation up or down, with up to two features, beside a random search."""
    rng = np.random.default_rng(0)
    windows, loaded = model.reference.windows, model.loaded
    ratios, ours, theirs, missed = [], 0.0, 0.0, 0
    n_forecasts = TIMES * count_forecasts(len(model.features), 2)
    for index in rng.choice(len(windows), n_windows, replace=False):
        forecast, std = model.predict(windows[index])[0, 0], model.output_std[0]
        goal = Goal(low=forecast + std) if rng.random() < 0.5 else Goal(high=forecast - std)
        start = perf_counter()
        found = find_counterfactual(loaded, windows[index], 0, goal)
        ours += perf_counter() - start
        start = perf_counter()
        best = search_randomly(model, windows[index], goal, n_forecasts, rng)
        theirs += perf_counter() - start
        if np.isfinite(best):
            missed += not found.reached
            ratios.append(found.distance / best if found.reached else np.inf)
    beside = (
        f"distance at most {max(ratios):.3f} of the random search's, median {np.median(ratios):.3f}, {missed} missed"
        if ratios
        else "none that the random search reached"
    )
    return Row(
        f"counterfactuals of {n_windows} windows, up to two features",
        f"{ours / n_windows:.2f} s a window, {beside}",
        f"{n_forecasts} random changes: {theirs / n_windows:.1f} s a window",
        f"{theirs / ours:.0f}x",
    )


def search_randomly(
    model: kanmodel.Model, window: Array, goal: Goal, n_forecasts: int, rng: np.random.Generator
) -> float:
    """The smallest of random changes of two features that reaches the goal; inf where none does."""
    shifts = Shifts(model.loaded, window, 0, list(range(len(model.features))), slice(None), True)
    best = np.inf
    for _ in range(n_forecasts // TOGETHER):
        chosen = rng.permuted(np.tile(np.arange(len(model.features)) < 2, (TOGETHER, 1)), axis=1)
        place = rng.uniform(shifts.low, shifts.high, chosen.shape) * chosen * rng.uniform(size=(TOGETHER, 1))
        distance = np.abs(place).sum(axis=1)
        near = distance < best
        if near.any():
            reached = goal.miss(shifts.predict(place[near])) == 0
            best = min(best, distance[near][reached].min(initial=np.inf))
    return float(best)


def planted(name: str) -> Row:
    """Trains a KAN on a formula, and looks for formulas in it."""
    function, ranges = PLANTED[name]
    rng = np.random.default_rng(0)
    columns = {variable: rng.uniform(low, high, N_ROWS) for variable, (low, high) in ranges.items()}
    table = {**columns, "y": function(**columns)}
    width = (len(ranges), 5, 1) if len(ranges) > 1 else (1, 1, 1)
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
    """What the Python of a formula gives."""
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
    parser.add_argument("--planted", type=int, default=3, help=f"formulas that are trained, up to {len(PLANTED)}")
    given = parser.parse_args()
    print_table(rows(given.windows, given.planted))
