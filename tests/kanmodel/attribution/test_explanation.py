"""Groups and segments of explanations sum to the whole, and what cannot be summed is refused."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from factories import make_model, make_windows
from hypothesis import given
from hypothesis import strategies as st

from kanmodel import Model
from kanmodel.attribution.explanation import complete_segments
from kanmodel.attribution.ledger import sum_groups
from kanmodel.errors import ConfigError, DataError
from kanmodel.network.config import (
    config_from_dict,
    config_to_dict,
    resolve_groups,
)

NAMES = ("a", "b", "c", "d", "e")


@st.composite
def forests(draw):
    """Groups of features and of groups, each a member of at most one."""
    free = list(draw(st.permutations(NAMES)))
    groups = {}
    for number in range(draw(st.integers(0, 4))):
        if not free:
            break
        size = draw(st.integers(1, len(free)))
        groups[f"g{number}"] = [free.pop() for _ in range(size)]
        free.insert(draw(st.integers(0, len(free))), f"g{number}")
    return groups


@given(forests(), st.integers(0, 100))
def test_groups_sum_at_every_level(groups, seed):
    """A group is the sum of its members, and outermost names sum to the total."""
    values = np.random.default_rng(seed).normal(size=(2, 3, 5))
    grouping = resolve_groups(groups, NAMES)
    summed = dict(zip(grouping.names, np.moveaxis(sum_groups(values, grouping.members), -1, 0), strict=True))
    alone = {name: values[..., number] for number, name in enumerate(NAMES)}
    for name, members in groups.items():
        expected = sum(summed.get(member, alone.get(member)) for member in members)
        np.testing.assert_allclose(summed[name], expected, atol=1e-12)
    total = sum(summed[grouping.names[number]] for number in grouping.whole)
    np.testing.assert_allclose(total, values.sum(axis=-1), atol=1e-12)


@st.composite
def some_segments(draw, lookback):
    """Segments that may leave steps out, in any order."""
    ends = draw(st.lists(st.integers(1 - lookback, 1), max_size=8, unique=True).map(sorted))
    pairs = [(first, last - 1) for first, last in pairwise(ends) if draw(st.booleans())]
    return {f"s{number}": pair for number, pair in enumerate(draw(st.permutations(pairs)))}


@cache
def explained():
    model = Model.of(make_model(n_features=5, lookback=9))
    return model.explain(make_windows(model, 2))


@given(forests(), some_segments(9))
def test_groups_and_segments_sum_to_the_total(groups, segments):
    """Over top-level groups and segments contributions sum to the total, also if segments leave steps out."""
    groups = {name: [f"f{NAMES.index(m)}" if m in NAMES else m for m in members] for name, members in groups.items()}
    found = replace(explained(), groups=groups, segments=complete_segments(segments, 9))
    total = found.contributions.sum(axis=1)
    by_group = found.contributions_by_group.reshape(2, len(found.group_names), -1)
    np.testing.assert_allclose(by_group[:, list(found.grouping.whole)].sum(axis=(1, 2)), total, atol=1e-12)
    whole = {found.group_names[number] for number in found.grouping.whole}
    rows = [row["contribution"] for row in found.table("group") if row["window"] == 0 and row["group"] in whole]
    assert sum(rows) == pytest.approx(total[0], abs=1e-12)
    assert {name: found.segments[name] for name in segments} == segments
    assert complete_segments(found.segments, 9) == found.segments


def test_steps_that_no_segment_holds_have_names():
    """Each run of them is an entry after the given ones; its name cannot be that of a given segment."""
    found = complete_segments({"new": (-1, 0), "old": (-4, -3)}, 9)
    assert list(found.items())[2:] == [("other steps -8 to -5", (-8, -5)), ("other step -2", (-2, -2))]
    assert complete_segments({}, 9) == {} and complete_segments({"all": (-8, 0)}, 9) == {"all": (-8, 0)}
    with pytest.raises(DataError, match="other steps -8 to -2 has the name of steps that no segment holds"):
        complete_segments({"other steps -8 to -2": (-1, 0)}, 9)


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"a": ["b"]}, "groups.a has the name of a feature"),
        ({"g": []}, "groups.g must be a list"),
        ({"g": "ab"}, "groups.g must be a list"),
        ({"g": ["z"]}, "groups.g has no feature 'z'"),
        ({"g": ["a"], "h": ["a"]}, "groups.h has 'a', which is in 'g' already"),
        ({"g": ["a", "a"]}, "groups.g has 'a', which is in 'g' already"),
        ({"g": ["h"], "h": ["g"]}, "groups.g is a member of itself"),
        ({"g": ["g"]}, "groups.g is a member of itself"),
        ({"g": ["h", "a"], "h": ["g"]}, "is a member of itself"),
    ],
)
def test_invalid_groups_are_refused(groups, says):
    """The error names the group, also for a checkpoint."""
    with pytest.raises(DataError, match=says):
        resolve_groups(groups, NAMES)
    config = make_model(n_features=5).config
    features = tuple(replace(f, name=name) for f, name in zip(config.features, NAMES, strict=True))
    with pytest.raises(ConfigError, match=says):
        replace(config, features=features, groups=groups)


@pytest.mark.parametrize(
    ("segments", "says"),
    [
        ({"s": (-6, 0)}, "segments.s must be two steps from -5 to 0"),
        ({"s": (0, -1)}, "segments.s must be two steps"),
        ({"s": (0, 1)}, "segments.s must be two steps"),
        ({"s": (-3, 0), "t": (-5, -3)}, "segments.t shares step -3 with 's'"),
    ],
)
def test_invalid_segments_are_refused(segments, says):
    """The error names the segment."""
    with pytest.raises(DataError, match=says):
        complete_segments(segments, 6)


def test_a_checkpoint_carries_its_groups():
    """Groups survive a round trip through the document of the config."""
    config = replace(make_model().config, groups={"pair": ("f0", "f1"), "all": ("pair", "f2")})
    document = config_to_dict(config)
    assert config_from_dict(document).groups.keys() == {"pair", "all"}
    assert resolve_groups(config_from_dict(document).groups, config.feature_names) == resolve_groups(
        config.groups, config.feature_names
    )


@pytest.mark.parametrize("depth", [1, 20_000])
def test_a_deep_chain_of_groups_is_resolved(depth):
    """A deep chain of groups does not exhaust the stack."""
    groups = {f"g{n}": [f"g{n + 1}"] for n in range(depth)} | {f"g{depth}": ["c"]}
    assert set(resolve_groups(groups, NAMES).members[: depth + 1]) == {(2,)}


@pytest.mark.parametrize("groups", [5, ["a"], {1: ["a"]}, {"": ["a"]}])
def test_groups_are_an_object_of_lists(groups):
    """Other types are refused by name."""
    with pytest.raises(DataError, match="groups must be an object"):
        resolve_groups(groups, NAMES)


@pytest.mark.parametrize("segments", [{"s": 1}, {"s": (0,)}, {"s": ("a", "b")}, {"s": (True, True)}, {"s": (-1.0, 0)}])
def test_ends_of_segments_are_whole_numbers(segments):
    """Other types are refused by name."""
    with pytest.raises(DataError, match=r"segments\.s must be two steps"):
        complete_segments(segments, 6)
