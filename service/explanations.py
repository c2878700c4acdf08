"""Explaining the windows of a request, a slice at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from kanmodel.explain.baseline import Baseline
from kanmodel.explain.expected import explain_expected
from kanmodel.explain.ledger import Ledger, LedgerOptions, explain_windows
from service.registry import Served
from service.requests.baselines import ReferenceBaselines, read_baseline
from service.requests.bodies import parse_object
from service.requests.outputs import read_outputs
from service.requests.windows import Windows, read_windows
from service.schemas.explanations import (
    Detail,
    ExplainHeader,
    ExplainRequest,
    ExplainResponse,
    Explanation,
    describe_baseline,
    describe_ledger,
    describe_reference_baselines,
)
from service.schemas.requests import validate_request
from service.settings import Settings

SLICE = 32  # windows whose explanations are computed, and sent, together


@dataclass(frozen=True)
class Question:
    """A request to explain, understood.

    Attributes:
        served: the model.
        windows: what to explain.
        outputs: numbers of the outputs.
        as_list: whether the request names its outputs in a list, so that the answer does.
        detail: what to say.
        baseline: what to compare with.
        options: how exact the ledgers must be.
    """

    served: Served
    windows: Windows
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
    document = parse_object(body, settings.max_json_depth)
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


def describe_question(question: Question) -> ExplainHeader:
    """What all explanations share, the predictions included.

    Raises:
        NonFiniteError: a prediction is not finite.
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
        "predictions": model.predict(question.windows.original).tolist(),
    }


def explain_slices(question: Question) -> Iterator[list[Explanation]]:
    """The explanations of a slice of windows at a time, by window and then by output.

    Raises:
        NonFiniteError: a ledger is not finite.
    """
    model, windows = question.served.model, question.windows.scaled
    for first in range(0, len(windows), SLICE):
        by_output = [
            describe_ledger(
                _explain(question, windows[first : first + SLICE], output),
                model.config.feature_names,
                question.detail,
                first,
            )
            for output in question.outputs
        ]
        yield [explanation for of_window in zip(*by_output, strict=True) for explanation in of_window]


def _explain(question: Question, windows: Tensor, output: int) -> Ledger:
    model, baseline, options = question.served.model, question.baseline, question.options
    if isinstance(baseline, ReferenceBaselines):
        return explain_expected(model, windows, output, baseline.count, baseline.seed, options)
    return explain_windows(model, windows, output, baseline, options)


def explain_all(question: Question) -> ExplainResponse:
    """The whole answer at once."""
    header = describe_question(question)
    return {**header, "explanations": [one for part in explain_slices(question) for one in part]}
