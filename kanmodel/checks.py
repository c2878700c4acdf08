"""Checks of arguments against their annotations: an error names the argument, what it must be and what it is.

A number is finite, True and False are no numbers, and text is no sequence. NumPy's scalars are numbers, and its arrays,
lists and other collections in an order are sequences. Of a mapping and a sequence the items are checked too.

Validation of configs: each error is one sentence that starts with the place.

Configs come from untrusted files, so both the type and the range of a value are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from functools import cache, wraps
from inspect import Parameter, Signature, signature
from math import inf, isfinite
from numbers import Integral, Real
from pathlib import Path
from reprlib import repr
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, Unpack, get_args, get_origin, get_type_hints

import numpy as np

from kanmodel.errors import ConfigError, DataError, UnknownNameError, quote
from kanmodel.text import UNPRINTABLE

LARGEST = 2**63 - 1  # of whole numbers
P = ParamSpec("P")
R = TypeVar("R")

_SIMPLE: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    NoneType: ("None", lambda value: value is None),
    bool: ("True or False", lambda value: isinstance(value, bool | np.bool_)),
    int: ("a whole number", lambda value: _is_whole(value)),
    float: ("a finite number", lambda value: _is_finite(value)),
    str: ("text", lambda value: isinstance(value, str)),
    Path: ("a path", lambda value: isinstance(value, Path)),
    Callable: ("a function", callable),
    np.ndarray: ("an array of numbers", lambda value: isinstance(value, np.ndarray) and value.dtype.kind in "biuf"),
    Mapping: ("a mapping", lambda value: isinstance(value, Mapping)),
    Sequence: ("a list", lambda value: _is_sequence(value)),
    tuple: ("a tuple", lambda value: _is_sequence(value)),
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which checks the arguments of its calls.

    A call raises `UnknownNameError` for a word that is not one of those listed in the annotation, and `DataError` for
    another wrong argument.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        parameters, hints = _parameters(function)
        if hints:
            _check(parameters.bind(*args, **kwargs).arguments, hints)
        return function(*args, **kwargs)

    return call


def check_fields(instance: object) -> None:
    """Checks the fields of a dataclass as `checked` does arguments."""
    _check(vars(instance), get_type_hints(type(instance)))


def _check(values: Mapping[str, object], hints: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in hints:
            _check_value(name, value, hints[name])


@cache
def _parameters(function: Callable[..., object]) -> tuple[Signature, dict[str, Any]]:
    """The parameters of a function and their annotations, those that a TypedDict unpacks as if they were its own."""
    given = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    hints = get_type_hints(SimpleNamespace(__annotations__=given), getattr(function, "__globals__", {}))
    parameters = signature(function)
    for name, hint in [*hints.items()]:
        if get_origin(hint) is Unpack:
            unpacked = get_type_hints(get_args(hint)[0])
            own = [one for one in parameters.parameters.values() if one.name != name]
            added = [Parameter(each, Parameter.KEYWORD_ONLY, default=...) for each in unpacked]
            parameters, hints = parameters.replace(parameters=own + added), hints | unpacked
    return parameters, {name: hint for name, hint in hints.items() if hint is not Any}


def _check_value(place: str, value: Any, hint: Any) -> None:
    kinds = get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else (hint,)
    fitting = [kind for kind in kinds if _fits(value, kind)]
    if int in fitting and abs(value) > LARGEST:
        raise DataError.at(place, f"must be below 2^63, but is {quote(value)}")
    if not fitting:
        message = f"must be {' or '.join(map(_describe, kinds))}, but is {quote(value)}"
        if isinstance(value, str) and all(kind is NoneType or get_origin(kind) is Literal for kind in kinds):
            raise UnknownNameError(f"{place} {message}")
        raise DataError.at(place, message)
    for inner, item, kind in _items(place, value, fitting[0]):
        _check_value(inner, item, kind)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind, its items aside."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple and inner and inner[-1] is not ...:
        return _is_sequence(value) and len(value) == len(inner) and all(map(_fits, value, inner))
    if origin in _SIMPLE:
        return _SIMPLE[origin][1](value)
    return origin is Any or not isinstance(origin, type) or isinstance(value, origin)


def _items(place: str, value: Any, kind: Any) -> Iterator[tuple[str, Any, Any]]:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Mapping:
        for name, item in value.items():
            if not _fits(name, inner[0]):
                raise DataError.at(place, f"must have names of {_describe(inner[0])}, but has {quote(name)}")
            yield f"{place}.{name}", item, inner[1]
    elif origin is Sequence or (origin is tuple and inner[-1] is ...):
        yield from ((f"{place}[{number}]", item, inner[0]) for number, item in enumerate(value))


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    with suppress(OverflowError):  # a whole number beyond float64
        return abs(float(value)) < inf
    return False


def _is_sequence(value: object) -> bool:
    known = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping | Set)
    return known and getattr(value, "ndim", 1) == 1


def _describe(kind: Any) -> str:
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(inner)}" if len(inner) > 1 else f'"{inner[0]}"'
    if origin is tuple and inner and inner[-1] is not ...:
        return f"{len(inner)} values, each {_describe(inner[0])}"
    return _SIMPLE[origin][0] if origin in _SIMPLE else f"a {getattr(origin, '__name__', origin)}"


MAX_TEXT = 200  # characters of a name
MAX_SIZE = 1 << 16  # of any count in a document: a malicious one must not exhaust the memory


def check_count(value: object, place: str, lowest: int = 1, highest: int = MAX_SIZE) -> None:
    """Checks that a value is a whole number in a range."""
    if type(value) is not int or not lowest <= value <= highest:
        raise ConfigError(f"{place} must be a whole number from {lowest} to {highest}, but is {repr(value)}")


def check_number(value: object, place: str, positive: bool = False) -> None:
    """Checks that a value is a finite number."""
    if type(value) not in (int, float) or not isfinite(value) or (positive and value <= 0):  # type: ignore[arg-type, operator]
        raise ConfigError(f"{place} must be a {'positive' if positive else 'finite'} number, but is {repr(value)}")


def check_text(value: object, place: str, longest: int = MAX_TEXT) -> None:
    """Checks that a value is text that can be shown anywhere: in labels of metrics, pictures, logs and terminals."""
    if type(value) is not str or len(value) > longest or UNPRINTABLE.search(value):
        raise ConfigError(f"{place} must be printable text of at most {longest} characters, but is {repr(value)}")


def check_flag(value: object, place: str) -> None:
    """Checks that a value is true or false."""
    if type(value) is not bool:
        raise ConfigError(f"{place} must be true or false, but is {repr(value)}")


def check_choice(value: object, place: str, choices: Collection[str]) -> None:
    """Checks that a value is one of some words."""
    if type(value) is not str or value not in choices:
        raise ConfigError(f"{place} must be one of {', '.join(choices)}, but is {repr(value)}")


def check_items(value: object, place: str, kind: type) -> None:
    """Checks that a value is a tuple with items of one type."""
    if type(value) is not tuple or any(not isinstance(item, kind) for item in value):
        raise ConfigError(f"{place} must be a list of {kind.__name__}, but is {repr(value)}")
