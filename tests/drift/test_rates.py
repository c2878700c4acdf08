"""Without a change, drift and trust have as many alarms as they say, on a few draws of each process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks" / "drift"))

from rates import PROCESSES, count_alarms, rank_new

N_DRAWS = 12


@pytest.mark.thorough("forecasts and explains 200,000 windows: 30 s")
@pytest.mark.parametrize("process", PROCESSES)
def test_drift_has_few_false_alarms(process):
    """At 5 %, more than three alarms of a question in twelve draws have a probability of 0.2 %."""
    assert max(count_alarms(process, 19, N_DRAWS).values()) <= 3 / N_DRAWS


@pytest.mark.parametrize("process", PROCESSES)
def test_p_values_of_trust_are_those_of_new_windows(process):
    """Whatever the autocorrelation: with neighbours in the same block, 9 % of AR(1) 0.99 would be at 1 %."""
    shares = rank_new(process, N_DRAWS)
    for level, most in ((0.01, 0.04), (0.05, 0.12)):
        assert shares[level].mean() < most
