"""Prints the tables of faithfulness: `python tests/benchmarks/faithfulness/run.py`, alone on the machine.

`--only measures` needs no idle machine, `--only times` does. For a quick run: `--windows 8 --models 1 --only measures`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import torch
from scipy.stats import wilcoxon

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # the other benchmarks

from data import Process, make_processes  # noqa: E402
from measures import (  # noqa: E402
    completeness_error,
    cumulative_difference,
    cumulative_preservation,
    deletion,
    insertion,
    max_sensitivity,
    precision_and_recall,
    signed_precision_and_recall,
    sum_segments,
)
from methods import TOGETHER, Array, Subject, make_methods  # noqa: E402
from servers import finish_background, free_server  # noqa: E402
from table import machine, times_in_turn  # noqa: E402

import kanmodel  # noqa: E402
from kanmodel import Model  # noqa: E402

SHARE = 0.1  # share of the points that CPD and CPP remove
RADIUS, MOVES = 0.02, 3  # radius of max-sensitivity, model units
TIMED, ROUNDS = 32, 5  # windows explained together, and repetitions
SEGMENT = 3
SIGNIFICANT = 0.01
MARKS = {"ledger": "*", "`removed`": "†"}  # methods from which differences are marked
BETTER = {"CPD": "more", "CPP": "less", "deletion": "more", "insertion": "less"}
BETTER |= {"completeness error": "less", "max-sensitivity": "less"}
ONLY_TIMED = (f"feature ablation, {TOGETHER} at once",)  # methods with the scores of another one
INCOMPARABLE = ("random",)  # methods without a meaningful sum or sensitivity


@dataclass
class Figures:
    """The results of one method, by model.

    Attributes:
        by_window: measure -> for each model its windows' figures, (n,).
        by_truth: measure -> a figure for each model whose truth is known.
        seconds: of `TIMED` windows, one median for each model.
    """

    by_window: dict[str, list[Array]] = field(default_factory=dict)
    by_truth: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Trains, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("measures", "times"), help="one of the two instead of both")
    parser.add_argument("--windows", type=int, default=128, help="of each model")
    parser.add_argument("--models", type=int, default=5, help="how many of the five, in the order of the table")
    parser.add_argument("--seed", type=int, default=0, help="of data, training and methods")
    chosen = parser.parse_args()
    figures: dict[str, Figures] = defaultdict(Figures)
    print(f"\n{machine()}\n")
    for process in make_processes(chosen.seed)[: chosen.models]:
        model = train(process, chosen.seed)
        windows = choose_windows(model, chosen.windows)
        print(f"{process.name}: test R2 {model.metrics['test_r2']:.2f}, {len(windows)} windows", flush=True)
        if chosen.only != "times":
            measure(process, model, windows, chosen.seed, figures)
        if chosen.only != "measures":
            measure_times(model, windows, chosen.seed, figures)
    if chosen.only != "times":
        print_measures(figures)
        print_truth(figures)
    if chosen.only != "measures":
        print_times(figures)


def train(process: Process, seed: int) -> Model:
    """A model trained on a series."""
    options = {"epochs": 30, "seed": seed} | dict(process.train)
    return kanmodel.train(process.frame, progress=False, **options)


def choose_windows(model: Model, n: int) -> Array:
    """Evenly spaced reference windows in model units; the model was not trained on them."""
    every = model.reference.scaled
    return every[torch.linspace(0, len(every) - 1, min(n, len(every))).long()].numpy()


def measure(process: Process, model: Model, windows: Array, seed: int, figures: dict[str, Figures]) -> None:
    """Adds the measures of every method on one model."""
    subject = Subject(model)
    start, forecast = subject.start, subject.forecast
    truth = None
    if process.truth is not None:
        original = subject.to_original(windows)
        truth = np.sign(process.truth(original, model.baseline()[0]))
    for name, attribute in make_methods(subject, seed).items():
        if name in ONLY_TIMED:
            continue
        scores, found = attribute(windows), figures[name]
        on = (forecast, windows, start, scores)
        of_windows: dict[str, Array] = {
            "CPD": cumulative_difference(*on, SHARE),
            "CPP": cumulative_preservation(*on, SHARE),
            "deletion": deletion(*on),
            "insertion": insertion(*on),
        }
        if name not in INCOMPARABLE:
            of_windows["completeness error"] = completeness_error(*on)
            of_windows["max-sensitivity"] = max_sensitivity(attribute, windows, scores, RADIUS, MOVES, seed)
        for measure_name, values in of_windows.items():
            found.by_window.setdefault(measure_name, []).append(values)
        if truth is not None:
            for measure_name, value in against_truth(scores, truth).items():
                found.by_truth.setdefault(measure_name, []).append(value)


def measure_times(model: Model, windows: Array, seed: int, figures: dict[str, Figures]) -> None:
    """Adds the times of every method on one model, alternating, and those of the service."""
    some = windows[np.resize(np.arange(len(windows)), TIMED)]
    methods = {name: one for name, one in make_methods(Subject(model), seed).items() if name not in INCOMPARABLE}
    times = times_in_turn([partial(attribute, some) for attribute in methods.values()], ROUNDS)
    for name, seconds in zip(methods, times, strict=True):
        figures[name].seconds.append(float(np.median(seconds)))
    for name, seconds in time_over_http(model, some).items():
        figures[name].seconds.append(seconds)


def against_truth(scores: Array, truth: Array) -> dict[str, float]:
    """AUP and AUR by magnitude and by sign, for points and for segments."""
    found: dict[str, float] = {}
    for place, values, signs in (
        ("points", scores, truth),
        (f"segments of {SEGMENT}", sum_segments(scores, SEGMENT), np.sign(sum_segments(truth, SEGMENT))),
    ):
        acting = sum_segments(np.abs(truth), SEGMENT) > 0 if values.shape != truth.shape else truth != 0
        by_magnitude = precision_and_recall(np.abs(values), acting)
        for kind, pair in (("magnitude", by_magnitude), ("sign", signed_precision_and_recall(values, signs))):
            found[f"AUP, {kind}, {place}"], found[f"AUR, {kind}, {place}"] = pair
    return found


@contextmanager
def served(model: Model) -> Iterator[int]:
    """The port of a service with one model on all cores."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.safetensors")
        with free_server(Path(folder), 1) as server:
            finish_background(server.port, "model")
            yield server.port


