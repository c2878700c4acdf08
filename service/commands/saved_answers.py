"""Saved answers with a receipt: parsing them, and rebuilding and answering their request."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import orjson
from pydantic import TypeAdapter, ValidationError

from kanmodel.errors import DataError
from kanmodel.explain.attribution import LedgerOptions
from service.http.errors import problem_of
from service.models.registry import Served
from service.requests.explanations import read_question
from service.schemas.baselines import UsedBaseline
from service.schemas.explanations import ExplainResponse, Receipt
from service.schemas.predictions import warn_of_range
from service.settings import Settings
from service.work.explanations import describe_question, explain_all
from service.work.questions import Question

_ANSWER = TypeAdapter(ExplainResponse)
_WINDOWS = ("instances", "columns")


@dataclass(frozen=True)
class SavedAnswer:
    """An answer of ``:explain`` as a client saved it.

    Attributes:
        receipt: its receipt.
        content: all its members; NDJSON lines are merged to the same form as a single JSON object.
        failure: the error that ended it early; None if it is complete.
    """

    receipt: Receipt
    content: Mapping[str, Any]
    failure: str | None


def read_answer(data: bytes, name: str) -> SavedAnswer:
    """Parses an answer, saved as one JSON object or as NDJSON.

    Args:
        data: content of the file.
        name: name of the file, for errors.

    Raises:
        DataError: it is not an answer of ``:explain``, or has no receipt.
    """
    try:
        header, *lines = _read_objects(data)
    except ValueError as error:
        raise DataError(f"{name} is neither JSON nor NDJSON: {error}") from error
    failure = str(lines.pop()["error"]) if lines and "status" in lines[-1] else None  # explanations have an error too
    if lines or failure:
        header.setdefault("explanations", []).extend(line for line in lines if line.keys() != {"progress"})
    try:
        content = _ANSWER.validate_python(header)
    except ValidationError as error:
        problem = problem_of(error.errors()[0])
        raise DataError(f"{name} is not an answer of :explain: {problem.path} {problem.message}") from error
    if "receipt" not in content:
        raise DataError(f'{name} has no receipt: a request gets one with "receipt": true')
    return SavedAnswer(content["receipt"], header, failure)


def _read_objects(data: bytes) -> list[dict[str, Any]]:
    try:
        documents = [orjson.loads(data)]
    except orjson.JSONDecodeError:
        documents = [orjson.loads(line) for line in data.splitlines() if line.strip()]
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise ValueError("expected JSON objects")
    return documents


def ask_again(receipt: Receipt, request: Mapping[str, Any], served: Served) -> Question:
    """Rebuilds the question that a receipt belongs to.

    Args:
        receipt: the receipt.
        request: provides ``instances`` or ``columns``; everything else comes from the receipt.
        served: the model.

    Raises:
        DataError: the windows or the receipt do not fit the model; the error names each place.
        UnknownNameError: the model has no such output.
    """
    body = orjson.dumps(
        {
            **{name: request[name] for name in _WINDOWS if name in request},
            "output": receipt["output"],
            "detail": receipt["detail"],
            "baseline": _ask_baseline(receipt["baseline"]),
            "groups": receipt["groups"],
            "segments": receipt["segments"],
            "tolerance": receipt["tolerance"],
            "effects": receipt.get("effects", False),
        }
    )
    unlimited = Settings.model_construct(max_windows=sys.maxsize, max_path_nodes=sys.maxsize)
    options = LedgerOptions(receipt["tolerance"], receipt["path_nodes"], receipt["halvings"])
    return replace(read_question(body, served, unlimited), options=options, receipt=True)


def answer_question(question: Question) -> ExplainResponse:
    """Computes the answer to a question in this thread.

    Raises:
        NonFiniteError: a forecast or a ledger is not finite.
    """
    model, windows = question.served.model, question.windows
    header = describe_question(question, model.predict(windows), warn_of_range(model, windows))
    return {**header, "explanations": explain_all(question)}


def _ask_baseline(used: UsedBaseline) -> Any:
    """Converts the baseline stated in an answer to the form of a request."""
    stated = cast(dict[str, Any], used)
    asked = {
        "reference": ("reference", "seed"),
        "values": ("values",),
        "instance": ("instance",),
    }.get(used["kind"])
    return used["kind"] if asked is None else {name: stated[name] for name in asked if name in stated}
