"""Single flight: results are computed once, cached up to a limit, and never partial; progress from 0 to 1."""

from __future__ import annotations

import pickle
from itertools import pairwise
from threading import Event, Thread

import numpy as np
import pytest
from factories import make_model, make_windows
from hypothesis import given
from hypothesis import strategies as st

from kanmodel import Model, computing
from kanmodel.computing import Pinned, SingleFlightCache, pausing, progress_share, reporting, tracked

SLOWER = pytest.mark.thorough("the same of further questions")


class EndedError(Exception):
    """Raised by a pause to end a computation."""


def end() -> None:
    raise EndedError


def test_a_known_result_calls_no_pause():
    """`pause` is not called for a cached result, so that it may refuse a computation."""
    once = SingleFlightCache(2)
    with pytest.raises(EndedError), pausing(end):
        once.get("a", lambda: 1)
    assert once.get("a", lambda: 2) == 2
    with pausing(end):
        assert once.get("a", lambda: 3) == 2


def test_the_least_recently_used_result_is_evicted_unless_pinned():
    """A pinned result stays however many others follow, and is evicted like them once unpinned."""
    once = SingleFlightCache(2)
    assert Pinned(once).get("pinned", lambda: 0) == 0
    for number in range(5):
        assert once.get(number, lambda number=number: number) == number
    assert once.get("pinned", lambda: 1) == 0
    assert once.get(4, end) == 4
    once.unpin(lambda key: key == "pinned")
    for number in range(5, 8):
        once.get(number, lambda number=number: number)
    assert once.get("pinned", lambda: 1) == 1


def test_a_waiting_thread_pauses_and_computes_if_the_first_ends():
    """A waiting thread can be ended; one that stays computes the result if the first computation was ended."""
    once, begun, go_on, found = SingleFlightCache(2), Event(), Event(), []

    def give_up():
        begun.set()
        assert go_on.wait(300)
        raise EndedError

    def wait():
        with pytest.raises(EndedError):
            once.get("a", give_up)

    first = Thread(target=wait)
    first.start()
    assert begun.wait(300)
    calls = []

    def give_up_later():
        calls.append(1)
        if len(calls) > 2:
            raise EndedError

    with pytest.raises(EndedError), pausing(give_up_later):
        once.get("a", lambda: 1)
    second = Thread(target=lambda: found.append(once.get("a", lambda: 2)))
    second.start()
    go_on.set()
    first.join()
    second.join()
    assert found == [2] and once.get("a", end) == 2


def test_a_copy_in_another_process_begins_without_results():
    """A model can be pickled, whatever its cache contains."""
    model = Model.of(make_model("head"))
    model.importance()
    sent = pickle.loads(pickle.dumps(model))
    assert not sent.results._cells and sent.outputs == model.outputs


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.explain(np.tile(model.reference.windows, (20, 1, 1))),
        lambda model: model.importance(),
        pytest.param(lambda model: model.agreement(), marks=SLOWER),
        pytest.param(lambda model: model.faithfulness(), marks=SLOWER),
        pytest.param(lambda model: model.topology(), marks=SLOWER),
        pytest.param(lambda model: model.fidelity_curve(), marks=SLOWER),
        pytest.param(lambda model: model.formula(), marks=SLOWER),
        lambda model: model.report(),
    ],
)
def test_long_questions_pause_and_can_be_ended_at_a_pause(ask):
    """An exception raised by a pause ends the computation; the next request gets the full result."""

    def make():
        return Model.of(make_model("head", n_features=2, n_hidden=1, n_reference=20))

    model, calls = make(), []
    with pausing(lambda: calls.append(1)):
        ask(model)
    assert len(calls) > 3
    for last in (1, len(calls)):
        model, left = make(), iter(range(last - 1))

        def stop(left=left):
            if next(left, None) is None:
                raise EndedError

        with pytest.raises(EndedError), pausing(stop):
            ask(model)
        again = []
        with pausing(lambda again=again: again.append(1)):
            ask(model)
        assert 0 < len(again) <= len(calls)


PLANS = st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=4), max_leaves=30)


