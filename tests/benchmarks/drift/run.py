"""Prints how soon planted faults are detected, and by which monitor: `tests/benchmarks/drift/run.py`.

For a quick run: `--series "stock market"`, `--spans 24`.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from faults import BEFORE, FAULTS, LEAST_USED, NO_FAULT, UNTIL, Series, Stream, make_series, streams
from monitors import CALIBRATED, QUESTIONS, RATE, SHIPPED, Array, Monitors, alarms, evidently, shipped_alarms

from kanmodel.monitoring.tallies import TallySchema
from kanmodel.tables.statistics.p_values import NullDistribution

sys.path.append(str(Path(__file__).resolve().parents[1]))

from table import machine

EVIDENTLY = Path(__file__).resolve().parents[3] / ".venv" / "evidently" / "bin" / "python"
PACES = {24: 6, 168: 24}  # rows of a span, and rows from one check to the next
OURS = "Kanscope: "


@dataclass(frozen=True)
class Findings:
    """Of one series and length of spans.

    Attributes:
        series: its name.
        length: rows of a span.
        n_spans: number of spans of the reference that do not overlap.
        least_used: the feature that the model uses least, and its share.
        usual: by monitor, the share of checks with an alarm where there is no fault.
        alarms: by fault and monitor, at each check after each start, (n_starts, n_checks).
        named: by fault and question, how often what is named at its first alarm, and the number of these.
    """

    series: str
    length: int
    n_spans: int
    least_used: tuple[str, float]
    usual: Mapping[str, float]
    alarms: Mapping[str, Mapping[str, Array]]
    named: Mapping[str, Mapping[str, Counter[str]]]


@dataclass(frozen=True)
class Observed:
    """Of one series: what is watched, the least used feature with its share, and streams with delayed outcomes."""

    series: str
    watched: TallySchema
    least_used: tuple[str, float]
    reference: Stream
    after: Sequence[Stream]
    faulty: Mapping[str, Sequence[Stream]]


def observe(series: Series, seed: int) -> Observed:
    """Trains two models, and lets them forecast with and without faults."""
    model, other = series.fit(seed), series.fit(seed + 1)
    movable = [of for of in model.importance().features if of.name in series.late]
    least = min(movable, key=lambda of: of.share)
    reference = series.watch(model, np.concatenate(series.pieces("reference"))).delay_outcomes(series.delay)
    after = [series.watch(model, rows).delay_outcomes(series.delay) for rows in series.pieces("after")]
    faulty = dict(streams(series, model, other, least.name))
    return Observed(series.name, TallySchema.of(model, 0), (least.name, least.share), reference, after, faulty)


def compare(observed: Observed, length: int, python: Path) -> Findings:
    """All monitors with spans of one length."""
    pace, after, faulty = PACES[length], observed.after, observed.faulty
    monitors = Monitors(observed.watched, observed.reference, length)
    checked = [(stream, np.arange(0, len(stream) - length + 1, pace)) for stream in after]
    from_start = np.arange(BEFORE + pace, BEFORE + UNTIL + 1, pace) - length
    checked += [(stream, from_start) for of_fault in faulty.values() for stream in of_fault]
    statistics = [monitors.statistics(*each) for each in checked]
    inputs = [(of.newest, begins) for of, begins in checked]
    of_reference, *of_peer = evidently(python, observed.reference.newest, length, inputs)
    tiny = np.full(of_reference.shape[1], np.finfo(float).tiny)
    chances = {**monitors.chances, "evidently": NullDistribution(of_reference, tiny, length)}
    raised = []
    for each, index in zip(statistics, of_peer, strict=True):
        each["evidently"] = index
        of_stream = {name: alarms(chances[name], each[name]) for name in CALIBRATED}
        raised.append(of_stream | {name: shipped_alarms(name, each[name.split()[0]]) for name in SHIPPED})
    usual = {name: np.concatenate([of[name] for of in raised[: len(after)]]).mean() for name in raised[0]}
    by_fault, named, stop = {}, {}, len(after)
    for fault, of_fault in faulty.items():
        mine = slice(stop, stop := stop + len(of_fault))
        by_fault[fault] = {name: np.array([of[name] for of in raised[mine]]) for name in raised[0]}
        named[fault] = {
            question: name_items(chances[question], statistics[mine], raised[mine], question, observed.watched)
            for question in QUESTIONS
        }
    n_spans = chances["inputs"].n_spans
    return Findings(observed.series, length, n_spans, observed.least_used, usual, by_fault, named)


def measure(series: Series, lengths: Sequence[int], python: Path, seed: int) -> list[Findings]:
    """All monitors on one series, on one core, without messages."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    observed = observe(series, seed)
    return [compare(observed, length, python) for length in lengths]


