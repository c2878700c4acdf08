"""Explaining the windows of a request, a slice at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from starlette.requests import ClientDisconnect

from kanmodel.explain.paths.baseline import baseline_window
from kanmodel.explain.paths.expected import ReferenceBaselines, draw_baselines, explain_expected_in_slices
from kanmodel.explain.paths.ledger import Ledger, explain_in_slices, refuse_incomplete
from kanmodel.explain.paths.path import Slices
from kanmodel.scaling import Array
from service.http.answers import encode_json
from service.schemas.baselines import UsedBaseline, describe_baseline, describe_reference_baselines
from service.schemas.explanations import ExplainHeader, Explanation, describe_ledger
from service.schemas.predictions import MAX_WARNINGS, RangeWarning
from service.telemetry.metrics import Metrics
from service.telemetry.traces import span
from service.work.deadlines import Deadline
from service.work.estimates import PART
from service.work.executor import Executor
from service.work.questions import Question
from service.work.receipts import make_receipt


@dataclass(frozen=True)
class Advance:
    """Where the work stands after a slice of it.

    Attributes:
        done: how many explanations are computed.
        explanations: those that are ready to be sent now, in order; none after most slices.
        encoded: the same in JSON, where that is asked for.
    """

    done: int
    explanations: Sequence[Explanation] = ()
    encoded: Sequence[bytes] = ()


def describe_question(question: Question, predictions: Array, warnings: list[RangeWarning]) -> ExplainHeader:
    """What all explanations share.

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
        "warnings": warnings[:MAX_WARNINGS],
    }
    if len(warnings) > MAX_WARNINGS:
        header["warnings_omitted"] = len(warnings) - MAX_WARNINGS
    if question.receipt:
        header["receipt"] = make_receipt(question, header["baseline"])
    return header


def explain_in_parts(question: Question) -> Iterator[Advance]:
    """The explanations in order, by window and then by output: a slice of work at a time, some ready after a few.

    Raises:
        NonFiniteError: a ledger is not finite.
        IncompleteError: a ledger does not nearly add up.
    """
    config, n_outputs = question.served.model.config, len(question.outputs)
    for first in range(0, len(question.windows), PART):
        windows = question.windows[first : first + PART]
        by_output: list[Iterator[Explanation]] = []
        for output in question.outputs:
            done = first * n_outputs + len(windows) * len(by_output)
            if by_output:
                yield Advance(done)
            slices = _explain(question, windows, output)
            while (ledger := _next_slice(slices)) is None:
                yield Advance(done)
            refuse_incomplete(ledger, float(question.served.model.output_std[output]), first)
            by_output.append(describe_ledger(ledger, config.feature_names, question.detail, first))
        explanations = [explanation for of_window in zip(*by_output, strict=True) for explanation in of_window]
        yield Advance(first * n_outputs + len(explanations), explanations)


async def compute_explanations(
    question: Question,
    work: Executor,
    metrics: Metrics,
    deadline: Deadline,
    has_gone: Callable[[], Awaitable[bool]],
    n_bytes: int,
    encoded: bool,
) -> AsyncIterator[Advance]:
    """The explanations as they become ready, slice by slice, until the deadline, and while somebody waits for them.

    Args:
        question: what is asked.
        work: what computes them.
        metrics: where they are counted.
        deadline: until when.
        has_gone: whether nobody waits any more.
        n_bytes: memory that they hold until the answer is sent, see `estimate_explanations`.
        encoded: whether to give them in JSON too.

    Raises:
        ClientDisconnect: nobody does.
        DataError: they take more memory than there is.
        NonFiniteError: a ledger is not finite.
        IncompleteError: a ledger does not nearly add up.
        DeadlineError: the deadline has passed.
        OverloadedError: too many requests wait.
    """
    with work.place("explanation", n_bytes):
        slices = explain_in_parts(question)
        if encoded:
            slices = map(_encode, slices)
        while (advance := await deadline.wait(work.run_slice(lambda: next(slices, None)))) is not None:
            for one in advance.explanations:
                residual = one["residual"] / one["tolerance"] * question.options.tolerance
                metrics.observe_explanation(question.served.name, residual, one["converged"])
            yield advance
            if not advance.explanations and await has_gone():
                raise ClientDisconnect


def _encode(advance: Advance) -> Advance:
    if not advance.explanations:
        return advance
    with span("encode"):
        return replace(advance, encoded=[encode_json(one) for one in advance.explanations])


def _describe_baseline(question: Question) -> UsedBaseline:
    model, baseline = question.served.model, question.baseline
    if isinstance(baseline, ReferenceBaselines):
        windows = draw_baselines(model, baseline.count, baseline.seed)
        return describe_reference_baselines(model.config.feature_names, windows, baseline.seed)
    return describe_baseline(baseline, model.config.feature_names, baseline_window(model, baseline))


def _explain(question: Question, windows: Array, output: int) -> Slices[Ledger]:
    model, baseline, options = question.served.model, question.baseline, question.options
    scaled = model.to_model_units(windows)
    if isinstance(baseline, ReferenceBaselines):
        return explain_expected_in_slices(model, scaled, output, baseline.count, baseline.seed, options)
    return explain_in_slices(model, scaled, output, baseline, options)


def _next_slice(slices: Slices[Ledger]) -> Ledger | None:
    """The ledger, once its last slice is done."""
    try:
        next(slices)
    except StopIteration as end:
        ledger: Ledger = end.value
        return ledger
    return None
