"""Questions: what can be asked of a model, each declared once, as a frozen dataclass of its parameters.

From a `Question` derive the method of `Model` with its signature and docstring, and its lines in the stubs. A question
stands in the room that answers it; `kanmodel.questions` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from inspect import Parameter, Signature, signature
from typing import Any, ClassVar, Generic, TypeVar, get_type_hints

from kanmodel.computing import Progress, one_thread, reporting
from kanmodel.errors import check_values
from kanmodel.forecaster import Forecaster

Answer = TypeVar("Answer", covariant=True)
Function = TypeVar("Function", bound=Callable[..., Any])
MANY = {"many": True}  # metadata of a parameter that takes all positional arguments
ATTRIBUTES = "    Attributes:\n"
PROGRESS = "        progress: whether to draw a bar, or what is called with the share that is done.\n"

Windows = Any
"""An array (n, lookback, n_features) or one window (lookback, n_features), oldest step first; a mapping of feature name
to array (n, lookback) or (lookback,); or a data frame of at least `lookback` rows, whose last rows are one window:
the newest, without a gap, if it has the time column of the training, or of a model without one a column ``time`` or an
index of dates, else as they stand; of many series one window of each. Its columns are those of the table in training,
if the checkpoint keeps how they become features (`config.encoding`)."""
SeriesNames = Sequence[str] | str | None
"""Names of the series of a table that are read; None for all."""


@dataclass(frozen=True)
class Question(Generic[Answer]):
    """What is asked: the members of a subclass are the parameters, its docstring is that of the method of `Model`.

    Members after a `dataclasses.KW_ONLY` are given by name. The section ``Attributes`` of the docstring describes them.

    Attributes:
        with_answer: where a parameter that is given changes what answers, its name and that type.
    """

    with_answer: ClassVar[tuple[str, Any] | None] = None

    def answer(self, model: Forecaster) -> Answer:
        """The answer; long computations report progress and pause, see `kanmodel.computing`."""
        raise NotImplementedError


def ask(model: Forecaster, question: Question[Answer], progress: Progress = False) -> Answer:
    """Checks the parameters of a question, and answers it.

    Raises:
        DataError: a parameter is of a wrong type; further errors are those of the question.
        UnknownNameError: a parameter is none of the words that it may be.
    """
    kind: Any = type(question)
    hints = _hints(kind)
    given = {name: value for name in hints if (value := getattr(question, name)) is not getattr(kind, name, MISSING)}
    check_values(given | {"progress": progress}, hints | {"progress": Progress})
    with one_thread(), reporting(progress):
        return question.answer(model)


def method_of(name: str, question: type[Question[Answer]]) -> Callable[..., Answer]:
    """The method of `Model` that asks a question, with its parameters, their defaults and its docstring."""

    def method(self: Forecaster, *given: Any, progress: Progress = False, **named: Any) -> Answer:
        try:
            arguments = own.bind(self, *given, **named).arguments
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None  # as Python says it of a function
        arguments.pop("self")
        return ask(self, question(**arguments), progress)

    own = signature_of(question)
    method.__name__, method.__qualname__, method.__doc__ = name, f"Model.{name}", document(question)
    method.__signature__ = own  # type: ignore[attr-defined]
    return method


def signature_of(question: type[Question[Any]]) -> Signature:
    """Of the method that asks a question."""
    parameters = [Parameter("self", Parameter.POSITIONAL_ONLY)]
    for of in sorted(fields(question), key=lambda of: bool(of.kw_only)):
        kind = Parameter.KEYWORD_ONLY if of.kw_only else Parameter.POSITIONAL_OR_KEYWORD
        many = of.metadata.get("many", False)
        default = Parameter.empty if of.default is MISSING else of.default
        parameters.append(Parameter(of.name, Parameter.VAR_POSITIONAL if many else kind, default=default))
        parameters[-1] = parameters[-1].replace(annotation="Any" if many else of.type)
    parameters.append(Parameter("progress", Parameter.KEYWORD_ONLY, default=False, annotation="Progress"))
    return Signature(parameters, return_annotation=question.answer.__annotations__["return"])


def document(question: type[Question[Any]]) -> str:
    """The docstring of the method that asks a question."""
    about, _, _ = (question.__doc__ or "").partition(ATTRIBUTES)
    parameters = [
        _split(each.__doc__ or "") for each in question.__mro__ if each is not Question and is_dataclass(each)
    ]
    described = "".join(f"{own.rstrip()}\n" for own, _ in parameters if own)
    return f"{about.rstrip()}\n\n    Args:\n{described}{PROGRESS}\n{parameters[0][1]}".rstrip() + "\n    "


def _split(docstring: str) -> tuple[str, str]:
    """The parameters that a docstring describes, and its sections after them."""
    parameters, _, sections = docstring.partition(ATTRIBUTES)[2].partition("\n\n")
    return parameters, sections


def put_options(function: Function, options: Sequence[Parameter]) -> Function:
    """The function, whose signature lists options that it takes as ``**options``."""
    own = signature(function)
    parameters = [each for each in own.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    function.__signature__ = own.replace(parameters=[*parameters, *options])  # type: ignore[attr-defined]
    return function


@cache
def _hints(question: Any) -> dict[str, Any]:
    """The types of the parameters that are checked."""
    hints = get_type_hints(question)
    return {of.name: hints[of.name] for of in fields(question) if hints[of.name] is not Any}
