"""Each measure of the faithfulness benchmark, on a case computed by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks" / "faithfulness"))

import measures
from methods import attribute_timing, timing_segments

WINDOWS = np.array([[[4.0, -3.0], [2.0, 0.5]]])  # one window of two steps and two features
START = np.zeros((2, 2))
EXACT = WINDOWS.copy()  # of a sum


def forecast(windows):
    """The sum of all points."""
    return windows.sum(axis=(1, 2))


def test_cumulative_difference():
    """The two largest magnitudes are removed one by one: |4| + |-3|, without cancellation; reversed |0.5| + |2|."""
    assert measures.cumulative_difference(forecast, WINDOWS, START, EXACT, 0.5) == pytest.approx([7.0])
    assert measures.cumulative_difference(forecast, WINDOWS, START, 1 / EXACT, 0.5) == pytest.approx([2.5])
    assert measures.cumulative_difference(forecast, WINDOWS, START, -EXACT, 0.5) == pytest.approx([7.0])


def test_cumulative_preservation():
    """The two smallest magnitudes are removed one by one: |0.5| + |2|."""
    assert measures.cumulative_preservation(forecast, WINDOWS, START, EXACT, 0.5) == pytest.approx([2.5])


def test_deletion_and_insertion():
    """Removing 1, 2, 3, 4 of the points 4, -3, 2, 0.5 changes the sum by 4, 1, 3, 3.5; inserting lacks the rest."""
    counts = sorted({max(round(fraction * 4), 1) for fraction in measures.FRACTIONS})
    assert counts == [1, 2, 3, 4]  # at 0.95 of four points all are removed
    assert measures.deletion(forecast, WINDOWS, START, EXACT) == pytest.approx([(4 + 1 + 3 + 3.5) / 4])
    assert measures.insertion(forecast, WINDOWS, START, EXACT) == pytest.approx([(0.5 + 2.5 + 0.5 + 0) / 4])


def test_completeness_error():
    """Scores with sum 3 for a change of 3.5 have error 0.5, exact scores 0."""
    assert measures.completeness_error(forecast, WINDOWS, START, EXACT) == pytest.approx([0.0])
    assert measures.completeness_error(forecast, WINDOWS, START, np.full((1, 2, 2), 0.75)) == pytest.approx([0.5])


def test_precision_and_recall():
    """Scaled to 0, 0.5, 1 with the last two true: precision 2/3, 1, 1 and recall 1, 1, 1/2 at those thresholds."""
    aup, aur = measures.precision_and_recall(np.array([[0.0, 1.0, 2.0]]), np.array([[False, True, True]]))
    assert aup == pytest.approx(0.5 * (2 / 3 + 1) / 2 + 0.5 * 1, abs=1e-4)
    assert aur == pytest.approx(0.5 * 1 + 0.5 * (1 + 0.5) / 2, abs=1e-4)


def test_signed_precision_and_recall():
    """Scores with the right signs beat the same magnitudes with wrong signs, which magnitudes alone do not show."""
    truth = np.array([[1.0, -1.0, 0.0, 0.0]])
    right, wrong = np.array([[2.0, -2.0, 0.1, 0.0]]), np.array([[-2.0, 2.0, 0.1, 0.0]])
    by_magnitude = [measures.precision_and_recall(np.abs(scores), truth != 0) for scores in (right, wrong)]
    assert by_magnitude[0] == by_magnitude[1]
    by_sign = [measures.signed_precision_and_recall(scores, truth) for scores in (right, wrong)]
    assert by_sign[0][0] > by_sign[1][0] and by_sign[0][1] > by_sign[1][1]
    # of one sign: scores 0 and 1 for the one true point: precision 1/4 and 1, recall 1 and 1
    alone = measures.signed_precision_and_recall(np.array([[1.0, -1.0, 0.0, 0.0]]), truth)
    assert alone == pytest.approx((0.625, 1.0), abs=1e-4)


def test_segments_are_sums_from_the_newest_step():
    """Seven steps in segments of three give 1, 3 and 3 steps, the newest segment complete."""
    values = np.arange(7.0)[None, :, None]
    assert measures.sum_segments(values, 3)[0, :, 0].tolist() == [0, 1 + 2 + 3, 4 + 5 + 6]
    assert measures.sum_segments(values[:, :6], 3)[0, :, 0].tolist() == [0 + 1 + 2, 3 + 4 + 5]


def test_max_sensitivity():
    """Scores x of a window with length 5 change by the shift itself: the longest shift divided by 5."""
    windows = np.array([[[3.0, 4.0]]])
    found = measures.max_sensitivity(lambda x: x, windows, windows, 0.1, 4, seed=1)
    generator = np.random.default_rng(1)
    moves = [np.linalg.norm(generator.uniform(-0.1, 0.1, windows.shape)) for _ in range(4)]
    assert found == pytest.approx([max(moves) / 5])
    assert measures.max_sensitivity(np.ones_like, windows, np.ones_like(windows), 0.1, 4, seed=1) == [0.0]


def test_timing_without_segments_is_integrated_gradients():
    """For x squared from 0 without segments, the left sum of 2 a x x over positions; for a linear model w (x - x0)."""
    windows = np.array([[[3.0], [1.0]]])
    square = attribute_timing(lambda x: (x**2).sum(dim=(1, 2)), windows, np.zeros((2, 1)), None, 10, 0, 1)
    np.testing.assert_allclose(square, windows**2 * 2 * np.mean(np.arange(10) / 10))
    weight = torch.tensor([[2.0], [-1.0]], dtype=torch.float64)
    generator = np.random.default_rng(0)
    linear = attribute_timing(lambda x: (weight * x).sum(dim=(1, 2)), windows, np.ones((2, 1)), generator, 200, 1, 1)
    np.testing.assert_allclose(linear, (windows - 1) * weight.numpy())


def test_timing_keeps_segments_at_the_window():
    """For a product, a point whose partner is always kept gets all of it, rather than the half of the path."""

    class Always:
        """Segments of the second feature, over both steps."""

        def integers(self, low, high=None):
            return 1 if high is None else high - 1

    windows = np.array([[[3.0, 2.0]]])
    scores = attribute_timing(lambda x: x.prod(dim=2).sum(dim=1), windows, np.zeros((1, 2)), Always(), 8, 1, 1)
    assert scores.tolist() == [[[6.0, 0.0]]]


def test_timing_has_segments_in_proportion_to_the_window():
    """About the authors' 50 of at least 10 steps for MIMIC-III, and at least one for windows of any size."""
    assert timing_segments(48, 32) == (53, 10)
    for lookback in range(1, 30):
        n_segments, shortest = timing_segments(lookback, 1)
        assert n_segments >= 1
        assert 1 <= shortest <= lookback
