"""Settings for all tests: one torch thread, hypothesis without deadlines, no skips with `REQUIRE_ALL=1`."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
from collections.abc import Generator

import anyio
import pytest
import torch
from hypothesis import settings
from thorough import EXPLORE, examples, require_reason
from xdist.scheduler import LoadScopeScheduling

# anyio imports its modules late: in the thread of a test's server, where pytest's rewriting of them has crashed.
for _name in dir(anyio):
    getattr(anyio, _name)

PEAKS: list[int] = []  # peak memory of the workers that have ended, MB
REQUIRE_ALL = os.environ.get("REQUIRE_ALL") == "1"

# Tiny models are slower on several threads, and sums then depend on the machine. Beside other processes, two threads
# that wait for each other without sleeping took 415 s for a notebook that takes 12.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start


FIRST = ("ray", "views", "explorer", "process")  # the longest scopes, which start first
URGENT = ("ray", "views", "explorer")  # scopes that wait for servers and browsers
NICE = 15  # set in a worker whose scope should run at a lower priority


def scope_of(nodeid: str) -> str:
    """What runs in one worker: a file, or all tests of one server: in a browser, or in this process."""
    file, _, name = nodeid.partition("::")
    if file.endswith("test_run_cluster.py"):
        return "ray"
    if "[process" in name:
        return "process"
    if file.endswith("/test_explorer.py"):
        return "views"  # half of the tests in a browser, with a server of their own
    return "explorer" if "/explorer/" in file else file


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Every run has the same cases, so that a failure comes from the change.

    ``--hypothesis-seed=N`` draws others, and ``EXPLORE=1`` new ones each time, and more.
    """
    same = config.getoption("--hypothesis-seed") is None and not EXPLORE
    settings.register_profile("kanscope", deadline=None, max_examples=examples(50), derandomize=same)
    settings.load_profile("kanscope")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders the tests so that the longest scopes start first."""
    for item in items:
        require_reason(item)
    items.sort(key=lambda item: scope_of(item.nodeid) not in FIRST)


def pytest_collection_finish() -> None:
    """Excludes imported objects from garbage collection, which then takes a tenth of the time."""
    gc.collect()
    gc.freeze()


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Distributes scopes over workers."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling:
    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Lowers the priority of computation below that of tests which wait for servers and browsers.

    Otherwise the longest scopes, which are chains of such waits, would end long after the rest.
    """
    if hasattr(item.config, "workerinput") and scope_of(item.nodeid) not in URGENT and os.nice(0) < NICE:
        os.nice(NICE - os.nice(0))


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not (REQUIRE_ALL and report.skipped) or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"REQUIRE_ALL=1 lets no test be skipped, since CI has all that a test needs. {reason}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report)
    return report


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Frees memory that Python and the C library keep after the tests of a file, so that workers stay small."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()
        ctypes.CDLL(None).malloc_trim(0)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak"] = peak_megabytes()


def pytest_testnodedown(node: object, error: object) -> None:
    PEAKS.append(getattr(node, "workeroutput", {}).get("peak", 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"largest test process: {max(PEAKS, default=peak_megabytes())} MB")


def peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
