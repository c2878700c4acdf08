"""The document in OpenAPI 3.0, for generators and gateways that read no 3.1: the same operations and schemas."""

from collections.abc import Mapping
from typing import Any

_NULL = {"type": "null"}
_BOUNDS = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_VALUES = ("example", "examples", "default")  # which hold no schemas
_MAPS = ("properties", "schemas")  # of schemas by names, which are no keywords


def downgrade(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of OpenAPI 3.1 in 3.0.3.

    Null is `nullable`, a reference has no members beside it, bounds are flags, and a union of plain values is any
    value, of which generators otherwise make an empty object. Examples of answers are left to the document in 3.1.
    """
    older = {**_downgrade(document), "openapi": "3.0.3"}
    for path in older["paths"].values():
        for operation in path.values():
            operation["responses"]["200"]["content"]["application/json"].pop("example", None)
    _type_nullables(older, older["components"]["schemas"])
    return older


def _downgrade(node: Any, is_map: bool = False) -> Any:
    if isinstance(node, list):
        return [_downgrade(item) for item in node]
    if not isinstance(node, dict):
        return node
    if is_map:
        return {name: _downgrade(item) for name, item in node.items()}
    found = {name: item if name in _VALUES else _downgrade(item, name in _MAPS) for name, item in node.items()}
    if isinstance(node.get("anyOf"), list):
        arms = [_downgrade(arm) for arm in node["anyOf"] if arm != _NULL]
        del found["anyOf"]
        if len(arms) == 1:
            found |= {**arms[0], "nullable": True}
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


def _type_nullables(node: Any, schemas: Mapping[str, Any]) -> None:
    """Adds the type of what a nullable schema refers to, without which the flag means nothing."""
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _type_nullables(item, schemas)
    if isinstance(node, dict) and "nullable" in node and "allOf" in node:
        referred = schemas[node["allOf"][0]["$ref"].rpartition("/")[2]]
        if (kind := referred.get("type")) is not None:
            node["type"] = kind
        else:  # any value
            del node["nullable"]
