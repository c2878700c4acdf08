"""A whole KAN that acts on features as one expression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy
import torch

from kanmodel.checkpoint import LoadedModel
from kanmodel.errors import ConfigError
from kanmodel.explain.formulas import sample_edge_data
from kanmodel.explain.replay import r2
from kanmodel.explain.symbolic import LIBRARY, Candidate, suggest_formulas
from kanmodel.explain.topology import Topology
from kanmodel.network.layer import KANLayer
from kanmodel.scaling import Array

DIGITS = (4, 6, 9)  # of the numbers in an expression, tried in turn
LOSS = 1e-5  # of R2 that fewer digits may cost
SIMPLER = 0.001  # loss of R2 that a simpler function is worth, per unit of complexity


@dataclass(frozen=True)
class Formula:
    """A whole KAN as one expression.

    Attributes:
        output: name of the output.
        expression: of the features by name, original units, in Python's notation.
        r2: coefficient of determination against the model on the reference windows.
    """

    output: str
    expression: str
    r2: float


def compose_formula(model: LoadedModel, topology: Topology) -> Formula:
    """One expression for a KAN that acts on the features themselves, from the kept edges of a topology.

    Each edge becomes the formula with the best R2, where a simpler one may cost a thousandth per unit of complexity.
    Pruned edges stand as their mean on the reference windows.

    Raises:
        ConfigError: there is an LSTM, whose units have no formula.
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
    symbols = [sympy.Symbol(name) for name in config.feature_names]
    nodes: list[Any] = [
        (symbol - mean) / scale
        for symbol, mean, scale in zip(symbols, model.scaling.feature_mean, model.scaling.feature_scale, strict=True)
    ]
    for number, (layer, trace) in enumerate(zip(model.network.stages["head"], traces, strict=True)):
        subnodes = []
        for j in range(trace.edges.shape[1]):
            total: Any = sympy.Integer(0)
            for i, node in enumerate(nodes):
                edge = kept.get((number, i, j))
                if edge is None:
                    total += float(trace.edges[:, j, i].mean())
                else:
                    found = suggest_formulas(*sample_edge_data(trace, edge))
                    total += _apply(_choose(found, trace.inputs[:, i].double().numpy()), node)
            subnodes.append(total)
        nodes = _combine(layer, subnodes)
    output = config.outputs.index(topology.output)
    expression = nodes[output] * float(model.scaling.output_scale[output]) + float(model.scaling.output_mean[output])
    exact = _fidelity(model, symbols, expression, output)
    for digits in DIGITS:
        rounded = _round(expression, digits)
        r2_rounded = _fidelity(model, symbols, rounded, output)
        if r2_rounded >= exact - LOSS:
            return Formula(topology.output, str(rounded), r2_rounded)
    return Formula(topology.output, str(expression), exact)


def _choose(candidates: Sequence[Candidate], x: Array) -> Candidate:
    """The best trade of R2 for complexity among the candidates with `x`, all reference inputs, in their domain."""
    with np.errstate(all="ignore"):
        defined = [
            candidate
            for candidate in candidates
            if np.isfinite(LIBRARY[candidate.function].function(candidate.a * x + candidate.b)).all()
        ]
    return max(defined, key=lambda candidate: candidate.r2 - SIMPLER * candidate.complexity)


def _apply(candidate: Candidate, node: Any) -> Any:
    function = sympy.sympify(LIBRARY[candidate.function].pattern.format("u"))
    inner = candidate.a * node + candidate.b
    return candidate.c * function.subs(sympy.Symbol("u"), inner) + candidate.d


def _combine(layer: KANLayer, subnodes: Sequence[Any]) -> list[Any]:
    """The affine maps and products behind the sub-nodes, as `KANLayer.nodes`."""
    pairs = zip(layer.subnode_scale.tolist(), subnodes, layer.subnode_bias.tolist(), strict=True)
    factors = [scale * subnode + bias for scale, subnode, bias in pairs]
    nodes, start = factors[: layer.config.n_sum], layer.config.n_sum
    for arity in layer.config.mult_arity:
        nodes.append(sympy.Mul(*factors[start : start + arity]))
        start += arity
    return [
        scale * node + bias
        for scale, node, bias in zip(layer.node_scale.tolist(), nodes, layer.node_bias.tolist(), strict=True)
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


def _fidelity(model: LoadedModel, symbols: Sequence[Any], expression: Any, output: int) -> float:
    windows = model.scaling.features_to_original(model.reference.windows)[:, -1]
    with np.errstate(all="ignore"):
        values = np.asarray(sympy.lambdify(symbols, expression, "numpy")(*windows.T), dtype=np.float64)
    values = np.broadcast_to(values, (len(windows),))
    full = model.scaling.outputs_to_original(model.reference_outputs)[:, output]
    return r2(torch.from_numpy(full), torch.from_numpy(values.copy()))
