"""Edge functions sampled as curves, with the distribution of their inputs on the reference windows.

The support of edges: the distribution of their inputs on the reference windows, and the nearest line there.

`Edge`: the function on one edge, with a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel import html
from kanmodel.checkpoint import LoadedModel
from kanmodel.data import Array
from kanmodel.explain.result import GlobalResult, Pictured
from kanmodel.explain.topology import NetworkGraph, TopologyEdge
from kanmodel.network.functions import value_and_slope
from kanmodel.network.layer import EdgeParts, KANLayer, LayerTrace
from kanmodel.text import write_facts, write_table

N_BINS = 20


@dataclass(frozen=True)
class Grid:
    """Where the basis of the edges that leave a node is, as positions of what the curve is a function of.

    Attributes:
        knots: ascending; those that no position within reach leads to are missing. Empty for a basis without any.
        core: ends of the interval beyond which the basis fades to zero; None where it never does, or nothing within
            reach lies inside.
        outside: share of the reference inputs beyond it; None for a basis without one.
    """

    knots: Array
    core: tuple[float, float] | None
    outside: float | None


@dataclass(frozen=True)
class Support:
    """The values of an edge's input on the reference windows, model units.

    Attributes:
        p01: 1st percentile.
        p50: median.
        p99: 99th percentile.
        histogram_edges: (21,), from the smallest to the largest value.
        histogram_counts: (20,).
        outside_grid: share of the values beyond the core interval of the grid, where the basis fades to zero; None for
            a basis without one.
        coverage: length from p01 to p99, as a share of the core interval's; infinite for a grid of no length, None
            without one.
    """

    p01: float
    p50: float
    p99: float
    histogram_edges: Array
    histogram_counts: Array
    outside_grid: float | None
    coverage: float | None


@dataclass(frozen=True)
class LinearFit:
    """The straight line nearest to an edge at the reference inputs between p01 and p99 (least squares).

    Attributes:
        slope: model units.
        intercept: model units.
        r2: coefficient of determination there; 1 for a constant edge.
    """

    slope: float
    intercept: float
    r2: float


def measure_supports(inputs: Array, grids: Sequence[Grid]) -> list[Support]:
    """The support of each input.

    Args:
        inputs: what the reference windows send through its edges, (n_in, n), model units.
        grids: where the basis of its edges is.
    """
    percentiles = np.percentile(inputs, (1, 50, 99), axis=1).T.tolist()
    return [_measure_support(*measured) for measured in zip(inputs, percentiles, grids, strict=True)]


def _measure_support(values: Array, percentiles: Sequence[float], grid: Grid) -> Support:
    p01, p50, p99 = percentiles
    counts, edges = np.histogram(values, bins=N_BINS)
    outside, coverage = grid.outside, None
    if grid.core is not None:
        length = grid.core[1] - grid.core[0]
        coverage = (p99 - p01) / length if length > 0 else float("inf")
    return Support(p01, p50, p99, edges, counts.astype(np.float64), outside, coverage)


def fit_lines(inputs: Array, outputs: Array, supports: Sequence[Support]) -> list[list[LinearFit]]:
    """The line of each edge, by input, then sub-node.

    Args:
        inputs: as `measure_supports` has them, (n_in, n).
        outputs: what the edges make of them, (n_in, n_subnodes, n), model units.
        supports: those of the inputs.
    """
    ends = np.array([(support.p01, support.p99) for support in supports])
    inside = (inputs >= ends[:, :1]) & (inputs <= ends[:, 1:])
    inside |= ~inside.any(axis=1, keepdims=True)  # of two values neither lies between the percentiles
    inputs, inside = inputs[:, None], inside[:, None]
    x_mean, y_mean = _mean(inputs, inside), _mean(outputs, inside)
    x, y = np.where(inside, inputs - x_mean, 0.0), np.where(inside, outputs - y_mean, 0.0)
    slopes = _divide(_sum(x * y), _sum(x**2))
    r2 = 1 - _divide(_sum((y - x * slopes) ** 2), _sum(y**2))
    fitted = np.concatenate([slopes, y_mean - slopes * x_mean, r2], axis=2)
    return [[LinearFit(*line) for line in of_input] for of_input in fitted.tolist()]


def _mean(values: Array, inside: NDArray[np.bool_]) -> Array:
    """Of those inside, along the last axis. That of equal values is one of them, not what rounding makes of a sum."""
    lowest = values.min(axis=-1, where=inside, initial=np.inf, keepdims=True)
    highest = values.max(axis=-1, where=inside, initial=-np.inf, keepdims=True)
    mean: Array = np.where(lowest < highest, values.mean(axis=-1, where=inside, keepdims=True), lowest)
    return mean


def _sum(values: Array) -> Array:
    total: Array = values.sum(axis=-1, keepdims=True)
    return total


def _divide(numerator: Array, denominator: Array) -> Array:
    """0/0 counts as 0."""
    quotient: Array = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
    return quotient


Span = Literal["support", "reference", "grid"]
CurveShape = Literal["flat", "base_only", "linear", "curved"]
FLAT_SHARE = 0.01  # of its sub-node's standard deviation, under which an edge counts as flat
LINEAR_R2 = 0.98  # of the best line, from which an edge counts as linear
N_REACH = 1537  # positions at which what a basis reads is looked at, over three times the reference's range
N_TOGETHER = 32  # inputs of a layer whose edges are sampled together: about as much as fits the cache


@dataclass(frozen=True)
class EdgeCurve:
    """The function of one edge, model units, masks and scales included.

    Attributes:
        edge: which edge, with its scores.
        x: positions, (points,); values of the node, or, where a layer norm mixes the nodes, of what the basis reads.
        y: base + spline + symbolic, (points,).
        base: the base part; 0 where it reads another value than the basis does, before a layer norm.
        spline: the part of the basis, splines or others.
        symbolic: the fixed function; None where the edge has none.
        function_of: ``input``, or ``normalised input`` where the layer has a norm.
        slope: dy/dx.
        x_original: x in the feature's unit, where the edge leaves a feature; else None.
        y_original: what the edge adds to the forecast in the target's unit, where it enters an output; else None.
        unit: unit of `x_original`.
        grid: knots or centres of the basis, as positions of `x`; empty for a basis without any.
        core: ends of the interval beyond which the basis fades to zero; None without one.
        support: what passes through it.
        line: the line it nearly is.
        shape: ``flat`` where it adds less than 1 % of the spread of its sub-node; ``base_only`` where most of what
            passes lies outside the grid, so that only the base acts; ``linear`` from an R2 of 0.98; else ``curved``.
    """

    edge: TopologyEdge
    x: Array
    y: Array
    base: Array
    spline: Array
    symbolic: Array | None
    slope: Array
    x_original: Array | None
    y_original: Array | None
    unit: str | None
    grid: Array
    core: tuple[float, float] | None
    support: Support
    line: LinearFit
    shape: CurveShape
    function_of: Literal["input", "normalised input"] = "input"


def sample_edge(
    model: LoadedModel,
    topology: NetworkGraph,
    stage: str,
    layer: int,
    i: int,
    j: int,
    points: int = 101,
    span: Span = "support",
) -> EdgeCurve:
    """The function of the edge from node i of `layer` to sub-node j of the next.

    Args:
        model: the model.
        topology: its graph, which knows scores and contributions.
        stage: front or head.
        layer: layer of the node it leaves.
        i: number of that node.
        j: number of the sub-node it enters.
        points: number of samples, evenly spaced.
        span: from where to where: ``support``, 1st to 99th percentile of the reference; ``reference``, smallest to
            largest; ``grid``, the core interval.

    Raises:
        UnknownNameError: there is no such edge.
    """
    return sample_edges(model, [topology.edge(stage, layer, i, j)], points, span)[0]


def sample_edges(
    model: LoadedModel, edges: Sequence[TopologyEdge], points: int = 101, span: Span = "support"
) -> list[EdgeCurve]:
    """`sample_edge` for several edges; those of one layer are sampled together."""
    with torch.no_grad():
        stages = model.network.trace(model.reference.windows).stages
    nodes: dict[tuple[str, int], list[int]] = {}
    for stage, layer, i in sorted({(edge.stage, edge.layer, edge.i) for edge in edges}):
        nodes.setdefault((stage, layer), []).append(i)
    leaving: dict[tuple[str, int, int], tuple[_Sampled, int]] = {}
    for (stage, layer), inputs in nodes.items():
        for start in range(0, len(inputs), N_TOGETHER):
            part = inputs[start : start + N_TOGETHER]
            sampled = _sample(model.network.stages[stage][layer], stages[stage][layer], part, points, span)
            leaving |= {(stage, layer, i): (sampled, number) for number, i in enumerate(part)}
    return [_describe(model, edge, *leaving[edge.stage, edge.layer, edge.i]) for edge in edges]


@dataclass(frozen=True)
class _Sampled:
    """The functions of the edges that leave some inputs of a layer, as `EdgeCurve` has them: by input, then sub-node.

    Curves are (inputs, n_subnodes, points); only the edges in `is_symbolic` have a symbolic part.
    """

    layer: KANLayer
    x: Array
    base: Array
    spline: Array
    symbolic: Array
    slope: Array
    is_symbolic: Array
    flat: Array
    grids: list[Grid]
    supports: list[Support]
    lines: list[list[LinearFit]]


def _sample(layer: KANLayer, trace: LayerTrace, inputs: list[int], points: int, span: Span) -> _Sampled:
    functions = _Functions(layer, inputs)
    with torch.no_grad():
        of_basis = layer.read(trace.inputs)[1][:, inputs]
        seen = of_basis if layer.config.mixes else trace.inputs[:, inputs]
        passed = functions.evaluate(seen)[0].total if layer.config.mixes else trace.edges[:, :, inputs]
        seen, passed = seen.T, passed.permute(2, 1, 0)  # (inputs, n_subnodes, n), as all that follows
        grids = functions.grids(seen, of_basis.T)
    supports = measure_supports(_array(seen), grids)
    reached = torch.stack(torch.aminmax(seen, dim=1), dim=1).tolist()
    spans = {
        "support": [(support.p01, support.p99) for support in supports],
        "reference": reached,
        "grid": [grid.core or ends for grid, ends in zip(grids, reached, strict=True)],
    }[span]
    x = torch.stack([torch.linspace(start, end, points, dtype=seen.dtype) for start, end in spans])
    parts, slope = functions.evaluate(x.T)
    sampled = (parts.base, parts.basis, parts.symbolic, slope)
    base, spline, symbolic, slopes = (_array(values.permute(2, 1, 0)) for values in sampled)
    spread, of_subnodes = passed.std(dim=2, correction=0), trace.subnodes.std(dim=0, correction=0)
    return _Sampled(
        layer=layer,
        x=_array(x),
        base=base,
        spline=spline,
        symbolic=symbolic,
        slope=slopes,
        is_symbolic=layer.is_symbolic[:, inputs].T.numpy(),
        flat=(spread <= FLAT_SHARE * of_subnodes).numpy(),
        grids=grids,
        supports=supports,
        lines=fit_lines(_array(seen), _array(passed), supports),
    )


class _Functions:
    """The functions of the edges that leave some inputs of a layer, each input at positions of its own.

    Args:
        layer: the layer.
        inputs: their numbers.
    """

    def __init__(self, layer: KANLayer, inputs: list[int]) -> None:
        self._layer, self._inputs = layer, torch.tensor(inputs)
        self._edges = layer.functions(self._inputs)
        # Of a layer that mixes, positions are those of what the basis reads; the base may read something else.
        self._base_is_apart = layer.config.mixes and layer.config.n_before_base < len(layer.config.before)

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> tuple[EdgeParts, Tensor]:
        """Parts of the edges at positions (points, inputs), and slopes of the edges, (points, n_subnodes, inputs)."""
        if self._layer.config.mixes:
            parts, slopes = self._edges.parts(x, x)
            if not self._base_is_apart:
                return parts, slopes.total
            nothing = torch.zeros_like(parts.base)
            return EdgeParts(nothing, parts.basis, nothing), slopes.basis
        v, v_slope = value_and_slope(lambda x: self._read(x)[0], x)
        u, u_slope = value_and_slope(lambda x: self._read(x)[1], x)
        parts, slopes = self._edges.parts(v, u)
        by_v, by_u = v_slope.unsqueeze(1), u_slope.unsqueeze(1)
        return parts, (slopes.base + slopes.symbolic) * by_v + slopes.basis * by_u

    def grids(self, seen: Tensor, of_basis: Tensor) -> list[Grid]:
        """Where the basis is for positions such as those `seen`, of which it reads `of_basis`, (inputs, n) each."""
        knots, core = getattr(self._layer, "grid", None), self._layer.core
        if knots is None or core is None:
            return [Grid(np.empty(0), None, None) for _ in self._inputs]
        knots, ends = knots[self._inputs], torch.stack(core, dim=1)[self._inputs]  # (inputs, n_knots), (inputs, 2)
        outside = ((of_basis < ends[:, :1]) | (of_basis > ends[:, 1:])).double().mean(dim=1).tolist()
        if self._layer.config.mixes or not self._layer.config.before:
            return [Grid(_array(k), (c[0], c[1]), o) for k, c, o in zip(knots, ends.tolist(), outside, strict=True)]
        low, high = torch.aminmax(seen, dim=1)
        reach = torch.linspace(-1, 2, N_REACH, dtype=seen.dtype)[:, None]
        x = low + (high - low) * reach  # (N_REACH, inputs)
        columns = zip(_array(x.T), _array(self._read(x)[1].T), _array(knots), _array(ends), outside, strict=True)
        return [_lead_back(*column) for column in columns]

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._layer.read(x, self._inputs)


def _lead_back(x: Array, read: Array, knots: Array, ends: Array, outside: float) -> Grid:
    """The grid as positions x, at which the basis reads other values: where these cross the knots."""
    before, after = read[:-1, None] - knots, read[1:, None] - knots  # (N_REACH - 1, n_knots)
    step, knot = np.nonzero((before < 0) != (after < 0))
    share = before[step, knot] / (before[step, knot] - after[step, knot])
    inside = x[(read >= ends[0]) & (read <= ends[1])]
    core = (float(inside.min()), float(inside.max())) if len(inside) else None
    return Grid(np.sort(x[step] + share * (x[step + 1] - x[step])), core, outside)


def _describe(model: LoadedModel, edge: TopologyEdge, sampled: _Sampled, number: int) -> EdgeCurve:
    """The curve of an edge, which leaves input `number` of those that were sampled."""
    layer, j, scaling = sampled.layer, edge.j, model.scaling
    of_feature = edge.source.startswith("feature:") and not layer.config.mixes
    of_output = edge.target.startswith("output:")
    base, spline, symbolic = sampled.base[number, j], sampled.spline[number, j], sampled.symbolic[number, j]
    x, y = sampled.x[number], base + spline + symbolic
    support, line, grid = sampled.supports[number], sampled.lines[number][j], sampled.grids[number]
    return EdgeCurve(
        edge=edge,
        x=x,
        y=y,
        base=base,
        spline=spline,
        symbolic=symbolic if sampled.is_symbolic[number, j] else None,
        slope=sampled.slope[number, j],
        x_original=x * scaling.feature_scale[edge.i] + scaling.feature_mean[edge.i] if of_feature else None,
        y_original=y * _gain(layer, j) * scaling.output_scale[j] if of_output else None,
        unit=model.config.features[edge.i].unit if of_feature else None,
        grid=grid.knots,
        core=grid.core,
        support=support,
        line=line,
        shape=_shape(bool(sampled.flat[number, j]), support, line),
        function_of="normalised input" if layer.config.mixes else "input",
    )


def _shape(flat: bool, support: Support, line: LinearFit) -> CurveShape:
    if flat:
        return "flat"
    if support.outside_grid is not None and support.outside_grid > 0.5:
        return "base_only"
    return "linear" if line.r2 >= LINEAR_R2 else "curved"


def _gain(layer: KANLayer, j: int) -> float:
    """The slope of a sum node in its sub-node j."""
    return float(layer.subnode_scale[j] * layer.node_scale[j])


def _array(values: Tensor) -> Array:
    array: Array = values.detach().double().contiguous().numpy()
    return array


_COLUMNS = ("x", "y", "base", "spline", "symbolic", "slope", "x_original", "y_original")


@dataclass(frozen=True, repr=False, eq=False)
class Edge(GlobalResult, Pictured, EdgeCurve):
    """The function on one edge, model units, with the distribution of its inputs on the reference windows.

    Attributes:
        name: name of the model, for the picture.
    """

    name: str = field(kw_only=True)

    def table(self) -> list[dict[str, Any]]:
        """A row for each position."""
        columns = {name: getattr(self, name).tolist() for name in self._columns()}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _title(self) -> str:
        return f"Edge {self.edge.source} -> {self.edge.target}"

    def _details(self) -> str:
        return html.write_facts(self._facts()) + html.fold("Samples", html.write_table(self._some(20), self._columns()))

    def _facts(self) -> dict[str, str]:
        outside, line = self.support.outside_grid, self.line
        return {
            "shape": self.shape,
            "line": f"slope {line.slope:.4g}, intercept {line.intercept:.4g}, R2 {line.r2:.4f}",
            "data": f"1st to 99th percentile {self.support.p01:.4g} to {self.support.p99:.4g}",
            "outside grid": "-" if outside is None else f"{outside:.1%}",
            "masked": "yes" if self.edge.masked else "no",
        }

    def _some(self, count: int) -> list[dict[str, Any]]:
        """About `count` of the positions, evenly spaced."""
        return self.table()[:: max(1, (len(self.x) - 1) // count)]

    def _columns(self) -> list[str]:
        return [name for name in _COLUMNS if getattr(self, name) is not None]

    def _text(self) -> str:
        table = write_table(self._some(4), ["x", "y", "base", "spline", "slope"])
        return f"{self._title()}\n{write_facts(self._facts())}\n{table}"
