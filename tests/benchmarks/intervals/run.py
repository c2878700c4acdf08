"""Prints how well intervals cover later data, beside other libraries: `tests/benchmarks/intervals/run.py`.

For a quick run: `--tasks "El Niño"`, `--libraries kanscope`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import peers
import torch
from bands import GAMMAS, LEVELS, Array, Bands, adapt, covers, winkler
from tasks import Task, make_tasks

sys.path.append(str(Path(__file__).resolve().parents[1]))

from table import machine

EIGHTHS = 8  # of a drifting test part, in each of which coverage is measured
AT = LEVELS.index(0.9)  # of the columns of a single level
OURS = "Kanscope"


def kanscope(task: Task, seed: int) -> Iterator[tuple[str, Bands]]:
    """Intervals as trained, adapted to outcomes by quantile tracking, and where the series drifts by ACI."""
    model, tested = task.train(seed, task.first, intervals=LEVELS, validation_share=0.3), task.tested
    found = model.predict(task.windows(tested), intervals=LEVELS)
    bands = Bands(found.lower, found.upper)
    yield OURS, bands
    adapted = model.backtest(task.frame[tested[0] + 1 - task.lookback :], adapt=True)
    yield f"{OURS}, adapted", Bands(adapted.lower[:, : len(tested)], adapted.upper[:, : len(tested)], learns=True)
    for gamma in GAMMAS if task.drift else ():
        yield f"{OURS}, ACI, gamma {gamma}", adapt(bands, found.predictions, task.actual(tested), gamma)


LIBRARIES = {"kanscope": kanscope, "darts": peers.darts, "neuralforecast": peers.neuralforecast, "mapie": peers.mapie}


def measure(task: Task, library: str, seed: int) -> tuple[dict[str, Bands], float]:
    """The bands of each method of a library on one core, without its messages, and the seconds of the processor."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    start = process_time()
    return dict(LIBRARIES[library](task, seed)), process_time() - start


def main() -> None:
    """Measures on all cores, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", help="names, by default all")
    parser.add_argument("--libraries", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--seed", type=int, default=0, help="of data and training")
    chosen = parser.parse_args()
    tasks = [task for task in make_tasks(chosen.seed) if chosen.tasks is None or task.name in chosen.tasks]
    print(f"\n{machine()}")
    start, scores, seconds = perf_counter(), list[dict[str, Array]](), defaultdict[str, float](float)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}  # of the processes
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        jobs = [[pool.submit(measure, task, library, chosen.seed) for library in chosen.libraries] for task in tasks]
        for task, of_task in zip(tasks, jobs, strict=True):
            bands = dict[str, Bands]()
            for library, job in zip(chosen.libraries, of_task, strict=True):
                of_library, taken = job.result()
                bands |= of_library
                seconds[library] += taken
            scores.append(print_table(task, bands))
    print_summary([found for task, found in zip(tasks, scores, strict=True) if not task.drift])
    of_processor = ", ".join(f"{library} {taken:.0f} s" for library, taken in seconds.items())
    print(f"\n{perf_counter() - start:.0f} s; of the processor: {of_processor}")


def print_table(task: Task, bands: Mapping[str, Bands]) -> dict[str, Array]:
    """Coverage, width and score of each method; yields the scores, by level."""
    actual = task.actual(task.tested)
    error = 100 * np.sqrt(LEVELS[AT] * (1 - LEVELS[AT]) / len(actual))
    print(
        f"\n{task.name}: {len(actual)} windows, {task.horizon} steps, ± {error:.1f} at 90 % if they were independent\n"
    )
    columns = ["outcomes", "coverage, %", *(["largest deviation at 90 %"] if task.drift else [])]
    print("| method |", " | ".join([*columns, "width", "Winkler score"]), "|")
    print(f"|---|{'---|' * (len(columns) + 2)}")
    scores = {}
    for name, of_method in bands.items():
        inside = 100 * covers(of_method, actual)
        eighths = [part.mean() for part in np.array_split(inside[AT], EIGHTHS)]
        deviation = max(np.abs(np.array(eighths) - 100 * LEVELS[AT]))
        width, scores[name] = (
            values.mean(axis=(1, 2)) / task.scale
            for values in (of_method.upper - of_method.lower, winkler(of_method, actual))
        )
        cells = ["used" if of_method.learns else "", _write(inside.mean(axis=(1, 2)), 1)]
        cells += [f"{deviation:.1f}"] if task.drift else []
        print(f"| {name} |", " | ".join([*cells, _write(width, 3), _write(scores[name], 3)]), "|")
    return scores


def print_summary(scores: list[dict[str, Array]]) -> None:
    """Each method's Winkler scores beside Kanscope's over the series without drift."""
    if not scores or OURS not in scores[0]:
        return
    print(f"\n| method | Winkler score / {OURS}'s, geometric mean | {OURS}'s is lower on |\n|---|---|---|")
    for name in scores[0]:
        ratios = np.array([of_task[name] / of_task[OURS] for of_task in scores])  # (n_tasks, n_levels)
        lower = " / ".join(f"{count} of {len(ratios)}" for count in (ratios > 1).sum(axis=0))
        if name != OURS:
            print(f"| {name} | {_write(np.exp(np.log(ratios).mean(axis=0)), 2)} | {lower} |")


def _write(values: Array, digits: int) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in values)


if __name__ == "__main__":
    main()
