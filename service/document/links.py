"""OpenAPI links from an answer to the operations that it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MODEL = {"model": "$request.path.model"}
_OUTPUT = {"model": "$response.body#/name", "output": "$response.body#/outputs/0"}
_FIRST_EDGE = {name: f"$response.body#/edges/0/{name}" for name in ("stage", "layer", "i", "j")}

# By operation id: the operations that follow, each with the parameters it takes from the answer.
_PARAMETERS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "list_models": {"get_model": {"model": "$response.body#/models/0"}},
    "get_model": {
        "predict": {"model": "$response.body#/name"},
        "explain": {"model": "$response.body#/name"},
        "get_attributions": _OUTPUT,
        "get_topology": _OUTPUT,
        "get_fidelity_curve": _OUTPUT,
        "get_report": _OUTPUT,
        "list_edges": _OUTPUT,
    },
    "predict": {"explain": _MODEL},
    "get_model_metadata": {"infer": {"model": "$response.body#/name"}},
    "list_repository": {"load_model": {"model": "$response.body#/0/name"}},
    "load_model": {"unload_model": _MODEL},
    "unload_model": {"load_model": _MODEL},
    "get_topology": {"get_edge": {**_MODEL, "output": "$response.body#/graph/output", **_FIRST_EDGE}},
    "list_edges": {"get_edge": {**_MODEL, "output": "$response.body#/output", **_FIRST_EDGE}},
}
_BODIES = {("predict", "explain"): {"requestBody": "$request.body"}}


def links_of(operation_id: str) -> dict[str, Any]:
    """The links of an operation's answer, by the operation that each leads to."""
    return {
        following: {"operationId": following, "parameters": parameters, **_BODIES.get((operation_id, following), {})}
        for following, parameters in _PARAMETERS.get(operation_id, {}).items()
    }
