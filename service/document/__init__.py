"""The OpenAPI document: made of what operations declare, in shapes that every generator of clients can hold."""

import ast
import inspect
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard, cast, get_args, get_origin

import orjson
from pydantic import BaseModel, TypeAdapter
from typing_extensions import get_original_bases, is_typeddict

from service.answers.forms import FORMS, texts_of, type_of
from service.wire.errors import ErrorCode, ErrorResponse, error_body, title_of
from service.wire.json import JSON
from service.wire.security import SCHEME

EXAMPLES = Path(__file__).parent / "examples.json"  # by operation id: a request, an answer
LICENSE = {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0.html"}
CONTACT = {"name": "The Kanscope authors"}
SERVERS = [{"url": "/", "description": "The service that this document is of."}]
TAGS = {
    "predictions": "Forecasts.",
    "explanations": "What each feature, step, unit and edge adds to a forecast.",
    "alternatives": "What a forecast would be, what must change for it, and what has changed.",
    "models": "Which models there are, and what each of them is.",
    "attributions": "What each feature matters over the reference windows.",
    "topology": "The network when all that hardly matters is pruned.",
    "edges": "The functions on the edges of the KAN.",
    "report": "What a forecaster does, for those who use its forecasts, and answers about its network.",
    "formula": "The head written down.",
    "inference": "The Open Inference Protocol (V2), for clients of Triton and KServe.",
    "repository": "Loading and unloading models by command; off unless the setting `repository_api` is on.",
    "health": "Whether the process lives, and whether it can answer.",
}
_HEADERS: Mapping[str, tuple[dict[str, Any], str]] = {
    "X-Request-Id": (
        {"type": "string"},
        "Id of the request: its own `X-Request-Id`, else the trace id of its `traceparent`, else a new one.",
    ),
    "ETag": (
        {"type": "string"},
        "Name of this answer, by its bytes. Sent back as `If-None-Match`, it gets 304 while it is the same.",
    ),
    "Retry-After": ({"type": "integer", "minimum": 1}, "Seconds after which the same request may be answered."),
}
_DESCRIPTIONS = {
    304: "The answer is the one that `If-None-Match` names.",
    400: "A value is missing, unknown, of another shape, size or kind, out of range or not finite; or the result is "
    "not finite, or a model cannot be loaded.",
    401: "The service wants an API key, and there is none or an unknown one.",
    403: "The API key lacks the scope, a setting forbids it, or a page of another site asks for what changes models.",
    404: "There is no such model, version, output or edge; the message lists what there is.",
    406: "The operation has none of the media types in `Accept`.",
    408: "The body did not arrive in time.",
    413: "The body is larger than the service accepts.",
    415: "The body is of another media type than the operation takes, or it is compressed.",
    421: "The header `Host` names another host than this service.",
    422: "A value is missing, unknown, of another shape or kind, out of range or not finite; or the result is not "
    "finite.",
    429: "The API key has asked as often as it may in a minute.",
    431: "The request target or the headers are larger than the service accepts.",
    500: "Something failed inside; `request_id` finds it in the log.",
    501: "Not available in this configuration.",
    503: "The model, the service or the result is not ready, or there are too many requests: `code` says which.",
}
_ERROR_EXAMPLES: Mapping[int, tuple[ErrorCode, str]] = {
    400: ("invalid_value", "inputs[0].shape must be [n, 24, 20], but is [1, 20]"),
    401: ("key_missing", "an API key is needed: send Authorization: Bearer KEY"),
    403: ("scope_missing", "this needs an API key with the scope explain"),
    404: ("model_not_found", "there is no model 'nyc'; the models are nyc-weather"),
    406: ("not_acceptable", "the response is application/json, which Accept excludes"),
    408: ("body_timeout", "the body did not arrive within 30 seconds (body_timeout)"),
    413: ("body_too_large", "the body is larger than 8388608 bytes (max_body_bytes)"),
    415: ("unsupported_media_type", "Content-Type must be application/json"),
    421: ("host_not_allowed", "the Host header must name this machine, or a host of the setting allowed_hosts"),
    422: ("not_finite", "instances[0][3][2] must be finite"),
    429: ("rate_limited", "the key dashboard is limited to 600 requests per minute"),
    431: ("headers_too_large", "the headers are larger than 65536 bytes (max_header_bytes)"),
    500: ("internal_error", "internal error"),
    501: (
        "not_supported",
        "with several processes (workers) no model is loaded or unloaded by command: change the "
        "folder, which each process looks at by itself (poll_seconds)",
    ),
    503: ("not_ready", "model 'nyc-weather' is loading"),
}
TIMEOUT_HEADER, PURPOSE_HEADER = "X-Request-Timeout", "X-Request-Purpose"
_MODEL_NAME = {"type": "string", "description": "Name of the model."}
_TIMEOUT = {
    "description": "Seconds to wait for a result, at most the setting `max_request_timeout`; then the answer is 503. "
    "Absent: the setting `request_timeout`.",
    "type": "number",
    "exclusiveMinimum": 0,
}
_PURPOSE = {
    "description": "`explore` for a request that only looks, as those of the explorer: its forecasts go into no drift, "
    "no metric of inputs and no shadow version, and get no receipts. The record has them, marked by this purpose. "
    "Anything else, or none: production.",
    "type": "string",
}
_WIDTHS = {"number": "double", "integer": "int64"}
_RESERVED = ("value", "name", "ordinal")
_PACKAGE = __package__.rpartition(".")[0]
_DECLARING = (f"{_PACKAGE}.answers.", f"{_PACKAGE}.operations.")  # modules
_REFERENCE = "#/components/schemas/{model}"
_REFERRED = re.compile(r'"#/components/schemas/([^"]*)"')

_MODEL = {"model": "$request.path.model"}
_OUTPUT = {"model": "$response.body#/name", "output": "$response.body#/outputs/0"}
_FIRST_EDGE = {name: f"$response.body#/edges/0/{name}" for name in ("stage", "layer", "i", "j")}

# By operation id: the operations that follow, each with the parameters it takes from the answer.
_LINKS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
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
_LINKED_BODIES = {("predict", "explain"): {"requestBody": "$request.body"}}


def describe_api(info: Mapping[str, Any], routes: Sequence[Any]) -> dict[str, Any]:
    """The document of operations: what their routes declare, with examples, links, and each thing in it once."""
    documented = [route for route in routes if route.stated.is_documented]
    examples = orjson.loads(EXAMPLES.read_bytes())
    schemas = _describe_schemas(documented)
    paths: dict[str, dict[str, Any]] = {}
    for route in documented:
        assert route.name in examples, f"{route.name} has no example in {EXAMPLES.name}"
        described = _describe_operation(route, schemas, examples[route.name])
        paths.setdefault(route.path_format, {})[route.stated.method.lower()] = described
    operations = [operation for path in paths.values() for operation in path.values()]
    _compose(schemas, "ExplainResponse", "ExplainHeader", "ExplanationList")
    schemas = _reach(schemas, paths)
    unchanged = {"description": _DESCRIPTIONS[304], "headers": _refer("X-Request-Id", "ETag")}
    components = {
        "schemas": dict(sorted(schemas.items())),
        "parameters": _share_parameters(operations),
        "headers": {name: {"description": text, "schema": schema} for name, (schema, text) in _HEADERS.items()},
        "responses": {
            _component_of(304): unchanged,
            **{_component_of(status): describe_error_answer(status) for status in _ERROR_EXAMPLES},
        },
        "securitySchemes": {"key": SCHEME},
    }
    for node in (paths, components):
        _tidy(node)
    _name_values(components["schemas"])
    return {
        "openapi": "3.1.0",
        "info": {**info, "license": LICENSE, "contact": CONTACT},
        "servers": SERVERS,
        "security": [{"key": []}, {}],  # the service may want no key
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": components,
    }


def _describe_operation(route: Any, schemas: dict[str, Any], example: Mapping[str, Any]) -> dict[str, Any]:
    """An operation: its parameters, its body, a request that the bundled model answers, its answers, and links."""
    stated, name = route.stated, route.name
    parameters = _list_parameters(route, schemas)
    for parameter in parameters:
        if parameter["name"] in example.get("parameters", {}):
            parameter["example"] = example["parameters"][parameter["name"]]
    operation: dict[str, Any] = {
        "operationId": name,
        "tags": [stated.tag],
        "summary": name.replace("_", " ").capitalize(),
        "description": inspect.getdoc(route.handler),
        **({"x-required-scope": stated.scope} if stated.scope else {"security": []}),
        "parameters": parameters,
    }
    if stated.body:
        operation["requestBody"] = {
            "required": stated.scope != "admin",
            "content": {JSON: {"schema": _schema_of(stated.body)}},
        }
        schemas[stated.body.__name__]["examples"] = [example["request"]]  # in the body, openapi-generator warns of it
    answer: dict[str, Any] = {
        "description": "The answer.",
        "headers": _refer("X-Request-Id", *(["ETag"] if stated.is_cached else [])),
        "content": {JSON: {"schema": _schema_of(stated.answer), "example": example["response"]}},
    }
    if name in _LINKS:
        answer["links"] = {
            following: {"operationId": following, "parameters": taken, **_LINKED_BODIES.get((name, following), {})}
            for following, taken in _LINKS[name].items()
        }
    errors = {str(status): {"$ref": f"#/components/responses/{_component_of(status)}"} for status in route.statuses}
    return operation | {"responses": {"200": answer, **errors, **stated.responses}}


def _schema_of(kind: Any) -> dict[str, Any]:
    """The schema of a class, or of a list of one."""
    if get_origin(kind) is list:
        return {"type": "array", "items": _schema_of(get_args(kind)[0])}
    return _schema_of_name(kind.__name__)


def _schema_of_name(name: str) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(model=name)}


