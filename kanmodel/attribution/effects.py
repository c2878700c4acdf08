"""Feature ablation: the effect of removing a part of a window, the effect of that part alone, and interactions.

A part is removed by setting it to the baseline's values (Covert et al. 2021, arXiv 2011.14878). For a window x, a
baseline x0, one output F and the cells S of a part:

    removed   F(x) - F(x with x0 in S)      effect of removing the part, with everything else present
    alone     F(x0 with x in S) - F(x0)     effect of the part with everything else at the baseline

For a part that does not interact with the rest, both equal its contribution up to the tolerance of the ledger; else
`removed - alone` is the interaction. Neither sums to F(x) - F(x0).

The interaction of two features in the model, as opposed to their correlation in the data, is the mean |f(x) - f(x
without i) - f(x without j) + f(x without both)| over the reference windows, a local second difference (Grabisch and
Roubens 1999, whose index averages it over all sets of other features). ``Without`` puts the feature's mean over the
reference windows at every step. It is 0, up to rounding, for a pair of features that the model adds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import Baselines, scaled_baselines, spread_windows
from kanmodel.attribution.paths.bisection import BATCH
from kanmodel.computing import pause, progress_share, tracked
from kanmodel.forecaster import Forecaster, refuse_non_finite_outputs
from kanmodel.network.config import ModelConfig
from kanmodel.network.connections import connected_features
from kanmodel.network.network import FrozenNetwork, apply_output_function, reduce_steps
from kanmodel.network.recurrent import count_gates
from kanmodel.tables.statistics.bootstrap import Bootstrap

BATCH_BYTES = 1 << 20  # of gates of a batch of changed windows: they stay in the processor's cache
BATCH_WINDOWS = 1 << 11  # most changed windows of a batch
N_WINDOWS = 64  # of the screening
N_FEATURES = 24
N_PAIRS = 10


class Effects(NamedTuple):
    """Effects of parts of n windows on the forecast of one output, in the target's unit, (n, ...) each.

    Attributes:
        removed: F(x) minus the forecast with the part at the baseline.
        alone: the forecast with only the part at the window's values, minus F(x0).
    """

    removed: Array
    alone: Array

    @property
    def together(self) -> Array:
        """`removed` - `alone`: the interaction of a part with all others."""
        difference: Array = self.removed - self.alone
        return difference


def select_cells(
    config: ModelConfig, features: Sequence[Sequence[int]], rows: Sequence[slice] = (slice(None),)
) -> Tensor:
    """The cells of each set of features in each range of rows, (n_sets * n_ranges, lookback, n_features), bool."""
    cells = torch.zeros(len(features), len(rows), *config.window_shape, dtype=torch.bool)
    for of_set, chosen in zip(cells, features, strict=True):
        for of_range, steps in zip(of_set, rows, strict=True):
            of_range[steps, list(chosen)] = True
    return cells.flatten(0, 1)


def each_feature(config: ModelConfig) -> Tensor:
    """The cells of each feature, (n_features, lookback, n_features), bool."""
    return select_cells(config, [(feature,) for feature in range(len(config.features))])


def each_cell(config: ModelConfig) -> Tensor:
    """Each step of each feature, oldest step first, (lookback * n_features, lookback, n_features), bool."""
    return torch.eye(prod(config.window_shape), dtype=torch.bool).view(-1, *config.window_shape)


def live_features(model: Forecaster, output: int) -> Tensor:
    """Whether a path leads from each feature to an output, (n_features,), bool."""
    return torch.tensor(model.derived.get(("connected", output), lambda: connected_features(model.network, output)))


def measure_effects(model: Forecaster, windows: Tensor, output: int, baseline: Baselines, parts: Tensor) -> Effects:
    """Effects of parts on forecasts, (n, n_parts): at most 2 forecasts per window, baseline and part, and 2 without.

    `windows` are in model units, (n, lookback, n_features); `parts` are the cells of each, (n_parts, lookback,
    n_features), bool, such as `each_feature`. Over several baselines effects are averaged; they are exactly 0 where the
    part equals the baseline or does not reach the output.

    Raises:
        DataError: the baseline cannot be used.
        NonFiniteError: a forecast is not finite.
    """
    live, of_baselines = live_features(model, output), []
    for start in tracked(scaled_baselines(model, baseline)):
        batches = [_ablate(model, batch, start, output, parts, live) for batch in tracked(torch.split(windows, BATCH))]
        of_baselines.append(np.concatenate(batches, axis=1))
    effects = Effects(*np.mean(of_baselines, axis=0) * float(model.scaling.output_scale[output]))
    for values in effects:
        refuse_non_finite_outputs(values)
    return effects


def forecast_without(model: Forecaster, windows: Tensor, output: int, gone: NDArray[np.bool_]) -> Array:
    """An output with features replaced by their means over the reference windows (mean ablation), (n,), model units.

    `windows` are (n, lookback, n_features), model units; `gone` features are replaced, (n_features,) or by window.
    """
    pause()
    with torch.inference_mode():
        changed = torch.where(torch.from_numpy(gone)[..., None, :], scaled_baselines(model), windows)
        forecasts: Array = model.network(changed)[:, output].double().numpy()
    return forecasts


def _ablate(model: Forecaster, windows: Tensor, start: Tensor, output: int, parts: Tensor, live: Tensor) -> Array:
    """`removed` and `alone` against one baseline (lookback, n_features), (2, n, n_parts), model units.

    `parts` are the cells of each part, (n_parts, lookback, n_features), bool.
    """
    n, starts = len(windows), start.expand_as(windows)
    # Forecasts of one window in batches of different sizes may differ by rounding, so features without any effect are
    # found from the connections of the network, the `live` ones, not by comparing forecasts.
    moves = (windows != start) & live
    moving = moves.flatten(1).float() @ parts.flatten(1).float().T > 0  # (n, n_parts)
    acting = moving.any(dim=0).nonzero().flatten()
    acting = acting[first_steps(parts[acting]).argsort(stable=True)]

    effects = torch.zeros(2, n, len(parts), dtype=torch.float64)
    with torch.inference_mode():
        kept, given = torch.cat([windows, starts]), torch.cat([starts, windows])
        changes = torch.cat([parts.new_zeros(1, *parts.shape[1:]), parts[acting]])  # the first changes nothing
        forecasts = torch.cat([*exchange(model.frozen, kept, given, changes)])
        whole, changed = forecasts[:, output].double().view(-1, 2, n).tensor_split([1])
        effects[:, :, acting] = (whole - changed).permute(1, 2, 0)
    return np.where(moving, effects * torch.tensor([[[1.0]], [[-1.0]]]), 0.0)


def first_steps(parts: Tensor) -> Tensor:
    """The first step of each part, (n_parts, lookback, n_features) -> (n_parts,)."""
    return parts.any(dim=2).int().argmax(dim=1)


def exchange(network: FrozenNetwork, kept: Tensor, given: Tensor, parts: Tensor) -> Iterator[Tensor]:
    """Yields forecasts of n windows with each part from n others, (some parts * n, n_outputs), part by part.

    Windows are (n, lookback, n_features), parts (n_parts, lookback, n_features), in the order of their first steps.
    """
    config, n = network.config, len(kept)
    n_steps = config.lookback * max(len(config.features), config.n_steps, config.n_units)  # numbers in all steps
    n_numbers = max(1, *count_gates(config), n_steps // 8, config.n_readout // 2)
    n_windows = min(BATCH_BYTES // (kept.itemsize * n_numbers), BATCH_WINDOWS)
    batches = torch.split(parts, max(n_windows // n, 1)) if len(parts) else ()
    shares = config.recurrent is not None and not config.recurrent.bidirectional
    if batches and shares and bool(first_steps(parts[-1:])):
        yield from _resume(network, kept, given, batches)
        return
    for batch in batches:
        pause()
        yield network.forward(torch.where(batch[:, None], given, kept).flatten(0, 1))


def _resume(network: FrozenNetwork, kept: Tensor, given: Tensor, batches: Sequence[Tensor]) -> Iterator[Tensor]:
    """As `exchange`, for a recurrent network in one direction.

    Until its first changed step, a window has the states of the one that is kept. So only the steps from there on are
    computed, in a batch that grows from step to step: n columns for the first part, n for the second, and so on.
    """
    config, recurrent, n = network.config, network.recurrents[0], len(kept)

    def add_inputs(steps: Array, gates: Array) -> None:
        """Sets gates of the first layer to what steps add to them, (n_features, n) -> (n_gates, n)."""
        if config.front:
            steps = network.rows["front", 0].forward(torch.from_numpy(steps).T).T.numpy()
        recurrent.add_inputs(steps, gates)

    of_kept, of_given = (windows.permute(1, 2, 0).contiguous().numpy() for windows in (kept, given))
    lookback, n_features, _ = of_kept.shape
    gates_of_kept = np.empty((lookback, sum(count_gates(config)[:1]), n), of_kept.dtype)
    for step in range(lookback):
        add_inputs(of_kept[step], gates_of_kept[step])
    before = [recurrent.start(n)]  # states of the kept windows before each step, (num_layers, n_states, n_units, n)
    for batch in batches:
        pause()
        firsts, touched, cells = first_steps(batch).tolist(), batch.any(dim=2).numpy(), batch.permute(1, 2, 0).numpy()
        for step in range(len(before) - 1, firsts[-1]):
            before.append(recurrent.advance(before[-1].copy(), gates_of_kept[step].copy()))
        states = np.empty((*before[0].shape[:-1], len(batch) * n), of_kept.dtype)
        gates = np.empty((len(gates_of_kept[0]), len(batch) * n), of_kept.dtype)
        outputs = np.empty((1 if config.readout == "last" else lookback, config.n_units, len(batch) * n), of_kept.dtype)
        if len(outputs) > 1:
            for step in range(firsts[-1]):
                outputs[step] = np.tile(before[step + 1][-1, 0], len(batch))
        joined = 0
        for step in range(firsts[0], lookback):
            new, joined = joined, bisect_right(firsts, step)
            if new < joined:
                states[..., new * n : joined * n] = np.tile(before[step], joined - new)
            changed = np.flatnonzero(touched[:joined, step])
            if len(changed) < joined:
                by_part = gates[:, : joined * n].reshape(len(gates), joined, n)
                by_part[:] = gates_of_kept[step][:, None]
            if len(changed):
                first, last = changed[0], changed[-1] + 1
                cell = cells[step, :, first:last, None]
                swapped = np.where(cell, of_given[step][:, None], of_kept[step][:, None])
                add_inputs(swapped.reshape(n_features, -1), gates[:, first * n : last * n])
            recurrent.advance(states[..., : joined * n], gates[:, : joined * n])
            if len(outputs) > 1 or step == lookback - 1:
                outputs[step - lookback, :, : joined * n] = states[-1, 0, :, : joined * n]
        readout = reduce_steps(config, torch.from_numpy(outputs.transpose(2, 0, 1))).contiguous()
        yield apply_output_function(config, network.rows["head", 0].forward(readout))


@dataclass(frozen=True)
class Interaction:
    """Two features, and the mean magnitude of their second difference, the target's unit, with its 95 % interval."""

    features: tuple[str, str]
    strength: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Interactions:
    """The strongest interactions that the screening found."""

    pairs: tuple[Interaction, ...]  # at most 10, strongest first
    n_features: int
    n_screened: int  # pairs
    screening_windows: int


