"""pykan's ``*_config.yml``, which saveckpt writes beside the weights."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanmodel.errors import CheckpointError
from kanmodel.importers.documents import read_document
from kanmodel.network.checks import MAX_SIZE

Arities = tuple[tuple[int, ...], ...] | int  # of each product node, a tuple for every entry of the width; or of all


@dataclass(frozen=True)
class PykanConfig:
    """What a state_dict of pykan does not hold.

    Attributes:
        name: the file's name, for errors.
        width: nodes per layer, each (n_sum, n_product).
        mult_arity: number of factors of the product nodes.
        base_activation: silu, identity or zero.
        symbolic_enabled: whether the symbolic edges act at all.
        function_names: names of the symbolic edges' functions, [layer][sub-node][input].
    """

    name: str
    width: tuple[tuple[int, int], ...]
    mult_arity: Arities
    base_activation: str
    symbolic_enabled: bool
    function_names: tuple[tuple[tuple[str, ...], ...], ...]


def read_pykan_config(path: Path) -> PykanConfig:
    """Reads a ``*_config.yml``; of its keys only those that change the function.

    Raises:
        CheckpointError: it is not readable, holds Python objects, or lacks a key.
    """
    return parse_pykan_config(read_document(path), path.name)


def parse_pykan_config(document: Mapping[str, Any], name: str) -> PykanConfig:
    """`read_pykan_config` of its keys and values; `name` is for errors."""
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
        CheckpointError: it is neither; the message begins with a verb.
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
    """Whether a value is a whole number that a network may have of something."""
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
