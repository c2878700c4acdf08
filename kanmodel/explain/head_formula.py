"""A head with formulas as edges: its values, its constants as parameters to fit, its sympy expression.

The nodes and sub-nodes are the network's own, with their affine maps and products; an edge is c f(a x + b), and what is
constant in it, such as the mean of an edge that is left out, is part of its sub-node's constant. In the last formula,
which leaves none out, an edge is a table of the network's own function.

Edges as tables: the network's own function on an edge, for the formula that leaves none out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from kanmodel.data import Array
from kanmodel.explain.symbolic import FUNCTIONS, Candidate
from kanmodel.network.layer import KANLayer

N_POINTS = 257
MARGIN = 1.0  # beyond the inputs on either side, as a share of their range
DIGITS = 5  # of the values


@dataclass(frozen=True)
class TabulatedEdge:
    """An edge by its values at even positions: linear between two of them, constant beyond the first and the last.

    Attributes:
        name: of the function in a formula, after a prefix.
        low: the first position.
        high: the last one.
        points: the values.
        complexity: the number of coefficients that the edge has in the network.
    """

    name: str
    low: float
    high: float
    points: tuple[float, ...]
    complexity: int

    def values(self, x: Array) -> Array:
        """The function at positions, (n,)."""
        values: Array = np.interp(x, np.linspace(self.low, self.high, len(self.points)), self.points)
        return values

    def express(self, x: Any, prefix: str) -> Any:
        """Its call as an expression of sympy."""
        import sympy  # here, since it is slow to import

        return sympy.Function(prefix + self.name)(x)

    def write(self, prefix: str) -> str:
        """Its definition in Python with numpy."""
        positions = f"numpy.linspace({self.low!r}, {self.high!r}, {len(self.points)})"
        points = ", ".join(map(repr, self.points))
        return f"def {prefix}{self.name}(x):\n    return numpy.interp(x, {positions}, [{points}])\n"


def tabulate_edges(
    layers: Sequence[KANLayer], reached: Sequence[Array], chosen: Sequence[tuple[int, int, int]]
) -> dict[tuple[int, int, int], TabulatedEdge]:
    """Edges of a head, by (layer, i, j).

    Args:
        layers: of the head, first to last.
        reached: inputs of each layer, (n, n_in), model units; tables go from the smallest to the largest, and as far
            beyond on either side as a share of their distance.
        chosen: which edges.
    """
    found = {}
    for number, (layer, inputs) in enumerate(zip(layers, reached, strict=True)):
        low, high = inputs.min(axis=0), inputs.max(axis=0)
        high = np.where(low < high, high, low + 1)
        low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)
        positions = np.linspace(low, high, N_POINTS)  # (n_points, n_in)
        with torch.no_grad():
            edges = layer.trace(torch.from_numpy(positions).to(layer.mask.dtype)).edges.double().numpy()
        for i, j in ((i, j) for of, i, j in chosen if of == number):
            points = tuple(float(f"{value:.{DIGITS}g}") for value in edges[:, j, i].tolist())
            complexity = layer.coef.shape[2] + (layer.scale_base is not None)
            name = f"_{number}_{i}_{j}"
            found[number, i, j] = TabulatedEdge(name, float(low[i]), float(high[i]), points, complexity)
    return found


Edge = tuple[int, int, int]  # layer, i, j
Subnode = tuple[int, int]  # layer, j
EdgeFormula = Candidate | TabulatedEdge
MAX_FITTED = 40  # numbers of a formula that are fitted together
N_STEPS = 15  # of a fit
STEP = float(np.sqrt(np.finfo(float).eps))  # of the differences in place of derivatives, relative
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
        """The formula without edges that do not reach the output, or whose input is constant."""
        return cls(layers, node, {edge: edges[edge] for edge in find_used(layers, node, edges)}, constants)

    @property
    def complexity(self) -> int:
        """pykan's prices of the functions, or the coefficients of tables, added up, and one for the constant."""
        return 1 + sum(function.complexity for function in self.edges.values())

    def values(self, inputs: Array) -> Array:
        """The node's values for inputs of the head (n, n_in), model units; not finite beyond a function's domain."""
        zero = np.zeros(len(inputs))
        with np.errstate(all="ignore"):
            values: Array = zero + self._evaluate(
                list(inputs.T), lambda edge, x: self.edges[edge].values(x), self.constants
            )
        return values

    def express(self, symbols: Sequence[Any], prefix: str) -> Any:
        """The node as an expression of sympy's symbols of the inputs; names of tables begin with the prefix."""
        import sympy  # here, since it is slow to import

        def apply(edge: Edge, x: Any) -> Any:
            function = self.edges[edge]
            if isinstance(function, TabulatedEdge):
                return function.express(x, prefix)
            return function.c * _parse(function.function).subs(sympy.Symbol("u"), function.a * x + function.b)

        return sympy.sympify(self._evaluate(symbols, apply, self.constants))

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

        def values_with(numbers: Array) -> Array:
            """The node for sets of numbers (k, m): (m, n)."""
            of_edges = {e: numbers[3 * place : 3 * place + 3, :, None] for place, e in enumerate(used)}
            constants = {**self.constants, **dict(zip(subnodes, numbers[3 * len(used) :, :, None], strict=True))}

            def apply(edge: Edge, x: Array) -> Array:
                a, b, c = of_edges[edge]
                values: Array = c * FUNCTIONS[fitted[edge].function].values(a * x + b)
                return values

            with np.errstate(all="ignore"):
                found = self._evaluate(list(inputs.T), apply, constants)
            return np.broadcast_to(found, (numbers.shape[1], len(inputs)))

        def residuals(numbers: Array) -> Array:
            lost = values_with(numbers.reshape(len(start), -1)) - values
            kept = np.clip(np.nan_to_num(lost, nan=PENALTY, posinf=PENALTY, neginf=-PENALTY), -PENALTY, PENALTY)
            return kept.reshape(*numbers.shape[1:], len(inputs))

        def jacobian(numbers: Array) -> Array:
            moved = numbers + STEP * np.where(numbers < 0, -1, 1) * np.maximum(np.abs(numbers), 1)
            lost = residuals(np.column_stack([numbers, np.where(np.eye(len(numbers)) > 0, moved, numbers[:, None])]))
            derivatives: Array = ((lost[1:] - lost[0]) / (moved - numbers)[:, None]).T
            return derivatives

        size = np.maximum(np.abs(start), 0.1)
        from scipy.optimize import least_squares  # here, since it is slow to import

        found = least_squares(residuals, start, jacobian, x_scale=size, max_nfev=N_STEPS, ftol=1e-5)
        if 2 * found.cost >= float((residuals(start) ** 2).sum()):
            return self
        of_edges = found.x[: 3 * len(used)].reshape(-1, 3).tolist()
        edges = {e: replace(fitted[e], a=a, b=b, c=c) for e, (a, b, c) in zip(used, of_edges, strict=True)}
        of_subnodes = dict(zip(subnodes, found.x[3 * len(used) :].tolist(), strict=True))
        return replace(self, edges=edges, constants={**self.constants, **of_subnodes})

    def _evaluate(
        self, inputs: Sequence[Any], apply: Callable[[Edge, Any], Any], constants: Mapping[Subnode, Any]
    ) -> Any:
        """The node from its inputs, numbers or symbols; what it does not depend on is not computed."""
        entering: dict[Subnode, list[Edge]] = {}
        for edge in self.edges:
            entering.setdefault((edge[0], edge[2]), []).append(edge)
        affine = [
            [tensor.tolist() for tensor in (layer.subnode_scale, layer.subnode_bias, layer.node_scale, layer.node_bias)]
            for layer in self.layers
        ]

        @cache
        def node_value(number: int, node: int) -> Any:
            if number < 0:
                return inputs[node]
            subnode_scale, subnode_bias, node_scale, node_bias = affine[number]
            factors = []
            for subnode in _subnodes(self.layers[number], node):
                terms = [apply(edge, node_value(number - 1, edge[1])) for edge in entering.get((number, subnode), [])]
                total = sum(terms, start=constants.get((number, subnode), 0.0))
                factors.append(subnode_scale[subnode] * total + subnode_bias[subnode])
            value = factors[0]
            for factor in factors[1:]:
                value = value * factor
            return node_scale[node] * value + node_bias[node]

        return node_value(len(self.layers) - 1, self.node)


@cache
def _parse(function: str) -> Any:
    """A function of `FUNCTIONS` as an expression of sympy's u."""
    import sympy  # here, since it is slow to import

    return sympy.sympify(FUNCTIONS[function].pattern.format("u"))


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
