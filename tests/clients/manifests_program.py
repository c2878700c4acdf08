"""Checks manifests strictly: python manifests_program.py VERSION <manifests.yaml.

Built-in kinds are checked by the schemas of that version of Kubernetes, those of the Prometheus operator and of KServe
by the models that are generated from the schemas of these projects. A field that none of them knows is an error, as for
`kubectl apply`. Those of the Gateway API are checked by route_program.mjs. Prints the kind of each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import kserve.models
import kubernetes.client.models
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator
from jsonschema import Draft202012Validator

SCALARS = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}


def check(manifest: dict[str, Any], version: str) -> None:
    """Raises an error that names the field which is wrong."""
    group = manifest["apiVersion"].rpartition("/")[0]
    if group == "monitoring.coreos.com":
        schema = getattr(operator, manifest["kind"]).model_json_schema(by_alias=True)
        for one in (schema, *schema["$defs"].values()):
            if "properties" in one:
                one.setdefault("additionalProperties", False)
        Draft202012Validator(schema).validate(manifest)
    elif group == "gateway.networking.k8s.io":
        clients = Path(sys.prefix)
        program = Path(__file__).with_name("route_program.mjs")
        done = subprocess.run(
            ["node", program], cwd=clients, input=json.dumps([manifest]), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    elif group == "serving.kserve.io":
        check_model(manifest, f"V1beta1{manifest['kind']}", manifest["kind"])
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


def check_model(value: Any, name: str, place: str) -> None:
    """Checks a value by the type that a generated model of KServe or Kubernetes states for it."""
    kind, _, inner = name.rstrip(")]").replace("(", "[").partition("[")
    if kind.lower() == "list":
        assert isinstance(value, list), f"{place} must be a list"
        for number, item in enumerate(value):
            check_model(item, inner, f"{place}[{number}]")
    elif kind.lower() == "dict":
        assert isinstance(value, dict), f"{place} must be a mapping"
        for key, item in value.items():
            check_model(item, inner.partition(", ")[2], f"{place}.{key}")
    elif kind in SCALARS:
        expected = SCALARS[kind]
        is_fitting = isinstance(value, expected) and not (isinstance(value, bool) and expected not in (bool, object))
        assert is_fitting, f"{place} must be {kind}, but is {value!r}"
    else:
        model = getattr(kserve.models, kind, None) or getattr(kubernetes.client.models, kind)
        names = {model.attribute_map[name]: name for name in model.openapi_types}
        assert isinstance(value, dict), f"{place} must be an object"
        assert value.keys() <= names.keys(), f"{place} has no {', '.join(value.keys() - names.keys())}"
        for key, item in value.items():
            check_model(item, model.openapi_types[names[key]], f"{place}.{key}")
        if hasattr(model, "model_validate"):  # raises if one that is needed is missing, and so does the other
            model.model_validate(value)
        else:
            model(**{names[key]: item for key, item in value.items()})


if __name__ == "__main__":
    for manifest in yaml.safe_load_all(sys.stdin):
        check(manifest, sys.argv[1])
        print(manifest["kind"])
