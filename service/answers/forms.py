"""Answers that are objects of the model core: each is declared there as a class, and `Form` says where it differs.

From the class come the JSON (`describe`), the schema (`Answered`), and the texts of its members. An array is a list of
numbers; one of more axes has a type of its own in `Form.more`.
"""

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, NotRequired, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import Field
from typing_extensions import TypeAliasType, TypedDict, is_typeddict

Described = TypeVar("Described")
Source = TypeVar("Source")
PAIRS: dict[Any, Any] = {  # in JSON lists of two
    tuple[kind, kind]: Annotated[list[kind], Field(min_length=2, max_length=2)]  # type: ignore[valid-type]
    for kind in (float, int, str)
}
_PLAIN = {str, int, float, bool, NoneType}
_MEMBER = re.compile(r"^    ([a-z]\w*(?:, [a-z]\w*)*): (.*(?:\n     .*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Form:
    """How objects of a class of the model core are answered: member by member, but for what stands here.

    Attributes:
        source: the class, a dataclass or a named tuple.
        name: of the schema.
        left_out: members that an answer lacks.
        properties: properties of the class that are members too.
        names: names of members in the answer, by those in the class.
        absent: members, by their names in the answer, that it has only where they are neither None nor empty.
        more: members that are made of the object, in place of those of the same name or after the others: their type
            and how.
    """

    source: type
    name: str
    left_out: Collection[str] = ()
    properties: Collection[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    absent: Collection[str] = ()
    more: Mapping[str, tuple[Any, Callable[[Any], Any]]] = field(default_factory=dict)

    def reader_of(self, name: str) -> Callable[[Any], Any]:
        """What reads a member of the answer of an object."""
        names = {answered: own for own, answered in self.names.items()}
        return self.more[name][1] if name in self.more else attrgetter(names.get(name, name))

    def make_type(self) -> Any:
        """The typed dict of the answer."""
        hints = get_type_hints(self.source, include_extras=True)
        own = [one.name for one in fields(self.source)] if is_dataclass(self.source) else [*hints]
        members = {self.names.get(name, name): hints[name] for name in own if name not in self.left_out}
        getters = {name: vars(self.source)[name].fget for name in self.properties}
        members |= {name: get_type_hints(getter)["return"] for name, getter in getters.items()}
        members |= {name: kind for name, (kind, _) in self.more.items()}
        kinds = {name: _answered(kind) for name, kind in members.items()}
        kinds |= {name: NotRequired[_without_none(kinds[name])] for name in self.absent}
        made = _make(self.name, kinds)
        made.__doc__, made.__form__ = _tidy(_prose_of(self.source)), self
        made.__texts__ = {self.names.get(name, name): text for name, text in texts_of(self.source).items()}
        return made


FORMS: dict[Any, Form] = {}  # by class; `service.answers.table` fills it
NAMED: dict[Any, TypeAliasType] = {}  # enums by their values, for a name in the document


class Answered(dict[str, Any], Generic[Source]):
    """The answer of an object of a class, which `describe` makes; at run time ``Answered[cls]`` is its typed dict."""

    def __class_getitem__(cls, source: Any) -> Any:
        return type_of(source) if isinstance(source, type) else cls


@cache
def type_of(source: Any) -> Any:
    """The typed dict of a class that has a form."""
    assert source in FORMS, f"{source.__name__} has no Form in service/answers/table.py"
    return FORMS[source].make_type()


def describe_one(source: Source, /, **given: Any) -> Answered[Source]:
    """An object of the model core as it is answered; members that are given take the place of its own."""
    kind: Any = type(source)
    return cast("Answered[Source]", describe(type_of(kind), source, **given))


def describe_all(sources: Any) -> Any:
    """Objects of the model core as they are answered: a list of them, or by their names."""
    if isinstance(sources, Mapping):
        return {name: describe_one(source) for name, source in sources.items()}
    return [describe_one(source) for source in sources]


def describe(cls: Callable[..., Described], source: object, /, **given: Any) -> Described:
    """A typed dict of a class: its members are given, or those of the object.

    Values become plain: arrays and tuples lists, mappings dicts, and objects the typed dicts of their members. A member
    that is not required is left out where it is None, and of a `Form` where it is empty too.
    """
    described = {}
    for name, read, is_absent, kind in _list_members(cls):
        value = given[name] if name in given else read(source)
        if type(value) not in _PLAIN and name not in given:
            value = _plain(value, kind)
        if is_absent is None or not is_absent(value):
            described[name] = value
    return cast(Described, described)


def made(kind: Any, text: str, how: Callable[[Any], Any]) -> tuple[Any, Callable[[Any], Any]]:
    """A member as `Form.more` takes it: its type, what it is, and how it is made of an object."""
    return Annotated[kind, Field(description=text)], how


def given(kind: Any, text: str) -> tuple[Any, Callable[[Any], Any]]:
    """A member that `describe_one` is given, or that is absent."""
    return made(kind, text, lambda _: None)


def members_of(cls: Any, attribute: str, *names: str) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """Members of a class, as `Form.more` takes them, that an object has in an attribute of its own."""
    hints, texts = get_type_hints(cls), texts_of(cls)
    kinds = {name: Annotated[hints[name], Field(description=texts[name])] for name in names}
    return {name: (kind, attrgetter(f"{attribute}.{name}")) for name, kind in kinds.items()}


def join(name: str, *classes: Any) -> Any:
    """The typed dict that has the members of several."""
    hints = [get_type_hints(cls, include_extras=True) for cls in classes]
    made = _make(name, {member: hint for one in hints for member, hint in one.items()})
    made.__doc__, made.__joined__ = classes[-1].__doc__, classes
    return made


def _plain(value: Any, kind: Any) -> Any:
    if type(value) in FORMS:
        return describe_one(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(item, kind) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, kind) for item in value]
    return value if kind is None or isinstance(value, str | float | int | None) else describe(kind, value)


@cache
def _list_members(cls: Any) -> list[tuple[str, Callable[[Any], Any], Callable[[Any], bool] | None, Any]]:
    """The members of a typed dict: how each is read, when it is absent, and the typed dict of its value or items."""
    form, hints = getattr(cls, "__form__", None), get_type_hints(cls, include_extras=True)
    is_absent = _is_none if form is None else _is_empty
    return [
        (
            name,
            attrgetter(name) if form is None else form.reader_of(name),
            is_absent if get_origin(hint) is NotRequired else None,
            _find_kind(hint),
        )
        for name, hint in hints.items()
    ]


def _is_none(value: Any) -> bool:
    return value is None


def _is_empty(value: Any) -> bool:
    return value is None or (type(value) in (str, list, dict) and not value)


def _find_kind(hint: Any) -> Any:
    return hint if is_typeddict(hint) else next(filter(None, map(_find_kind, get_args(hint))), None)


def _answered(kind: Any) -> Any:
    """The type of a member as it is answered."""
    if kind in NAMED:
        return NAMED[kind]
    if kind in FORMS:
        return type_of(kind)
    if kind in PAIRS:
        return PAIRS[kind]
    if get_origin(kind) is np.ndarray:
        (scalar,) = get_args(get_args(kind)[1])
        return list[bool] if scalar is np.bool_ else list[int] if issubclass_of(scalar, np.integer) else list[float]
    origin, arms = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return Annotated[(_answered(arms[0]), *arms[1:])]
    if origin is NotRequired:
        return NotRequired[_answered(arms[0])]
    if origin in (Union, UnionType):
        return Union[tuple(map(_answered, arms))]  # noqa: UP007
    if origin is not None and issubclass_of(origin, Mapping):
        return dict[str, _answered(arms[1])]  # type: ignore[misc]
    if origin is not None and issubclass_of(origin, Collection):
        return list[_answered(arms[0])]  # type: ignore[misc]
    return kind


def _make(name: str, kinds: Mapping[str, Any]) -> Any:
    make: Any = TypedDict
    return make(name, kinds)


def issubclass_of(kind: Any, base: Any) -> bool:
    """Whether a type is a class below another one."""
    return isinstance(kind, type) and issubclass(kind, base)


def _without_none(kind: Any) -> Any:
    if get_origin(kind) is Annotated:
        return Annotated[(_without_none(get_args(kind)[0]), *get_args(kind)[1:])]
    if get_origin(kind) in (Union, UnionType):
        return Union[tuple(arm for arm in get_args(kind) if arm is not NoneType)]  # noqa: UP007
    return kind


@cache
def read_attributes(cls: type) -> Mapping[str, str]:
    """What a class says of its members, inherited ones and properties too: the section ``Attributes``."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        properties = {name: one for name, one in vars(base).items() if isinstance(one, property) and one.__doc__}
        texts |= {name: str(one.__doc__).partition("\n\n")[0] for name, one in properties.items()}
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        for names, text in _MEMBER.findall(section):
            texts |= dict.fromkeys(names.split(", "), text)
    return texts


def texts_of(cls: type) -> dict[str, str]:
    """What a class says of its members, for readers of JSON."""
    return {name: _tidy(text) for name, text in read_attributes(cls).items()}


def _prose_of(cls: type) -> str:
    """What a class says of itself, without its members."""
    return inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[0]


def _tidy(text: str) -> str:
    """A docstring's text for readers of JSON: null for None, no line breaks, a sentence."""
    line = re.sub(r'`"?([^`"]*)"?`', r"`\1`", " ".join(text.replace("``", "`").split()))
    line = re.sub(r"\bNone\b", "null", line)
    if (first := line.partition(" ")[0]).isalpha() and (len(first) > 1 or first == "a"):  # and no formula
        line = line[:1].upper() + line[1:]
    return line if line.endswith((".", ":")) else f"{line}."