def _list_parameters(route: Any, schemas: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parameters of an operation: the model in its path, the rest of its path, its query, and its headers."""
    found: list[Any] = [("path", "model", True, _MODEL_NAME)] if route.of_model else []
    for place, cls in (("path", route.stated.place), ("query", route.query)):
        schema = schemas[cls.__name__] if cls else {}
        for name, member in schema.get("properties", {}).items():
            if name != "format":  # of the answer: the document has its JSON
                found.append((place, name, name in schema.get("required", ()), _leave_out_null(member)))
    found += [("header", TIMEOUT_HEADER, False, _TIMEOUT)] if route.takes_timeout else []
    found += [("header", PURPOSE_HEADER, False, _PURPOSE)] if route.takes_purpose else []
    return [
        {"name": name, "in": place, "required": required, "description": text, "schema": rest}
        for place, name, required, schema in found
        for text, rest in [(schema["description"], {key: schema[key] for key in schema if key != "description"})]
    ]


def _refer(*headers: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}


def _component_of(status: int) -> str:
    """``404`` -> ``NotFound``."""
    return title_of(status).replace(" ", "")


def describe_error_answer(status: int, schema: str = "ErrorResponse", **more: Any) -> dict[str, Any]:
    """An error answer, whose example has more members in the schema of some operation."""
    code, message = _ERROR_EXAMPLES[status]
    example = {**error_body(status, code, message, "01KAX2M5V7Q8N4W6T9R3Y1ZBCD"), **more}
    media = {"schema": _schema_of_name(schema), "example": example}
    headers = _refer("X-Request-Id", *(["Retry-After"] if status in (429, 503) else []))
    return {"description": _DESCRIPTIONS[status], "headers": headers, "content": {JSON: media}}


def _describe_schemas(routes: Sequence[Any]) -> dict[str, Any]:
    """The schemas of bodies, queries and paths, of answers and the lines of streams, and of errors, by name."""
    read = {cls for route in routes for cls in (route.stated.body, route.query, route.stated.place) if cls}
    made = {ErrorResponse, *(cls for route in routes for cls in (route.stated.answer, *route.stated.others))}
    kinds: list[tuple[Any, Any, Any]] = [(cls, "validation", TypeAdapter(cls)) for cls in read]
    kinds += [(cls, "serialization", TypeAdapter(cls)) for cls in made]
    kinds.sort(key=lambda kind: str(kind[0]))
    _, found = TypeAdapter.json_schemas(kinds, ref_template=_REFERENCE)
    schemas: dict[str, Any] = found["$defs"]
    _describe_members(schemas)
    return schemas


def _describe_members(schemas: dict[str, Any]) -> None:
    """Adds the texts that stand below the members of classes: for pydantic to read them would slow down the start."""
    known = sys.modules.copy()  # other threads import
    modules = [module for name, module in known.items() if name.startswith(_DECLARING)]
    declared = [one for module in modules for one in vars(module).values() if _has_members(one)]
    for cls in (*declared, *map(type_of, FORMS)):
        members = schemas.get(cls.__name__, {}).get("properties", {})
        for name, text in _read_texts(cls).items():
            members.get(name, {}).setdefault("description", text)


def _has_members(cls: object) -> TypeGuard[type]:
    return is_typeddict(cls) or (isinstance(cls, type) and issubclass(cls, BaseModel) and cls is not BaseModel)


@cache
def _read_texts(cls: type) -> Mapping[str, str]:
    """The texts of a class's members, inherited ones too, by name."""
    if joined := getattr(cls, "__joined__", None):
        return {name: text for part in joined for name, text in _read_texts(part).items()}
    if hasattr(cls, "__form__"):
        return cast(Mapping[str, str], vars(cls)["__texts__"])
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    bases = [base for base in get_original_bases(cls) if _has_members(base)]
    texts = {name: text for base in bases for name, text in _read_texts(base).items()}
    for member, below in pairwise(tree.body):
        match member, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return (texts_of(asked) if (asked := getattr(cls, "asks", None)) is not None else {}) | texts


def _leave_out_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without null: it means absent, and a query has no way to say it."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**rest, **(choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {})}


def _share_parameters(operations: list[dict[str, Any]]) -> dict[str, Any]:
    """The parameters that several operations have, as components, in whose place these then refer to them."""
    counts = Counter(orjson.dumps(parameter) for one in operations for parameter in one.get("parameters", ()))
    shared: dict[str, Any] = {}
    for parameter in (orjson.loads(data) for data, count in counts.most_common() if count > 1):
        shared.setdefault(parameter["name"], parameter)
    for operation in operations:
        for number, parameter in enumerate(operation.get("parameters", ())):
            if shared.get(parameter["name"]) == parameter:
                operation["parameters"][number] = {"$ref": f"#/components/parameters/{parameter['name']}"}
    return shared


def _compose(schemas: dict[str, Any], name: str, base: str, rest: str) -> None:
    """States a schema as another one with further members, which have a name too: some generators want one."""
    whole, part = schemas[name], schemas[base]
    own = {member: schema for member, schema in whole["properties"].items() if member not in part["properties"]}
    required = [member for member in whole["required"] if member in own]
    text = whole["description"]
    schemas[rest] = {"type": "object", "description": text, "properties": own, "required": required}
    schemas[name] = {"description": text, "allOf": [_schema_of_name(base), _schema_of_name(rest)]}


def _reach(schemas: Mapping[str, Any], node: Any) -> dict[str, Any]:
    """The schemas that a node refers to, and those that these refer to; and that of errors."""
    found, waiting = dict[str, Any](), [ErrorResponse.__name__, *_list_references(node)]
    while waiting:
        if (name := waiting.pop()) not in found and name in schemas:
            found[name] = schemas[name]
            waiting += _list_references(schemas[name])
    return found


def _list_references(node: Any) -> list[str]:
    return _REFERRED.findall(orjson.dumps(node).decode())


def _tidy(node: Any) -> None:
    """Makes schemas plain for generators: no titles that repeat a name, no defaults of null, and the widths of numbers.

    Without them a Go client has float32 for a number and int32 for a whole one.
    """
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    elif isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        if "default" in node and node["default"] is None:
            del node["default"]
        if (width := _WIDTHS.get(str(node.get("type")))) is not None:
            node["format"] = width
        for name, item in node.items():
            if name not in ("example", "examples"):
                _tidy(item)


def _name_values(schemas: Mapping[str, Any]) -> None:
    """Names the values of enums where two enums share one, or one is a word of Kotlin's enums.

    Go has constants of all enums in one package.
    """
    enums = {name: schema for name, schema in schemas.items() if "enum" in schema}
    counts = Counter(value for schema in enums.values() for value in schema["enum"])
    for name, schema in enums.items():
        if any(counts[value] > 1 or value in _RESERVED for value in schema["enum"]):
            prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
            schema["x-enum-varnames"] = [f"{prefix}_{re.sub('[^A-Za-z0-9]', '_', v)}".upper() for v in schema["enum"]]
