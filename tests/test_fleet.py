"""The model of a fleet agrees with queueing theory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(Path(__file__).parent / "benchmarks")
    from fleet import POLICIES, Service, arrive, simulate

CONSTANT = np.zeros(1)
EXPONENTIAL = np.random.default_rng(7).exponential(size=100_000) - 1  # so that a mean of 1 becomes exponential
N = 100_000
seeds = st.integers(0, 1 << 32)


def batching(scatter: np.ndarray = CONSTANT) -> Service:
    """Batches of at most eight, the larger the cheaper per request."""
    return Service(1 + 0.4 * np.arange(8), scatter)


@pytest.mark.parametrize("scatter", [CONSTANT, EXPONENTIAL], ids=["M/D/1", "M/M/1"])
@pytest.mark.parametrize("load", [0.3, 0.6])
@pytest.mark.parametrize("n_pods", [1, 3])
def test_the_mean_wait_is_that_of_theory(scatter: np.ndarray, load: float, n_pods: int) -> None:
    """Pollaczek-Khinchine for pods that take one request at a time, at random: each has Poisson arrivals."""
    arrivals = arrive(n_pods * load, N, 3)
    latencies, _ = simulate(Service(np.ones(1), scatter), arrivals, n_pods, POLICIES["random"], 3)
    service = 1 + scatter
    expected = load * (service**2).mean() / (2 * (1 - load * service.mean()))
    assert latencies.mean() - service.mean() == pytest.approx(expected, rel=0.05)
    assert n_pods > 1 or (np.diff(arrivals + latencies) > -1e-6).all()  # first come, first served


@given(n_pods=st.integers(1, 5), spare=st.floats(1.001, 3))
def test_round_robin_lets_regular_arrivals_below_the_capacity_never_wait(n_pods: int, spare: float) -> None:
    """Each pod is free again when its turn comes."""
    latencies, sizes = simulate(batching(), np.arange(500) * spare / n_pods, n_pods, POLICIES["round robin"], 0)
    np.testing.assert_allclose(latencies, 1)
    assert set(sizes) == {1}


@given(load=st.floats(0.1, 2), n_pods=st.integers(1, 4), policy=st.sampled_from([*POLICIES]), seed=seeds)
def test_every_request_is_answered_once(load: float, n_pods: int, policy: str, seed: int) -> None:
    """None has a latency below the shortest service; no batch exceeds the largest."""
    service, n = batching(EXPONENTIAL / 2), 2000
    arrivals = arrive(load * n_pods * service.capacity, n, seed)
    latencies, sizes = simulate(service, arrivals, n_pods, POLICIES[policy], seed)
    assert sum(sizes) == n == len(latencies)
    assert min(sizes) >= 1
    assert max(sizes) <= len(service.seconds)
    assert latencies.min() >= 0.5


@given(n_pods=st.integers(1, 4), seed=seeds)
def test_a_backlog_is_answered_at_the_capacity(n_pods: int, seed: int) -> None:
    """All that arrives at once is served in the largest batches, which are the most efficient ones."""
    service, n = batching(), 8 * 100 * n_pods
    latencies, sizes = simulate(service, np.zeros(n), n_pods, POLICIES["fewest"], seed)
    assert sorted(set(sizes)) == [1, 7, 8]  # the first request finds its pod free
    assert n / latencies.max() == pytest.approx(n_pods * service.capacity, rel=0.02)


@given(load=st.floats(0.3, 0.9), n_pods=st.integers(2, 8), seed=seeds)
def test_fewest_is_not_worse_than_random(load: float, n_pods: int, seed: int) -> None:
    """Its p99 is lower, as it avoids the pods that are behind."""
    service = batching(EXPONENTIAL)
    arrivals = arrive(load * n_pods * service.capacity, 5000, seed)
    of_random, of_fewest = (
        np.percentile(simulate(service, arrivals, n_pods, POLICIES[policy], seed)[0], 99)
        for policy in ("random", "fewest")
    )
    assert of_fewest <= 1.05 * of_random
