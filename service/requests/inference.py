"""Reads infer requests of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kanmodel.data import Array
from kanmodel.explain.attribution import LedgerOptions, Segments
from kanmodel.network.config import Groups
from service.http.errors import unusable
from service.models.registry import Served
from service.requests.baselines import read_baseline
from service.requests.bodies import Limits, find_limits, parse_object, validate_request
from service.requests.groups import parse_groups, read_groups
from service.requests.tensors import Tensor, read_tensors, split_body
from service.schemas.inference import InferRequest, OutputName
from service.settings import Settings
from service.work.questions import Question

_EXPLAINED: tuple[OutputName, ...] = ("contributions", "residual", "error")
_BY_GROUP: OutputName = "contributions_by_group"


@dataclass(frozen=True)
class Inference:
    """A parsed infer request.

    Attributes:
        id: the client's id, repeated in the answer; None if absent.
        windows: what to forecast, (n, lookback, n_features), original units.
        question: how to explain them; None for forecasts alone.
        outputs: the requested tensors, and whether each is binary.
    """

    id: str | None
    windows: Array
    question: Question | None
    outputs: Mapping[OutputName, bool]


def read_inference(body: bytes, header_length: str | None, served: Served, settings: Settings) -> Inference:
    """Parses and validates an infer request.

    Args:
        body: JSON, and bytes after it.
        header_length: value of the header with the length of the JSON; None if the body is all JSON.
        served: the model.
        settings: the limits.

    Raises:
        DataError: the request is invalid; the error names each place.
    """
    head, binary = split_body(body, header_length)
    limits = find_limits(served.model, settings)
    document = parse_object(head, limits)
    _refuse_number_of_inputs(document.get("inputs"), len(served.model.config.features))
    request = validate_request(InferRequest, _leave_out_data(document), unread=())
    windows = read_tensors(_list_tensors(request, document), binary, served.model, settings.max_windows)
    groups, segments = _read_groups(request, served, limits)
    explained = _EXPLAINED if not groups and not segments else (*_EXPLAINED, _BY_GROUP)
    outputs = _choose_outputs(request, explained)
    question = _ask(request, served, windows, groups, segments) if any(name in outputs for name in explained) else None
    if question is not None:
        question.refuse_costly(settings.max_path_nodes)
    return Inference(request.id or None, windows, question, outputs)


def _refuse_number_of_inputs(inputs: Any, n_features: int) -> None:
    """Checks the number of inputs before validating each: a body has room for a million."""
    if isinstance(inputs, list) and len(inputs) > n_features:
        raise unusable("inputs", f"must be 1 tensor, or {n_features}, one per feature, but there are {len(inputs)}")


def _leave_out_data(document: dict[str, Any]) -> dict[str, Any]:
    """The request without the values of its tensors, which numpy reads."""
    inputs = document.get("inputs")
    if not isinstance(inputs, list):
        return document
    return {**document, "inputs": [{**one, "data": None} if isinstance(one, dict) else one for one in inputs]}


def _list_tensors(request: InferRequest, document: dict[str, Any]) -> list[Tensor]:
    return [
        Tensor(
            path=f"inputs[{number}]",
            name=described.name,
            datatype=described.datatype,
            shape=tuple(described.shape),
            data=raw.get("data"),
            n_bytes=described.parameters.binary_data_size if described.parameters else None,
        )
        for number, (described, raw) in enumerate(zip(request.inputs, document["inputs"], strict=True))
    ]


def _read_groups(request: InferRequest, served: Served, limits: Limits) -> tuple[Groups, Segments]:
    parameters = request.parameters
    given = {} if parameters is None else {"groups": parameters.groups, "segments": parameters.segments}
    return read_groups(parse_groups(given, limits, "parameters."), served.model)


def _choose_outputs(request: InferRequest, explained: Sequence[OutputName]) -> dict[OutputName, bool]:
    """The requested outputs, and whether each is binary; `explained` are available with explanations."""
    explain = request.parameters is not None and request.parameters.explain
    binary = request.parameters is not None and request.parameters.binary_data_output
    chosen: dict[OutputName, bool] = {}
    for number, wanted in enumerate(request.outputs or ()):
        if wanted.name in chosen:
            raise unusable(f"outputs[{number}].name", "is given twice")
        if wanted.name == _BY_GROUP and wanted.name not in explained:
            raise unusable(f"outputs[{number}].name", f"{wanted.name} needs groups or segments")
        if wanted.name in explained and not explain:
            raise unusable(f"outputs[{number}].name", f"{wanted.name} needs parameters.explain")
        own = wanted.parameters.binary_data if wanted.parameters else None
        chosen[wanted.name] = binary if own is None else own
    return chosen or dict.fromkeys(("predictions", *(explained if explain else ())), binary)


def _ask(request: InferRequest, served: Served, windows: Array, groups: Groups, segments: Segments) -> Question:
    assert request.parameters is not None
    return Question(
        served=served,
        windows=windows,
        outputs=tuple(range(len(served.model.config.outputs))),
        as_list=True,
        detail=request.parameters.detail,
        baseline=read_baseline(request.parameters.baseline, served.model),
        groups=groups,
        segments=segments,
        options=LedgerOptions(),
        effects=False,
        receipt=False,
        progress=False,
    )
