"""Single flight: results are computed once, cached up to a limit, and never partial."""

from __future__ import annotations

import pickle
from threading import Event, Thread

import numpy as np
import pytest
from factories import make_model

from kanmodel import Model
from kanmodel.computing import Once, Pinned, pausing


class EndedError(Exception):
    """Raised by a pause to end a computation."""


def end() -> None:
    raise EndedError


def test_a_known_result_calls_no_pause():
    """`pause` is not called for a cached result, so that it may refuse a computation."""
    once = Once(2)
    with pytest.raises(EndedError), pausing(end):
        once.get("a", lambda: 1)
    assert once.get("a", lambda: 2) == 2
    with pausing(end):
        assert once.get("a", lambda: 3) == 2


def test_the_least_recently_used_result_is_evicted_unless_pinned():
    """A pinned result stays however many others follow, and is evicted like them once unpinned."""
    once = Once(2)
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
    once, begun, go_on, found = Once(2), Event(), Event(), []

    def give_up():
        begun.set()
        assert go_on.wait(30)
        raise EndedError

    def wait():
        with pytest.raises(EndedError):
            once.get("a", give_up)

    first = Thread(target=wait)
    first.start()
    assert begun.wait(30)
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
    model = Model(make_model("head"))
    model.importance()
    sent = pickle.loads(pickle.dumps(model))
    assert not sent.results._cells and sent.outputs == model.outputs


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.explain(np.tile(model.reference.windows, (20, 1, 1))),
        lambda model: model.importance(),
        lambda model: model.agreement(),
        lambda model: model.faithfulness(),
        lambda model: model.topology(),
        lambda model: model.fidelity_curve(),
        lambda model: model.formula(),
        lambda model: model.report(),
    ],
)
def test_long_questions_pause_and_can_be_ended_at_a_pause(ask):
    """An exception raised by a pause ends the computation; the next request gets the full result."""

    def make():
        return Model(make_model("head", n_features=2, n_hidden=1, n_reference=20))

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
