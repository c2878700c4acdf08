"""The functions on the edges, sampled, beside what the reference windows send through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.explain.support import Line, Support, fit_lines, measure_supports
from kanmodel.explain.topology import Topology, TopologyEdge
from kanmodel.kan import KANLayer, LayerTrace
from kanmodel.scaling import Array

Span = Literal["support", "reference", "grid"]
Shape = Literal["flat", "base_only", "linear", "curved"]
FLAT_SHARE = 0.01  # of its sub-node's standard deviation, under which an edge counts as flat
LINEAR_R2 = 0.98  # of the best line, from which an edge counts as linear
PART = 32  # inputs of a layer whose edges are sampled together: about as much as fits the cache


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
    """`sample_edge` for several edges; those of one layer are sampled together."""
    with torch.no_grad():
        stages = model.network.trace(model.reference.windows).stages
    nodes: dict[tuple[str, int], list[int]] = {}
    for stage, layer, i in sorted({(edge.stage, edge.layer, edge.i) for edge in edges}):
        nodes.setdefault((stage, layer), []).append(i)
    leaving: dict[tuple[str, int, int], tuple[_Sampled, int]] = {}
    for (stage, layer), inputs in nodes.items():
        for start in range(0, len(inputs), PART):
            part = inputs[start : start + PART]
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
    grid: Array
    cores: list[tuple[float, float]]
    supports: list[Support]
    lines: list[list[Line]]


def _sample(layer: KANLayer, trace: LayerTrace, inputs: list[int], points: int, span: Span) -> _Sampled:
    with torch.no_grad():
        seen = layer.normalise(trace.inputs)[:, inputs]
        passed = layer.edge_parts_at(seen, inputs)[1] if layer.layer_norm else trace.edges[:, :, inputs]
        seen, passed = seen.T, passed.permute(2, 1, 0)  # (inputs, n_subnodes, n), as all that follows
    lower, upper = (ends[inputs].tolist() for ends in layer.core)
    cores = list(zip(lower, upper, strict=True))
    supports = measure_supports(_array(seen), cores)
    spans = {
        "support": [(support.p01, support.p99) for support in supports],
        "reference": torch.stack(torch.aminmax(seen, dim=1), dim=1).tolist(),
        "grid": cores,
    }[span]
    x = torch.stack([torch.linspace(start, end, points, dtype=seen.dtype) for start, end in spans])
    base, spline, symbolic, slope = (_array(part.permute(2, 1, 0)) for part in _evaluate(layer, x.T, inputs))
    spread, of_subnodes = passed.std(dim=2, correction=0), trace.subnodes.std(dim=0, correction=0)
    return _Sampled(
        layer=layer,
        x=_array(x),
        base=base,
        spline=spline,
        symbolic=symbolic,
        slope=slope,
        is_symbolic=layer.is_symbolic[:, inputs].T.numpy(),
        flat=(spread <= FLAT_SHARE * of_subnodes).numpy(),
        grid=_array(layer.grid[inputs]),
        cores=cores,
        supports=supports,
        lines=fit_lines(_array(seen), _array(passed), supports),
    )


def _evaluate(layer: KANLayer, x: Tensor, inputs: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Base, spline and symbolic parts of the edges from inputs at positions (points, inputs), and their sums' slopes.

    Each sum depends on its own position alone, so the gradient of the positions, sum_j v_pji s_pji for weights v, has
    the slopes s as its gradient in turn. (Forward mode would be plainer, but is not safe between threads.)
    """
    with torch.enable_grad():
        x = x.requires_grad_()
        base, spline, symbolic = layer.edge_parts_at(x, inputs)
        if layer.layer_norm:
            base = torch.zeros_like(base)
        weights = torch.zeros_like(spline, requires_grad=True)
        (of_positions,) = torch.autograd.grad(base + spline + symbolic, x, weights, create_graph=True)
        (slope,) = torch.autograd.grad(of_positions.sum(), weights)
    return base, spline, symbolic, slope


def _describe(model: LoadedModel, edge: TopologyEdge, sampled: _Sampled, number: int) -> EdgeCurve:
    """The curve of an edge, which leaves input `number` of those that were sampled."""
    layer, j, scaling = sampled.layer, edge.j, model.scaling
    of_feature, of_output = edge.source.startswith("feature:"), edge.target.startswith("output:")
    base, spline, symbolic = sampled.base[number, j], sampled.spline[number, j], sampled.symbolic[number, j]
    x, y = sampled.x[number], base + spline + symbolic
    support, line = sampled.supports[number], sampled.lines[number][j]
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
        grid=sampled.grid[number],
        core=sampled.cores[number],
        support=support,
        line=line,
        shape=_shape(bool(sampled.flat[number, j]), support, line),
        function_of="normalised input" if layer.layer_norm else "input",
    )


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
    array: Array = values.detach().double().contiguous().numpy()
    return array
