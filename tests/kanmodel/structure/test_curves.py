from dataclasses import astuple, replace
from functools import cache

import numpy as np
import pytest
import torch
from factories import SHAPES, make_model
from goldens import load_case
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples, few_of

from kanmodel.structure.curves import sample_edges
from kanmodel.structure.importance import measure_importance
from kanmodel.structure.pruning import PruningRule
from kanmodel.structure.topology import build_topology

SPANS = ["support", "reference", "grid"]


@cache
def tiny(shape, **options):
    small = {"n_features": 3, "lookback": 3, "hidden_size": 3, "product": True}
    model = make_model(shape, **small | options)
    return model, build_topology(model, measure_importance(model, 0), PruningRule())


@cache
def golden(name):
    case = load_case(name)
    return case, build_topology(case.model, measure_importance(case.model, 0), PruningRule())


def sample_edge(model, topology, stage, layer, i, j, points=101, span="support"):
    (curve,) = sample_edges(model, [topology.edge(stage, layer, i, j)], points, span)
    return curve


def changed(model, change):
    """The model after `change` modified its network, and its graph."""
    with torch.no_grad():
        change(model.network)
    model = replace(model, reference=model.reference)
    return model, build_topology(model, measure_importance(model, 0), PruningRule())


def what_passes(model, edge):
    """Inputs and outputs of an edge on the reference windows."""
    trace = model.network.trace(model.reference.scaled).stages[edge.stage][edge.layer]
    return trace.inputs[:, edge.i].numpy(), trace.edges[:, edge.j, edge.i].numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("span", SPANS)
