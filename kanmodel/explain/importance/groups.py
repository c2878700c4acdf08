"""The table of the groups: how much features that mean one thing count together.

A group with one member has that feature's figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.importance.attributions import Attribution, describe_figures
from kanmodel.explain.importance.bootstrap import Bootstrap
from kanmodel.explain.importance.global_importance import SEED, ImportanceEstimates
from kanmodel.explain.importance.permutation import permute_features
from kanmodel.explain.paths.grouping import sum_groups
from kanmodel.explain.structure.connectivity import connected_features
from kanmodel.network.config.groups import Grouping, Groups, resolve_groups


@dataclass(frozen=True)
class GroupAttribution(Attribution):
    """One group's row, or that of a feature that is in none.

    A group's contribution is the signed sum of its features', its series are permuted together, and the even share is
    1 / number of names that no group holds, of which the shares sum to 1. `pykan_feature_score` and `redundant_with`
    are of features alone.

    Attributes:
        members: the features in it, at any depth.
    """

    members: tuple[str, ...]


def attribute_groups(
    model: LoadedModel, importance: ImportanceEstimates, groups: Groups | None = None
) -> tuple[GroupAttribution, ...]:
    """The rows of groups and of the features that are in none, most important first.

    Empty where there are no groups.

    Args:
        model: the model.
        importance: of its features.
        groups: None for those of the checkpoint.

    Raises:
        DataError: groups that cannot be; the message names the one.
    """
    config = model.config
    groups = config.groups if groups is None else groups
    if not groups:
        return ()
    grouping = _sort(resolve_groups(groups, config.feature_names))
    distinct = list(dict.fromkeys(grouping.members))  # names of the same features share their figures: at most 2 n - 1
    place = {members: number for number, members in enumerate(distinct)}
    places = [place[members] for members in grouping.members]
    contributions = sum_groups(importance.ledger.features, distinct)  # (n, n_distinct)
    sizes, signed, whole = np.abs(contributions), contributions.mean(axis=0), [places[one] for one in grouping.whole]
    bootstrap = Bootstrap(len(sizes))
    growth = permute_features(model, importance.output, SEED, distinct)
    estimates = replace(
        importance,
        features=bootstrap.mean(sizes),
        mean_contribution=signed,
        share=bootstrap.share(sizes, of=sizes[:, whole]),
        permutation=None if growth is None else Bootstrap(len(growth)).mean(growth),
    )
    live = connected_features(model.network, importance.output)
    connected = [any(live[feature] for feature in members) for members in distinct]
    order = np.argsort(-estimates.features.value[places], kind="stable").tolist()
    return tuple(
        GroupAttribution(
            name=grouping.names[number],
            rank=rank,
            connected=connected[places[number]],
            pykan_feature_score=None,
            redundant_with=(),
            members=tuple(config.feature_names[feature] for feature in grouping.members[number]),
            **describe_figures(estimates, places[number], connected[places[number]], len(whole)),
        )
        for rank, number in enumerate(order, start=1)
    )


def _sort(grouping: Grouping) -> Grouping:
    """The same names by their first feature, so that sums over groups of one round as sums over features do."""
    order: Sequence[int] = sorted(range(len(grouping.names)), key=grouping.members.__getitem__)
    place = {number: place for place, number in enumerate(order)}
    return Grouping(
        tuple(grouping.names[number] for number in order),
        tuple(grouping.members[number] for number in order),
        tuple(sorted(place[number] for number in grouping.whole)),
    )
