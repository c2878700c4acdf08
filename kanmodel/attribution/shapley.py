"""Shapley values: what each part of a window adds to a forecast, averaged over the orders in which parts change.

The parts (players of a game) are features, groups of them, or each of these in each segment of steps. For a window x, a
baseline x0 and one output F, a coalition S of n parts is worth v(S) = F(x0 with x in S), and

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S with i) - v(S))         Shapley 1953, eq. 13

is the mean, over all orders in which the parts change from x0 to x one after another, of what the change of part i does
(baseline Shapley: Sundararajan and Najmi 2020, arXiv 1908.08474). The values sum to F(x) - F(x0).

Of at most 12 parts, every coalition is forecast. Beyond, the mean is over random orders, each with its reverse
(antithetic sampling: Mitchell et al. 2022, arXiv 2104.12199, section 4), which sum to the same; the standard error is
that over such pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import Baselines, scaled_baselines
from kanmodel.attribution.effects import exchange, first_steps, live_features
from kanmodel.attribution.paths.bisection import BATCH
from kanmodel.computing import tracked
from kanmodel.errors import DataError, check_lowest
from kanmodel.forecaster import Forecaster, refuse_non_finite_outputs
from kanmodel.network.network import FrozenNetwork

MAX_EXACT = 12  # parts of which every coalition is forecast
COALITIONS = 1 << 9  # that are made at a time
PAIRS = 1 << 7  # of orders, whose samples are made at a time


@dataclass(frozen=True)
class Orders:
    """Random orders of the parts, where there are too many for all coalitions."""

    count: int = 32  # half of them the reverse of the others: even, and at least 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_lowest("orders", self.count, 4)
        check_lowest("seed", self.seed, 0)
        if self.count % 2:
            raise DataError.at("orders", f"must be even, since each has its reverse, but is {self.count}")


class Shapley(NamedTuple):
    """Shapley values of parts of n windows, in the target's unit, (n, ...) each."""

    values: Array
    standard_error: Array  # of the random orders, or over the baselines; 0 where all coalitions of one were forecast


def count_forecasts(n_parts: int, orders: Orders) -> int:
    """The most forecasts for one window and baseline."""
    return 1 << n_parts if n_parts <= MAX_EXACT else orders.count * (n_parts - 1) + 2


def measure_shapley(
    model: Forecaster, windows: Tensor, output: int, baseline: Baselines, parts: Tensor, orders: Orders
) -> Shapley:
    """Shapley values of parts for one output, by its number, (n, n_parts).

    `windows` are in model units, (n, lookback, n_features); `parts` are the cells of each player, (n_parts, lookback,
    n_features), bool, none of which is in two. Over several baselines values are averaged; the value of a part that
    equals the baseline, or does not reach the output, is exactly 0.

    Raises:
        DataError: the baseline cannot be used.
        NonFiniteError: a forecast is not finite.
    """
    cells = parts & live_features(model, output)
    playing = cells.flatten(1).any(dim=1)
    of_baselines, players = [], cells[playing]
    for number, start in tracked(enumerate(scaled_baselines(model, baseline))):
        rules = _rules(len(players), orders, number)
        batches = tracked(torch.split(windows, BATCH))
        played = [_play(model.frozen, batch, start, output, players, rules) for batch in batches]
        of_baselines.append(np.concatenate(played, axis=1))
    sampled = np.array(of_baselines)  # (n_baselines, 2, n, n_players): values, and their standard errors
    measured = sampled.mean(axis=0)
    if len(sampled) > 1:
        measured[1] = sampled[:, 0].std(axis=0, ddof=1) / np.sqrt(len(sampled))
    of_parts = np.zeros((2, len(windows), len(parts)))
    of_parts[..., playing.numpy()] = measured * float(model.scaling.output_scale[output])
    refuse_non_finite_outputs(of_parts)
    return Shapley(*of_parts)


