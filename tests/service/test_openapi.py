from __future__ import annotations

import json
import re
import subprocess
import sys

import orjson
import pytest
from factories import make_tensors, make_windows

from kanmodel.explain.attributions import Attribution
from service.document import openapi
from service.document.description import EXAMPLES
from service.http.security import needed_scope

DOCUMENT = json.loads(openapi.DOCUMENT.read_text(encoding="utf-8"))
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
OF_REPOSITORY = {"list_repository", "load_model", "unload_model"}
KINDS = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}


def violations(value, schema, place="answer"):
    """How a value differs from a schema of the document; members that are not described differ, too."""
    if schema is True or not schema.keys() - {"description"}:  # anything
        return []
    if "$ref" in schema:
        schema = {**DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]}
    if "anyOf" in schema:
        found = [violations(value, choice, place) for choice in schema["anyOf"]]
        return [] if [] in found else found[0]
    if schema["type"] == "null":
        return [] if value is None else [f"{place} is not null"]
    if not isinstance(value, KINDS[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean"):
        return [f"{place} is no {schema['type']}"]
    if "const" in schema and value != schema["const"]:
        return [f"{place} is not {schema['const']!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place} is none of {schema['enum']}"]
    if schema["type"] == "array":
        return [v for i, item in enumerate(value) for v in violations(item, schema["items"], f"{place}[{i}]")]
    if schema["type"] != "object":
        return []
    described, others = schema.get("properties", {}), schema.get("additionalProperties")
    return [
        *(f"{place}.{name} is missing" for name in schema.get("required", ()) if name not in value),
        *(
            violation
            for name, item in value.items()
            for violation in (
                violations(item, described.get(name, others), f"{place}.{name}")
                if name in described or others
                else [f"{place}.{name} is not described"]
            )
        ),
    ]


def answer_schema(operation_id):
    return OPERATIONS[operation_id][2]["responses"]["200"]["content"]["application/json"]["schema"]


def ask_example(client, operation_id):
    """Sends the example of an operation to the bundled model."""
    method, path, operation = OPERATIONS[operation_id]
    values = {parameter["name"]: parameter.get("example") for parameter in operation.get("parameters", ())}
    in_path = {p["name"]: values[p["name"]] for p in operation.get("parameters", ()) if p["in"] == "path"}
    query = {name: value for name, value in values.items() if name not in in_path and value is not None}
    _, _, described = OPERATIONS[operation_id.removesuffix("_version")]
    body = described.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    return client.request(method, path.format(**in_path), params=query, json=body)


def test_the_committed_document_is_that_of_the_app():
    """openapi/openapi.json has not drifted; `python -m service.document` writes it anew."""
    assert openapi.DOCUMENT.read_text(encoding="utf-8") == openapi.format_document()


def test_the_check_fails_on_a_drift(tmp_path, monkeypatch, capsys):
    """--check says by its status whether a document differs, and writing makes it equal."""
    monkeypatch.setattr(openapi, "DOCUMENT", tmp_path / "openapi.json")
    monkeypatch.setattr(sys, "argv", ["openapi", "--check"])
    assert openapi.main() == 1
    assert "run python -m service.document" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["openapi"])
    assert openapi.main() == 0
    monkeypatch.setattr(sys, "argv", ["openapi", "--check"])
    assert openapi.main() == 0
    assert (tmp_path / "openapi.json").read_text(encoding="utf-8") == openapi.DOCUMENT.read_text(encoding="utf-8")


def test_the_command_runs_as_documented():
    """`python -m service.document --check` succeeds."""
    subprocess.run([sys.executable, "-m", "service.document", "--check"], check=True, timeout=60)


def test_operation_ids_are_those_that_clients_are_generated_from():
    """The names of generated functions are stable."""
    on_a_model = {
        "get_model",
        "get_model_readiness",
        "predict",
        "explain",
        "get_attributions",
        "get_topology",
        "get_fidelity_curve",
        "get_reference_window",
        "get_report",
        "list_edges",
        "get_edge",
        "get_model_metadata",
        "get_model_ready",
        "infer",
    }
    of_the_service = {
        "list_models",
        "get_health",
        "get_readiness",
        "get_server_health",
        "get_server_readiness",
        "get_server_metadata",
    }
    of_versions = {f"{operation_id}_version" for operation_id in on_a_model}
    assert set(OPERATIONS) == of_the_service | on_a_model | of_versions | OF_REPOSITORY


@pytest.mark.parametrize("operation_id", [name for name in OPERATIONS if name.endswith("_version")])
def test_an_operation_on_a_version_is_that_on_the_model(operation_id):
    """Only the path and the parameter `version`, after `model`, tell them apart."""
    method, path, operation = OPERATIONS[operation_id]
    default_method, default_path, default = OPERATIONS[operation_id.removesuffix("_version")]
    assert (method, path) == (default_method, default_path.replace("{model}", "{model}/versions/{version}"))
    names = [parameter["name"] for parameter in operation["parameters"]]
    at = names.index("version")
    assert names[at - 1] == "model"
    assert operation["parameters"][:at] + operation["parameters"][at + 1 :] == default["parameters"]
    assert operation.get("requestBody", {}).keys() == default.get("requestBody", {}).keys()
    assert answer_schema(operation_id) == answer_schema(operation_id.removesuffix("_version"))
    assert operation["responses"].keys() == default["responses"].keys()


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_each_operation_is_described_whole(operation_id):
    """Each operation and parameter has a description, each answer an example, and every error the one schema.

    An operation on a version has the examples of the one on the model.
    """
    _, _, operation = OPERATIONS[operation_id]
    assert operation["description"]
    assert all(parameter["description"] for parameter in operation.get("parameters", ()))
    responses = operation["responses"]
    _, _, described = OPERATIONS[operation_id.removesuffix("_version")]
    example = described["responses"]["200"]["content"]["application/json"]["example"]
    assert violations(example, answer_schema(operation_id)) == []
    errors = {status: answer for status, answer in responses.items() if status != "200"}
    assert {"406", "500"} <= set(errors)
    for status, answer in errors.items():
        content = answer["content"]["application/json"]
        schema = "UnreadyResponse" if (operation_id, status) == ("get_server_readiness", "503") else "ErrorResponse"
        assert content["schema"] == {"$ref": f"#/components/schemas/{schema}"}
        assert violations(content["example"], content["schema"]) == []
        assert content["example"]["status"] == int(status)


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_each_operation_says_whether_it_wants_a_key(operation_id):
    """A key may be wanted by all operations but those of health; 401 and 403 are described where it may."""
    method, path, operation = OPERATIONS[operation_id]
    wants_key = needed_scope(method.upper(), path) is not None
    assert (operation.get("security", DOCUMENT["security"]) == [{"key": []}, {}]) == wants_key
    assert ({"401", "403"} <= set(operation["responses"])) == wants_key


def test_every_schema_and_member_says_what_it_is():
    """Schemas are described, and so is each member that is no named schema itself."""
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert "description" in schema or "enum" in schema, name
        for member, described in schema.get("properties", {}).items():
            assert "description" in described or "$ref" in json.dumps(described), f"{name}.{member}"


def test_the_rule_of_the_verdict_is_that_of_the_model_core():
    """The description of a verdict is the docstring's, word for word."""
    stated = DOCUMENT["components"]["schemas"]["FeatureAttribution"]["properties"]["verdict"]["description"]
    (rule,) = re.findall(r"verdict: (.*?)\n\s+connected:", Attribution.__doc__, re.DOTALL)
    assert stated.lower() == " ".join(rule.split()).replace("``", "`").lower()


@pytest.mark.smoke
@pytest.mark.parametrize("operation_id", [name for name in OPERATIONS if name not in OF_REPOSITORY])
def test_each_example_is_answered_in_the_described_form(service, operation_id):
    """The example of each operation works on the bundled model, and the answer is as described."""
    answer = ask_example(service.client, operation_id)
    assert answer.status_code == 200, answer.text
    assert violations(answer.json(), answer_schema(operation_id)) == []


@pytest.mark.parametrize("operation_id", sorted(OF_REPOSITORY))
def test_each_example_of_the_repository_is_answered_in_the_described_form(serve, operation_id):
    """They change what is served, so each has a server of its own."""
    with serve(repository_api=True) as client:
        answer = ask_example(client, operation_id)
    assert answer.status_code == 200, answer.text
    assert violations(answer.json(), answer_schema(operation_id)) == []


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["nyc-weather", "two", "front", "head"])
def test_answers_of_every_shape_of_model_are_as_described(service, name):
    """What models of each shape answer at full detail is described to the last member."""
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
        "get_report": service.get(f"{path}/report", params=query),
        "list_edges": service.get(f"{path}/edges", params={**query, "points": 3}),
        "get_model_metadata": service.get(path.replace("v1", "v2")),
        "infer": service.post(f"{path.replace('v1', 'v2')}/infer", make_tensors(body["instances"], explain=True)),
        "get_edge": service.get(f"{path}/edges/0/0/0", params={**query, "points": 3, "formulas": True}),
    }
    for operation_id, answer in answers.items():
        assert violations(answer.json(), answer_schema(operation_id)) == [], operation_id


def test_examples_are_of_operations_that_exist():
    """The file of examples has one entry for each operation, versions aside."""
    assert set(orjson.loads(EXAMPLES.read_bytes())) == {name.removesuffix("_version") for name in OPERATIONS}
