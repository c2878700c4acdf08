"""Reads `:explain` requests."""

from __future__ import annotations

from kanmodel.explain.attribution import LedgerOptions
from service.models.registry import Served
from service.requests.baselines import read_baseline
from service.requests.bodies import find_limits, parse_windows, validate_request
from service.requests.groups import read_groups
from service.requests.outputs import read_outputs
from service.requests.windows import read_windows
from service.schemas.explanations import ExplainRequest
from service.settings import Settings
from service.work.questions import Question

UNREAD = ("instances", "columns", "output", "baseline", "groups", "segments")  # by pydantic


def read_question(body: bytes, served: Served, settings: Settings) -> Question:
    """Parses and validates the body of an `:explain` request.

    Raises:
        DataError: the body is invalid; the error names each place.
        UnknownNameError: there is no such output.
    """
    document = parse_windows(body, find_limits(served.model, settings))
    request = validate_request(ExplainRequest, document, unread=UNREAD)
    output = document.get("output")
    groups, segments = read_groups(document, served.model)
    question = Question(
        served=served,
        windows=read_windows(document, served.model, settings.max_windows),
        outputs=tuple(read_outputs(output, served.model.config)),
        as_list=isinstance(output, list),
        detail=request.detail,
        baseline=read_baseline(document.get("baseline"), served.model),
        groups=groups,
        segments=segments,
        options=LedgerOptions(tolerance=request.tolerance),
        effects=request.effects,
        receipt=request.receipt,
        progress=request.progress,
    )
    question.refuse_costly(settings.max_path_nodes)
    return question
