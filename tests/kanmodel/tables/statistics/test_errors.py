"""Errors of forecasts over some windows."""

import numpy as np

from kanmodel.tables.statistics.errors import r2_scores


def test_r2_is_one_for_the_truth_and_zero_for_the_mean():
    """R2 is computed per output, against the mean of the targets that it is measured on."""
    targets = np.array([[0.0, 5.0], [2.0, 9.0]])
    assert r2_scores(targets, targets).tolist() == [1.0, 1.0]
    assert r2_scores(targets, np.array([[1.0, 7.0], [1.0, 7.0]])).tolist() == [0.0, 0.0]