def test_parts_sum_to_the_edge(shape, span):
    """For every edge base + spline = y, y is its term in the layer, and the slope is the derivative of y.

    It is sampled evenly over the support, the reference range or the grid's core.
    """
    model, topology = tiny(shape)
    curves = sample_edges(model, topology.kan_edges, 201, span)
    assert [curve.edge for curve in curves] == list(topology.kan_edges)
    for curve in curves:
        layer = model.network.stages[curve.edge.stage][curve.edge.layer]
        np.testing.assert_allclose(curve.base + curve.spline, curve.y, atol=1e-12)
        inputs, _ = what_passes(model, curve.edge)
        ends = {"support": np.percentile(inputs, [1, 99]), "reference": [inputs.min(), inputs.max()]}
        ends["grid"] = [float(end[curve.edge.i]) for end in layer.core]
        np.testing.assert_allclose(curve.x, np.linspace(*ends[span], len(curve.x)), atol=1e-12)

        def y(x, layer=layer, edge=curve.edge):
            inputs = torch.zeros(len(x), layer.grid.shape[0], dtype=torch.float64)
            inputs[:, edge.i] = torch.from_numpy(x)
            return layer.edges(inputs)[:, edge.j, edge.i].numpy()

        np.testing.assert_allclose(curve.y, y(curve.x), atol=1e-12)
        step = 1e-6
        np.testing.assert_allclose(curve.slope, (y(curve.x + step) - y(curve.x - step)) / (2 * step), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_support_is_that_of_the_reference_windows(shape):
    """Percentiles, histogram and share outside the grid equal numpy's on the reference inputs of the edge."""
    model, topology = tiny(shape)
    for edge, curve in zip(topology.kan_edges, sample_edges(model, topology.kan_edges), strict=True):
        inputs, _ = what_passes(model, edge)
        support = curve.support
        np.testing.assert_allclose([support.p01, support.p50, support.p99], np.percentile(inputs, [1, 50, 99]))
        counts, edges = np.histogram(inputs, bins=20)
        np.testing.assert_array_equal(support.histogram_counts, counts)
        np.testing.assert_array_equal(support.histogram_edges, edges)
        assert support.histogram_counts.sum() == len(inputs)
        order = model.network.stages[edge.stage][edge.layer].config.basis.order
        outside = (inputs < curve.grid[order]) | (inputs > curve.grid[-order - 1])
        assert support.outside_grid == outside.mean()


def test_original_units():
    """x is in the feature's unit too if the edge leaves a feature, y in the target's if it enters an output."""
    model, topology = tiny("head")
    feature, target = model.config.features[1], model.config.targets[0]
    first = sample_edge(model, topology, "head", 0, 1, 0)
    np.testing.assert_allclose(first.x_original, first.x * feature.std + feature.mean)
    assert first.unit == feature.unit == "hPa"
    assert first.y_original is None
    last = sample_edge(model, topology, "head", 1, 2, 0)
    layer = model.network.head[1]
    gain = float(layer.subnode_scale[0] * layer.node_scale[0]) * target.std
    np.testing.assert_allclose(last.y_original, last.y * gain)
    assert (last.x_original, last.unit) == (None, None)
    model, topology = tiny("front")
    assert sample_edge(model, topology, "front", 0, 1, 0).unit == "hPa"
    assert sample_edge(model, topology, "head", 0, 1, 0).x_original is None


@settings(max_examples=examples(10))
@given(st.floats(0.05, 3), st.booleans())
def test_a_straight_edge(slope, falling):
    """An edge without spline and with identity base is a line: R2 is 1, and slope and shape agree."""
    slope = -slope if falling else slope

    def straighten(network):
        network.head[0].scale_spline[0] = 0
        network.head[0].scale_base[0] = slope
        network.head[0].mask[0] = 1

    model, topology = changed(make_model("head", base_activation="identity"), straighten)
    curve = sample_edge(model, topology, "head", 0, 2, 0)
    assert curve.shape == "linear"
    assert (curve.line.slope, curve.line.intercept) == pytest.approx((slope, 0), abs=1e-9)
    assert curve.line.r2 == pytest.approx(1)
    np.testing.assert_allclose(curve.slope, slope)
    np.testing.assert_allclose(curve.spline, 0, atol=1e-12)


def test_a_curved_edge():
    """The R2 of a curved edge is the share of its variance that a line explains."""

    def bend(network):
        layer = network.head[0]
        layer.grid.mul_(3)
        layer.scale_base[0] = 0
        layer.coef[0] = torch.tensor([1.0, -1] * 10, dtype=torch.float64)[: layer.coef.shape[2]]
        layer.scale_spline[0] = 1
        layer.mask[0] = 1

    model, topology = changed(make_model("head"), bend)
    edge = topology.edge("head", 0, 1, 0)
    curve = sample_edge(model, topology, "head", 0, 1, 0)
    inputs, outputs = what_passes(model, edge)
    inside = (inputs >= curve.support.p01) & (inputs <= curve.support.p99)
    slope, intercept = np.polyfit(inputs[inside], outputs[inside], 1)
    missed = outputs[inside] - slope * inputs[inside] - intercept
    assert curve.shape == "curved"
    assert curve.line.r2 == pytest.approx(
        1 - (missed**2).sum() / ((outputs[inside] - outputs[inside].mean()) ** 2).sum()
    )
    assert (curve.line.slope, curve.line.intercept) == pytest.approx((slope, intercept))


def test_an_edge_outside_its_grid():
    """An edge whose inputs lie outside its grid has only its base, and the shape `base_only`."""

    def leave(network):
        network.head[0].grid.add_(100)
        network.head[0].mask.fill_(1)

    model, topology = changed(make_model("head"), leave)
    curve = sample_edge(model, topology, "head", 0, 1, 0)
    assert (curve.support.outside_grid, curve.shape) == (1.0, "base_only")
    np.testing.assert_array_equal(curve.spline, 0)
    np.testing.assert_array_equal(curve.y, curve.base)


def test_flat_edges():
    """A masked edge and one with a constant input are flat: a line fits them exactly."""
    model, topology = tiny("head")
    masked = sample_edge(model, topology, "head", 0, 0, 0)
    np.testing.assert_array_equal(masked.y, 0)
    assert (masked.shape, masked.line.slope, masked.line.r2) == ("flat", 0, 1)
    case, topology = golden("constant_input")
    for j in range(3):
        curve = sample_edge(case.model, topology, "head", 0, 3, j)
        assert curve.shape == "flat"
        assert (curve.line.slope, curve.line.r2) == (0, 1)
        assert np.isfinite(curve.slope).all()


@cache
def wide(dtype):
    model = make_model("head", n_features=40, dtype=dtype, n_reference=60)
    return model, build_topology(model, measure_importance(model, 0), PruningRule("contribution"))


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("dtype", few_of(["float32", "float64"], ["float32"], "the same in double precision"))
def test_an_edge_alone_is_as_among_others(dtype, span):
    """Edges sampled together have bitwise the same measurements as each edge alone."""
    model, topology = wide(dtype)
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    curves = sample_edges(model, topology.kan_edges, 31, span)
    for curve in curves[::7]:
        (alone,) = sample_edges(model, [curve.edge], 31, span)
        for name in ("x", "y", "base", "spline", "slope", "grid"):
            np.testing.assert_allclose(getattr(curve, name), getattr(alone, name), rtol=tolerance, atol=tolerance)
        assert (curve.core, curve.line, curve.shape) == (alone.core, alone.line, alone.shape)
        np.testing.assert_equal(astuple(curve.support), astuple(alone.support))
