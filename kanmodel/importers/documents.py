"""Reading of restricted YAML and JSON: no tags, merges or repeated keys."""

from __future__ import annotations

import json
import re
import reprlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kanmodel.errors import CheckpointError
from kanmodel.importers.source import read_bounded

MAX_DOCUMENT_BYTES = 1 << 22
PYTHON_TAG = "tag:yaml.org,2002:python/"


class _PlainLoader(yaml.SafeLoader):
    """yaml's safe loader, but it refuses merges and repeated keys, which hide values, and reads 1e-5 as a number."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuses merge keys."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise CheckpointError(f"merges mappings in line {key.start_mark.line + 1}, which is not read")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Constructs a mapping; refuses repeated keys."""
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            keys = [key.value for key, _ in node.value]
            repeated = next((key for key, count in Counter(map(str, keys)).items() if count > 1), keys[0])
            raise CheckpointError(f"has the key {str(repeated)[:80]!r} more than once")
        return mapping


_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def read_document(path: Path) -> dict[str, Any]:
    """Reads the mapping in a ``.yaml``, ``.yml`` or ``.json`` file.

    Raises:
        CheckpointError: it cannot be read, has Python objects or repeated keys, or is not a mapping.
    """
    try:
        text = read_bounded(path, MAX_DOCUMENT_BYTES).decode("utf-8")
        document = parse_json(text) if path.suffix == ".json" else _parse_yaml(text)
        if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
            raise CheckpointError("is not a mapping of names to values")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path.name} is not text in UTF-8") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path.name} {error}") from error
    return document


def parse_json(text: str) -> Any:
    """Parses JSON without repeated keys; error messages start with a verb."""
    try:
        return json.loads(text, object_pairs_hook=_unrepeated)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"is not JSON: {error}") from error


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        repeated = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise CheckpointError(f"has the key {repeated[:80]!r} more than once")
    return mapping


def _parse_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_PlainLoader)  # nosec B506 # a restricted SafeLoader
    except yaml.constructor.ConstructorError as error:
        tag = re.search(rf"'{PYTHON_TAG}[^:']*:?([^']*)'", error.problem or "")
        if tag:
            raise CheckpointError(
                f"holds the Python object {tag[1][:80]}, which needs code to be run: give what is wanted of it in the "
                "manifest instead (base_activation, mult_arity, input_id)"
            ) from error
        raise CheckpointError(f"is not yaml of plain values: {error.problem}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        raise CheckpointError(f"is not yaml{place}: {getattr(error, 'problem', None) or 'unreadable'}") from error
    except (RecursionError, ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(f"is not yaml of plain values: {type(error).__name__}") from error


def refuse_unknown(document: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    """Raises for the first unknown key, listing the known ones."""
    for key in document:
        if key not in known:
            raise CheckpointError(f"{place} has the unknown key {str(key)[:80]!r}; there are {', '.join(known)}")


def check_mapping(value: object, place: str) -> None:
    """Checks that a value is a mapping."""
    if not isinstance(value, dict):
        raise CheckpointError(f"{place} must be a mapping, but is {reprlib.repr(value)}")
