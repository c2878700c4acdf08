"""`Edge`: the function on an edge, sampled, and its support: the 1st to 99th percentile of its reference inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kanmodel.arrays import Array
from kanmodel.errors import check_lowest
from kanmodel.forecaster import Forecaster
from kanmodel.network.functions import value_and_slope
from kanmodel.network.layer import EdgeParts, Edges, KANLayer, LayerTrace
from kanmodel.network.network import LayerKey, Trace
from kanmodel.result import GlobalResult, Pictured, Table
from kanmodel.structure.edges import TopologyEdge

Span = Literal["support", "reference", "grid"]
CurveShape = Literal["flat", "base_only", "linear", "curved"]
N_BINS = 20
FLAT_SHARE = 0.01  # of its sub-node's standard deviation, under which an edge counts as flat
LINEAR_R2 = 0.98  # of the best line, from which an edge counts as linear
N_REACH = 1537  # positions at which what a basis reads is looked at, over three times the reference's range
N_TOGETHER = 32  # inputs of a layer whose edges are sampled together: about as much as fits the cache
_COLUMNS = ("x", "y", "base", "spline", "symbolic", "slope", "x_original", "y_original")


class Grid(NamedTuple):
    """The grid of the basis on the edges that leave a node, as positions of the node."""

    knots: Array  # ascending, without those that no position within reach leads to
    core: tuple[float, float] | None
    outside: float | None  # share of the reference inputs outside the core

    @classmethod
    def read_at(cls, x: Array, read: Array, knots: Array, ends: Array, outside: float) -> Grid:
        """The grid where positions x, at which the basis reads other values, cross its knots and core."""
        before, after = read[:-1, None] - knots, read[1:, None] - knots  # (N_REACH - 1, n_knots)
        step, knot = np.nonzero((before < 0) != (after < 0))
        share = before[step, knot] / (before[step, knot] - after[step, knot])
        inside = x[(read >= ends[0]) & (read <= ends[1])]
        core = (float(inside.min()), float(inside.max())) if len(inside) else None
        return cls(np.sort(x[step] + share * (x[step + 1] - x[step])), core, outside)


@dataclass(frozen=True)
class Support:
    """Percentiles and histogram of the values of an edge's input on the reference windows, model units.

    Attributes:
        p01: 1st percentile.
        p50: median.
        p99: 99th percentile.
        histogram_edges: (21,), from the smallest to the largest value, with the 20 `histogram_counts` between.
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

    @classmethod
    def of(cls, values: Array, grid: Grid) -> Support:
        """The support of an input with these values, (n,), and the grid of its basis."""
        p01, p50, p99 = np.percentile(values, (1, 50, 99)).tolist()
        counts, edges = np.histogram(values, bins=N_BINS)
        length = None if grid.core is None else grid.core[1] - grid.core[0]
        coverage = None if length is None else (p99 - p01) / length if length > 0 else float("inf")
        return cls(p01, p50, p99, edges, counts.astype(np.float64), grid.outside, coverage)


@dataclass(frozen=True)
class LinearFit:
    """The straight line nearest to an edge at the reference inputs between p01 and p99 (least squares), model units.

    Attributes:
        slope: of the line.
        intercept: its value at x = 0.
        r2: its coefficient of determination; 1 for a constant edge.
    """

    slope: float
    intercept: float
    r2: float


