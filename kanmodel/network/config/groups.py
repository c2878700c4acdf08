"""Groups of features that belong together, such as the sine and cosine of the hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr

from kanmodel.errors import ConfigError, DataError

Groups = Mapping[str, Sequence[str]]
"""Name of a group to the names of its members: features, or other groups."""


@dataclass(frozen=True)
class Grouping:
    """All groups, each with the features that are in it at any depth, and the features that are in none.

    Attributes:
        names: groups in the order in which they are given, then the features that are in none.
        members: numbers of the features of each, ascending.
        whole: numbers of the names that no group holds: every feature is in exactly one of them.
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    whole: tuple[int, ...]


def check_groups(groups: object, features: Sequence[str]) -> None:
    """Refuses what is no grouping of these features.

    Raises:
        ConfigError: as `resolve_groups` has it.
    """
    if not isinstance(groups, Mapping) or not all(isinstance(name, str) for name in groups):
        raise ConfigError(f"groups must be an object of lists, but is {repr(groups)}")
    try:
        resolve_groups(groups, features)
    except DataError as error:
        raise ConfigError(str(error)) from error


def resolve_groups(groups: Groups, features: Sequence[str]) -> Grouping:
    """The grouping of a model's features.

    Args:
        groups: a feature or a group is a member of one group at most.
        features: their names.

    Raises:
        DataError: a group has no member, one that does not exist, one of another group's, itself, or a feature's name.
    """
    parent: dict[str, str] = {}
    for name, members in groups.items():
        place = f"groups.{name}"
        if name in features:
            raise DataError.at(place, "has the name of a feature")
        if not isinstance(members, list | tuple) or not members or not all(isinstance(m, str) for m in members):
            raise DataError.at(place, f"must be a list of features, but is {repr(members)}")
        for member in members:
            if member not in features and member not in groups:
                raise DataError.at(place, f"has no feature {member!r}; the features are {', '.join(features)}")
            if member in parent:
                raise DataError.at(place, f"has {member!r}, which is in {parent[member]!r} already")
            parent[member] = name
    for name in groups:
        ancestor = parent.get(name)
        while ancestor is not None:
            if ancestor == name:
                raise DataError.at(f"groups.{name}", "is a member of itself")
            ancestor = parent.get(ancestor)

    def collect(name: str) -> list[int]:
        return [features.index(name)] if name in features else [f for m in groups[name] for f in collect(m)]

    names = (*groups, *(feature for feature in features if feature not in parent))
    return Grouping(
        names,
        tuple(tuple(sorted(collect(name))) for name in names),
        tuple(number for number, name in enumerate(names) if name not in parent),
    )
