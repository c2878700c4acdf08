"""The exceptions of the model core, as one tree, and the checks of arguments and fields that raise them.

    KanscopeError
    ├── ConfigError            an architecture that cannot exist, or a package that is not installed
    ├── CheckpointError        a file that is not a readable checkpoint
    ├── UnreadableModelError   a live module that is no chain or graph of known parts
    ├── DataError              a table, window or value that cannot be used
    │   └── InsufficientReferenceError   too few reference windows for a statistic
    ├── UnknownNameError       a feature, output, edge or option that does not exist
    ├── IncompleteError        an explanation whose residual (convergence delta) is larger than what it explains
    ├── NonFiniteError         a computation whose result is not finite
    └── ExportError            a file that cannot be written, or a model without an equal ONNX form

A message is one sentence that names the place. No class knows an HTTP status; `service.wire.errors` maps classes
to statuses.

Values are checked against annotations: an error names the place, what must be there and what is. Arguments are checked
generously: a number is finite, True and False are no numbers, NumPy's scalars are, and its arrays, lists and other
ordered collections are sequences, text is not. Fields of configs come from untrusted files: unless its annotation says
more, a whole number is a count, a number is finite, and text is printable and short.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cache, partial, wraps
from inspect import signature
from math import inf, isfinite
from numbers import Integral, Real
from pathlib import Path
from reprlib import Repr
from traceback import walk_stack
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, Unpack, get_args, get_origin, get_type_hints
from warnings import warn

from kanmodel.text import UNPRINTABLE, abbreviate, printable

MAX_QUOTED = 100  # characters of a value in a message
MAX_PATH = 300  # and of the path of a bad value
MAX_MESSAGE = 1000
MAX_ERROR = 2000  # of an error, which may name several values

_quoting = Repr()
_quoting.maxstring = _quoting.maxother = _quoting.maxlong = MAX_QUOTED
_quoting.maxlevel = 2


def quote(value: object) -> str:
    """The `repr` of a value for a message, shortened to `MAX_QUOTED` characters."""
    try:
        text = _quoting.repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = f"a {type(value).__name__} of too many digits"
    return abbreviate(text.replace("\n", " "), MAX_QUOTED)  # arrays have lines


@dataclass(frozen=True)
class Problem:
    """One bad value. Both texts are shortened, since a path may have names that somebody else has chosen.

    Attributes:
        path: where it is, e.g. ``instances[0][3][2]`` or ``row 17, column temp_c``.
        message: what it must be, e.g. ``must be finite``.
    """

    path: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", abbreviate(self.path, MAX_PATH))
        object.__setattr__(self, "message", abbreviate(self.message, MAX_MESSAGE))

    def __str__(self) -> str:
        return f"{self.path} {self.message}"


class KanscopeError(Exception):
    """Base of every exception that the model core raises deliberately.

    A long message keeps its two ends. What is not printable, as in the name of a column or of a file, is replaced: a
    terminal may act on it.

    Attributes:
        problems: the bad values that were found, in reading order; empty if the error has no place.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(printable(abbreviate(message, MAX_ERROR)))
        self.problems = tuple(problems)


class ConfigError(KanscopeError):
    """The described architecture cannot exist, or a package is not installed."""


def missing_package(what: str, requirement: str) -> ConfigError:
    """The error of something that needs a package which is not installed; `requirement` is what pip takes."""
    return ConfigError(f"{what} needs a package: pip install '{requirement}'")


@contextmanager
def needs_package(what: str, requirement: str) -> Iterator[None]:
    """Raises `missing_package` where an import fails."""
    try:
        yield
    except ImportError as error:
        raise missing_package(what, requirement) from error


class CheckpointError(KanscopeError):
    """The file is not a checkpoint that this version can read; the message names the first difference."""


class UnreadableModelError(KanscopeError):
    """The module is no chain or graph that this version can read; the message names the part or the difference."""


class DataError(KanscopeError):
    """Input that cannot be used; `problems` has the place of each bad value."""

    @classmethod
    def at(cls, place: str, message: str) -> DataError:
        """The error of one bad value: ``at("shift.from", "must be finite")``."""
        problem = Problem(place, message)
        return cls(str(problem), [problem])


class InsufficientReferenceError(DataError):
    """A statistic needs more reference windows than the checkpoint has."""


class UnknownNameError(KanscopeError):
    """A name or index that does not exist; the message lists those that do."""


