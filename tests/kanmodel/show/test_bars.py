"""Bars are as long as their amounts, and sum to the difference that they part."""

import re

import numpy as np
import pytest
from factories import make_model, make_windows
from pictures import SVG, draw, groups, scale_of

from kanmodel import Model


def bars_of(group):
    """The bars of a row as (start, end) in pixels, and the place of the mark for their sum."""
    bars = [
        (float(rect.get("x")), float(rect.get("x")) + float(rect.get("width"))) for rect in group.iter(f"{SVG}rect")
    ]
    marks = [path.get("d") for path in group.iter(f"{SVG}path") if path.get("stroke-width") == "1.5"]
    return bars, float(re.match(r"M([\d.]+) ", marks[0])[1]) if marks else None


def check_blocks(picture, parts, totals):
    """Bars are as long as their amounts, their sum is marked, and all rows of a window sum to its difference.

    Args:
        picture: the picture.
        parts: amounts by window, (n_parts, n_features).
        totals: by window.
    """
    for block, amounts, total in zip(groups(picture, "block"), parts, totals, strict=True):
        x = scale_of(block, "x")
        rows = {row.get("data-feature"): row for row in groups(block, "row")}
        drawn = 0.0
        for name, row in rows.items():
            bars, mark = bars_of(row)
            lengths = sorted(end - start for start, end in bars)
            drawn += (mark - x(0)) / (x(1) - x(0))
            if name.startswith("f"):
                of_feature = amounts[:, int(name[1:])]
                expected = sorted((abs(of_feature) * (x(1) - x(0))).tolist())
                assert [0.0] * (len(expected) - len(lengths)) + lengths == pytest.approx(expected, abs=0.1)
                assert mark == pytest.approx(x(of_feature.sum()), abs=0.1)
        (whole,) = groups(block, "total")
        ((start, end),), _ = bars_of(whole)
        assert end - start == pytest.approx(abs(total) * (x(1) - x(0)), abs=0.1)
        assert drawn == pytest.approx(total, abs=0.02 * max(1.0, abs(total)))


@pytest.mark.parametrize("n_features", [4, 20])
def test_comparisons_draw_the_parts_of_data_and_model(n_features):
    """Each feature has its two parts; beyond twelve the rest is one row, and all sum to the difference."""
    mine, other = (Model.of(make_model(n_features=n_features, seed=seed)) for seed in (0, 1))
    windows = make_windows(mine, 4)
    found = mine.compare(other, windows[:2], windows[2:])
    parts = [np.stack([one.data, one.model]) for one in found]
    check_blocks(draw(found), parts, [one.difference for one in found])
    names = [row.get("data-feature") for row in groups(draw(found), "row")]
    assert ("8 more features" in names) == (n_features == 20)


def test_changes_draw_new_aged_and_gone_rows(model, windows):
    """The newest three forecasts are drawn, with what each feature's rows add."""
    rows = np.concatenate(windows[:2])
    found = model.changes(np.stack([rows[start : start + 6] for start in range(5)]))
    parts = [np.stack([found.new[number], found.aged[number], found.gone[number]]) for number in range(1, 4)]
    picture = draw(found)
    check_blocks(picture, parts, found.change[1:])
    assert "1 of 4 windows are not drawn" in picture.find(f"{SVG}desc").text


def test_a_comparison_of_models_draws_changes_of_shares(model):
    """Each feature has the change of its share in percentage points, with its interval."""
    found = model.compare(Model.of(make_model(seed=1)))
    picture = draw(found)
    x = scale_of(picture, "x")
    for group, change in zip(groups(picture, "feature"), found.features, strict=True):
        ((start, end),), _ = bars_of(group)
        assert sorted([x(0), x(100 * change.change)]) == pytest.approx([start, end], abs=0.1)
        (whisker,) = (path for path in group.iter(f"{SVG}path"))
        ends = [float(end) for end in re.match(r"M([\d.-]+) [\d.]+H([\d.-]+)", whisker.get("d")).groups()]
        assert ends == pytest.approx([x(100 * end) for end in change.interval], abs=0.1)
