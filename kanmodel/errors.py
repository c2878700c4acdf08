"""The exceptions of the model core, as one tree.

    KanscopeError
    ├── ConfigError            an architecture that cannot exist
    ├── CheckpointError        a file that is not a readable checkpoint
    ├── UnreadableModelError   a live module that is not a chain of known layers
    ├── DataError              a table, window or value that cannot be used
    │   └── InsufficientReferenceError   too few reference windows for a statistic
    ├── UnknownNameError       a feature, output, edge or option that does not exist
    ├── IncompleteError        an explanation whose residual (convergence delta) is larger than what it explains
    ├── NonFiniteError         a computation whose result is not finite
    └── ExportError            a file that cannot be written, or a model without an equal ONNX form

A message is one sentence that names the place. No class knows an HTTP status; `service.http.errors` maps classes
to statuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import Repr

MAX_QUOTED = 100  # characters of a value in a message
MAX_PATH = 300  # and of the path of a bad value
MAX_MESSAGE = 1000

_quoting = Repr()
_quoting.maxstring = _quoting.maxother = _quoting.maxlong = MAX_QUOTED
_quoting.maxlevel = 2


def quote(value: object) -> str:
    """The `repr` of a value for a message, shortened to `MAX_QUOTED` characters."""
    try:
        text = _quoting.repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = f"a {type(value).__name__} of too many digits"
    return shorten(text.replace("\n", " "), MAX_QUOTED)  # arrays have lines


def shorten(text: str, most: int) -> str:
    """A text of at most `most` characters, from whose middle the others are left out."""
    half = most // 2
    return text if len(text) <= most else f"{text[: half - 1]}…{text[-half:]}"


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
        object.__setattr__(self, "path", shorten(self.path, MAX_PATH))
        object.__setattr__(self, "message", shorten(self.message, MAX_MESSAGE))

    def __str__(self) -> str:
        return f"{self.path} {self.message}"


class KanscopeError(Exception):
    """Base of every exception that the model core raises deliberately.

    Attributes:
        problems: the bad values that were found, in reading order; empty if the error has no place.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class ConfigError(KanscopeError):
    """The described architecture cannot exist."""


class CheckpointError(KanscopeError):
    """The file is not a checkpoint that this version can read; the message names the first difference."""


class UnreadableModelError(KanscopeError):
    """The module is not a chain of layers that this version can read; the message names the part or the difference."""


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
