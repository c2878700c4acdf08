"""Adaptive integration paths: more nodes where these gain digits, bisection where they do not.

Contributions are integrals: those of the parts of a path add up to its own. Each path starts with few nodes, and gets
those between them as long as the rate of convergence promises the tolerance. A part for which it does not is divided:
an LSTM may switch from one state to another within a thousandth of a path.

A part is not accurate enough while one of three measures is too large: the residual, which is the deviation of layers
from completeness, and of nodes from conservation; the largest estimated error of any entry that is asked for, since
errors of opposite sign cancel in every sum; and the largest move of a feature, gate, node or bounded function between
neighbouring points, since an estimate misses what happens between two points without moving anything there. What an
edge's function may hide there is evaluated, and counts as an error, as does what the sums up to each point miss of the
forecast there: jumps of opposite sign cancel at the end. A part that crosses kinks of activations, such as relu's, is
divided at several of them at once; others where a node moves too far, or else where the gradients change most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.attribution.paths import path
from kanmodel.attribution.paths.path import (
    FLOW,
    Contributions,
    Detail,
    PassedNodes,
    PathSamples,
    concatenate,
    map_arrays,
    take,
)
from kanmodel.attribution.paths.quadrature import (
    clenshaw_curtis,
    estimate_errors,
    interpolation,
    nested_clenshaw_curtis,
)
from kanmodel.computing import pause, progress_share, tracked
from kanmodel.network.layer import InputTransform, KANLayer
from kanmodel.network.network import FrozenNetwork, Network
from kanmodel.network.operations import KINKS
from kanmodel.network.ranges import MoveRanges, NodeRanges
from kanmodel.network.recurrent import FrozenRecurrent, RecurrentTrace

BATCH = 64  # paths that are bisected together
MAX_NODES = 129  # of a rule, unless it starts with more
FEW_NODES = 17  # do not show yet how fast a rule converges: without a kink there are always more
MAX_PARTS = 64  # a path with this many parts is not bisected further
MAX_MOVE = 0.5  # largest accepted move of a node between neighbouring points, in widths of its usual interval
SLOWEST_RATE = 0.7  # of convergence without a kink: what few nodes show is often too slow
KINK_SHARE = 0.02  # of what the gradients change at one that is the least error: rules agree by chance on where it is
KINK_RATE = 0.5  # across a kink it is at least this
MIDDLE = 0.5
MOST_KINKS = 7  # at which a part is divided at once: at all of many, most parts would need no nodes of their own
LEAST_PART = 0.1  # of a part, on either side of where it is divided, except at a kink
MARGIN = 1e-4  # a kink this close to an end is at the end, up to the error of interpolation
AT_ONCE = 1_000_000  # values of edges between points
FINER = 8  # intervals in each between two points at whose ends functions are evaluated

Values = TypeVar("Values")


class Parts(NamedTuple):
    """Parts of paths, in any order."""

    path: NDArray[np.int64]  # indices of the paths, (n_parts,)
    low: Array  # where each begins, 0 at the baseline, (n_parts,)
    high: Array  # where it ends, 1 at the window, (n_parts,)

    def divide(self, at: Array) -> Parts:
        """Those that they are divided into at positions from 0 to 1 on each, (n_parts, n), any but the first NaN."""
        at = np.sort(at, axis=1)  # NaN last
        places = self.low[:, None] + at * (self.high - self.low)[:, None]
        low = np.column_stack([self.low, places])
        high = np.column_stack([np.where(np.isnan(places), self.high[:, None], places), self.high])
        exist = ~np.isnan(low)
        return Parts(self.path.repeat(exist.sum(axis=1)), low[exist], high[exist])


class Integrals(NamedTuple, Generic[Values]):
    """Integrals over n parts of paths."""

    values: Values  # what adds up over the parts of a path, arrays (n, ...) in tuples
    errors: Array  # of every entry, from `estimate_errors`, (n, n_entries)
    residual: Array  # largest deviation of the sums, (n,)
    move: Array  # the largest of any node between neighbouring points, in widths of its usual interval, (n,)
    n_nodes: NDArray[np.int64]  # of the rule, (n,)
    rate: Array  # by which the last doubling of the nodes has reduced the errors, (n,)
    divide_at: Array  # where to divide each part if necessary, 0 to 1, (n, n_places), NaN for none; first NaN: middle

    @property
    def error(self) -> Array:
        """The largest error of any entry, (n,); not below the residual, which is itself an error of entries."""
        return cast(Array, np.maximum(self.errors.max(axis=1), self.residual))

    def within(self, tolerance: float | Array) -> NDArray[np.bool_]:
        """Whether the error is within the tolerance and no move is too large, (n,)."""
        return (self.error <= tolerance) & (self.move <= MAX_MOVE)

    def total(self, parts: Parts, n_nodes: NDArray[np.int64]) -> Integrals[Values]:
        """Over whole paths: sums of values, of errors and residuals by magnitude, and the largest move."""
        n = len(n_nodes)
        if n == len(parts.path):  # every part is a whole path
            return self
        move = np.zeros(n)
        np.maximum.at(move, parts.path, self.move)
        added = map_arrays(lambda values: add_parts(values, parts), (self.values, self.errors, self.residual))
        return Integrals(
            *added, move, n_nodes, rate=np.ones(n), divide_at=np.full((n, self.divide_at.shape[1]), np.nan)
        )


def bisect(
    n: int,
    integrate: Callable[[Parts, Array], Integrals[Values]],
    batch: int,
    tolerance: float | Array,
    halvings: int,
) -> tuple[Parts, Integrals[Values], Integrals[Values]]:
    """Integrates along n paths, bisecting parts until each path is within the tolerance or a limit is reached.

    Args:
        n: number of paths.
        integrate: integrates over parts, given the accepted error of each, (n_parts,).
        batch: parts per call of `integrate`.
        tolerance: largest accepted residual and error of a path, or of each, (n,).
        halvings: most bisections of a part.

    Returns:
        The parts, the integrals over each, and those over the whole paths, with all evaluated points as their nodes.
    """

    def integrate_all(parts: Parts, accepted: Array) -> Integrals[Values]:
        batches = [slice(first, first + batch) for first in range(0, len(parts.path), batch)]
        return concatenate([integrate(take(parts, chosen), accepted[chosen]) for chosen in tracked(batches)])

    parts, tolerance = Parts(np.arange(n), np.zeros(n), np.ones(n)), np.broadcast_to(tolerance, n)
    with progress_share(0.5):  # how often paths are bisected is not known before
        found = integrate_all(parts, tolerance)
    n_nodes = found.n_nodes.copy()
    for _ in range(halvings):
        coarse = _find_coarse(parts, found, tolerance)
        if not coarse.any():
            break
        pause()
        most = 2 * MAX_PARTS // np.bincount(parts.path)[parts.path[coarse]]  # as many for each
        divide_at = np.where(np.arange(found.divide_at.shape[1]) < most[:, None] - 1, found.divide_at[coarse], np.nan)
        divide_at[:, 0] = np.nan_to_num(divide_at[:, 0], nan=MIDDLE)
        halves = take(parts, coarse).divide(divide_at)
        fine = take(parts, ~coarse)
        share = (tolerance / np.bincount(np.append(fine.path, halves.path), minlength=n))[halves.path]
        with progress_share(0.5):
            added = integrate_all(halves, share)
        np.add.at(n_nodes, halves.path, added.n_nodes)
        parts, found = concatenate([fine, halves]), concatenate([take(found, ~coarse), added])
    return parts, found, found.total(parts, n_nodes)


def add_parts(values: Array, parts: Parts) -> Array:
    """Sums over the parts of each path, (n_parts, ...) -> (n, ...)."""
    total = torch.zeros(int(parts.path.max()) + 1, *values.shape[1:], dtype=torch.float64)
    return total.index_add_(0, torch.from_numpy(parts.path), torch.from_numpy(values)).numpy()


class PartEnds(NamedTuple):
    """Where n parts begin and end, and the change between in float64, (n, lookback, n_features) each."""

    path: NDArray[np.int64]  # indices of the paths, (n,)
    starts: Tensor
    ends: Tensor
    change: Tensor


def part_ends(parts: Parts, start: Tensor, windows: Tensor) -> PartEnds:
    """The ends of parts of the paths from one window (lookback, n_features) to others (n, lookback, n_features)."""
    of_part = windows[torch.from_numpy(parts.path)]
    low, high = (torch.from_numpy(ends).to(windows.dtype)[:, None, None] for ends in (parts.low, parts.high))
    change = (of_part - start).double() * (high - low).double()
    return PartEnds(parts.path, torch.lerp(start, of_part, low), torch.lerp(start, of_part, high), change)


def _find_coarse(parts: Parts, found: Integrals[Values], tolerance: Array) -> NDArray[np.bool_]:
    """The parts to bisect: in each path above the tolerance those with more than an equal share, and those with a jump.

    Residuals and errors of different parts could cancel, so their magnitudes are added.
    """
    n_parts = np.bincount(parts.path)
    share = (tolerance / n_parts)[parts.path]
    coarse = found.error > share
    if coarse.any():
        above = np.maximum(add_parts(found.errors, parts).max(axis=1), add_parts(found.residual, parts)) > tolerance
        coarse &= above[parts.path]
    coarse |= found.move > MAX_MOVE
    return coarse & (n_parts < MAX_PARTS)[parts.path]


class Walk(NamedTuple):
    """The paths of a ledger, and the rules along them."""

    network: FrozenNetwork
    ranges: NodeRanges  # usual ranges of its nodes
    windows: Tensor  # the ends of the paths, (n, lookback, n_features), model units, in the network's type
    start: Tensor  # the start of all paths, (lookback, n_features)
    outputs: NDArray[np.int64]  # what each path explains, (n,)
    spread: Array  # its standard deviation on the reference windows, model units, (n,)
    detail: Detail  # of the contributions whose errors count
    n_nodes: int  # of the rule that a path starts with
    part_nodes: int  # of the one that a part of it starts with
    halvings: int  # most bisections of a part; without any, it has just those nodes

    def explain(self, tolerance: Array) -> Integrals[Contributions]:
        """The contributions along all paths, with the largest error of each as its one entry; as `bisect`.

        Paths to several outputs share passes of the network.
        """
        network = self.network.network
        batch = path.paths_per_pass(network.config, self.part_nodes)
        parts, found, whole = bisect(len(self.windows), self._integrate_parts, batch, tolerance, self.halvings)
        first, last = (np.flatnonzero(at)[np.argsort(parts.path[at])] for at in (parts.low == 0, parts.high == 1))
        start, places = found.values.start[first], take(found.values.places, last)
        contributions, residual = whole.values._replace(start=start, places=places), whole.residual
        if len(parts.path) > len(start):  # of the sums over parts, since the residuals of parts may cancel
            layers = path.list_layers(network, self.outputs, contributions)
            residual = path.measure_residual(network, layers, contributions.change)
        return whole._replace(values=contributions, errors=whole.errors.max(axis=1, keepdims=True), residual=residual)

    @torch.inference_mode()
    def _integrate_parts(self, parts: Parts, accepted: Array) -> Integrals[Contributions]:
        ends = part_ends(parts, self.start, self.windows)
        n_nodes = self.n_nodes if (parts.high - parts.low == 1).all() else self.part_nodes
        return self._refine(ends, self._sample(ends, nested_clenshaw_curtis(n_nodes).nodes), accepted)

    def _sample(self, ends: PartEnds, nodes: Array) -> PathSamples:
        return path.sample_path(self.network, ends.starts, ends.ends, nodes, self.outputs[ends.path], self.detail)

    def _refine(self, ends: PartEnds, samples: PathSamples, accepted: Array) -> Integrals[Contributions]:
        """Integrals over parts, with more nodes for those in which they promise the accepted error (n,) of each.

        If the convergence is geometric, each doubling of the nodes squares the rate of the one before. What lies
        between the points is measured where these are no longer the reason for more of them.
        """
        found, n_nodes = self._integrate(ends, samples), samples.outputs.shape[1]
        doublings = max(((MAX_NODES - 1) // (n_nodes - 1)).bit_length() - 1, 0) if self.halvings else 0
        exponent, nodes = 2 ** (doublings + 1) - 2, nested_clenshaw_curtis(n_nodes).nodes
        kinks, jump = divide_at_kinks(self.network.network, samples, ends.change, nodes, accepted)
        found.errors[:, -1] = np.maximum(found.errors[:, -1], KINK_SHARE * jump)
        if (found.error > accepted).any():
            rate = np.where(
                np.isnan(kinks[:, 0]), np.minimum(found.rate, SLOWEST_RATE), np.maximum(found.rate, KINK_RATE)
            )
            found = found._replace(rate=rate, divide_at=kinks)
        promised = found.error * found.rate**exponent <= accepted
        promised |= np.isnan(found.divide_at[:, 0]) & (n_nodes <= FEW_NODES)
        some = (found.error > accepted) & promised & (doublings > 0)
        if not some.all():
            found.move[~some], hidden = self._look_between(ends, samples, ~some)
            found.errors[~some, -1] += hidden
            promised = (found.error * found.rate**exponent <= accepted) & (found.move <= MAX_MOVE * 2**doublings)
            some |= promised & ~found.within(accepted) & (doublings > 0)
            coarse = ~some & ~found.within(accepted) & np.isnan(found.divide_at[:, 0])
            if coarse.any():  # gradients do not show what lies between the points
                steep = divide_where_steep(ends.change[coarse], samples.gradient[coarse], nodes)
                moving = divide_where_moving(self.ranges, take(samples.passed.watched, coarse), nodes)
                found.divide_at[coarse, 0] = np.where(found.move[coarse] > MAX_MOVE, moving, steep)
        if not some.any():
            return found
        of_some, finer = take(ends, some), nested_clenshaw_curtis(2 * n_nodes - 1)
        both = take(samples, some).interleave(self._sample(of_some, finer.nodes[1::2]))
        return path.merge_rows(some, self._refine(of_some, both, accepted[some]), take(found, ~some))

    def _integrate(self, ends: PartEnds, samples: PathSamples) -> Integrals[Contributions]:
        """Integrals over n parts, without what lies between the points."""
        n, n_nodes = samples.outputs.shape
        network = self.network.network
        nested, gaps = path.integrate(ends.change, samples, nested_clenshaw_curtis(n_nodes), self.network.lines)
        places = path.find_places(network, samples) if self.detail in FLOW else None
        layers = path.list_layers(network, np.tile(self.outputs[ends.path], 3), nested)
        residual = path.measure_residual(network, layers, nested.change).reshape(3, n)
        arrays = [values for layer in layers[:-1] for values in layer[2:5] if values is not None]
        arrays += [nested.steps] if self.detail != "features" else []
        entries = np.concatenate([values.reshape(3, n, -1) for values in arrays], axis=2)
        errors, rate = estimate_errors(n_nodes, entries, residual if self.detail in FLOW else gaps)
        errors = np.concatenate([errors, gaps[0][:, None]], axis=1)  # to it comes what is hidden between the points
        return Integrals(
            take(nested, slice(n))._replace(places=places),
            errors,
            residual[0],
            np.zeros(n),
            np.full(n, n_nodes),
            rate,
            np.full((n, MOST_KINKS), np.nan),
        )

    def _look_between(self, ends: PartEnds, samples: PathSamples, chosen: NDArray[np.bool_]) -> tuple[Array, Array]:
        """The largest move between two points of the chosen paths, and what functions on edges hide there, (n,) each.

        The latter is the mean effect on the output. Where `measure_moves` doubts, each function is evaluated at `FINER`
        times as many points, and compared with the polynomial through its values by which the rule replaces it. A least
        gradient of the output by the sub-nodes is assumed: it may be 0 at all points and not between them.
        """
        passed, n_points = take(samples.passed, chosen), samples.outputs.shape[1]
        move, doubtful = measure_moves(self.network, self.ranges, nested_clenshaw_curtis(n_points).nodes, passed)
        if doubtful is None or not bool(doubtful.any()):
            return move, np.zeros(len(move))
        effect = torch.zeros(len(move), dtype=torch.float64)
        between = torch.from_numpy(interpolation(n_points, FINER))
        weights = torch.from_numpy(clenshaw_curtis(len(between)).weights)
        spread = torch.from_numpy(self.spread[ends.path[chosen]])[:, None, None]
        of_layers = passed.inputs, take(samples.subnodes_gradient, chosen), self.ranges.edges, doubtful
        layers = zip(self.network.network.layers, *of_layers, strict=True)
        for key, inputs, gradient, largest, some in layers:
            size = max(1, AT_ONCE // (FINER * gradient[0].numel() * inputs.shape[3]))
            for paths in some.nonzero().flatten().split(size) if bool(some.any()) else ():
                along = (between @ inputs[paths].double().flatten(2)).to(inputs.dtype).view(-1, inputs.shape[3])
                found = self.network.edges(key, along).double().reshape(len(paths), len(between), -1)
                hidden = (found - between @ found[:, ::FINER]).abs_()
                mean = (weights @ hidden).view(len(paths), *gradient.shape[2:], -1).sum(dim=3)
                slope = torch.maximum(gradient[paths].double().abs().amax(dim=1), spread[paths] / largest)
                effect[paths] += (mean * slope).sum(dim=(1, 2))
        return move, effect.numpy()


def measure_moves(
    network: FrozenNetwork, ranges: NodeRanges, nodes: Array, passed: PassedNodes
) -> tuple[Array, Tensor | None]:
    """The largest move of any value between neighbouring points of each path, and what it skips of bumps on edges.

    `passed` are the values at the points, `nodes` the positions of these on the paths, (n_points,).

    Returns:
        The move, (n,), in widths of the value's usual interval, up to `MAX_MOVE` perhaps an upper bound; at least the
        part of a bump that not even `FINER` times as many points show. And whether a large part of a bump on an edge of
        each KAN layer may lie between two points where these do show it, (n_layers, n); None: nowhere.
    """
    points, gap = passed.features, float(np.diff(nodes).max())
    whole = (points[:, -1] - points[:, 0]).abs_()  # features move linearly
    moves = [_bounded(gap * ranges.features.bound_move(whole), lambda some: ranges.features.largest_move(points[some]))]
    for usual, values in zip(ranges.watched, passed.watched, strict=True):
        moves.append(_bounded(usual.bound_move(_largest_steps(values)), partial(_largest_of, usual, values)))
    for recurrent, gates, traces in zip(network.recurrents, ranges.gates, passed.recurrents, strict=True):
        moves += [_largest_gate_move(recurrent, gates, trace) for trace in traces]
    doubtful = None
    layers = [*zip(network.network.layers.values(), passed.inputs, ranges.half_bumps, strict=True)]
    if not all(bool((_largest_steps(inputs) <= half).all()) for _, inputs, half in layers):
        crossings = torch.stack([_largest_crossing(layer, inputs) for layer, inputs, _ in layers])
        beyond = ~(crossings <= FINER * MAX_MOVE)
        doubtful = (crossings > MAX_MOVE) & ~beyond
        moves.append(torch.where(beyond, crossings, 0).amax(dim=0))
    return torch.stack(moves).amax(dim=0).double().numpy(), doubtful


def _largest_of(usual: MoveRanges, values: Tensor, paths: Tensor) -> Tensor:
    return usual.largest_move(values[paths])


def _largest_crossing(layer: KANLayer, inputs: Tensor) -> Tensor:
    """The largest part of a bump between two points of inputs (n, n_points, rows, n_in), (n,)."""
    moves = [_largest_steps(at).flatten(1).amax(dim=1) for at in layer.in_bumps(inputs)]
    return torch.stack(moves).amax(dim=0) if moves else inputs.new_zeros(len(inputs))


def _largest_gate_move(recurrent: FrozenRecurrent, gates: MoveRanges, trace: RecurrentTrace) -> Tensor:
    """The largest move of the gates, (n,), computed only if their inputs move far enough for a large one."""
    largest = map_arrays(_largest_steps, trace)

    def bound(moves: RecurrentTrace) -> Tensor:
        return torch.stack([gates.bound_move(each) for each in recurrent.bound_gate_moves(moves)]).amax(dim=0)

    def exact(paths: Tensor) -> Tensor:
        rows = map_arrays(lambda values: values[paths].flatten(0, 1), trace)
        values = (gate.view(-1, trace.steps.shape[1], *gate.shape[1:]) for gate in recurrent.gates(rows))
        return torch.stack([gates.largest_move(value) for value in values]).amax(dim=0)

    def bounded(paths: Tensor) -> Tensor:
        """By bounds per step, where those of the whole window are too loose."""
        chosen = paths.nonzero().squeeze(1)
        moves = map_arrays(lambda values: values[chosen], largest)
        return _bounded(bound(moves), lambda unsure: exact(chosen[unsure]))

    if not recurrent.has_affine_gates:
        return exact(torch.ones(len(trace.steps), dtype=torch.bool))
    # Two steps with the largest move of all: the first step has no state before it.
    whole = map_arrays(lambda values: values.amax(dim=1, keepdim=True).expand(-1, 2, -1), largest)
    return _bounded(bound(whole), bounded)


def _largest_steps(values: Tensor) -> Tensor:
    """The largest move between two neighbouring points, (n, n_points, ...) -> (n, ...)."""
    return values.diff(dim=1).abs_().amax(dim=1)


def _bounded(bound: Tensor, exact: Callable[[Tensor], Tensor]) -> Tensor:
    """Upper bounds (n,) where they are small enough, and exact moves of the paths where they are not."""
    unsure = ~(bound <= MAX_MOVE)
    if bool(unsure.any()):
        bound[unsure] = exact(unsure)
    return bound


def divide_where_steep(change: Tensor, gradient: Tensor, nodes: Array) -> Array:
    """Where to divide each part of a path, 0 to 1, (n,): where what the features contribute changes most.

    `change` and `gradient` are as in `integrate`; `nodes` are the positions of the points on the part, 0 to 1.
    """
    widest = (_steepness(change, gradient) * np.diff(nodes)).argmax(axis=1)
    at: Array = np.clip((nodes[1:] + nodes[:-1])[widest] / 2, LEAST_PART, 1 - LEAST_PART)
    return at


def divide_where_moving(ranges: NodeRanges, watched: tuple[Tensor, ...], nodes: Array) -> Array:
    """Where to divide each part of a path, 0 to 1, (n,): where a node moves most; NaN if none moves too far."""
    of_gaps = [usual.moves(values) for usual, values in zip(ranges.watched, watched, strict=True)]
    moves = torch.stack(of_gaps).amax(dim=0).numpy()  # (n, n_points - 1)
    at: Array = np.clip((nodes[1:] + nodes[:-1])[moves.argmax(axis=1)] / 2, LEAST_PART, 1 - LEAST_PART)
    return np.where(moves.max(axis=1) > MAX_MOVE, at, np.nan)


def divide_at_kinks(
    network: Network, samples: PathSamples, change: Tensor, nodes: Array, accepted: Array
) -> tuple[Array, Array]:
    """Where to divide each part of a path, 0 to 1, (n, MOST_KINKS), at kinks, NaN beyond their number.

    With it goes the worth of the best, (n,), 0 without one. Of each gap between two points it is the kink nearest to
    its middle. A kink is worth the more the more the gradients change there; the best come first, and those left out
    are worth no more than the `accepted` error, (n,). `change` and `nodes` are as in `divide_where_steep`.
    """
    low, gap = nodes[:-1], np.diff(nodes)
    at, farthest = np.full((len(change), len(gap)), np.nan), np.full((len(change), len(gap)), np.inf)
    for values in _arguments_of_kinks(network, samples.passed):
        before, after = values[:, :-1].flatten(2), values[:, 1:].flatten(2)
        share = torch.where(before * after < 0, before / (before - after), torch.nan).numpy()  # (n, n_gaps, n_values)
        distance = np.abs(share - MIDDLE)
        distance[np.isnan(distance)] = np.inf
        nearest = distance.argmin(axis=2)[..., None]
        distance, share = (np.take_along_axis(each, nearest, axis=2)[..., 0] for each in (distance, share))
        at = np.where(distance < farthest, low + gap * share, at)
        farthest = np.minimum(farthest, distance)
    at[~(np.abs(at - MIDDLE) < MIDDLE - MARGIN)] = np.nan
    if np.isnan(at).all():
        return np.full((len(at), MOST_KINKS), np.nan), np.zeros(len(at))
    effect = np.where(np.isnan(at), -1.0, gap * _steepness(change, samples.gradient))
    best = np.argsort(-effect, axis=1)[:, :MOST_KINKS]
    at, effect = np.take_along_axis(at, best, axis=1), np.maximum(np.take_along_axis(effect, best, axis=1), 0)
    left = effect[:, ::-1].cumsum(axis=1)[:, ::-1]  # of those from each on
    at[:, 1:][left[:, 1:] <= accepted[:, None]] = np.nan
    return np.pad(at, ((0, 0), (0, MOST_KINKS - at.shape[1])), constant_values=np.nan), effect[:, 0]


def _steepness(change: Tensor, gradient: Tensor) -> Array:
    """How much what the features contribute changes between neighbouring points, (n, n_points - 1)."""
    moves: Tensor = gradient.diff(dim=1).abs_().flatten(2).double() @ change.abs().flatten(1)[..., None]
    return moves.squeeze(2).numpy()


def _arguments_of_kinks(network: Network, passed: PassedNodes) -> Iterator[Tensor]:
    """Arguments of activations minus the positions of their kinks, (n, n_points, ..., n_in), float64."""
    yield from (values.double() for values in passed.kinks)
    for key, layer, values in zip(network.layers, network.layers.values(), passed.inputs, strict=True):
        if key == ("front", 0):
            continue  # it reads features, which move evenly
        for step in layer.before:
            assert isinstance(step, InputTransform)
            for place in KINKS.get(step.config.kind, ()):
                yield values.double() - place
            values = step(values)
