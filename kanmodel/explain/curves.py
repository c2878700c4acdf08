"""The functions on the edges, sampled, beside what the reference windows send through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.topology import Topology, TopologyEdge
from kanmodel.kan import KANLayer, LayerTrace
from kanmodel.scaling import Array

Span = Literal["support", "reference", "grid"]
Shape = Literal["flat", "base_only", "linear", "curved"]
N_BINS = 20
FLAT_SHARE = 0.01  # of its sub-node's standard deviation, under which an edge counts as flat
LINEAR_R2 = 0.98  # of the best line, from which an edge counts as linear


@dataclass(frozen=True)
class Support:
    """What the reference windows send through an edge, model units.

    Attributes:
        p01: 1st percentile.
        p50: median.
        p99: 99th percentile.
        histogram_edges: (21,), from the smallest to the largest value.
        histogram_counts: (20,).
        outside_grid: share of the values beyond the core interval of the grid, where the splines fade out.
        coverage: length from p01 to p99, as a share of the core interval's; infinite for a grid of no length.
    """

    p01: float
    p50: float
    p99: float
    histogram_edges: Array
    histogram_counts: Array
    outside_grid: float
    coverage: float


@dataclass(frozen=True)
class Line:
    """The straight line nearest to an edge at the reference inputs between p01 and p99 (least squares).

    Attributes:
        slope: model units.
        intercept: model units.
        r2: coefficient of determination there; 1 for a constant edge.
    """

    slope: float
    intercept: float
    r2: float


@dataclass(frozen=True)
class EdgeCurve:
    """The function of one edge, model units, masks and scales included.

    Attributes:
        edge: which edge, with its scores.
        x: positions, (points,); where the layer has a norm, of the normalised input, which depends on all inputs.
        y: base + spline + symbolic, (points,); where the layer has a norm, the spline part alone.
        base: the base part; where the layer has a norm, 0: it acts on the input that is not normalised.
        spline: the spline part.
        symbolic: the fixed function; None where the edge has none.
        function_of: ``input``, or ``normalised input`` where the layer has a norm.
        slope: dy/dx.
        x_original: x in the feature's unit, where the edge leaves a feature; else None.
        y_original: what the edge adds to the forecast in the target's unit, where it enters an output; else None.
        unit: unit of `x_original`.
        grid: knots, (G+2k+1,); the core interval ends at the k-th from either side.
        core: ends of that interval, beyond which the splines fade out.
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
    core: tuple[float, float]
    support: Support
    line: Line
    shape: Shape
    function_of: Literal["input", "normalised input"] = "input"


