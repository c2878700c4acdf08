"""The OpenAPI document: FastAPI's, made exact for client generators."""

from __future__ import annotations

import ast
import inspect
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema
from typing_extensions import get_original_bases, is_typeddict

from service.document.errors import ETAG, HEADERS, REQUEST_ID, share_responses, shared_responses
from service.document.links import links_of
from service.wire.errors import ErrorResponse
from service.wire.security import SCHEME

EXAMPLES = Path(__file__).parent / "examples.json"  # by operation id: a request, an answer
TAGS = {
    "predictions": "Forecasts.",
    "explanations": "What each feature, step, unit and edge adds to a forecast.",
    "alternatives": "What a forecast would be, what must change for it, and what has changed.",
    "models": "Which models there are, and what each of them is.",
    "attributions": "What each feature matters over the reference windows.",
    "topology": "The network when all that hardly matters is pruned.",
    "edges": "The functions on the edges of the KAN.",
    "report": "What people ask before the picture of a KAN, answered.",
    "formula": "The head written down.",
    "inference": "The Open Inference Protocol (V2), for clients of Triton and KServe.",
    "repository": "Loading and unloading models by command; off unless the setting `repository_api` is on.",
    "health": "Whether the process lives, and whether it can answer.",
}
_REFERENCE = "#/components/schemas/{model}"


def describe_api(app: FastAPI) -> dict[str, Any]:
    """The document of an app, made once: FastAPI's, with what it does not say, and each thing in it once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        )
        components = document["components"]
        components["schemas"] |= _describe_schemas(app)
        _describe_members(components["schemas"])
        components["securitySchemes"] = {"key": SCHEME}
        components |= {"headers": dict(HEADERS), "responses": shared_responses()}
        routes: list[Any] = app.routes
        queries = {route.operation_id: _read_docstrings(route.query) for route in routes if hasattr(route, "query")}
        examples = orjson.loads(EXAMPLES.read_bytes())
        for operation in _operations(document):
            for parameter in operation.get("parameters", ()):
                _leave_out_null(parameter["schema"])
                if text := queries[operation["operationId"]].get(parameter["name"]):
                    parameter["description"] = parameter["schema"]["description"] = text
            _leave_out_default_422(operation)
            _add_examples(operation, examples[operation["operationId"]])
            _describe_answer(operation)
            share_responses(operation["responses"])
        for name in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(name, None)
        _tidy(components)
        _tidy(document["paths"])
        document["security"] = [{"key": []}, {}]  # the service may want no key
        components["parameters"] = _share_parameters(document)
        app.openapi_schema = document
    return app.openapi_schema


def _describe_schemas(app: FastAPI) -> dict[str, Any]:
    """The schemas that FastAPI does not see."""
    bodies: set[Any] = {getattr(route, "body", None) for route in app.routes} - {None}
    stated = [(body, "validation") for body in sorted(bodies, key=lambda body: body.__name__)]
    _, schemas = models_json_schema(stated, ref_template=_REFERENCE)  # type: ignore[arg-type]
    error = TypeAdapter(ErrorResponse).json_schema(mode="serialization", ref_template=_REFERENCE)
    return {**schemas["$defs"], **error.pop("$defs"), ErrorResponse.__name__: error}


def _describe_members(schemas: dict[str, Any]) -> None:
    """Adds the texts that stand below the members of classes: for pydantic to read them would slow down the start."""
    modules = [module for name, module in sys.modules.items() if name.startswith("service.operations.")]
    for cls in (one for module in modules for one in vars(module).values() if _has_members(one)):
        members = schemas.get(cls.__name__, {}).get("properties", {})
        for name, text in _read_docstrings(cls).items():
            members.get(name, {}).setdefault("description", text)


def _has_members(cls: object) -> TypeGuard[type]:
    return is_typeddict(cls) or (isinstance(cls, type) and issubclass(cls, BaseModel) and cls is not BaseModel)


@cache
def _read_docstrings(cls: type) -> Mapping[str, str]:
    """The texts of a class's members, inherited ones too, by name."""
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    bases = [base for base in get_original_bases(cls) if _has_members(base)]
    texts = {name: text for base in bases for name, text in _read_docstrings(base).items()}
    for member, below in pairwise(tree.body):
        match member, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts


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


def _add_examples(operation: dict[str, Any], example: dict[str, Any]) -> None:
    """A request that the bundled model answers, and the answer."""
    values = example.get("parameters", {})
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in values:
            parameter["example"] = values[parameter["name"]]
    if "request" in example:
        operation["requestBody"]["content"]["application/json"]["example"] = example["request"]
    operation["responses"]["200"]["content"]["application/json"]["example"] = example["response"]


def _describe_answer(operation: dict[str, Any]) -> None:
    """The headers of what is answered, and the operations that follow."""
    answer = operation["responses"]["200"]
    is_kept = "304" in operation["responses"]
    answer["headers"] = {**REQUEST_ID, **(ETAG if is_kept else {}), **answer.get("headers", {})}
    if links := links_of(operation["operationId"]):
        answer["links"] = links


def _share_parameters(document: dict[str, Any]) -> dict[str, Any]:
    """The parameters that several operations have, as components, in whose place these then refer to them."""
    described = [parameter for operation in _operations(document) for parameter in operation.get("parameters", ())]
    counts = Counter(orjson.dumps(parameter) for parameter in described)
    shared: dict[str, Any] = {}
    for data, count in counts.most_common():
        if count > 1:
            parameter = orjson.loads(data)
            shared.setdefault(parameter["name"], parameter)
    for operation in _operations(document):
        operation["parameters"] = [
            {"$ref": f"#/components/parameters/{parameter['name']}"}
            if shared.get(parameter["name"]) == parameter
            else parameter
            for parameter in operation.get("parameters", ())
        ]
        if not operation["parameters"]:
            del operation["parameters"]
    return shared


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
