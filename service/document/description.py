"""The app's description of itself: FastAPI's OpenAPI document, made exact for client generators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.document.links import links_of
from service.document.operations import OF_VERSION
from service.http.security import HEALTH
from service.models.repository import FIRST_VERSION
from service.schemas.explanations import ExplainRequest
from service.schemas.inference import InferRequest
from service.schemas.predictions import PredictRequest
from service.schemas.repository import IndexRequest, LoadRequest, UnloadRequest

EXAMPLES = Path(__file__).parent / "examples.json"  # by operation id: a request, an answer
_BODIES = (
    PredictRequest,
    ExplainRequest,
    InferRequest,
    IndexRequest,
    LoadRequest,
    UnloadRequest,
)  # see `describe_body`
_REFERENCE = "#/components/schemas/{model}"

_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, where the service wants one. Reading and forecasts need the scope read, explanations "
    "explain, which includes read, and all else admin, which includes both.",
}


def describe_api(app: FastAPI) -> dict[str, Any]:
    """The document of an app, made once: FastAPI's, with examples, links and the bodies that handlers read."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        _, bodies = models_json_schema([(body, "validation") for body in _BODIES], ref_template=_REFERENCE)
        schemas = document["components"]["schemas"]
        schemas.update(bodies["$defs"])
        examples = orjson.loads(EXAMPLES.read_bytes())
        document["components"]["securitySchemes"] = {"key": _KEY}
        document["security"] = [{"key": []}, {}]
        for path in HEALTH & document["paths"].keys():
            document["paths"][path]["get"]["security"] = []
        for operation in _operations(document):
            for parameter in operation.get("parameters", ()):
                _leave_out_null(parameter["schema"])
            _leave_out_default_422(operation)
            _add_examples(operation, examples)
            if links := links_of(operation["operationId"]):
                operation["responses"]["200"]["links"] = links
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        _tidy(document["components"])
        _tidy(document["paths"])
        app.openapi_schema = document
    return app.openapi_schema


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _leave_out_null(schema: dict[str, Any]) -> None:
    """Takes out that a parameter may be null: it means absent, and a query has no way to say it."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del schema["anyOf"]
        schema.update(choices[0])
    elif choices:
        schema["anyOf"] = choices


def _leave_out_default_422(operation: dict[str, Any]) -> None:
    """Takes out the 422 that FastAPI adds to every operation with a parameter: its shape is not ours."""
    schema = operation["responses"].get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref", "").endswith("/HTTPValidationError"):
        del operation["responses"]["422"]


def _add_examples(operation: dict[str, Any], examples: dict[str, Any]) -> None:
    """A request that the bundled model answers, and the answer; bodies once, not again for operations on a version."""
    operation_id = operation["operationId"]
    example = examples[operation_id.removesuffix(OF_VERSION)]
    values = {"version": FIRST_VERSION, **example.get("parameters", {})}
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in values:
            parameter["example"] = values[parameter["name"]]
    if operation_id.endswith(OF_VERSION):
        return
    if "request" in example:
        operation["requestBody"]["content"]["application/json"]["example"] = example["request"]
    operation["responses"]["200"]["content"]["application/json"]["example"] = example["response"]


def _tidy(node: Any) -> None:
    """Takes out titles that repeat a name, and defaults of null, which schemas do not accept."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    elif isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        if "default" in node and node["default"] is None:
            del node["default"]
        for name, item in node.items():
            if name not in ("example", "examples"):
                _tidy(item)
