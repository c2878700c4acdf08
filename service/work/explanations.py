"""Explaining the windows of a request, a slice at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from starlette.requests import ClientDisconnect

from kanmodel.explain.baseline import Baseline
from kanmodel.explain.expected import explain_expected_in_slices
from kanmodel.explain.ledger import Ledger, LedgerOptions, explain_in_slices
from kanmodel.explain.path import Slices
from kanmodel.scaling import Array
from service.http.errors import unusable
from service.models.registry import Served
from service.requests.baselines import ReferenceBaselines, read_baseline
from service.requests.bodies import parse_windows
from service.requests.outputs import read_outputs
from service.requests.windows import read_windows
from service.schemas.baselines import describe_baseline, describe_reference_baselines
from service.schemas.closed import validate_request
from service.schemas.explanations import Detail, ExplainHeader, ExplainRequest, Explanation, describe_ledger
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.work.deadlines import Deadline
from service.work.scheduler import Scheduler

PART = 32  # windows whose explanations are computed, and sent, together


@dataclass(frozen=True)
class Question:
    """A request to explain, understood.

    Attributes:
        served: the model.
        windows: what to explain, (n, lookback, n_features), original units.
        outputs: numbers of the outputs.
        as_list: whether the request names its outputs in a list, so that the answer does.
        detail: what to say.
        baseline: what to compare with.
        options: how exact the ledgers must be.
        receipt: whether the answer holds what is needed to repeat it.
        progress: whether lines between the explanations tell how far the work is.
    """

    served: Served
    windows: Array
    outputs: tuple[int, ...]
    as_list: bool
    detail: Detail
    baseline: Baseline | ReferenceBaselines
    options: LedgerOptions
    receipt: bool
    progress: bool

    @property
    def total(self) -> int:
        """How many explanations it asks for: one for each window and output."""
        return len(self.windows) * len(self.outputs)

    @property
    def path_nodes(self) -> int:
        """How many path nodes it takes where no path is halved: the work, before it is done."""
        baselines = self.baseline.count if isinstance(self.baseline, ReferenceBaselines) else 1
        return self.total * baselines * self.options.path_nodes

    def refuse_costly(self, max_path_nodes: int) -> None:
        """Refuses what takes too long.

        Raises:
            DataError: it takes more path nodes than there may be.
        """
        if self.path_nodes > max_path_nodes:
            reason = f"would take {self.path_nodes} path nodes to explain, of at most {max_path_nodes} (max_path_nodes)"
            raise unusable("body", f"{reason}: send fewer windows, outputs or baselines at a time")


@dataclass(frozen=True)
class Advance:
    """Where the work stands after a slice of it.

    Attributes:
        done: how many explanations are computed.
        explanations: those that are ready to be sent now, in order; none after most slices.
    """

    done: int
    explanations: Sequence[Explanation] = ()


def read_question(body: bytes, served: Served, settings: Settings) -> Question:
    """What a request to explain asks.

    Raises:
        DataError: something in it cannot be used; the error names each place.
        UnknownNameError: it names an output that does not exist.
    """
    document = parse_windows(body, served.model.config.window_shape, settings.max_json_depth)
    request = validate_request(ExplainRequest, document, unread=("instances", "columns", "output", "baseline"))
    output = document.get("output")
    question = Question(
        served=served,
        windows=read_windows(document, served.model, settings.max_windows),
        outputs=tuple(read_outputs(output, served.model.config)),
        as_list=isinstance(output, list),
        detail=request.detail,
        baseline=read_baseline(document.get("baseline"), served.model),
        options=LedgerOptions(tolerance=request.tolerance),
        receipt=request.receipt,
        progress=request.progress,
    )
    question.refuse_costly(settings.max_path_nodes)
    return question


def describe_question(question: Question, predictions: Array) -> ExplainHeader:
    """What all explanations share.

    Args:
        question: the question.
        predictions: for its windows, (n, n_outputs), original units.
    """
    model = question.served.model
    baseline = question.baseline
    names = [model.config.outputs[output] for output in question.outputs]
    units = [model.config.target_of(output).unit for output in question.outputs]
    return {
        "model_name": question.served.name,
        "checkpoint": question.served.checkpoint,
        "output": names if question.as_list else names[0],
        "unit": units if question.as_list else units[0],
        "baseline": describe_reference_baselines(model, baseline.count, baseline.seed)
        if isinstance(baseline, ReferenceBaselines)
        else describe_baseline(model, baseline),
        "predictions": predictions.tolist(),
    }


def explain_in_parts(question: Question) -> Iterator[Advance]:
    """The explanations in order, by window and then by output: a slice of work at a time, some ready after a few.

    Raises:
        NonFiniteError: a ledger is not finite.
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
            by_output.append(describe_ledger(ledger, config.feature_names, question.detail, first))
        explanations = [explanation for of_window in zip(*by_output, strict=True) for explanation in of_window]
        yield Advance(first * n_outputs + len(explanations), explanations)


async def compute_explanations(
    question: Question,
    scheduler: Scheduler,
    metrics: Metrics,
    deadline: Deadline,
    has_gone: Callable[[], Awaitable[bool]],
) -> AsyncIterator[Advance]:
    """The explanations as they become ready, slice by slice, until the deadline, and while somebody waits for them.

    Args:
        question: what is asked.
        scheduler: what computes them.
        metrics: where they are counted.
        deadline: until when.
        has_gone: whether nobody waits any more.

    Raises:
        ClientDisconnect: nobody does.
        NonFiniteError: a ledger is not finite.
        NotReadyError: the deadline has passed.
        OverloadedError: too many requests wait.
    """
    slices = explain_in_parts(question)
    with scheduler.admit("explanation"):
        while (advance := await deadline.wait(scheduler.run(lambda: next(slices, None)))) is not None:
            for one in advance.explanations:
                residual = one["residual"] / one["tolerance"] * question.options.tolerance
                metrics.observe_explanation(question.served.name, residual, one["converged"])
            yield advance
            if not advance.explanations and await has_gone():
                raise ClientDisconnect


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