def sample_edge(
    model: LoadedModel,
    topology: Topology,
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
    """`sample_edge` for several edges; those that leave one node are sampled together."""
    with torch.no_grad():
        stages = model.network.trace(model.reference.windows).stages
    leaving: dict[tuple[str, int, int], _Leaving] = {}
    for edge in edges:
        place = (edge.stage, edge.layer, edge.i)
        if place not in leaving:
            layer = model.network.stages[edge.stage][edge.layer]
            leaving[place] = _sample(layer, stages[edge.stage][edge.layer], edge.i, points, span)
    return [_describe(model, edge, leaving[edge.stage, edge.layer, edge.i]) for edge in edges]


@dataclass(frozen=True)
class _Leaving:
    """The functions of the edges that leave one node, as `EdgeCurve` has them; curves are (n_subnodes, points)."""

    x: Array
    base: Array
    spline: Array
    symbolic: Array
    slope: Array
    core: tuple[float, float]
    support: Support
    lines: list[Line]
    flat: list[bool]


def _sample(layer: KANLayer, trace: LayerTrace, i: int, points: int, span: Span) -> _Leaving:
    with torch.no_grad():
        inputs = layer.normalise(trace.inputs)[:, i]
        passed = (layer.edge_parts(trace.inputs)[1] if layer.layer_norm else trace.edges)[:, :, i]
    core = float(layer.core[0][i]), float(layer.core[1][i])
    support = _measure_support(_array(inputs), core)
    first, last = {
        "support": (support.p01, support.p99),
        "reference": (float(inputs.min()), float(inputs.max())),
        "grid": core,
    }[span]
    x = torch.linspace(first, last, points, dtype=inputs.dtype)

    values, slope = _evaluate(layer, x, i)
    base, spline, symbolic = (_array(part.T) for part in values)
    flat = passed.std(dim=0, correction=0) <= FLAT_SHARE * trace.subnodes.std(dim=0, correction=0)
    return _Leaving(
        x=_array(x),
        base=base,
        spline=spline,
        symbolic=symbolic,
        slope=_array(slope.T),
        core=core,
        support=support,
        lines=_fit_lines(_array(inputs), _array(passed), support),
        flat=flat.tolist(),
    )


def _evaluate(layer: KANLayer, x: Tensor, i: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Base, spline and symbolic parts of the edges from input i at positions (points,), and the slopes of their sums.

    Each sum depends on its own position alone, so the gradient of the positions, sum_j v_pj s_pj for weights v, has
    the slopes s as its gradient in turn. (Forward mode would be plainer, but is not safe between threads.)
    """
    with torch.enable_grad():
        x = x.requires_grad_()
        base, spline, symbolic = layer.edge_parts_at(x, i)
        if layer.layer_norm:
            base = torch.zeros_like(base)
        weights = torch.zeros_like(spline, requires_grad=True)
        (of_positions,) = torch.autograd.grad(base + spline + symbolic, x, weights, create_graph=True)
        (slope,) = torch.autograd.grad(of_positions.sum(), weights)
    return (base, spline, symbolic), slope


def _describe(model: LoadedModel, edge: TopologyEdge, leaving: _Leaving) -> EdgeCurve:
    layer, i, j = model.network.stages[edge.stage][edge.layer], edge.i, edge.j
    y = leaving.base[j] + leaving.spline[j] + leaving.symbolic[j]
    feature = model.config.features[i] if edge.source.startswith("feature:") else None
    scaling = model.scaling
    return EdgeCurve(
        edge=edge,
        x=leaving.x,
        y=y,
        base=leaving.base[j],
        spline=leaving.spline[j],
        symbolic=leaving.symbolic[j] if bool(layer.is_symbolic[j, i]) else None,
        slope=leaving.slope[j],
        x_original=leaving.x * scaling.feature_scale[i] + scaling.feature_mean[i] if feature else None,
        y_original=y * _gain(layer, j) * scaling.output_scale[j] if edge.target.startswith("output:") else None,
        unit=feature.unit if feature else None,
        grid=_array(layer.grid[i]),
        core=leaving.core,
        support=leaving.support,
        line=leaving.lines[j],
        shape=_shape(leaving.flat[j], leaving.support, leaving.lines[j]),
        function_of="normalised input" if layer.layer_norm else "input",
    )


def _measure_support(inputs: Array, core: tuple[float, float]) -> Support:
    p01, p50, p99 = (float(value) for value in np.percentile(inputs, (1, 50, 99)))
    counts, edges = np.histogram(inputs, bins=N_BINS)
    outside = float(((inputs < core[0]) | (inputs > core[1])).mean())
    length = core[1] - core[0]
    coverage = (p99 - p01) / length if length > 0 else float("inf")
    return Support(p01, p50, p99, edges, counts.astype(np.float64), outside, coverage)


def _fit_lines(inputs: Array, outputs: Array, support: Support) -> list[Line]:
    """The line of each edge, from inputs (n,) and what the edges add (n, n_subnodes)."""
    inside = (inputs >= support.p01) & (inputs <= support.p99)
    if not inside.any():  # of two values neither lies between the percentiles
        inside[:] = True
    x, y = inputs[inside], outputs[inside]
    x_centred, y_centred = x - x.mean(), y - y.mean(axis=0)
    slopes = x_centred @ y_centred / (x_centred**2).sum() if np.ptp(x) > 0 else np.zeros(y.shape[1])
    lost = ((y_centred - x_centred[:, None] * slopes) ** 2).sum(axis=0)
    spread = (y_centred**2).sum(axis=0)
    return [
        Line(float(slopes[j]), float(y[:, j].mean() - slopes[j] * x.mean()), float(1 - lost[j] / spread[j]))
        if np.ptp(y[:, j]) > 0  # the spread of a constant is not 0 but the rounding of its mean
        else Line(0.0, float(y[0, j]), 1.0)
        for j in range(y.shape[1])
    ]


def _shape(flat: bool, support: Support, line: Line) -> Shape:
    if flat:
        return "flat"
    if support.outside_grid > 0.5:
        return "base_only"
    return "linear" if line.r2 >= LINEAR_R2 else "curved"


def _gain(layer: KANLayer, j: int) -> float:
    """What a unit of sub-node j adds to its node, a sum node."""
    return float(layer.subnode_scale[j] * layer.node_scale[j])


def _array(values: Tensor) -> Array:
    array: Array = values.detach().double().numpy()
    return array
