"""Explaining the windows of a request, a slice at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kanmodel.explain.baseline import Baseline
from kanmodel.explain.expected import explain_expected_in_slices
from kanmodel.explain.ledger import Ledger, LedgerOptions, explain_in_slices
from kanmodel.explain.path import Slices
from kanmodel.scaling import Array
from service.registry import Served
from service.requests.baselines import ReferenceBaselines, read_baseline
from service.requests.bodies import parse_windows
from service.requests.outputs import read_outputs
from service.requests.windows import read_windows
from service.schemas.explanations import (
    Detail,
    ExplainHeader,
    ExplainRequest,
    Explanation,
    describe_baseline,
    describe_ledger,
    describe_reference_baselines,
)
from service.schemas.requests import validate_request
from service.settings import Settings

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
    """

    served: Served
    windows: Array
    outputs: tuple[int, ...]
    as_list: bool
    detail: Detail
    baseline: Baseline | ReferenceBaselines
    options: LedgerOptions


def read_question(body: bytes, served: Served, settings: Settings) -> Question:
    """What a request to explain asks.

    Raises:
        DataError: something in it cannot be used; the error names each place.
        UnknownNameError: it names an output that does not exist.
    """
    document = parse_windows(body, served.model.config.window_shape, settings.max_json_depth)
    request = validate_request(ExplainRequest, document, unread=("instances", "columns", "output", "baseline"))
    output = document.get("output")
    return Question(
        served=served,
        windows=read_windows(document, served.model, settings.max_windows),
        outputs=tuple(read_outputs(output, served.model.config)),
        as_list=isinstance(output, list),
        detail=request.detail,
        baseline=read_baseline(document.get("baseline"), served.model),
        options=LedgerOptions(tolerance=request.tolerance),
    )


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


def explain_in_parts(question: Question) -> Iterator[list[Explanation]]:
    """The explanations in order, by window and then by output: some at a time, or none after a slice of work.

    Raises:
        NonFiniteError: a ledger is not finite.
    """
    config = question.served.model.config
    for first in range(0, len(question.windows), PART):
        by_output = []
        for output in question.outputs:
            slices = _explain(question, question.windows[first : first + PART], output)
            while (ledger := _next_slice(slices)) is None:
                yield []
            by_output.append(describe_ledger(ledger, config.feature_names, question.detail, first))
        yield [explanation for of_window in zip(*by_output, strict=True) for explanation in of_window]


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
