"""Profiles: the share of each feature in the value of each node, and at which steps of the window it is read.

Deep in a network, and downstream of an LSTM already in its first layer, a node's value is a mixture of features. Its
profile is the ledger of that value instead of the prediction's: Integrated Gradients of the node, from the mean
baseline, along paths that are bisected where the integrals are not accurate enough. The share of a feature is divided
among the steps, by lag: lag 0 is the newest step, lag 1 the one before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.forward_ad import dual_level, unpack_dual

from kanmodel.arrays import Array
from kanmodel.attribution.baseline import scaled_baselines, spread_windows
from kanmodel.attribution.paths.bisection import Integrals, PartEnds, Parts, bisect, measure_moves, part_ends
from kanmodel.attribution.paths.path import PassedNodes, paths_per_pass, points_along, take
from kanmodel.attribution.paths.quadrature import estimate_errors, nested_clenshaw_curtis
from kanmodel.computing import progress_share, tracked
from kanmodel.forecaster import Forecaster
from kanmodel.network.config import ModelConfig
from kanmodel.network.network import FrozenNetwork, Trace
from kanmodel.network.recurrent import count_weights
from kanmodel.network.wiring import Place
from kanmodel.tables.statistics.choose import choose_evenly

MIN_WINDOWS, MAX_WINDOWS = 16, 128  # taken evenly from the reference: a share needs no more
MULTIPLY_ADDS = 4e12  # a few minutes of one core, within which the number of windows stays where it can
GRAPH_VALUES, LAG_VALUES = 3e8, 4e9  # of a graph, in all passes forwards or backwards: a few seconds of one core
N_NODES = 17
TOLERANCE = 3e-2  # largest accepted error of a feature's contribution to a node, in standard deviations of the node
GRAPH_TOLERANCE = 1e-1  # of a graph, which may have hundreds of kinks along a path
HALVINGS = 10
_FORWARD_MODE = Lock()  # of which torch has one level in a process, whichever thread enters it
MAX_LAG_WINDOWS = 64  # on which shares are divided by lag, which takes a gradient of each node
LAG_MULTIPLY_ADDS = 3e10  # a few seconds of one core, as above
GRAPH_LAG_NODES = 9
SHARE_BY_FEATURE = 0.7  # of the time
MAX_CELLS = 1 << 22  # nodes x features x steps, 16 MB; a larger model has no lags
RUN_SHARE = 0.8  # of a feature's magnitude that its run of lags holds
N_READ = 3  # features named in a sentence
ROUNDING = 1e-6


@dataclass(frozen=True)
class Lags:
    """The steps at which a node reads a feature, as lags: 0 is the newest step of the window.

    Attributes:
        newest: the first lag of the shortest run of neighbouring ones that holds 80 % of the feature's share; of
            equally short runs that which holds most, of these the newest.
        oldest: the last lag of this run.
        shares: of each lag in the node's value, (lookback,), lag 0 first; they sum to the share of the feature.
    """

    newest: int
    oldest: int
    shares: NDArray[np.float32]

    def __str__(self) -> str:
        return f"lag {self.newest}" if self.newest == self.oldest else f"lags {self.newest} to {self.oldest}"


def find_lags(shares: NDArray[np.float32]) -> list[Lags]:
    """The lags of features by their shares at each lag, (n_features, lookback), lag 0 first."""
    held = np.pad(np.cumsum(shares, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    enough, lookback = (RUN_SHARE - ROUNDING) * held[:, -1], shares.shape[1]

    def hold(width: NDArray[np.int64]) -> Array:
        """What runs of a width for each feature hold from each lag on; -1 beyond the last, (n_features, lookback)."""
        ends = np.arange(lookback) + width[:, None]
        sums = np.take_along_axis(held, np.minimum(ends, lookback), axis=1) - held[:, :-1]
        return np.where(ends <= lookback, sums, -1)

    low, high = np.ones(len(shares), dtype=int), np.full(len(shares), lookback)
    while (low < high).any():  # a wider run holds no less
        middle = (low + high) // 2
        is_enough = hold(middle).max(axis=1) >= enough
        low, high = np.where(is_enough, low, middle + 1), np.where(is_enough, middle, high)
    newest = hold(high).argmax(axis=1)
    return [Lags(int(n), int(n + width - 1), of) for n, width, of in zip(newest, high, shares, strict=True)]


def describe_lags(names: Sequence[str], shares: NDArray[np.float32]) -> str:
    """``hour at lags 0 to 5, temp_c at lag 0``: the three largest by their shares at each lag, (n_names, lookback)."""
    sizes = shares.sum(axis=1)
    order = [place for place in np.argsort(-sizes, kind="stable").tolist()[:N_READ] if sizes[place] > 0]
    return ", ".join(f"{names[place]} at {of}" for place, of in zip(order, find_lags(shares[order]), strict=True))


@dataclass(frozen=True)
class Profiles:
    """The mean |contribution| of features to nodes over reference windows, as a share of all features'.

    By (stage, layer), the outputs as the last layer of the head, unless an output function stands between; of a graph
    by place, with the inputs of its layers. A node that no feature moves has 0 everywhere. The value of a front's node,
    and of one of a graph, is its sum over the steps and rows at which it is read.
    """

    shares: Mapping[Place, Array]  # (n_nodes, n_features)
    errors: Mapping[Place, Array]  # (n_nodes,): the largest estimated error of a share of the node
    lags: Mapping[Place, NDArray[np.float32]]  # shares by lag, (n_nodes, n_features, lookback); not of a front


def profile_nodes(model: Forecaster, places: Collection[Place] | None = None, with_lags: bool = True) -> Profiles:
    """Profiles of the LSTM's units and of the KANs' nodes after their inputs, over evenly chosen reference windows.

    Of a graph those at some places suffice, each of whose nodes takes time; None for all. There are no lags of a window
    of one step, nor of a model with more than 4 million nodes x features x steps.
    """
    with torch.no_grad():
        values = node_values(model.config, model.frozen.trace(model.reference.scaled), places)
    spread = torch.cat(list(values.values()), dim=1).double().std(dim=0, correction=0).numpy()
    scale = np.where(spread > 0, spread, np.inf)  # (n_nodes,): of a node that never moves nothing is asked
    windows, start = spread_windows(model, count_windows(model.config)), scaled_baselines(model)[0]

    def integrate(parts: Parts, _: Array) -> Integrals[Array]:
        return _integrate(model, part_ends(parts, start, windows), scale, places)

    batch, tolerance = paths_per_pass(model.config, N_NODES), GRAPH_TOLERANCE if model.config.graph else TOLERANCE
    with progress_share(SHARE_BY_FEATURE):
        parts, _, whole = bisect(len(windows), integrate, batch, tolerance, HALVINGS)
    magnitude = np.abs(whole.values).mean(axis=0)  # (n_nodes, n_features)
    error = whole.errors.mean(axis=0).reshape(magnitude.shape) * spread[:, None]
    total = magnitude.sum(axis=1, keepdims=True)
    shares = _divide(magnitude, total)
    moved = error + shares * error.sum(axis=1, keepdims=True)  # of the share's numerator, and of its denominator
    off, lags = _divide(moved, total).max(axis=1), dict[Place, NDArray[np.float32]]()
    ends = np.cumsum([nodes.shape[1] for nodes in values.values()])[:-1]
    if with_lags and has_lags(model.config, len(shares)):
        by_lag = np.split(_divide_by_lag(model, parts, windows, start, shares, places), ends)
        lags = {place: of for place, of in zip(values, by_lag, strict=True) if place[0] != "front"}
    shares_of, errors_of = (dict(zip(values, np.split(of, ends), strict=True)) for of in (shares, off))
    return Profiles(shares_of, errors_of, lags)


def _divide(values: Array, totals: Array) -> Array:
    """Shares of totals; 0 of none."""
    return np.divide(values, totals, out=np.zeros(np.broadcast(values, totals).shape), where=totals > 0)


def has_lags(config: ModelConfig, n_nodes: int) -> bool:
    """Whether the shares of so many nodes are divided by lag."""
    return config.lookback > 1 and n_nodes * len(config.features) * config.lookback <= MAX_CELLS


def count_windows(config: ModelConfig) -> int:
    """How many reference windows are profiled: all that are useful, or fewer of a model that takes minutes."""
    n_nodes = sum(map(len, config.wiring.ids.values())) if config.graph else config.n_units
    return _afford(config, N_NODES * min(len(config.features), n_nodes), MULTIPLY_ADDS, GRAPH_VALUES, MAX_WINDOWS)


def _afford(config: ModelConfig, passes: int, multiply_adds: float, values: float, most: int) -> int:
    """How many windows, each of so many passes, take those multiply-adds of a chain, or values of a graph."""
    cost = config.graph_size if config.graph else config.lookback * count_weights(config)
    affordable = int((values if config.graph else multiply_adds) / (passes * cost)) if cost else most
    return min(max(affordable, MIN_WINDOWS), most)


def _divide_by_lag(
    model: Forecaster, parts: Parts, windows: Tensor, start: Tensor, shares: Array, places: Collection[Place] | None
) -> NDArray[np.float32]:
    """The shares, (n_nodes, n_features), in proportion to mean |contribution| at each lag, (..., lookback), float32.

    If the chosen windows do not move a node by a feature that has a share in it, the others follow for this node. Paths
    of a graph are not divided, since this error is far below that of taking other windows.
    """
    n, config = len(windows), model.config
    n_nodes = GRAPH_LAG_NODES if config.graph else N_NODES
    if config.graph:
        parts = Parts(np.arange(n), np.zeros(n), np.ones(n))
    count = min(n, _afford(config, n_nodes * len(shares), LAG_MULTIPLY_ADDS, LAG_VALUES, MAX_LAG_WINDOWS))
    chosen = np.isin(np.arange(n), choose_evenly(n, count))
    size = max(1, min(paths_per_pass(config, n_nodes), MAX_CELLS // (shares.size * config.lookback)))
    magnitude, missing = np.zeros((*shares.shape, config.lookback)), np.ones(len(shares), dtype=np.bool_)
    parts = take(parts, np.argsort(parts.path, kind="stable"))  # one path after the other
    for some in (chosen, ~chosen):
        of_some = take(parts, some[parts.path])
        cells, path = np.zeros_like(magnitude[missing]), -1
        n_parts = len(of_some.path) if missing.any() else 0
        for batch in tracked([slice(first, first + size) for first in range(0, n_parts, size)]):
            of_batch = take(of_some, batch)
            found = _integrate_cells(model, part_ends(of_batch, start, windows), places, missing, n_nodes)
            for at, of_part in zip(of_batch.path.tolist(), found, strict=True):
                if at != path:
                    magnitude[missing] += np.abs(cells, out=cells)
                    cells, path = np.zeros_like(cells), at
                cells += of_part
        magnitude[missing] += np.abs(cells)
        total = magnitude.sum(axis=2)
        missing = ((total == 0) & (shares > 0)).any(axis=1)
    lags: NDArray[np.float32] = (_divide(shares, total)[..., None] * magnitude)[..., ::-1].astype(np.float32)
    return lags


def _integrate_cells(
    model: Forecaster, ends: PartEnds, places: Collection[Place] | None, wanted: NDArray[np.bool_], n_nodes: int
) -> Array:
    """Contributions of features at each step to some nodes, (n_parts, n_wanted, n_features, lookback), oldest first."""
    rule, n = nested_clenshaw_curtis(n_nodes), len(ends.ends)
    points = points_along(ends.starts, ends.ends, rule.nodes).flatten(0, 1).requires_grad_()
    weights, found = torch.from_numpy(rule.weights[0]), list[Tensor]()
    with torch.enable_grad():
        values = node_values(model.config, model.frozen.trace(points), places)
        for node in torch.cat(list(values.values()), dim=1)[:, torch.from_numpy(wanted)].unbind(1):
            (gradient,) = torch.autograd.grad(node.sum(), points, retain_graph=True)
            mean = weights @ gradient.double().reshape(n, n_nodes, -1)
            found.append(mean.view_as(ends.change) * ends.change)
    cells: Array = torch.stack(found, dim=1).transpose(2, 3).numpy()
    return cells


def _integrate(model: Forecaster, ends: PartEnds, scale: Array, places: Collection[Place] | None) -> Integrals[Array]:
    """Contributions of features to all nodes, (n_parts, n_nodes, n_features); errors in units of each node's scale."""
    rule, n = nested_clenshaw_curtis(N_NODES), len(ends.ends)
    points = points_along(ends.starts, ends.ends, rule.nodes).flatten(0, 1).requires_grad_()
    with torch.enable_grad():
        trace = model.frozen.trace(points)
        nodes = node_values(model.config, trace, places)
        values = torch.cat(list(nodes.values()), dim=1)
        change = ends.change.to(points.dtype).repeat_interleave(N_NODES, dim=0)
        slopes = _slopes_along(model.frozen, trace, nodes, points, change)
    slopes = slopes.double().view(n, N_NODES, -1)  # of all nodes, by feature
    entries = (torch.from_numpy(rule.weights) @ slopes).view(n, 3, *scale.shape, -1).transpose(0, 1).numpy()
    values = values.detach().double().view(n, N_NODES, -1)
    moved = (values[:, -1] - values[:, 0]).numpy()
    residual = (np.abs(entries.sum(axis=3) - moved) / scale).max(axis=2)  # (3, n)
    return to_integrals(model, points, trace, entries, entries / scale[:, None], residual)


