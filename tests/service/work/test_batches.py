"""Natural batching: how batches are formed, their size, failures and cancelled items."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest
from factories import make_windows
from virtual import VirtualWorker, run_virtually

from kanmodel import Model
from kanmodel.computing import pause
from service.models.registry import Served
from service.operations import explanations
from service.operations.explain import read_question
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.wire.security import OWNER
from service.work.budget import Bounds
from service.work.executor import BATCH_EXPLANATIONS, N_SLICES, Executor


def make_executor():
    return Executor(Bounds(requests=1000, forecasts=1000, explanations=1000, n_bytes=1 << 30), Metrics())


def run(scenario):
    """The result of a scenario, a coroutine that takes an executor, on the virtual clock."""

    async def start():
        work = make_executor()
        work.start(VirtualWorker)
        result = await scenario(work)
        await asyncio.sleep(100)
        assert not work._batches._waiting and not work._latest
        assert not work._running and not work._waiting
        return result

    return run_virtually(start())


def doubling(batches, seconds=1.0, n_slices=1):
    """Doubles numbers batch by batch, in slices that take virtual time; negative numbers fail."""

    def compute(items):
        batches.append(list(items))
        for number in range(n_slices):
            if number:
                pause()
            VirtualWorker.spend(seconds / n_slices)
        return [ValueError(str(item)) if item < 0 else 2 * item for item in items]

    return compute


def test_items_that_arrive_during_a_batch_form_the_next():
    """The first item is computed at once, the others form the next batch, and each gets its own result."""
    batches = []

    async def scenario(work):
        compute = doubling(batches)
        return await asyncio.gather(*(work.run_together("key", compute, item, 1) for item in range(10)))

    assert run(scenario) == [2 * item for item in range(10)]
    assert batches == [[0], [*range(1, 10)]]


def test_batches_have_a_largest_size_and_keys_of_their_own():
    """Excess items wait for the next batch, a larger item is computed alone, and keys do not block each other."""
    batches = []
    sizes = [1, BATCH_EXPLANATIONS // 2, BATCH_EXPLANATIONS // 2, 1, BATCH_EXPLANATIONS + 1, 1]

    async def scenario(work):
        compute, others = doubling(batches), []
        results = await asyncio.gather(
            *(work.run_together("key", compute, item, size) for item, size in enumerate(sizes)),
            work.run_together("other", doubling(others), 7, 1),
        )
        assert others == [[7]]
        return results

    assert run(scenario) == [0, 2, 4, 6, 8, 10, 14]
    assert batches == [[0], [1, 2], [3], [4], [5]]


def test_each_owner_has_a_part_of_the_next_batch():
    """The next batch has as much of each owner as it has room for, whoever came first."""
    batches = []

    async def scenario(work):
        compute = doubling(batches)

        async def ask(owner, item):
            OWNER.set(owner)
            return await work.run_together("key", compute, item, 1)

        greedy = [ask("greedy", item) for item in range(2 * BATCH_EXPLANATIONS)]
        return await asyncio.gather(*greedy, ask("other", 100), ask("other", 101))

    run(scenario)
    assert batches[1] == [100, 1, 101, *range(2, BATCH_EXPLANATIONS - 1)]


def test_a_failing_item_does_not_affect_the_others_in_its_batch():
    """An item that fails has its own error; if the batch fails, all items get the error."""

    async def scenario(work):
        compute = doubling([])
        numbers = (1, -2, 3, -4, 5)
        results = await asyncio.gather(
            *(work.run_together("key", compute, item, 1) for item in numbers), return_exceptions=True
        )
        assert [str(result) for result in results] == ["2", "-2", "6", "-4", "10"]

        def fail(items):
            VirtualWorker.spend(1)
            raise ValueError("all")

        return await asyncio.gather(
            *(work.run_together("fails", fail, item, 1) for item in numbers), return_exceptions=True
        )

    assert [str(error) for error in run(scenario)] == ["all"] * 5


@pytest.mark.parametrize("leaving", [[0], [1], [1, 2, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("after", [0.0, 0.5, 1.5])
def test_a_cancelled_request_does_not_stop_the_others(leaving, after):
    """A batch is cancelled at its next pause once all its requests are cancelled."""
    batches = []

    async def scenario(work):
        compute = doubling(batches, n_slices=10)
        tasks = [asyncio.create_task(work.run_together("key", compute, item, 1)) for item in range(4)]
        await asyncio.sleep(after)
        for number in leaving:
            tasks[number].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = run(scenario)
    for number, result in enumerate(results):
        if number not in leaving or (number == 0 and after > 1):
            assert result == 2 * number
        else:
            assert isinstance(result, asyncio.CancelledError)


def test_a_long_batch_does_not_block_the_next():
    """After some slices of a batch, the next batch starts beside it."""
    begun, done = threading.Event(), threading.Event()

    def compute(items):
        if items == ["long"]:
            begun.set()
            for _ in range(N_SLICES):
                pause()
            assert done.wait(300), "the others waited for its end"
        return items

    async def scenario():
        work = make_executor()
        work.start()
        slow = asyncio.create_task(work.run_together("key", compute, "long", 1))
        await asyncio.to_thread(begun.wait)
        results = [await work.run_together("key", compute, "short", 1)]
        done.set()
        results.append(await slow)
        await work.close()
        return results

    assert asyncio.run(scenario()) == ["short", "long"]


@pytest.mark.parametrize("output", ["a+1", ["b+2", "a+1"]])
def test_batched_requests_have_the_results_they_have_alone(service, output):
    """Requests with several windows each, numbered from 0, have their own results if they share a pass."""
    model = service.models["two"]
    windows, std = make_windows(model, 9), model.output_std.max()
    served = Served("two", Model.of(model))
    questions = [
        read_question(
            json.dumps({"instances": part.tolist(), "output": output, "detail": "flow"}).encode(), served, Settings()
        )
        for part in np.split(windows, [1, 4, 6])
    ]
    (key,) = {question.batch_key for question in questions}
    assert key is not None
    together = explanations._explain_together(False, questions)
    for question, progress in zip(questions, together, strict=True):
        alone = explanations.explain_all(question)
        assert [one["instance"] for one in progress.explanations] == [one["instance"] for one in alone]
        for one, other in zip(progress.explanations, alone, strict=True):
            assert one["output"] == other["output"]
            np.testing.assert_allclose(one["steps"], other["steps"], rtol=0, atol=1e-6 * std)
            assert one["prediction"] == pytest.approx(other["prediction"], rel=0, abs=1e-6 * std)