def refuse_unknown(kind: str, name: object, known: Sequence[str]) -> None:
    """Raises `UnknownNameError` for a name that is not among those that exist."""
    if name not in known:
        raise UnknownNameError(f"there is no {kind} {quote(name)}; the {kind}s are {', '.join(known)}")


class IncompleteError(KanscopeError):
    """An explanation whose residual is larger than the change of the prediction that it explains, by window."""


class NonFiniteError(KanscopeError):
    """A result that is not finite although its input was, e.g. ``outputs[0].temp+1``."""


class ExportError(KanscopeError):
    """A file cannot be written, or a model has no equal ONNX graph; the message names the path, layer or difference."""


LARGEST = 2**63 - 1  # of whole numbers
MAX_TEXT = 200  # characters of a name
MAX_MAGNITUDE = 1e75  # of weights, and of a column's mean, spread and ends: squares of their products are finite
MAX_SIZE = 1 << 16  # of any count in a document: a malicious one must not exhaust the memory
P = ParamSpec("P")
R = TypeVar("R")


@cache
def _simple_kinds() -> dict[Any, tuple[str, Callable[[Any], bool]]]:
    """What a kind is called, and whether a value is of it."""
    import numpy as np  # here, as the command line imports the errors before it sets the threads of numpy

    return {
        NoneType: ("None", lambda value: value is None),
        bool: ("True or False", lambda value: isinstance(value, bool | np.bool_)),
        int: ("a whole number", lambda value: isinstance(value, Integral) and not isinstance(value, bool)),
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
    """The function, whose calls raise `DataError` for a wrong argument, or `UnknownNameError` for an unknown word."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        positional, hints = _parameters(function)
        check_values(dict(zip(positional, args, strict=False)) | kwargs, hints)
        return function(*args, **kwargs)

    return call


def warn_caller(message: str) -> None:
    """Warns at the line outside this package whose call led here."""
    names = [frame.f_globals.get("__name__", "") for frame, _ in walk_stack(sys._getframe())]
    ours = (__package__, "torch.utils._contextlib")  # which calls what torch decorates
    outermost = max(number for number, name in enumerate(names) if name in ours or name.startswith(f"{__package__}."))
    warn(message, stacklevel=outermost + 2)


def check_lowest(name: str, value: object, lowest: int) -> None:
    """Raises `DataError` if a value is not a whole number, or too small."""
    if not isinstance(value, Integral) or value < lowest:
        raise DataError.at(name, f"must be a whole number from {lowest}, but is {quote(value)}")


def check_fields(instance: object) -> None:
    """Checks the fields of a dataclass as `checked` does arguments, and raises the same errors."""
    check_values(vars(instance), get_type_hints(type(instance)))


def check_values(values: Mapping[str, object], hints: Mapping[str, Any]) -> None:
    """Raises `DataError` or `UnknownNameError` for the first value that does not fit its annotation."""
    for name, value in values.items():
        if name in hints:
            _check_value(name, value, hints[name])


@cache
def _parameters(function: Callable[..., object]) -> tuple[list[str], dict[str, Any]]:
    """The parameters that may be positional, and the annotations of all, also of those that a TypedDict unpacks."""
    given = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    hints = get_type_hints(SimpleNamespace(__annotations__=given), getattr(function, "__globals__", {}))
    for unpacked in [get_args(hint)[0] for hint in hints.values() if get_origin(hint) is Unpack]:
        hints |= get_type_hints(unpacked)
    parameters = signature(function).parameters.values()
    positional = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    return positional, {name: hint for name, hint in hints.items() if not (hint is Any or get_origin(hint) is Unpack)}


def _check_value(place: str, value: Any, hint: Any) -> None:
    kinds = get_args(hint) if _is_union(hint) else (hint,)
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
    if origin in _simple_kinds():
        return _simple_kinds()[origin][1](value)
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


def _describe(kind: Any) -> str:
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(inner)}" if len(inner) > 1 else f'"{inner[0]}"'
    if origin is tuple and inner and inner[-1] is not ...:
        return f"{len(inner)} values, each {_describe(inner[0])}"
    return (
        _simple_kinds()[origin][0]
        if origin in _simple_kinds()
        else f"a {getattr(origin, 'shown_as', getattr(origin, '__name__', origin))}"
    )


def _is_finite(value: Any) -> bool:
    with suppress(OverflowError):  # a whole number beyond float64
        return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < inf
    return False


def _is_sequence(value: object) -> bool:
    known = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping | Set)
    return known and getattr(value, "ndim", 1) == 1


def _is_union(hint: Any) -> bool:
    return isinstance(hint, UnionType) or get_origin(hint) is Union


def check_count(value: object, place: str, lowest: int = 1, highest: int = MAX_SIZE) -> None:
    """Raises `ConfigError` unless a value is a whole number in a range."""
    if type(value) is not int or not lowest <= value <= highest:
        raise ConfigError(f"{place} must be a whole number from {lowest} to {highest}, but is {quote(value)}")


def check_number(value: object, place: str, positive: bool = False) -> None:
    """Raises `ConfigError` unless a value is a finite number."""
    if type(value) not in (int, float) or not isfinite(value) or (positive and value <= 0):  # type: ignore[arg-type, operator]
        raise ConfigError(f"{place} must be a {'positive' if positive else 'finite'} number, but is {quote(value)}")


def check_magnitude(value: object, place: str) -> None:
    """Raises `ConfigError` unless a value is a number of at most `MAX_MAGNITUDE`."""
    check_number(value, place)
    if abs(value) > MAX_MAGNITUDE:  # type: ignore[arg-type]
        raise ConfigError(f"{place} must be at most {MAX_MAGNITUDE:g} in magnitude, but is {quote(value)}")


def check_spread(value: object, place: str) -> None:
    """Raises `ConfigError` unless a value is such a number from 0."""
    check_magnitude(value, place)
    if value < 0:  # type: ignore[operator]
        raise ConfigError(f"{place} must be a number from 0, but is {quote(value)}")


def check_text(value: object, place: str, longest: int = MAX_TEXT) -> None:
    """Raises `ConfigError` unless a value is text for any label of metrics, picture, log and terminal."""
    if type(value) is not str or len(value) > longest or UNPRINTABLE.search(value):
        raise ConfigError(f"{place} must be printable text of at most {longest} characters, but is {quote(value)}")


def check_flag(value: object, place: str) -> None:
    """Raises `ConfigError` unless a value is true or false."""
    if type(value) is not bool:
        raise ConfigError(f"{place} must be true or false, but is {quote(value)}")


def check_choice(value: object, place: str, choices: Collection[str]) -> None:
    """Raises `ConfigError` unless a value is one of some words."""
    if type(value) is not str or value not in choices:
        raise ConfigError(f"{place} must be one of {', '.join(choices)}, but is {quote(value)}")


Index = Annotated[int, partial(check_count, lowest=0)]
"""A whole number from 0."""
Positive = Annotated[float, partial(check_number, positive=True)]
Magnitude = Annotated[float, check_magnitude]
Spread = Annotated[float, check_spread]
"""A finite number from 0: a standard deviation."""
_OF_CONFIGS: dict[Any, Callable[[Any, str], None]]
_OF_CONFIGS = {int: check_count, float: check_number, str: check_text, bool: check_flag}


def check_config(config: Any) -> None:
    """Raises `ConfigError`, which starts with the field's name, if one is wrong.

    ``Annotated[type, check]`` calls ``check(value, place)`` instead of the usual check.
    """
    for name, hint in field_types(config.__class__).items():
        _check_field(getattr(config, name), name, hint)


@cache
def field_types(cls: Any) -> dict[str, Any]:
    """The annotation of each field of a dataclass."""
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cls)}


def optional(hint: Any) -> Any:
    """T of ``T | None``; None of another annotation."""
    return get_args(hint)[0] if _is_union(hint) else None


def _check_field(value: Any, place: str, hint: Any) -> None:
    kind = get_origin(hint)
    if kind is tuple:
        if type(value) is not tuple:
            raise ConfigError(f"{place} must be a list, but is {quote(value)}")
        for number, item in enumerate(value):
            _check_field(item, f"{place}[{number}]", get_args(hint)[0])
    elif _is_union(hint):
        if value is not None:
            _check_field(value, place, optional(hint))
    elif kind is Annotated:
        hint.__metadata__[0](value, place)
    elif kind is Literal:
        check_choice(value, place, get_args(hint))
    elif hint in _OF_CONFIGS:
        _OF_CONFIGS[hint](value, place)
    elif isinstance(hint, type) and not isinstance(value, hint):
        raise ConfigError(f"{place} must be a {hint.__name__}, but is {quote(value)}")