@dataclass(frozen=True, repr=False, eq=False)
class Edge(GlobalResult, Pictured):
    """The function on one edge, model units, masks and scales included.

    Attributes:
        edge: which edge, with its scores.
        x: positions, (points,); values of the node, or, where a layer norm mixes the nodes, of what the basis reads.
        y: base + spline + symbolic, (points,).
        base: the base part; 0 where it reads another value than the basis does, before a layer norm.
        spline: the part of the basis, splines or others.
        symbolic: the fixed function; None where the edge has none.
        slope: dy/dx.
        x_original: x in the feature's `unit`, where the edge leaves a feature; else None.
        y_original: what the edge adds to the forecast in the target's unit, where it enters an output; else None.
        unit: of `x_original`; None if there is none or it is unknown.
        grid: knots or centres of the basis, as positions of `x`; empty for a basis without any.
        core: ends of the interval beyond which the basis fades to zero; None without one.
        shape: ``flat`` where it adds less than 1 % of the spread of its sub-node; ``base_only`` where most of what
            passes lies outside the grid, so that only the base acts; ``linear`` from an R2 of 0.98; else ``curved``.
        support: the distribution of its inputs on the reference windows.
        line: the straight line nearest to it there.
        function_of: what x is. After a layer norm it is the ``normalised input``, which depends on all inputs of the
            layer. Where the base reads the input itself, as in fast-kan, `y` is the spline part alone.
        name: of the model, for the picture.
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
    function_of: Literal["input", "normalised input"]
    name: str

    def table(self) -> list[dict[str, Any]]:
        """A row for each position."""
        columns = {name: getattr(self, name).tolist() for name in self._columns()}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _title(self) -> str:
        return f"Edge {self.edge.source} -> {self.edge.target}"

    def _facts(self) -> dict[str, str]:
        outside, line = self.support.outside_grid, self.line
        return {
            "shape": self.shape,
            "line": f"slope {line.slope:.4g}, intercept {line.intercept:.4g}, R2 {line.r2:.4f}",
            "data": f"1st to 99th percentile {self.support.p01:.4g} to {self.support.p99:.4g}",
            "outside grid": "-" if outside is None else f"{outside:.1%}",
            "masked": "yes" if self.edge.masked else "no",
        }

    def _tables(self) -> list[Table]:
        rows, last = self.table(), len(self.x) - 1
        many, few = (rows[:: max(1, last // count)] for count in (20, 4))  # evenly spaced
        short = Table(few, ["x", "y", "base", "spline", "slope"], in_html=False)
        return [Table(many, self._columns(), "Samples", in_text=False), short]

    def _columns(self) -> list[str]:
        return [name for name in _COLUMNS if getattr(self, name) is not None]


def sample_edges(
    model: Forecaster,
    edges: Sequence[TopologyEdge],
    points: int = 101,
    span: Span = "support",
    trace: Trace | None = None,
) -> list[Edge]:
    """The functions on KAN edges of a model; those of one layer are sampled together.

    Samples are evenly spaced over the support, or the range of the reference inputs, or the core interval of the grid.
    The `trace` of the reference windows is computed if it is not given. Raises `DataError` for fewer than 2 points.
    """
    check_lowest("points", points, 2)
    with torch.no_grad():
        stages = (trace or model.network.trace(model.reference.scaled)).stages
    leaving: dict[LayerKey, dict[int, list[TopologyEdge]]] = {}
    for edge in edges:
        leaving.setdefault((edge.stage, edge.layer), {}).setdefault(edge.i, []).append(edge)
    found: dict[int, Edge] = {}
    for (stage, layer), by_input in leaving.items():
        for start in range(0, len(by_input), N_TOGETHER):
            some = [edge for i in sorted(by_input)[start : start + N_TOGETHER] for edge in by_input[i]]
            for curve in _sample(model, some, stages[stage][layer], points, span):
                found[id(curve.edge)] = curve
    return [found[id(edge)] for edge in edges]


def _sample(
    model: Forecaster, edges: Sequence[TopologyEdge], trace: LayerTrace, points: int, span: Span
) -> Iterator[Edge]:
    """Yields the functions on edges that leave some inputs of one layer. Arrays are by input, then sub-node."""
    layer, config, scaling = model.network.stages[edges[0].stage][edges[0].layer], model.config, model.scaling
    inputs = sorted({edge.i for edge in edges})
    functions, mixes = layer.functions(torch.tensor(inputs)), layer.config.mixes
    with torch.no_grad():
        of_basis = layer.read(trace.inputs)[1][:, inputs]
        seen = of_basis if mixes else trace.inputs[:, inputs]
        passed = _evaluate(layer, functions, inputs, seen)[0].total if mixes else trace.edges[:, :, inputs]
        seen, passed = seen.T, passed.permute(2, 1, 0)  # (inputs, n_subnodes, n), as all that follows
        grids = _find_grids(layer, inputs, seen, of_basis.T)
    supports = [Support.of(*each) for each in zip(_array(seen), grids, strict=True)]
    lines = _fit_lines(_array(seen), _array(passed), supports)
    reached = torch.stack(torch.aminmax(seen, dim=1), dim=1).tolist()
    spans = {
        "support": [(support.p01, support.p99) for support in supports],
        "reference": reached,
        "grid": [grid.core or ends for grid, ends in zip(grids, reached, strict=True)],
    }[span]
    positions = torch.stack([torch.linspace(start, end, points, dtype=seen.dtype) for start, end in spans])
    parts, slope = _evaluate(layer, functions, inputs, positions.T)
    sampled = {"base": parts.base, "spline": parts.basis, "symbolic": parts.symbolic, "slope": slope}
    arrays = {name: _array(values.permute(2, 1, 0)) for name, values in sampled.items()}
    flat = (passed.std(dim=2, correction=0) <= FLAT_SHARE * trace.subnodes.std(dim=0, correction=0)).numpy()
    xs, is_symbolic = _array(positions), layer.is_symbolic.numpy()
    for edge in edges:
        n, j = inputs.index(edge.i), edge.j
        curve: dict[str, Any] = {name: values[n, j] for name, values in arrays.items()}
        x, y = xs[n], curve["base"] + curve["spline"] + curve["symbolic"]
        if not is_symbolic[j, edge.i]:
            curve["symbolic"] = None
        x_original, y_original, unit = None, None, None
        if edge.source.startswith("feature:") and not mixes:
            feature = config.feature_names.index(edge.source.removeprefix("feature:"))
            x_original = x * scaling.feature_scale[feature] + scaling.feature_mean[feature]
            unit = config.features[feature].unit
        if edge.target.startswith("output:"):  # a sum node, with one sub-node
            output = config.outputs.index(edge.target.removeprefix("output:"))
            y_original = y * float(layer.subnode_scale[j] * layer.node_scale[j]) * scaling.output_scale[output]
        shape: CurveShape = "linear" if lines[n][j].r2 >= LINEAR_R2 else "curved"
        shape = "base_only" if (grids[n].outside or 0.0) > 0.5 else shape
        yield Edge(
            **curve | {"edge": edge, "x": x, "y": y, "x_original": x_original, "y_original": y_original, "unit": unit},
            grid=grids[n].knots,
            core=grids[n].core,
            support=supports[n],
            line=lines[n][j],
            shape="flat" if flat[n, j] else shape,
            function_of="normalised input" if mixes else "input",
            name=model.name,
            reference=model.reference.span,
            origin=model.origin,
        )


@torch.no_grad()
def _evaluate(layer: KANLayer, edges: Edges, inputs: list[int], x: Tensor) -> tuple[EdgeParts, Tensor]:
    """Parts of the edges that leave inputs of a layer, and their slopes, (points, n_subnodes, inputs).

    Positions x are (points, inputs); of a layer that mixes, they are those of what the basis reads.
    """
    config, chosen = layer.config, torch.tensor(inputs)
    if config.mixes:
        parts, slopes = edges.parts(x, x)
        if config.n_before_base == len(config.before):
            return parts, slopes.total
        nothing = torch.zeros_like(parts.base)  # the base reads something else
        return EdgeParts(nothing, parts.basis, nothing), slopes.basis
    v, v_slope = value_and_slope(lambda x: layer.read(x, chosen)[0], x)
    u, u_slope = value_and_slope(lambda x: layer.read(x, chosen)[1], x)
    parts, slopes = edges.parts(v, u)
    by_v, by_u = v_slope.unsqueeze(1), u_slope.unsqueeze(1)
    return parts, (slopes.base + slopes.symbolic) * by_v + slopes.basis * by_u


def _find_grids(layer: KANLayer, inputs: list[int], seen: Tensor, of_basis: Tensor) -> list[Grid]:
    """Where the basis is for positions such as those `seen`, of which it reads `of_basis`, (inputs, n) each."""
    knots, core = getattr(layer, "grid", None), layer.core
    if knots is None or core is None:
        return [Grid(np.empty(0), None, None) for _ in inputs]
    knots, ends = knots[inputs], torch.stack(core, dim=1)[inputs]  # (inputs, n_knots), (inputs, 2)
    outside = ((of_basis < ends[:, :1]) | (of_basis > ends[:, 1:])).double().mean(dim=1).tolist()
    if layer.config.mixes or not layer.config.before:
        return [Grid(_array(k), (c[0], c[1]), o) for k, c, o in zip(knots, ends.tolist(), outside, strict=True)]
    low, high = torch.aminmax(seen, dim=1)
    x = low + (high - low) * torch.linspace(-1, 2, N_REACH, dtype=seen.dtype)[:, None]  # (N_REACH, inputs)
    read = layer.read(x, torch.tensor(inputs))[1]
    columns = zip(_array(x.T), _array(read.T), _array(knots), _array(ends), outside, strict=True)
    return [Grid.read_at(*column) for column in columns]


def _fit_lines(inputs: Array, outputs: Array, supports: Sequence[Support]) -> list[list[LinearFit]]:
    """The line of each edge, by input, then sub-node; inputs (n_in, n), outputs (n_in, n_subnodes, n), model units."""
    ends = np.array([(support.p01, support.p99) for support in supports])
    inside = (inputs >= ends[:, :1]) & (inputs <= ends[:, 1:])
    inside |= ~inside.any(axis=1, keepdims=True)  # of two values neither lies between the percentiles
    inputs, inside = inputs[:, None], inside[:, None]
    x_mean, y_mean = _mean(inputs, inside), _mean(outputs, inside)
    x, y = np.where(inside, inputs - x_mean, 0.0), np.where(inside, outputs - y_mean, 0.0)
    slopes = _divide_sums(x * y, x**2)
    r2 = 1 - _divide_sums((y - x * slopes) ** 2, y**2)
    fitted = np.concatenate([slopes, y_mean - slopes * x_mean, r2], axis=2)
    return [[LinearFit(*line) for line in of_input] for of_input in fitted.tolist()]


def _mean(values: Array, inside: NDArray[np.bool_]) -> Array:
    """Of those inside, along the last axis. That of equal values is one of them, not what rounding makes of a sum."""
    lowest = values.min(axis=-1, where=inside, initial=np.inf, keepdims=True)
    highest = values.max(axis=-1, where=inside, initial=-np.inf, keepdims=True)
    return np.asarray(np.where(lowest < highest, values.mean(axis=-1, where=inside, keepdims=True), lowest))


def _divide_sums(a: Array, b: Array) -> Array:
    """The sum of a over the last axis divided by that of b; 0/0 counts as 0."""
    numerator, denominator = (values.sum(axis=-1, keepdims=True) for values in (a, b))
    return np.asarray(np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0))


def _array(values: Tensor) -> Array:
    return np.asarray(values.detach().double().contiguous().numpy())