def measure_interactions(model: Forecaster, output: int) -> Interactions:
    """The strongest interactions of any two features for output number `output`.

    They are screened on 64 windows: of more than 24 features each against all others together, which keeps 24 (one
    whose interactions cancel in their sum may be missed), then their pairs, of which 10 are measured on all windows.
    """
    names, few = model.config.feature_names, spread_windows(model, N_WINDOWS)
    difference, chosen = _second_difference(model, output, few), list(range(len(names)))
    if len(names) > N_FEATURES:
        against_all = [difference({feature}, {*chosen} - {feature}) for feature in chosen]
        chosen = sorted(_largest(against_all, N_FEATURES))
    candidates = list(combinations(chosen, 2))
    with progress_share(0.5):
        differences = [difference({i}, {j}) for i, j in tracked(candidates)]
    difference = _second_difference(model, output, model.reference.scaled)
    bootstrap, found = Bootstrap(len(model.reference.scaled)), []
    for i, j in tracked(candidates[pair] for pair in _largest(differences, N_PAIRS)):
        estimate = bootstrap.mean(difference({i}, {j}))
        found.append(Interaction((names[i], names[j]), float(estimate.value), estimate.bounds()))
    found.sort(key=lambda interaction: -interaction.strength)
    return Interactions(tuple(found), len(names), len(candidates), len(few))


def _largest(differences: Sequence[Array], n: int) -> list[int]:
    """Places of the n largest means, largest first."""
    means = np.array([values.mean() for values in differences])
    return [int(place) for place in np.argsort(-means, kind="stable")[:n]]


def _second_difference(model: Forecaster, output: int, windows: Tensor) -> Callable[[set[int], set[int]], Array]:
    """The magnitude of the second difference of two sets of features at each of n windows, (n,), the target's unit."""
    features, scale = np.arange(windows.shape[2]), float(model.scaling.output_scale[output])

    @cache
    def without(gone: frozenset[int]) -> Array:
        return forecast_without(model, windows, output, np.isin(features, list(gone))) * scale

    def difference(one: set[int], other: set[int]) -> Array:
        first, second, both = map(frozenset, (one, other, one | other))
        magnitude: Array = np.abs(without(frozenset()) - without(first) - without(second) + without(both))
        return magnitude

    return difference