def time_over_http(model: Model, windows: Array) -> dict[str, float]:
    """Seconds with detail=steps, without and with effects, from the request's text to parsed JSON."""
    instances, output = Subject(model).to_original(windows).tolist(), model.outputs[0]
    with served(model) as port:
        connection = HTTPConnection("127.0.0.1", port)

        def ask(effects: bool) -> None:
            asked = {"instances": instances, "output": output, "detail": "steps", "effects": effects}
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/models/model:explain", json.dumps(asked), headers)
            assert len(json.loads(connection.getresponse().read())["explanations"]) == len(instances)

        times = times_in_turn([partial(ask, False), partial(ask, True)], ROUNDS)
    without, with_effects = (float(np.median(seconds)) for seconds in times)
    return {"ledger, over HTTP": without, "ledger and `removed`, over HTTP": with_effects}


def print_measures(figures: Mapping[str, Figures], what: str = "windows") -> None:
    """Means over models with standard errors, and marks for differences from the methods in `MARKS`."""
    known = {name for found in figures.values() for name in found.by_window}
    columns = [f"{name} ({better} is better)" for name, better in BETTER.items() if name in known]
    print(f"\n| method | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, found in figures.items():
        if found.by_window:
            cells = [
                _write(found.by_window[column]) + _mark(figures, name, column) if column in found.by_window else "-"
                for column in BETTER
                if column in known
            ]
            print(f"| {name} | {' | '.join(cells)} |")
    marks = ", ".join(f"{mark} from {name}" for name, mark in MARKS.items() if name in figures)
    print(
        f"\n± is the standard error over models. At p < {SIGNIFICANT}, by Wilcoxon's signed-rank test over all "
        f"{what}, a figure differs: {marks}."
    )


def print_times(figures: Mapping[str, Figures]) -> None:
    """Milliseconds, means over models."""
    print(f"\n| method | ms for {TIMED} windows |\n|---|---|")
    for name, found in figures.items():
        if found.seconds:
            print(f"| {name} | {1e3 * np.mean(found.seconds):.0f} |")


def print_truth(figures: Mapping[str, Figures]) -> None:
    """AUP and AUR, means over the models with known truth."""
    columns = list(figures["ledger"].by_truth)
    print(f"\n| method | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name, found in figures.items():
        if found.by_truth:
            print(f"| {name} | {' | '.join(f'{np.mean(found.by_truth[column]):.2f}' for column in columns)} |")


def _write(values: list[Array]) -> str:
    means = [float(of_model.mean()) for of_model in values]
    error = f" ± {np.std(means, ddof=1) / np.sqrt(len(means)):.2g}" if len(means) > 1 else ""
    return f"{np.mean(means):.3g}{error}"


def _mark(figures: Mapping[str, Figures], name: str, column: str) -> str:
    """The marks of a value."""
    found = ""
    for other, mark in MARKS.items():
        if other not in figures:
            continue
        differences = np.concatenate(figures[name].by_window[column]) - np.concatenate(figures[other].by_window[column])
        if np.any(differences != 0) and wilcoxon(differences).pvalue < SIGNIFICANT:
            found += mark
    return f" {found}" if found else ""


if __name__ == "__main__":
    main()