def name_items(
    chance: NullDistribution,
    statistics: Sequence[Mapping[str, Array]],
    raised: Sequence[Mapping[str, Array]],
    question: str,
    watched: TallySchema,
) -> Counter[str]:
    """How often a question names what at its first alarm."""
    items = {
        "inputs": watched.features,
        "use": watched.names * 2,
        "errors": ("MAE", "bias", *("coverage" for _ in watched.levels)),
    }[question]
    counter = Counter[str]()
    for of_stream, alarm in zip(statistics, raised, strict=True):
        if alarm[question].any():
            p_values = chance.judge(of_stream[question][alarm[question].argmax()])
            moved = p_values <= chance.rate(RATE) * (1 + 1e-9)
            counter.update(sorted({items[item] for item in np.flatnonzero(moved)}))
    return counter


def main() -> None:
    """Measures on all cores, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", nargs="+", help="names, by default all")
    parser.add_argument("--spans", nargs="+", type=int, choices=PACES, default=list(PACES), help="rows")
    parser.add_argument("--python", type=Path, default=EVIDENTLY, help="of the environment with evidently")
    parser.add_argument("--seed", type=int, default=0, help="of data and training")
    chosen = parser.parse_args()
    chosen_series = [one for one in make_series(chosen.seed) if chosen.series is None or one.name in chosen.series]
    print(f"\n{machine()}")
    start = perf_counter()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}  # of the processes
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        jobs = [pool.submit(measure, one, chosen.spans, chosen.python, chosen.seed) for one in chosen_series]
        findings = [found for job in jobs for found in job.result()]
    print_usual(findings)
    for found in findings:
        print_table(found)
    print(f"\n{perf_counter() - start:.0f} s")


def print_usual(findings: Sequence[Findings]) -> None:
    """How often each monitor has an alarm without a fault."""
    print("\n| series, span | spans |", " | ".join(map(head, (*CALIBRATED, *SHIPPED))), "|")
    print(f"|---|---|{'---|' * len((*CALIBRATED, *SHIPPED))}")
    for found in findings:
        cells = [f"{100 * found.usual[name]:.1f}" for name in (*CALIBRATED, *SHIPPED)]
        print(f"| {found.series}, {found.length} rows | {found.n_spans} |", " | ".join(cells), "|")


def print_table(found: Findings) -> None:
    """Delay and share detected of each fault, and what Kanscope names."""
    pace, n_starts = PACES[found.length], len(found.alarms[NO_FAULT]["inputs"])
    name, share = found.least_used
    print(f"\n{found.series}, spans of {found.length} rows, checked every {pace}; {n_starts} starts of each fault\n")
    print("| fault |", " | ".join(map(head, CALIBRATED)), "| named |")
    print(f"|---|{'---|' * (len(CALIBRATED) + 1)}")
    for fault in FAULTS:
        cells = [detect(found.alarms[fault][name], pace) for name in CALIBRATED]
        named = [
            f"{question}: {', '.join(f'{item} {count}' for item, count in counter.most_common(2))}"
            for question, counter in found.named[fault].items()
            if counter
        ]
        title = f"{fault}: {name}, {100 * share:.1f} %" if fault == LEAST_USED else fault
        print(f"| {title} |", " | ".join([*cells, "; ".join(named)]), "|")


def detect(of_starts: Array, pace: int) -> str:
    """Median delay in rows, and the share detected."""
    delays = np.where(of_starts.any(axis=1), pace * (of_starts.argmax(axis=1) + 1), np.inf)
    median, detected = np.median(delays), 100 * np.isfinite(delays).mean()
    return f"{f'{median:.0f}' if np.isfinite(median) else '–'} ({detected:.0f} %)"


def head(name: str) -> str:
    """Of a column."""
    return OURS + name if name in QUESTIONS else name


if __name__ == "__main__":
    main()