class _Rules(NamedTuple):
    """How values follow from what coalitions are worth: by a weighted sum, or as means over pairs of orders."""

    coalitions: Tensor  # (n_coalitions, n_players), bool; the first is empty, the last has all players
    weights: Tensor | None  # (n_players, n_coalitions)
    changes: Tensor | None  # (2, n_pairs, 2, n_players): numbers of the coalitions after and before each player changes


def _rules(n: int, orders: Orders, number: int) -> _Rules:
    """The rules of n players; of random ones, each baseline draws its own, by its number."""
    if n <= MAX_EXACT:
        coalitions = torch.arange(1 << n)[:, None] >> torch.arange(n) & 1 == 1
        sizes = coalitions.sum(dim=1)
        # of a coalition of each size, without the player whose value it is; the last has none without
        weight = torch.tensor([*(1 / (n * comb(n - 1, size)) for size in range(n)), 0.0], dtype=torch.float64)
        return _Rules(coalitions, torch.where(coalitions.T, weight[sizes - 1], -weight[sizes]), None)
    draw = np.random.default_rng((orders.seed, number))
    drawn = np.array([draw.permutation(n) for _ in range(orders.count // 2)])
    places = torch.from_numpy(np.stack([drawn, n - 1 - drawn], axis=1))  # (n_pairs, 2, n): when each player changes
    # whether a player has changed after so many changes, (n_pairs, 2, n + 1, n)
    changed = places[:, :, None] < torch.arange(n + 1)[:, None]
    coalitions, numbers = torch.unique(changed.flatten(0, 2), dim=0, return_inverse=True)
    steps = numbers.view(*changed.shape[:3])
    return _Rules(coalitions, None, torch.stack([steps.gather(2, places + shift) for shift in (1, 0)]))


def _values(rules: _Rules, worth: Tensor) -> tuple[Tensor, Tensor]:
    """Values and standard errors, (n, n_players) each, from what coalitions are worth, (n_coalitions, n)."""
    if rules.changes is None:
        assert rules.weights is not None
        values = (rules.weights @ worth).T
        return values, torch.zeros_like(values)
    n_pairs, pieces = rules.changes.shape[1], torch.split(rules.changes, PAIRS, dim=1)

    def samples() -> Iterator[Tensor]:  # not all at once: (n_pairs, n_players, n) numbers may be gigabytes
        for after, before in pieces:
            yield (worth[after] - worth[before]).mean(dim=1)

    mean = torch.stack([piece.sum(dim=0) for piece in samples()]).sum(dim=0) / n_pairs
    squares = torch.stack([((piece - mean) ** 2).sum(dim=0) for piece in samples()]).sum(dim=0)
    return mean.T, (squares / (n_pairs - 1) / n_pairs).sqrt().T


def _play(network: FrozenNetwork, windows: Tensor, start: Tensor, output: int, cells: Tensor, rules: _Rules) -> Array:
    """Values and standard errors against one baseline (lookback, n_features), (2, n, n_players), model units.

    `cells` are those of each player, (n_players, lookback, n_features), bool.
    """
    n, of_players = len(windows), cells.flatten(1).float()
    moving = (windows != start).flatten(1).float() @ of_players.T > 0  # (n, n_players)
    worth = torch.empty(len(rules.coalitions), n, dtype=torch.float64)
    with torch.inference_mode():
        worth[0] = network.forward(start[None])[0, output]
        for chosen in tracked(torch.split(torch.arange(1, len(rules.coalitions)), COALITIONS) if len(cells) else ()):
            changed = (rules.coalitions[chosen].float() @ of_players > 0).view(-1, *start.shape)
            order = first_steps(changed).argsort(stable=True)
            forecasts = torch.cat([*exchange(network, start.expand_as(windows), windows, changed[order])])
            worth[chosen[order]] = forecasts[:, output].double().view(-1, n)
    return np.where(moving, torch.stack(_values(rules, worth)), 0.0)
