"""Groups of features that belong together, such as the sine and cosine of the hour."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from kanmodel.errors import ConfigError, DataError, quote
from kanmodel.network.checks import check_text

Groups = Mapping[str, Sequence[str]]
"""Name of a group to the names of its members: features, or other groups."""


@dataclass(frozen=True)
class Grouping:
    """All groups with their features, including those of nested groups, and the features without a group.

    Attributes:
        names: the groups in the given order, then the features without a group.
        members: indices of the features of each, ascending.
        whole: indices of the names that are in no group: every feature is in exactly one of them.
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    whole: tuple[int, ...]


def check_groups(groups: object, features: Sequence[str]) -> None:
    """Checks that groups are a valid grouping of the features.

    Raises:
        ConfigError: as `resolve_groups`.
    """
    try:
        resolve_groups(groups, features)
    except DataError as error:
        raise ConfigError(str(error)) from error


def resolve_groups(groups: object, features: Sequence[str]) -> Grouping:
    """The grouping of a model's features.

    Args:
        groups: `Groups`; a feature or a group is a member of at most one group.
        features: their names.

    Raises:
        DataError: it is not a mapping of printable names to lists; or a group has no members, one that does not exist,
            one of another group, itself, or the name of a feature.
    """
    if not isinstance(groups, Mapping) or not all(isinstance(name, str) and name for name in groups):
        raise DataError.at("groups", f"must be an object of lists by the names of groups, but is {quote(groups)}")
    for name in groups:
        try:
            check_text(name, "the name of a group")
        except ConfigError as error:
            raise DataError.at("groups", f"cannot be used: {error}") from error
    numbers = {feature: number for number, feature in enumerate(features)}
    parent = _find_parents(groups, numbers)
    members: dict[str, list[int]] = {name: [] for name in groups}
    for feature, number in numbers.items():
        above = parent.get(feature)
        while above is not None:
            if number in members[above][-1:]:
                raise _circular(above)
            members[above].append(number)
            above = parent.get(above)
    for name, found in members.items():
        if not found:  # all its members are circular
            raise _circular(name)
    names = (*groups, *(feature for feature in features if feature not in parent))
    return Grouping(
        names,
        tuple(tuple(members[name]) if name in members else (numbers[name],) for name in names),
        tuple(number for number, name in enumerate(names) if name not in parent),
    )


def _find_parents(groups: Mapping[str, object], features: Collection[str]) -> dict[str, str]:
    """The group of each member."""
    parent: dict[str, str] = {}
    for name, members in groups.items():
        place = f"groups.{name}"
        if name in features:
            raise DataError.at(place, "has the name of a feature")
        if not isinstance(members, list | tuple) or not members or not all(isinstance(m, str) for m in members):
            raise DataError.at(place, f"must be a list of features, but is {quote(members)}")
        for member in members:
            if member not in features and member not in groups:
                raise DataError.at(place, f"has no feature {quote(member)}; the features are {', '.join(features)}")
            if member in parent:
                raise DataError.at(place, f"has {quote(member)}, which is in {quote(parent[member])} already")
            parent[member] = name
    return parent


def _circular(name: str) -> DataError:
    return DataError.at(f"groups.{name}", "is a member of itself")