@given(plan=PLANS, shares=st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_progress_grows_from_0_to_1_however_parts_are_nested(plan, shares):
    """The shares increase strictly, and the last is exactly 1; only the end is reported as 1."""

    def compute(plan):
        for inner in tracked(plan):
            for share in shares:
                with progress_share(share):
                    compute(inner)

    seen = []
    with reporting(seen.append):
        compute(plan)
    assert (seen[0], seen[-1]) == (0, 1) and all(before < after for before, after in pairwise(seen))
    assert (
        seen[0].seconds_left is None and seen[-1].seconds_left == 0 and all(one.seconds_left >= 0 for one in seen[1:])
    )


def test_equal_slices_are_equal_shares():
    """Four slices of two halves each take eighths of the whole."""
    seen = []
    with reporting(seen.append):
        for half in tracked(range(2)):
            for _ in tracked(range(4 - 2 * half)):
                pass
    expected = np.array([0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 6 / 8, 1]) * computing.UNTIL_DONE
    assert seen[:-1] == pytest.approx(expected) and seen[-1] == 1


LONG = {
    "importance": lambda model, **progress: model.importance(**progress),
    "agreement": lambda model, **progress: model.agreement(**progress),
    "faithfulness": lambda model, **progress: model.faithfulness(**progress),
    "topology": lambda model, **progress: model.topology(fidelity=0.9, **progress),
    "fidelity curve": lambda model, **progress: model.fidelity_curve(**progress),
    "formula": lambda model, **progress: model.formula(**progress),
    "report": lambda model, **progress: model.report(**progress),
    "prune": lambda model, **progress: model.prune(**progress),
    "models": lambda model, **progress: model.compare(make_small(1), **progress),
    "forecasts": lambda model, **progress: model.compare(make_small(1), windows_of(model), **progress),
    "explanation": lambda model, **progress: model.explain(windows_of(model), **progress),
    "backtest": lambda model, **progress: model.backtest(
        {name: np.ones(1100) for name in ("f0", "f1", "y")}, **progress
    ),
    "changes": lambda model, **progress: model.changes(windows_of(model), **progress),
    "what if": lambda model, **progress: model.what_if(windows_of(model), **progress),
    "counterfactual": lambda model, **progress: model.counterfactual(windows_of(model), at_least=1.0, **progress),
}


def make_small(seed=0):
    return Model.of(make_model("head", seed, n_features=2, n_hidden=2, n_reference=24))


def windows_of(model):
    return make_windows(model, 2)


@pytest.mark.parametrize("name", LONG)
def test_what_takes_long_reports_its_progress(name):
    """From 0 to 1 with shares between them; at once if the result is cached; also where it pauses."""
    model, seen, again, pauses = make_small(), [], [], []
    with pausing(lambda: pauses.append(1)):
        LONG[name](model, progress=seen.append)
    assert (seen[0], seen[-1]) == (0, 1) and len(seen) >= 3
    assert all(before < after for before, after in pairwise(seen))
    LONG[name](model, progress=again.append)
    assert (again[0], again[-1]) == (0, 1) and len(again) <= len(seen)


def test_a_function_that_raises_ends_the_computation():
    """Nothing of it is cached, and the next computation reports to nobody."""

    def stop(done):
        if done > 0.3:
            raise EndedError

    model, pauses = make_small(), []
    with pytest.raises(EndedError):
        model.importance(progress=stop)
    with pausing(lambda: pauses.append(1)):
        model.importance()
    assert pauses


def test_two_threads_that_ask_the_same_are_each_told(monkeypatch):
    """One computes and one waits; both hear from 0 to 1, and the result is computed once."""
    model, seen, found = make_small(), ([], []), []
    asking = [Thread(target=lambda one=one: found.append(model.importance(progress=one.append))) for one in seen]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(30)
    assert found[0].contributions is found[1].contributions
    for one in seen:
        assert (one[0], one[-1]) == (0, 1) and all(b < a for b, a in pairwise(one))


def test_a_bar_is_one_line_of_text(capsys, monkeypatch):
    """It is overwritten on stderr, states the time that is left, and disappears if it took less than half a second."""
    with reporting(True):
        pass
    assert capsys.readouterr().err.rstrip(" \r").endswith("0%") and "\n" not in capsys.readouterr().err
    now = iter(range(100))
    monkeypatch.setattr(computing, "monotonic", lambda: float(next(now)))
    with reporting(True):
        for _ in tracked(range(2)):
            pass
    shown, out = capsys.readouterr().err, ""
    assert shown.count("\n") == 1 and shown.endswith("\n")
    first, *_, last = [line.strip() for line in shown.replace("\n", "").split("\r") if line.strip()]
    assert first == f"[{'.' * 30}]   0%" and last.startswith(f"[{'#' * 30}] 100%  ")
    assert "left" in shown and not out


def test_a_bar_leaves_its_line_when_the_computation_fails(capsys):
    """So that what follows, such as a traceback, begins on a line of its own."""
    with pytest.raises(EndedError), reporting(True):
        end()
    assert capsys.readouterr().err.endswith("\n")