def to_integrals(
    model: Forecaster, points: Tensor, trace: Trace, entries: Array, scaled: Array, residual: Array
) -> Integrals[Array]:
    """Integrals of entries by three nested rules, (3, n, ...), with errors of the scaled ones and residuals (3, n)."""
    rule, n = nested_clenshaw_curtis(N_NODES), entries.shape[1]
    errors, rate = estimate_errors(N_NODES, scaled.reshape(3, n, -1), residual)
    passed = PassedNodes.of(points, trace, (n, N_NODES))
    move, _ = measure_moves(model.frozen, model.node_ranges, rule.nodes, passed)
    return Integrals(entries[0], errors, residual[0], move, np.full(n, N_NODES), rate, np.full((n, 1), np.nan))


def _slopes_along(
    network: FrozenNetwork, trace: Trace, values: Mapping[tuple[str, int], Tensor], points: Tensor, change: Tensor
) -> Tensor:
    """How fast each node's value moves with each feature along the paths, (n_points, n_nodes, n_features).

    Only the front's nodes and the readout take a pass through the steps, one for each feature or one for each node,
    whichever are fewer; the head's take the chain rule.
    """

    def slopes(node: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(node.sum(), points, retain_graph=True)
        return (gradient * change).sum(dim=1)  # (n_points, n_features)

    slopes_of = []
    if not network.is_path:
        if change.shape[2] < sum(nodes.shape[1] for nodes in values.values()):
            return _push_forward(network, [*values], points, change)
        return torch.stack([slopes(node) for nodes in values.values() for node in nodes.unbind(1)], dim=1)
    config = network.config
    if network.recurrents and not config.front and len(config.features) < config.n_readout:
        readout = network.readout_slopes(trace, change)
    else:
        readout = torch.stack([slopes(node) for node in trace.readout.unbind(1)], dim=1)
    for (stage, _), nodes in values.items():
        if stage in ("head", "output"):
            jacobian = [torch.autograd.grad(n.sum(), trace.readout, retain_graph=True)[0] for n in nodes.unbind(1)]
            slopes_of.append(torch.stack(jacobian, dim=1) @ readout)
        elif nodes is trace.readout:
            slopes_of.append(readout)
        else:
            slopes_of.append(torch.stack([slopes(node) for node in nodes.unbind(1)], dim=1))
    return torch.cat(slopes_of, dim=1)


@torch.no_grad()
def _push_forward(network: FrozenNetwork, places: Collection[Place], points: Tensor, change: Tensor) -> Tensor:
    """The same of a graph by forward mode: one pass for each feature serves all nodes."""
    slopes: list[Tensor] = []
    with _FORWARD_MODE, dual_level():
        of_feature = torch.diag_embed(change).unbind(dim=-1)
        for trace in network.push_forward(points, of_feature):
            nodes = node_values(network.config, trace, places)
            values, moved = unpack_dual(torch.cat([*nodes.values()], dim=1))  # type: ignore[no-untyped-call]
            slopes.append(torch.zeros_like(values) if moved is None else moved)
    return torch.stack(slopes, dim=2)


def node_values(
    config: ModelConfig, trace: Trace, places: Collection[tuple[str, int]] | None = None
) -> dict[tuple[str, int], Tensor]:
    """Values of the nodes, (batch, n_nodes) by (stage, layer); of a graph those at some places, if they are given."""
    n, wiring, values = len(trace.outputs), config.wiring, dict[tuple[str, int], Tensor]()

    def add(place: tuple[str, int], rows: Tensor) -> None:
        values[place] = rows.reshape(n, -1, rows.shape[-1]).sum(dim=1)

    for place, read in wiring.read.items():
        of = trace.loops[place[1]] if place[0] == "loop" else trace.recurrents[place[1]].states[-1]
        states = of.reshape(n, -1, read.shape[-1])
        add(place, states * torch.from_numpy(read.reshape(states.shape[1:])))
    for stage, layers in trace.stages.items():
        if stage == "head" and config.readout_stage is not None:
            values[config.readout_stage, 0] = trace.readout
        for number, layer in enumerate(layers):
            if (place := wiring.reads[stage, number]) != (stage, number):  # inputs that operations compute
                add(place, layer.inputs)
            add((stage, number + 1), layer.nodes)
    output = ("output", len(config.head))
    if config.output_function is not None or output in wiring.ids:
        values[output] = trace.outputs
    return {place: of for place, of in values.items() if places is None or not wiring.links or place in places}
