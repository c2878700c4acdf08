import numpy as np
import pytest
from factories import make_model, make_tally, make_windows
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.explain.drift import Drift, Watched
from kanmodel.model import Model

seeds = st.integers(0, 2**32 - 1)
WATCHED = Watched("y+1", "K", ("a", "b", "c"), ("m", None, "s"), ("ab", "c"), ((0, 1), (2,)), (0.8,))


def list_changes(found):
    """Every `Change` of a drift, with a name."""
    yield "forecast", found.effect.forecast
    for each in found.inputs:
        yield each.name, each.mean
    for each in found.use:
        yield f"share of {each.name}", each.share
        yield f"contribution of {each.name}", each.contribution
    if found.errors:
        yield "mae", found.errors.mae
        yield "bias", found.errors.bias
        yield from found.errors.coverage.items()


@given(st.integers(20, 80), st.integers(1, 40), st.integers(1, 80), seeds)
def test_swapping_the_sides_changes_signs(n_blocks, n, n_other, seed):
    """Every change and every interval is negated, PSI and distance are the same."""
    one, bins, *_ = make_tally(8 * n_blocks, seed, n_blocks)
    other, *_ = make_tally(n + n_other, seed + 1, n, bins)
    there, back = Drift.of(WATCHED, one, other), Drift.of(WATCHED, other, one)
    for (name, mine), (_, theirs) in zip(list_changes(there), list_changes(back), strict=True):
        assert (mine.now, mine.reference) == (theirs.reference, theirs.now), name
        if mine.change is not None:
            assert mine.change == -theirs.change, name
        assert (mine.interval is None) == (theirs.interval is None)
        if mine.interval:
            np.testing.assert_allclose(mine.interval, [-theirs.interval[1], -theirs.interval[0]], atol=1e-12)
    for mine, theirs in zip(there.inputs, back.inputs, strict=True):
        assert mine.psi == pytest.approx(theirs.psi, abs=1e-12)
        assert mine.distance == pytest.approx(theirs.distance, abs=1e-12)
    for mine, theirs in zip(there.use, back.use, strict=True):
        assert mine.effect is None or mine.effect == -theirs.effect


def test_a_table_has_no_drift_from_itself():
    """Shifts, distances, PSI, effects and changes of errors are exactly 0, and there is no verdict without spans."""
    model = Model(make_model("lstm", n_reference=40))
    windows = make_windows(model.loaded, 300)
    found = model.drift(windows, windows)
    assert all(change.change == 0 for _, change in list_changes(found))
    assert all((each.psi, each.distance) == (0, 0) for each in found.inputs)
    assert found.effect.total == 0 and found.ndcg == 1
    assert found.verdicts["inputs"].alarm is None and "1 span" in found.verdicts["inputs"].missing
    assert found.errors is None and found.verdicts["errors"].missing == "the current side has no actual value"
