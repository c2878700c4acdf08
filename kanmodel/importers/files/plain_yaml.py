"""YAML of plain values: yaml's safe loader without tags, merges and repeated keys."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.documents import refuse_repeated


class _PlainLoader(yaml.SafeLoader):
    """yaml's safe loader, but it refuses merges and repeated keys, which hide values, and reads 1e-5 as a number."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise CheckpointError(f"merges mappings in line {key.start_mark.line + 1}, which is not read")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        refuse_repeated(len(mapping), [key.value for key, _ in node.value])
        return mapping


_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """The document; raises `CheckpointError`, with a message that starts with a verb, for other or unsafe content."""
    try:
        return yaml.load(text, Loader=_PlainLoader)  # nosec B506 # a restricted SafeLoader
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "unreadable"
        if tag := re.search(r"'tag:yaml.org,2002:python/[^:']*:?([^']*)'", problem):
            wanted = "give what is wanted of it in the manifest instead (base_activation, mult_arity, input_id)"
            what = f"holds the Python object {tag[1][:80]}, which needs code to be run"
            raise CheckpointError(f"{what}: {wanted}") from error
        raise CheckpointError(f"is not yaml{f' in line {mark.line + 1}' if mark else ''}: {problem}") from error
    except (RecursionError, ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(f"is not yaml of plain values: {type(error).__name__}") from error
