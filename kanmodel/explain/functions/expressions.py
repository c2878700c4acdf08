"""A whole KAN that acts on features as one expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import ConfigError
from kanmodel.explain.functions.formulas import find_exact_formula, sample_edge_data
from kanmodel.explain.functions.identifiers import make_identifiers
from kanmodel.explain.functions.library import FUNCTIONS
from kanmodel.explain.functions.symbolic import Candidate, suggest_formulas
from kanmodel.explain.structure.replay import r2
from kanmodel.explain.topology.graph import NetworkGraph, TopologyEdge
from kanmodel.network.layer import KANLayer, LayerTrace
from kanmodel.scaling import Array

DIGITS = (4, 6, 9)  # of the numbers in an expression, tried in turn
LOSS = 1e-5  # of R2 that fewer digits may cost
SIMPLER = 0.001  # loss of R2 that a simpler function is worth, per unit of complexity


@dataclass(frozen=True)
class Formula:
    """A whole KAN as one expression.

    Attributes:
        output: name of the output.
        expression: of the features, original units, in Python's notation with numpy's names of functions.
        symbols: what stands for each feature in the expression, identifiers to names, in the order of the features.
        r2: coefficient of determination of the expression against the model on the reference windows.
    """

    output: str
    expression: str
    symbols: Mapping[str, str]
    r2: float


@dataclass(frozen=True)
class _Node:
    """A node of the formula.

    Attributes:
        expression: of the features, by sympy.
        values: on the reference windows, (n,).
    """

    expression: Any
    values: Array


def compose_formula(model: LoadedModel, topology: NetworkGraph) -> Formula:
    """One expression for a KAN that acts on the features themselves, from the kept edges of a topology.

    An edge whose function is known keeps it. Each other one becomes the formula with the best R2 on the reference
    windows, where a simpler one may cost a thousandth per unit of complexity. What stands for a pruned edge is what the
    rule of the topology says.

    Raises:
        ConfigError: there is an LSTM, whose units have no formula, a layer norm, or an output function.
    """
    config = model.config
    if any(layer.mixes for layer in config.head):
        raise ConfigError("a formula needs edges that are functions of one number, but a layer norm mixes all inputs")
    if not config.reads_features:
        raise ConfigError(
            "a formula needs layers that read the features of one step: an LSTM's or GRU's units are no functions of a "
            "few features"
        )
    if config.output_function is not None:
        raise ConfigError(f"a formula needs outputs that are sums, but these are behind {config.output_function}")
    with torch.no_grad():
        traces = model.network.trace(model.reference.windows).head
    kept = {(edge.layer, edge.i, edge.j): edge for edge in topology.kan_edges if edge.kept}
    symbols = dict(zip(make_identifiers(config.feature_names), config.feature_names, strict=True))
    nodes = _features(model, list(symbols))
    for number, (layer, trace) in enumerate(zip(model.network.stages["head"], traces, strict=True)):
        subnodes = []
        for j in range(trace.edges.shape[1]):
            edges = [kept.get((number, i, j)) for i in range(len(nodes))]
            fills = trace.edges[:, j].mean(dim=0).tolist() if topology.rule.fill == "mean" else [0.0] * len(nodes)
            subnodes.append(_add_edges(layer, trace, nodes, edges, fills))
        nodes = _combine(layer, subnodes)
    output = config.outputs.index(topology.output)
    scale, mean = float(model.scaling.output_scale[output]), float(model.scaling.output_mean[output])
    expression = nodes[output].expression * scale + mean
    formula = Formula(topology.output, "", symbols, _fidelity(model, symbols, expression, output))
    for digits in DIGITS:
        rounded = _round(expression, digits)
        r2_rounded = _fidelity(model, symbols, rounded, output)
        if r2_rounded >= formula.r2 - LOSS:
            return replace(formula, expression=_write(rounded), r2=r2_rounded)
    return replace(formula, expression=_write(expression))


def _features(model: LoadedModel, symbols: Sequence[str]) -> list[_Node]:
    """The features in model units."""
    scaling, values = model.scaling, model.reference.windows[:, -1].double().numpy()
    return [
        _Node((sympy.Symbol(symbol) - float(mean)) / float(scale), values[:, index])
        for index, (symbol, mean, scale) in enumerate(
            zip(symbols, scaling.feature_mean, scaling.feature_scale, strict=True)
        )
    ]


def _add_edges(
    layer: KANLayer,
    trace: LayerTrace,
    nodes: Sequence[_Node],
    edges: Sequence[TopologyEdge | None],
    fills: Sequence[float],
) -> _Node:
    """The sub-node that is the sum of formulas, and of a fill for each edge that is None."""
    total = _Node(sympy.Integer(0), np.zeros(len(trace.inputs)))
    for node, edge, fill in zip(nodes, edges, fills, strict=True):
        if edge is None:
            total = _Node(total.expression + fill, total.values + fill)
        else:
            chosen = _choose(layer, trace, edge, node.values)
            total = _Node(total.expression + _apply(chosen, node.expression), total.values + chosen.values(node.values))
    return total


def _choose(layer: KANLayer, trace: LayerTrace, edge: TopologyEdge, own: Array) -> Candidate:
    """The formula of an edge: the exact one, else the best trade of R2 on the reference windows for complexity.

    It is defined at the inputs that the edge has in the model and at `own`, those that it has in the formula.
    """
    exact = find_exact_formula(layer, edge)
    if exact is not None and np.isfinite(exact.values(own)).all():
        return exact
    x = trace.inputs[:, edge.i].double().numpy()
    y = trace.edges[:, edge.j, edge.i].double()
    low, high = min(x.min(), own.min()), max(x.max(), own.max())
    found = suggest_formulas(*sample_edge_data(trace, edge))
    return max(
        (candidate for candidate in found if candidate.is_defined_between(low, high)),
        key=lambda candidate: r2(y, torch.from_numpy(candidate.values(x))) - SIMPLER * candidate.complexity,
    )


def _apply(candidate: Candidate, node: Any) -> Any:
    function = sympy.sympify(FUNCTIONS[candidate.function].pattern.format("u"))
    inner = candidate.a * node + candidate.b
    return candidate.c * function.subs(sympy.Symbol("u"), inner) + candidate.d


def _combine(layer: KANLayer, subnodes: Sequence[_Node]) -> list[_Node]:
    """The affine maps and products behind the sub-nodes, as `KANLayer.nodes`."""
    factors = _scale(layer.subnode_scale, subnodes, layer.subnode_bias)
    nodes, start = factors[: layer.config.n_sum], layer.config.n_sum
    for arity in layer.config.mult_arity:
        of_product = factors[start : start + arity]
        values: Array = np.prod([factor.values for factor in of_product], axis=0)
        nodes.append(_Node(sympy.Mul(*(factor.expression for factor in of_product)), values))
        start += arity
    return _scale(layer.node_scale, nodes, layer.node_bias)


def _scale(scales: Tensor, nodes: Sequence[_Node], biases: Tensor) -> list[_Node]:
    return [
        _Node(scale * node.expression + bias, scale * node.values + bias)
        for scale, node, bias in zip(scales.tolist(), nodes, biases.tolist(), strict=True)
    ]


def _round(expression: Any, digits: int) -> Any:
    """The expression with numbers of so many digits."""
    values = {number: float(f"{float(number):.{digits}g}") for number in expression.atoms(sympy.Float)}
    return expression.xreplace(
        {
            number: sympy.Integer(value) if value in (0, 1, -1) else sympy.Float(value)
            for number, value in values.items()
        }
    )


def _write(expression: Any) -> str:
    """Python's notation, in which the absolute value is ``abs`` where sympy has ``Abs``."""
    return str(expression.replace(sympy.Abs, sympy.Function("abs")))


def _fidelity(model: LoadedModel, symbols: Mapping[str, str], expression: Any, output: int) -> float:
    """R2 of an expression of the features against the model on the reference windows."""
    windows = model.scaling.features_to_original(model.reference.windows)[:, -1]
    with np.errstate(all="ignore"):
        values = np.asarray(sympy.lambdify(list(symbols), expression, "numpy")(*windows.T), dtype=np.float64)
    values = np.broadcast_to(values, (len(windows),))
    full = model.scaling.outputs_to_original(model.reference_outputs)[:, output]
    return r2(torch.from_numpy(full), torch.from_numpy(values.copy()))
