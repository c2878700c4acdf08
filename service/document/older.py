"""The document in OpenAPI 3.0, for generators and gateways that read no 3.1: the same operations and schemas."""

from collections.abc import Mapping
from typing import Any

_NULL = {"type": "null"}
_BOUNDS = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_KEPT = ("example", "examples", "default")  # values, which hold no schemas


def downgrade(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of OpenAPI 3.1 in 3.0.3: null as `nullable`, no members beside a reference, bounds as flags."""
    license_ = {"name": document["info"]["license"]["name"]}
    return {**_downgrade(document), "openapi": "3.0.3", "info": {**document["info"], "license": license_}}


def _downgrade(node: Any) -> Any:
    if isinstance(node, list):
        return [_downgrade(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {name: item if name in _KEPT else _downgrade(item) for name, item in node.items()}
    if _NULL in node.get("anyOf", ()):
        arms = [_downgrade(arm) for arm in node["anyOf"] if arm != _NULL]
        del found["anyOf"]
        found |= {"nullable": True, **(arms[0] if len(arms) == 1 else {"anyOf": arms})}
    if isinstance(found.get("examples"), list):
        (found["example"],) = found.pop("examples")
    if "const" in found:
        found["enum"] = [found.pop("const")]
    for flag, bound in _BOUNDS.items():
        if isinstance(found.get(flag), int | float):
            found |= {bound: found[flag], flag: True}
    if len(found) > 1 and isinstance(found.get("$ref"), str):
        found["allOf"] = [{"$ref": found.pop("$ref")}]
    return found
