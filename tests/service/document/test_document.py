from __future__ import annotations

import json
import re
import sys
import threading

import orjson
import pytest
from factories import make_tensors, make_windows
from jsonschema import Draft202012Validator
from thorough import few_of

from kanmodel.errors import NonFiniteError
from kanmodel.structure.importance import Attribution
from service.app import create_app
from service.document import EXAMPLES
from service.document import __main__ as openapi
from service.operations import explanations
from service.settings import Settings
from service.wire.security import HEALTH

DOCUMENT = json.loads(openapi.DOCUMENT.read_text(encoding="utf-8"))
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
EXPLAINING = ("explain", "what_if", "counterfactual", "ablate", "compare", "get_drift")
OF_REFERENCE = ("list_reference_windows", "get_reference_window")  # training data
OF_REPOSITORY = {"list_repository", "load_model", "unload_model"}
SCHEMAS = DOCUMENT["components"]["schemas"]


def close(node):
    """The same schemas, none of which allows members that it does not describe."""
    if isinstance(node, list):
        return [close(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "allOf" in node:  # a schema with further members
        parts = [SCHEMAS[part["$ref"].rpartition("/")[2]] for part in node["allOf"]]
        properties = {name: member for part in parts for name, member in part["properties"].items()}
        required = [name for part in parts for name in part.get("required", ())]
        node = {"type": "object", "properties": properties, "required": required}
    closed = {name: close(item) for name, item in node.items()}
    return {"additionalProperties": False, **closed} if node.get("type") == "object" else closed


CLOSED = {"schemas": close(SCHEMAS)}


def violations(value, schema):
    """How a value violates a schema of the document, or has members that this does not describe."""
    return [*Draft202012Validator({**close(schema), "components": CLOSED}).iter_errors(value)]


def resolve(node):
    """The object in the document, with references resolved."""
    if "$ref" not in node:
        return node
    _, kind, name = node["$ref"].removeprefix("#/").split("/")
    return DOCUMENT["components"][kind][name]


def parameters_of(operation):
    return [resolve(parameter) for parameter in operation.get("parameters", ())]


def answer_schema(operation_id):
    return OPERATIONS[operation_id][2]["responses"]["200"]["content"]["application/json"]["schema"]


def example_of(operation):
    """The example of an operation's body."""
    (example,) = resolve(operation["requestBody"]["content"]["application/json"]["schema"])["examples"]
    return example


def ask_example(client, operation_id):
    """Sends an operation's example to the bundled model."""
    method, path, operation = OPERATIONS[operation_id]
    parameters = parameters_of(operation)
    values = {parameter["name"]: parameter.get("example") for parameter in parameters}
    in_path = {p["name"]: values[p["name"]] for p in parameters if p["in"] == "path"}
    query = {name: value for name, value in values.items() if name not in in_path and value is not None}
    body = example_of(operation) if "requestBody" in operation else None
    return client.request(method, path.format(**in_path), params=query, json=body)


def test_the_committed_document_is_that_of_the_app():
    """The documents in openapi/ are up to date; `python -m service.document` rewrites them."""
    for path, text in openapi.format_documents().items():
        assert path.read_text(encoding="utf-8") == text, path.name


def test_both_documents_are_served(service):
    """As they are committed, but of this service: /openapi-3.0.json has the same operations in OpenAPI 3.0."""
    here = [{"url": "/", "description": "The service that this document is of."}]
    assert service.client.get("/openapi.json").json() == DOCUMENT | {"servers": here}
    older = service.client.get("/openapi-3.0.json").json()
    assert older == json.loads(openapi.OLDER.read_text(encoding="utf-8")) | {"servers": here}
    assert older["openapi"] == "3.0.3"
    old, new = ({path: {*methods} for path, methods in one["paths"].items()} for one in (older, DOCUMENT))
    assert old == new
    assert older["components"]["schemas"].keys() == DOCUMENT["components"]["schemas"].keys()


def test_schemas_have_shapes_that_generated_clients_can_hold():
    """No union has a list or an object as an arm, no boolean is a constant, and every number has its width."""

    def schemas(node):
        if isinstance(node, dict):
            yield node
        for name, item in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if name not in ("example", "default"):
                yield from schemas(item)

    for schema in schemas(DOCUMENT):
        arms = [arm for arm in (*schema.get("anyOf", ()), *schema.get("oneOf", ())) if arm != {"type": "null"}]
        assert len(arms) < 2 or all(arm.get("type") in ("number", "integer", "string", "boolean") for arm in arms)
        assert not isinstance(schema.get("const"), bool)
        assert "anyOf" not in schema or "default" not in schema
        if isinstance(schema.get("type"), str) and schema["type"] in ("number", "integer"):
            assert schema["format"] == {"number": "double", "integer": "int64"}[schema["type"]]
    for _, _, operation in OPERATIONS.values():
        assert [*operation["responses"]["200"]["content"]] == ["application/json"]


def test_the_check_fails_on_a_drift(tmp_path, monkeypatch, capsys):
    """--check exits with 1 if a document differs; writing makes it equal."""
    page = openapi.ROUTES.read_text(encoding="utf-8")
    for name in ("DOCUMENT", "OLDER", "ROUTES"):
        monkeypatch.setattr(openapi, name, tmp_path / name)
    openapi.ROUTES.write_text(page.replace("| `GET /healthz` |", "| `GET /health` |"), encoding="utf-8")
    codes = []
    for words in (["openapi", "--check"], ["openapi"], ["openapi", "--check"]):
        monkeypatch.setattr(sys, "argv", words)
        codes.append(openapi.main())
    assert codes == [1, 0, 0] and "run python -m service.document" in capsys.readouterr().err
    assert json.loads(openapi.DOCUMENT.read_text(encoding="utf-8")) == DOCUMENT


def test_the_document_is_made_while_other_threads_import():
    """What a request imports for the first time, as formulas import SymPy, does not make it fail."""
    interval, done = sys.getswitchinterval(), threading.Event()
    names = [f"imported_{number}" for number in range(1000)]

    def import_all():
        while not done.is_set():
            for name in names:
                sys.modules[name] = sys
            for name in names:
                del sys.modules[name]

    app, importing = create_app(Settings(models=None)), threading.Thread(target=import_all)
    sys.setswitchinterval(1e-6)
    importing.start()
    try:
        found = app.openapi()
    finally:
        done.set()
        importing.join()
        sys.setswitchinterval(interval)
    assert found["paths"] == DOCUMENT["paths"] and found["components"] == DOCUMENT["components"]


def test_each_thing_has_one_operation_in_a_document_of_moderate_length():
    """Versions are a query parameter in V1 and hidden paths in V2, so that clients get one method per operation."""
    assert not any("version" in path for path in DOCUMENT["paths"])
    for _, path, operation in OPERATIONS.values():
        names = {parameter["name"] for parameter in parameters_of(operation)}
        assert ("version" in names) == path.startswith("/v1/models/{model}")
    n_lines = openapi.DOCUMENT.read_text(encoding="utf-8").count("\n")
    assert n_lines < 7_500, "see the recipe in CONTRIBUTING.md"
    assert set(orjson.loads(EXAMPLES.read_bytes())) == set(OPERATIONS)


def test_common_headers_are_in_the_document():
    """Every response documents X-Request-Id, 429 and 503 Retry-After, and those with an ETag also 304."""
    for name, response in DOCUMENT["components"]["responses"].items():
        assert "X-Request-Id" in response["headers"], name
        assert ("Retry-After" in response["headers"]) == (name in ("TooManyRequests", "ServiceUnavailable"))
    for _, _, operation in OPERATIONS.values():
        headers = operation["responses"]["200"]["headers"]
        assert "X-Request-Id" in headers
        assert ("ETag" in headers) == ("304" in operation["responses"])
    kept = {name for name, (_, _, operation) in OPERATIONS.items() if "304" in operation["responses"]}
    assert {"get_attributions", "get_topology", "get_edge", "get_report", *OF_REFERENCE} <= kept
    assert {"get_comparison", "get_formula"} <= kept
    assert not {"predict", *EXPLAINING, "infer", "get_model"} & kept


@pytest.mark.parametrize("operation_id", [name for name, one in OPERATIONS.items() if one[0] == "post"])
def test_members_at_their_defaults_are_as_good_as_absent(service, operation_id):
    """What generated clients send by themselves changes no answer: defaults, null, [] and {} of optional members.

    But null for `groups` switches the groups off, as the document says.
    """
    if operation_id in OF_REPOSITORY:
        return
    method, path, operation = OPERATIONS[operation_id]
    schema, example = resolve(operation["requestBody"]["content"]["application/json"]["schema"]), example_of(operation)
    usual = ask_example(service.client, operation_id).json()
    for empty in (lambda member: None, lambda member: {"array": [], "object": {}}.get(kind_of(member))):
        members = {
            name: member["default"] if "default" in member else empty(member)
            for name, member in schema["properties"].items()
            if name not in (*schema.get("required", ()), "groups")
        }
        url = path.format(model="nyc-weather")
        answer = service.client.request(method, url, json={**members, **example})
        assert answer.status_code == 200, answer.text
        assert strip(answer.json()) == strip(usual)


def kind_of(member):
    """The type of a member that may be null."""
    return next((arm.get("type") for arm in member.get("anyOf", ()) if arm != {"type": "null"}), None)


def strip(answer):
    """An answer without what differs from request to request."""
    return {name: value for name, value in answer.items() if name not in ("id", "request_id", "matched", "repeated")}


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_each_operation_is_described(operation_id):
    """Operations and parameters have descriptions, responses have examples, and all errors share one schema."""
    _, _, operation = OPERATIONS[operation_id]
    assert operation["description"]
    assert all(parameter["description"] for parameter in parameters_of(operation))
    responses = operation["responses"]
    example = responses["200"]["content"]["application/json"]["example"]
    assert violations(example, answer_schema(operation_id)) == []
    errors = {status: resolve(answer) for status, answer in responses.items() if status not in ("200", "304")}
    assert {"406", "500"} <= set(errors)
    for status, answer in errors.items():
        content = answer["content"]["application/json"]
        schema = "UnreadyResponse" if (operation_id, status) == ("get_server_readiness", "503") else "ErrorResponse"
        assert content["schema"] == {"$ref": f"#/components/schemas/{schema}"}
        assert violations(content["example"], content["schema"]) == []
        assert content["example"]["status"] == int(status)


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_each_operation_has_its_scope(operation_id):
    """All operations except health may need a key, and document 401, 403 and 429."""
    _, path, operation = OPERATIONS[operation_id]
    explaining = dict.fromkeys((*EXPLAINING, *OF_REFERENCE), "explain")
    scope = {**explaining, **dict.fromkeys(OF_REPOSITORY, "admin")}.get(operation_id, "read")
    wants_key = path not in HEALTH
    assert DOCUMENT["security"] == [{"key": []}, {}]
    assert operation.get("security") == (None if wants_key else [])
    assert operation.get("x-required-scope") == (scope if wants_key else None)
    assert ({"401", "403", "429"} <= set(operation["responses"])) == wants_key


def test_every_tag_schema_and_member_is_described():
    """Every tag and schema has a description, and so does each member that is not a named schema."""
    used = {tag for _, _, operation in OPERATIONS.values() for tag in operation["tags"]}
    assert {tag["name"] for tag in DOCUMENT["tags"] if tag["description"]} == used
    for name, schema in SCHEMAS.items():
        assert "description" in schema or "enum" in schema, name
        for member, described in schema.get("properties", {}).items():
            assert "description" in described or "$ref" in json.dumps(described), f"{name}.{member}"


def test_answers_of_the_core_have_its_texts():
    """A member of a class of the model core is described in the document as there, with null for None."""
    members = DOCUMENT["components"]["schemas"]["FeatureAttribution"]["properties"]
    (rule,) = re.findall(r"verdict: (.*?)\n\s+connected:", Attribution.__doc__, re.DOTALL)
    assert members["verdict"]["description"].lower() == " ".join(rule.split()).replace("``", "`").lower()
    assert members["permutation_interval"]["description"] == "Of that growth; null where targets are unknown."


@pytest.mark.parametrize(
    "operation_id", few_of([*OPERATIONS], OPERATIONS.keys() - {"get_formula"}, "computes formulas")
)
def test_each_example_is_answered_in_the_described_form(service, serve, operation_id):
    """Each works on the bundled model, those that change what is served on a server of their own."""
    if operation_id in OF_REPOSITORY:
        with serve(repository_api=True) as client:
            answer = ask_example(client, operation_id)
    else:
        answer = ask_example(service.client, operation_id)
    assert answer.status_code == 200, answer.text
    assert violations(answer.json(), answer_schema(operation_id)) == []


def test_each_line_of_a_stream_has_one_of_the_described_forms(service, monkeypatch):
    """Header, progress, explanation and error are each exactly one of the schemas of lines."""

    def fail_late(question, first, tell, encoded):
        if first:
            raise NonFiniteError("not finite")
        return explain_part(question, first, tell, encoded)

    explain_part = explanations.explain_part
    monkeypatch.setattr(explanations, "explain_part", fail_late)
    body = {"instances": make_windows(service.models["front"], explanations.PART_WINDOWS + 1).tolist()}
    answer = service.post(
        "/v1/models/front:explain", {**body, "progress": True}, headers={"Accept": "application/x-ndjson"}
    )
    kinds = ("ExplainHeader", "Explanation", "ErrorResponse")
    assert all(f"`{kind}`" in OPERATIONS["explain"][2]["description"] for kind in kinds)
    forms = []
    for line in map(json.loads, answer.text.splitlines()):
        if line.keys() == {"progress"}:
            assert {*line["progress"]} == {"done", "total", "slices"}
            continue
        (form,) = [kind for kind in kinds if not violations(line, {"$ref": f"#/components/schemas/{kind}"})]
        forms.append(form)
    assert (forms[0], forms[-1]) == ("ExplainHeader", "ErrorResponse")
    assert {*forms[1:-1]} == {"Explanation"}


@pytest.mark.parametrize("name", ["nyc-weather", "two", "front", "head"])
def test_answers_of_every_shape_of_model_are_as_described(service, name):
    """Responses at full detail match the schema for models of each shape."""
    model = service.models[name]
    output = model.config.outputs[-1]
    body = {"instances": make_windows(model, 2).tolist()}
    query = {"output": output}
    path = f"/v1/models/{name}"
    answers = {
        "get_model": service.get(path),
        "predict": service.post(f"{path}:predict", {"instances": [[[1e6] * len(row) for row in body["instances"][0]]]}),
        "explain": service.post(f"{path}:explain", {**body, "output": [output], "detail": "flow"}),
        "get_attributions": service.get(f"{path}/attributions", params={**query, "baselines": name == "head"}),
        "get_topology": service.get(f"{path}/topology", params={**query, "pruned": False}),
        "get_fidelity_curve": service.get(f"{path}/topology/fidelity", params=query),
        "get_reference_window": service.get(f"{path}/reference/1"),
        "list_reference_windows": service.get(
            f"{path}/reference", params={**query, "limit": 3, "contributions": name == "two"}
        ),
        "get_report": service.get(f"{path}/report", params=query),
        "list_edges": service.get(f"{path}/edges", params={**query, "points": 3}),
        "get_model_metadata": service.get(path.replace("v1", "v2")),
        "infer": service.post(f"{path.replace('v1', 'v2')}/infer", make_tensors(body["instances"], explain=True)),
        "what_if": service.post(f"{path}:whatif", {**body, **query, "shift": {"from": -1, "to": 1, "points": 2}}),
        "counterfactual": service.post(f"{path}:counterfactual", {**body, **query, "target": {"at_least": 1e9}}),
        "ablate": service.post(f"{path}:ablate", {**body, **query, "fidelity": 0.9, "without": ["head:0:0:0"]}),
        "compare": service.post(
            f"{path}:compare", {**body, **query, "against": {"instances": body["instances"][::-1]}}
        ),
        "get_comparison": service.get(f"{path}/comparison", params=query),
        "get_edge": service.get(f"{path}/edges/0/0/0", params={**query, "points": 3, "formulas": True}),
    }
    for operation_id, answer in answers.items():
        assert violations(answer.json(), answer_schema(operation_id)) == [], operation_id
