"""A head with formulas as edges: its values, its constants as parameters to fit, its sympy expression.

The nodes and sub-nodes are the network's own, with their affine maps and products; an edge is c f(a x + b), and what is
constant in it, like what stands for an edge that is left out, is part of its sub-node's constant. Where nothing is left
out, an edge is a table of what the network has there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from kanmodel.explain.functions.library import FUNCTIONS
from kanmodel.explain.functions.symbolic import Candidate
from kanmodel.explain.functions.tabulated import TabulatedEdge
from kanmodel.network.layer import KANLayer
from kanmodel.scaling import Array

Edge = tuple[int, int, int]  # layer, i, j
Subnode = tuple[int, int]  # layer, j
EdgeFormula = Candidate | TabulatedEdge
MAX_FITTED = 40  # numbers of a formula that are fitted together
N_STEPS = 15  # of a fit
PENALTY = 1e6  # a residual where a formula has no value


@dataclass(frozen=True)
class HeadFormula:
    """The formula of one node of the last layer.

    Attributes:
        layers: of the head, first to last.
        node: number of the node of the last layer.
        edges: c f(a x + b) of each edge that the node depends on, without d, or its table.
        constants: of each sub-node, by (layer, sub-node).
    """

    layers: Sequence[KANLayer]
    node: int
    edges: Mapping[Edge, EdgeFormula]
    constants: Mapping[Subnode, float]

    @classmethod
    def of(
        cls,
        layers: Sequence[KANLayer],
        node: int,
        edges: Mapping[Edge, EdgeFormula],
        constants: Mapping[Subnode, float],
    ) -> HeadFormula:
        """The formula without the edges that lead nowhere, or come from what is constant."""
        return cls(layers, node, {edge: edges[edge] for edge in find_used(layers, node, edges)}, constants)

    @property
    def complexity(self) -> int:
        """pykan's prices of the functions, or the coefficients of tables, added up, and one for the constant."""
        return 1 + sum(function.complexity for function in self.edges.values())

    def values(self, inputs: Array) -> Array:
        """The node's values for inputs of the head (n, n_in), model units; not finite beyond a function's domain."""
        zero = np.zeros(len(inputs))
        with np.errstate(all="ignore"):
            values: Array = zero + self._evaluate(list(inputs.T), lambda function, x: function.values(x))
        return values

    def express(self, symbols: Sequence[Any], prefix: str) -> Any:
        """The node as an expression of sympy's symbols of the inputs; names of tables begin with the prefix."""
        import sympy  # here, since it is slow to import

        def apply(edge: EdgeFormula, x: Any) -> Any:
            if isinstance(edge, TabulatedEdge):
                return edge.express(x, prefix)
            function = sympy.sympify(FUNCTIONS[edge.function].pattern.format("u"))
            return edge.c * function.subs(sympy.Symbol("u"), edge.a * x + edge.b)

        return sympy.sympify(self._evaluate(symbols, apply))

    def fit(self, inputs: Array, values: Array) -> HeadFormula:
        """The same functions with the numbers that come nearest to values (n,), by least squares; itself if none do.

        A trust-region Gauss-Newton method (Branch, Coleman and Li 1999), from the present numbers; tables have none.
        """
        fitted = {edge: function for edge, function in self.edges.items() if isinstance(function, Candidate)}
        used = list(fitted)
        subnodes = sorted({(edge[0], edge[2]) for edge in used} or {(len(self.layers) - 1, self.node)})
        start = np.array(
            [n for e in used for n in (fitted[e].a, fitted[e].b, fitted[e].c)]
            + [self.constants.get(subnode, 0.0) for subnode in subnodes]
        )
        if len(fitted) < len(self.edges) or len(start) > MAX_FITTED or len(start) > len(values):
            return self

        def with_numbers(numbers: Array) -> HeadFormula:
            of_edges = numbers[: 3 * len(used)].reshape(-1, 3).tolist()
            edges = {e: replace(fitted[e], a=a, b=b, c=c) for e, (a, b, c) in zip(used, of_edges, strict=True)}
            of_subnodes = dict(zip(subnodes, numbers[3 * len(used) :].tolist(), strict=True))
            return replace(self, edges=edges, constants={**self.constants, **of_subnodes})

        def residuals(numbers: Array) -> Array:
            lost = with_numbers(numbers).values(inputs) - values
            return np.clip(np.nan_to_num(lost, nan=PENALTY, posinf=PENALTY, neginf=-PENALTY), -PENALTY, PENALTY)

        size = np.maximum(np.abs(start), 0.1)
        found = least_squares(residuals, start, x_scale=size, max_nfev=N_STEPS, ftol=1e-5)
        before = float((residuals(start) ** 2).sum())
        return with_numbers(found.x) if 2 * found.cost < before else self

    def _evaluate(self, inputs: Sequence[Any], apply: Callable[[EdgeFormula, Any], Any]) -> Any:
        """The node from its inputs, numbers or symbols; what it does not depend on is not computed."""
        by_subnode: dict[Subnode, list[tuple[int, EdgeFormula]]] = {}
        for (layer, i, j), function in self.edges.items():
            by_subnode.setdefault((layer, j), []).append((i, function))

        def node_value(number: int, node: int) -> Any:
            if number < 0:
                return inputs[node]
            layer = self.layers[number]
            factors = []
            for subnode in _subnodes(layer, node):
                terms = [apply(f, node_value(number - 1, i)) for i, f in by_subnode.get((number, subnode), [])]
                total = sum(terms, start=self.constants.get((number, subnode), 0.0))
                factors.append(float(layer.subnode_scale[subnode]) * total + float(layer.subnode_bias[subnode]))
            value = factors[0]
            for factor in factors[1:]:
                value = value * factor
            return float(layer.node_scale[node]) * value + float(layer.node_bias[node])

        return node_value(len(self.layers) - 1, self.node)


def _subnodes(layer: KANLayer, node: int) -> list[int]:
    return [subnode for subnode, of in enumerate(layer.config.node_of_subnode) if of == node]


def find_used(layers: Sequence[KANLayer], node: int, edges: Iterable[Edge]) -> list[Edge]:
    """The edges by which a node of the last layer depends on the inputs, in the order of their places.

    Args:
        layers: of the head, first to last.
        node: number of the node.
        edges: those that there are; others are zero.
    """
    entering: dict[Subnode, list[Edge]] = {}
    for edge in edges:
        entering.setdefault((edge[0], edge[2]), []).append(edge)
    used: list[Edge] = []

    @cache
    def visit(layer: int, node: int) -> bool:
        """Whether the node depends on an input; collects the edges by which it does."""
        if layer < 0:
            return True
        found = [e for subnode in _subnodes(layers[layer], node) for e in entering.get((layer, subnode), [])]
        alive = [edge for edge in found if visit(layer - 1, edge[1])]
        used.extend(alive)
        return bool(alive)

    visit(len(layers) - 1, node)
    return sorted(used)


def count_calls(layers: Sequence[KANLayer], node: int, used: Iterable[Edge]) -> int:
    """How many edges a formula has, as a node is written out wherever it is read; `used` as `find_used` gives them."""
    times = Counter({(len(layers), node): 1})
    for layer, i, j in sorted(used, reverse=True):  # from the last layer to the first
        times[layer, i] += times[layer + 1, layers[layer].config.node_of_subnode[j]]
    return times.total() - 1
