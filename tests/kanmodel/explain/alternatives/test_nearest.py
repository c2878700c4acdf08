"""How far a window is from those of the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import make_model

from kanmodel.explain.counterfactual import find_neighbour, measure_typical_distance

MODEL = make_model()
WINDOWS = MODEL.scaling.features_to_original(MODEL.reference.windows.double())


@pytest.mark.parametrize("index", [0, 17])
def test_a_reference_window_is_nearest_to_itself(index):
    """At distance 0; moved by half a standard deviation in every cell it is half of one away from that."""
    found = find_neighbour(MODEL, WINDOWS[index], 1.0)
    assert found.index == index and found.distance == pytest.approx(0, abs=1e-6)
    moved = WINDOWS[index] + 0.5 * MODEL.scaling.feature_scale
    away = np.sqrt((((WINDOWS - moved) / MODEL.scaling.feature_scale) ** 2).mean(axis=(1, 2)))
    found = find_neighbour(MODEL, moved, None)
    assert away[index] == pytest.approx(0.5)
    assert found.distance == pytest.approx(away.min(), rel=1e-5) and found.index == away.argmin()


def test_of_equal_distances_the_first_window_is_named():
    """With each reference window twice, the first of the two is the nearest."""
    half = MODEL.reference.windows[: len(WINDOWS) // 2]
    twice = replace(MODEL.reference, windows=half.repeat(2, 1, 1), targets=None, times=None)
    assert find_neighbour(replace(MODEL, reference=twice), WINDOWS[3] + 0.1, None).index < len(half)


def test_what_is_typical_is_the_median_of_the_nearest_others():
    """Window by window; with one window nothing is."""
    scaled = WINDOWS / MODEL.scaling.feature_scale
    apart = np.sqrt(((scaled[:, None] - scaled[None]) ** 2).mean(axis=(2, 3)))
    np.fill_diagonal(apart, np.inf)
    assert measure_typical_distance(MODEL) == pytest.approx(np.median(apart.min(axis=1)), rel=1e-5)
    one = replace(MODEL.reference, windows=MODEL.reference.windows[:1], targets=None, times=None)
    assert measure_typical_distance(replace(MODEL, reference=one)) is None
