"""The module tree of a pickled `nn.Module`: classes, attributes and tensors, in order of definition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kanmodel.errors import CheckpointError
from kanmodel.importers.placeholders import GlobalName, Placeholder

MAX_DEPTH = 64  # of modules, and of containers in a value
MAX_MODULES = 1 << 14
MAX_VALUES = 1 << 18  # of all attributes or hyperparameters, with those in their containers
MAX_PATH = 1000  # characters
N_ENTERING = "n_entering"  # of a traced live module: its number of inputs
BOOKKEEPING = frozenset(torch.nn.Module().__dict__) - {"training"} | {
    *("_backend", "_forward_hooks_always_called", "_load_state_dict_pre_hooks", "_non_persistent_buffers_set"),
}  # attributes that every module has, in any version of torch

Value = object  # None, a bool, number, text, bytes, GlobalName, Placeholder, Tensor, array, or a container of these


@dataclass(frozen=True)
class Module:
    """A module of a pickled model.

    Attributes:
        class_name: qualified, such as ``torch.nn.modules.rnn.LSTM``.
        values: its attributes, such as ``hidden_size`` and ``batch_first`` of an LSTM. Lists are tuples, functions
            are `GlobalName`, and other objects are `Placeholder`.
        parameters: by name, without those that are None.
        buffers: those that belong to the state_dict, likewise.
        children: by name, in order of definition.
    """

    class_name: str
    values: Mapping[str, Value]
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    children: Mapping[str, Module]

    def walk(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """This module and its descendants with dotted paths, like `nn.Module.named_modules` but with repetitions."""
        yield path, self
        for name, child in self.children.items():
            yield from child.walk(_join(path, name))

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors by dotted name, in the order of `nn.Module.state_dict`."""
        return {
            _join(path, name): tensor
            for path, module in self.walk()
            for name, tensor in {**module.parameters, **module.buffers}.items()
        }

    def at(self, path: str) -> Module:
        """The module at a dotted path.

        Raises:
            KeyError: there is none.
        """
        module = self
        for name in filter(None, path.split(".")):
            module = module.children[name]
        return module


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def is_module(value: object) -> bool:
    """Whether a pickled value is an `nn.Module`."""
    return isinstance(value, Placeholder) and all(
        isinstance(value.state, dict) and isinstance(value.state.get(name), dict)
        for name in ("_parameters", "_buffers", "_modules")
    )


def read_module(found: object) -> Module:
    """The tree of a pickled module.

    Raises:
        CheckpointError: an entry is not a module or tensor, or a limit is exceeded; the message starts with a verb.
    """
    return _Reading().read(found, "", 0)


class _Reading:
    """Reads one tree; a module is counted each time that it is reached."""

    def __init__(self) -> None:
        self.n_modules = 0
        self.simplification = _Simplification()

    def read(self, found: object, path: str, depth: int) -> Module:
        self.n_modules += 1
        if self.n_modules > MAX_MODULES or depth > MAX_DEPTH or len(path) > MAX_PATH:
            raise CheckpointError(f"has more than {MAX_MODULES} modules, or modules nested deeper than {MAX_DEPTH}")
        if not is_module(found):
            raise CheckpointError(f"has {describe(found)} at {path[-80:]!r}, where its model has a module")
        assert isinstance(found, Placeholder) and isinstance(found.state, dict)
        state = found.state
        skipped = state.get("_non_persistent_buffers_set")
        skipped = skipped if isinstance(skipped, (set, frozenset)) else ()
        children = {name: child for name, child in _named(state["_modules"], path) if child is not None}
        attributes = {name: value for name, value in _named(state, path) if name not in BOOKKEEPING}
        return Module(
            found.name,
            {name: self.simplification.simplify(value) for name, value in attributes.items()},
            _tensors(state["_parameters"], path),
            {name: value for name, value in _tensors(state["_buffers"], path).items() if name not in skipped},
            {name: self.read(child, _join(path, name), depth + 1) for name, child in children.items()},
        )


def _named(entries: Mapping[object, object], path: str) -> Iterator[tuple[str, object]]:
    for name, value in entries.items():
        if not isinstance(name, str) or "." in name:
            raise CheckpointError(f"has {describe(name)} as a name in the module at {path[-80:]!r}")
        yield name, value


def _tensors(entries: Mapping[object, object], path: str) -> dict[str, Tensor]:
    tensors = {}
    for name, value in _named(entries, path):
        if isinstance(value, Tensor):
            tensors[name] = value
        elif value is not None:
            place = _join(path, name)[-80:]
            raise CheckpointError(f"has {describe(value)} at {place!r}, where its model has a tensor")
    return tensors


def describe(value: object) -> str:
    """The type of a value, with an article."""
    name = value.name if isinstance(value, (GlobalName, Placeholder)) else type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name[:MAX_PATH]}"


def simplify_entries(entries: Mapping[object, object]) -> dict[str, Value]:
    """Hyperparameters by name as a finite tree, with lists as tuples and objects as placeholders.

    Raises:
        CheckpointError: it is nested too deeply, or has too many values.
    """
    simplification = _Simplification()
    return {key: simplification.simplify(value) for key, value in entries.items() if isinstance(key, str)}


class _Simplification:
    """Converts values that may contain themselves to finite trees, of limited total size."""

    def __init__(self) -> None:
        self.n_values = 0

    def simplify(self, value: object, depth: int = 0) -> Value:
        self.n_values += 1
        if self.n_values > MAX_VALUES or depth > MAX_DEPTH:
            raise CheckpointError(f"has attributes of more than {MAX_VALUES} values, or nested deeper than {MAX_DEPTH}")
        if isinstance(value, (list, tuple)):
            return tuple(self.simplify(part, depth + 1) for part in value)
        if isinstance(value, dict):
            return {key: self.simplify(part, depth + 1) for key, part in value.items()}
        if isinstance(value, Placeholder) and value.entries:  # a subclass of dict, such as Lightning's AttributeDict
            return {key: self.simplify(part, depth + 1) for key, part in value.entries.items()}
        plain = (type(None), bool, int, float, str, bytes, set, frozenset, GlobalName, Placeholder, Tensor, np.ndarray)
        return value if isinstance(value, plain) else Placeholder(type(value).__name__)
