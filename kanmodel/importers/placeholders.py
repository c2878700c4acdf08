"""Placeholders for the classes, functions and objects that a pickle names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kanmodel.errors import CheckpointError

MAX_NAME = 300  # characters of a module's, class's or function's name
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # modules by their names in Python 2


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A class or function that a pickle names; it has not been looked up.

    Attributes:
        name: qualified, such as ``torch.nn.modules.activation.GELU``.
    """

    name: str


@dataclass(eq=False, repr=False, slots=True)
class Placeholder:
    """An instance or the result of a call that was not created.

    Attributes:
        name: qualified name of the class or function.
        arguments: of the call, or of ``__new__``.
        keywords: likewise.
        state: argument of ``__setstate__``, or attributes; None without one.
        items: items to append or add to it.
        entries: items to set in it by key.
    """

    name: str
    arguments: tuple[object, ...] = ()
    keywords: Mapping[object, object] = field(default_factory=dict)
    state: object = None
    items: list[object] = field(default_factory=list)
    entries: dict[Any, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.name}>"  # without its contents, which may contain itself


def name_reference(module: object, name: object) -> GlobalName:
    """The reference to a name in a module.

    Raises:
        CheckpointError: they are not names, or too long.
    """
    if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > MAX_NAME:
        raise CheckpointError("is a pickle with an invalid or too long name")
    return GlobalName(f"{RENAMED.get(module, module)}.{name}")


def refuse_hidden(state: object, names: tuple[str, ...], what: str) -> None:
    """Raises if attributes would hide methods of their object, which no training program writes."""
    if isinstance(state, dict):
        for name in names:
            if name in state:
                raise CheckpointError(f"has an attribute {name!r} that would hide that of every {what}")
