"""pykan's ``*_config.yml``, which its saveckpt writes beside the weights: width, base function, symbolic functions."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanmodel.errors import CheckpointError
from kanmodel.importers.documents import read_document
from kanmodel.network.checks import MAX_SIZE

Arities = (
    tuple[tuple[int, ...], ...] | int
)  # of each product node, one tuple per entry of the width; or one arity for all


@dataclass(frozen=True)
class PykanConfig:
    """What a state_dict of pykan does not contain.

    Attributes:
        name: the file's name, for errors.
        width: nodes per layer, each (n_sum, n_product).
        mult_arity: number of factors of the product nodes.
        base_activation: silu, identity or zero.
        symbolic_enabled: whether symbolic edges are evaluated at all.
        function_names: names of the symbolic edges' functions, [layer][sub-node][input].
    """

    name: str
    width: tuple[tuple[int, int], ...]
    mult_arity: Arities
    base_activation: str
    symbolic_enabled: bool
    function_names: tuple[tuple[tuple[str, ...], ...], ...]


def read_pykan_config(path: Path) -> PykanConfig:
    """Reads those keys of a ``*_config.yml`` that change the function.

    Raises:
        CheckpointError: it cannot be read, has Python objects, or lacks a key.
    """
    return parse_pykan_config(read_document(path), path.name)


def parse_pykan_config(document: Mapping[str, Any], name: str) -> PykanConfig:
    """`read_pykan_config` of a parsed document; `name` is for errors."""
    try:
        width = tuple(_layer_width(layer) for layer in _list(document, "width"))
        base = document.get("base_fun_name", "silu")
        if base not in ("silu", "identity", "zero"):
            raise CheckpointError(f"has the base_fun_name {reprlib.repr(base)}, not silu, identity or zero")
        enabled = document.get("symbolic_enabled", True)
        if not isinstance(enabled, bool):
            raise CheckpointError("has a symbolic_enabled that is not true or false")
        names = tuple(_function_names(document, layer) for layer in range(len(width) - 1)) if enabled else ()
        return PykanConfig(name, width, parse_arities(document.get("mult_arity", 2)), base, enabled, names)
    except CheckpointError as error:
        raise CheckpointError(f"{name} {error}") from error


def parse_arities(value: Any) -> Arities:
    """One arity for all product nodes, or a list with one list for every entry of the width, as pykan takes them.

    Raises:
        CheckpointError: it is neither; the message starts with a verb.
    """
    if is_count(value) and value >= 2:
        return int(value)
    lists = isinstance(value, list) and all(isinstance(layer, list) for layer in value)
    if lists and all(is_count(arity) and arity >= 2 for layer in value for arity in layer):
        return tuple(tuple(layer) for layer in value)
    raise CheckpointError(
        "has a mult_arity that is neither a number from 2 nor a list with a list of them for every entry of the width"
    )


def is_count(value: object) -> bool:
    """Whether a value is a plausible number of nodes or factors."""
    return type(value) is int and 0 <= value <= MAX_SIZE


def _layer_width(layer: Any) -> tuple[int, int]:
    if is_count(layer):
        return int(layer), 0
    if isinstance(layer, list) and len(layer) == 2 and all(map(is_count, layer)):
        return int(layer[0]), int(layer[1])
    raise CheckpointError(f"has {reprlib.repr(layer)} in its width, not a number of nodes")


def _function_names(document: Mapping[str, Any], layer: int) -> tuple[tuple[str, ...], ...]:
    rows = _list(document, f"symbolic.funs_name.{layer}")
    if not all(isinstance(row, list) and all(isinstance(name, str) for name in row) for row in rows):
        raise CheckpointError(f"has a symbolic.funs_name.{layer} that is not a table of names")
    return tuple(tuple(row) for row in rows)


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise CheckpointError(f"lacks the list {key}" if value is None else f"has a {key} that is not a list")
    return value
