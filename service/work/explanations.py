"""Computes the explanations of a request, part by part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import numpy as np

from kanmodel.computing import pause, pausing
from kanmodel.data import Array
from kanmodel.explain.baseline import ReferenceBaselines
from service.http.answers import encode_json
from service.schemas.baselines import UsedBaseline, describe_baseline, describe_reference_baselines
from service.schemas.explanations import ExplainHeader, Explanation, describe_explanation
from service.schemas.predictions import RangeWarnings
from service.telemetry.metrics import Metrics
from service.telemetry.observation import span
from service.work.deadlines import Deadline
from service.work.estimates import PART
from service.work.executor import Executor
from service.work.questions import Question
from service.work.receipts import make_receipt
from service.work.threads import StoppedError

SMALL = 8  # largest request that is batched with others; a larger one fills passes by itself


@dataclass(frozen=True)
class Advance:
    """Progress after a slice of work.

    Attributes:
        done: how many explanations are computed.
        explanations: those now ready to be sent, in order; none after most slices.
        encoded: the same in JSON, if requested.
    """

    done: int
    explanations: Sequence[Explanation] = ()
    encoded: Sequence[bytes] = ()


def describe_question(question: Question, predictions: Array, warnings: RangeWarnings) -> ExplainHeader:
    """The members that all explanations share.

    Args:
        question: the question.
        predictions: for its windows, (n, n_outputs), original units.
        warnings: of all its windows.
    """
    config = question.served.model.config
    names = [config.outputs[output] for output in question.outputs]
    units = [config.target_of(output).unit for output in question.outputs]
    header: ExplainHeader = {
        "model_name": question.served.name,
        "version": question.served.version,
        "checkpoint": question.served.checkpoint,
        "output": names if question.as_list else names[0],
        "unit": units if question.as_list else units[0],
        "baseline": _describe_baseline(question),
        "predictions": predictions.tolist(),
        "warnings": warnings.listed,
    }
    if warnings.n_omitted:
        header["warnings_omitted"] = warnings.n_omitted
    if question.receipt:
        header["receipt"] = make_receipt(question, header["baseline"])
    return header


def explain_part(question: Question, first: int, tell: Callable[[int], None]) -> list[Explanation]:
    """The explanations of up to `PART` windows in order, by window and then by output.

    Args:
        question: what is asked.
        first: number of the first window.
        tell: called before each pause with the number of explanations computed so far.

    Raises:
        NonFiniteError: an explanation is not finite.
        IncompleteError: an explanation is far from complete.
    """
    model, n_outputs = question.served.model, len(question.outputs)
    windows = question.windows[first : first + PART]
    by_output: list[Iterator[Explanation]] = []

    def tell_and_pause() -> None:
        tell(first * n_outputs + len(windows) * len(by_output))
        pause()

    for output in question.outputs:
        if by_output:
            tell_and_pause()
        with pausing(tell_and_pause):
            explained = model.explain(
                windows,
                model.outputs[output],
                baseline=question.baseline,
                groups=question.groups,
                segments=question.segments,
                **vars(question.options),
                effects="steps" if question.effects and question.detail != "features" else question.effects,
            )
        explained.require_completeness(explained.tolerance / question.options.tolerance, first)
        by_output.append(describe_explanation(explained, question.detail, first))
    return [explanation for of_window in zip(*by_output, strict=True) for explanation in of_window]


def explain_all(question: Question) -> list[Explanation]:
    """The explanations in order, computed synchronously.

    Raises:
        NonFiniteError: one is not finite.
    """
    firsts = range(0, len(question.windows), PART)
    return [one for first in firsts for one in explain_part(question, first, lambda _: None)]


async def compute_explanations(
    question: Question, work: Executor, metrics: Metrics, deadline: Deadline, n_bytes: int, encoded: bool
) -> AsyncGenerator[Advance, None]:
    """Yields explanations as they become ready, until the deadline or until the consumer stops.

    Args:
        question: what is asked.
        work: the executor.
        metrics: the metrics that are updated.
        deadline: when to stop.
        n_bytes: memory that they hold until the answer is sent, see `estimate_explanations`.
        encoded: whether to encode them as JSON too.

    Raises:
        DataError: they would take more memory than explanations may.
        NonFiniteError: one is not finite.
        IncompleteError: an explanation is far from complete.
        DeadlineError: the deadline has passed.
        OverloadedError: too many requests wait.
    """
    loop, key = asyncio.get_running_loop(), question.batch_key
    with work.claim("explanation", n_bytes):
        if key is not None and question.total <= SMALL and not question.progress:
            explain = partial(_explain_together, encoded)
            together = await deadline.wait(work.run_together((encoded, key), explain, question, question.total))
            _observe(question, together, metrics)
            yield together
            return
        for first in range(0, len(question.windows), PART):
            told: asyncio.Queue[Advance | None] = asyncio.Queue()

            def tell(done: int, told: asyncio.Queue[Advance | None] = told) -> None:
                if question.progress:
                    loop.call_soon_threadsafe(told.put_nowait, Advance(done))

            compute = partial(_compute_part, question, first, encoded, tell)
            computing = asyncio.ensure_future(deadline.wait(work.run_in_turns(compute)))
            computing.add_done_callback(partial(_end, told))
            try:
                while (advance := await told.get()) is not None:
                    yield advance
                advance = await computing
            finally:
                computing.cancel()
            _observe(question, advance, metrics)
            yield advance


def _observe(question: Question, advance: Advance, metrics: Metrics) -> None:
    for one in advance.explanations:
        residual = one["residual"] / one["tolerance"] * question.options.tolerance
        metrics.observe_explanation(question.served.name, residual, one["converged"])


def _end(told: asyncio.Queue[Advance | None], _: asyncio.Future[Advance]) -> None:
    told.put_nowait(None)


def _compute_part(question: Question, first: int, encoded: bool, tell: Callable[[int], None]) -> Advance:
    explanations = explain_part(question, first, tell)
    return _advance(first * len(question.outputs) + len(explanations), explanations, encoded)


def _advance(done: int, explanations: Sequence[Explanation], encoded: bool) -> Advance:
    if not encoded:
        return Advance(done, explanations)
    with span("encode"):
        return Advance(done, explanations, [encode_json(one) for one in explanations])


def _explain_together(encoded: bool, questions: Sequence[Question]) -> list[Advance | Exception]:
    """Explanations of questions that differ in their windows alone; a failing one does not affect the others."""
    windows = [question.windows for question in questions]
    whole = questions[0] if len(windows) == 1 else replace(questions[0], windows=np.concatenate(windows))
    try:
        explained = explain_part(whole, 0, lambda _: None)
    except StoppedError:
        raise
    except Exception as error:
        if len(questions) == 1:
            return [error]
        return [answer for question in questions for answer in _explain_together(encoded, [question])]
    advances: list[Advance | Exception] = []
    for question, end in zip(questions, accumulate(map(len, windows)), strict=True):
        first = end - len(question.windows)
        for_question = explained[first * len(question.outputs) :][: question.total]
        for explanation in for_question:
            explanation["instance"] -= first
        advances.append(_advance(question.total, for_question, encoded))
    return advances


def _describe_baseline(question: Question) -> UsedBaseline:
    model, baseline = question.served.model, question.baseline
    windows, names = model.baseline(baseline), model.config.feature_names
    if isinstance(baseline, ReferenceBaselines):
        return describe_reference_baselines(names, windows, baseline.seed)
    return describe_baseline(baseline, names, windows[0])
