"""A head with formulas as edges: its values, its constants as parameters to fit, its sympy expression.

The nodes and sub-nodes are the network's own, with their affine maps and products; an edge is c f(a x + b), and what is
constant in it, such as the mean of an edge that is left out, is part of its sub-node's constant. In the last formula,
which leaves none out, an edge is a table of the network's own function.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any

import numpy as np
import torch

from kanmodel.data import Array
from kanmodel.explain.symbolic import FUNCTIONS, Candidate
from kanmodel.network.layer import KANLayer

Edge = tuple[int, int, int]  # layer, i, j
Subnode = tuple[int, int]  # layer, j

N_POINTS = 257  # of a table
BEYOND = 1.0  # the inputs on either side, as a share of their range, that a table goes
DIGITS = 5  # of its values
MAX_FITTED = 40  # numbers of a formula that are fitted together
N_STEPS = 15  # of a fit
STEP = float(np.sqrt(np.finfo(float).eps))  # of the differences in place of derivatives, relative
PENALTY = 1e6  # a residual where a formula has no value


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

    def write(self, prefix: str) -> str:
        """Its definition in Python with numpy."""
        positions = f"numpy.linspace({self.low!r}, {self.high!r}, {len(self.points)})"
        points = ", ".join(map(repr, self.points))
        return f"def {prefix}{self.name}(x):\n    return numpy.interp(x, {positions}, [{points}])\n"


def tabulate_edges(
    layers: Sequence[KANLayer], reached: Sequence[Array], chosen: Sequence[Edge]
) -> dict[Edge, TabulatedEdge]:
    """Some edges of a head's layers, over the range of the inputs (n, n_in) that reach each layer, and beyond."""
    tables = {}
    for number, (layer, inputs) in enumerate(zip(layers, reached, strict=True)):
        low, high = inputs.min(axis=0), inputs.max(axis=0)
        high = np.where(low < high, high, low + 1)
        low, high = low - BEYOND * (high - low), high + BEYOND * (high - low)
        positions = torch.from_numpy(np.linspace(low, high, N_POINTS))  # (n_points, n_in)
        with torch.no_grad():
            edges = layer.trace(positions.to(layer.mask.dtype)).edges.double().numpy()
        complexity = layer.coef.shape[2] + (layer.scale_base is not None)
        for i, j in ((i, j) for of, i, j in chosen if of == number):
            points = tuple(float(f"{value:.{DIGITS}g}") for value in edges[:, j, i].tolist())
            name = f"_{number}_{i}_{j}"
            tables[number, i, j] = TabulatedEdge(name, float(low[i]), float(high[i]), points, complexity)
    return tables


@dataclass(frozen=True)
class HeadFormula:
    """The formula of one node of the last layer, of the inputs of the head, in model units.

    Attributes:
        layers: of the head, first to last.
        node: number of the node of the last layer.
        edges: c f(a x + b) of each edge that the node depends on, without d, or its table.
        constants: of each sub-node, by (layer, sub-node); 0 where there is none.
    """

    layers: Sequence[KANLayer]
    node: int
    edges: Mapping[Edge, Candidate | TabulatedEdge]
    constants: Mapping[Subnode, float]

    @property
    def complexity(self) -> int:
        """pykan's prices of the functions, or the coefficients of tables, added up, and one for the constant."""
        return 1 + sum(function.complexity for function in self.edges.values())

    @property
    def tables(self) -> list[TabulatedEdge]:
        """The edges that are tables."""
        return [function for function in self.edges.values() if isinstance(function, TabulatedEdge)]

    def values(self, inputs: Array) -> Array:
        """The node's values for inputs of the head (n, n_in), (n,); not finite beyond a function's domain."""
        with np.errstate(all="ignore"):
            values: Array = np.zeros(len(inputs)) + self._evaluate(inputs.T, lambda function, x: function.values(x))
        return values

    def express(self, symbols: Sequence[Any], prefix: str) -> Any:
        """The node as an expression of sympy's symbols of the inputs; names of tables begin with the prefix."""
        import sympy  # here, since it is slow to import

        parse = cache(lambda name: sympy.sympify(FUNCTIONS[name].pattern.format("u")))

        def express(function: Candidate | TabulatedEdge, x: Any) -> Any:
            if isinstance(function, TabulatedEdge):
                return sympy.Function(prefix + function.name)(x)
            return function.c * parse(function.function).subs(sympy.Symbol("u"), function.a * x + function.b)

        return sympy.sympify(self._evaluate(symbols, express))

    def fit(self, inputs: Array, values: Array) -> HeadFormula:
        """The same functions with the numbers that come nearest to values (n,), by least squares; itself if none do.

        A trust-region Gauss-Newton method (Branch, Coleman and Li 1999), from the present numbers; tables have none.
        """
        from scipy.optimize import least_squares  # here, since it is slow to import

        subnodes = sorted({(edge[0], edge[2]) for edge in self.edges} or {(len(self.layers) - 1, self.node)})
        fitted = {edge: function for edge, function in self.edges.items() if isinstance(function, Candidate)}
        start = np.array(
            [number for function in fitted.values() for number in (function.a, function.b, function.c)]
            + [self.constants.get(subnode, 0.0) for subnode in subnodes]
        )
        if len(fitted) < len(self.edges) or len(start) > min(MAX_FITTED, len(values)):
            return self

        def with_numbers(numbers: Array) -> HeadFormula:
            """The formula with a, b and c of each edge, and then the constants; numbers (k, ...)."""
            of_edges = numbers[: 3 * len(fitted)].reshape(-1, 3, *numbers.shape[1:])
            edges = {
                edge: replace(function, a=a, b=b, c=c)
                for (edge, function), (a, b, c) in zip(fitted.items(), of_edges, strict=True)
            }
            constants = dict(zip(subnodes, numbers[3 * len(fitted) :], strict=True))
            return replace(self, edges=edges, constants={**self.constants, **constants})

        def residuals(numbers: Array) -> Array:
            """For one set of numbers, (k,) -> (n,), or several, (k, m) -> (m, n)."""
            lost = with_numbers(numbers[..., None]).values(inputs) - values
            kept = np.clip(np.nan_to_num(lost, nan=PENALTY, posinf=PENALTY, neginf=-PENALTY), -PENALTY, PENALTY)
            return np.broadcast_to(kept, (*numbers.shape[1:], len(values)))

        def jacobian(numbers: Array) -> Array:
            moved = numbers + STEP * np.where(numbers < 0, -1, 1) * np.maximum(np.abs(numbers), 1)
            lost = residuals(np.column_stack([numbers, np.where(np.eye(len(numbers)) > 0, moved, numbers[:, None])]))
            derivatives: Array = ((lost[1:] - lost[0]) / (moved - numbers)[:, None]).T
            return derivatives

        scale = np.maximum(np.abs(start), 0.1)
        found = least_squares(residuals, start, jacobian, x_scale=scale, max_nfev=N_STEPS, ftol=1e-5)
        if 2 * found.cost >= float((residuals(start) ** 2).sum()):
            return self
        return with_numbers(np.array(found.x.tolist(), dtype=object))  # Python's numbers, for sympy

    def _evaluate(self, inputs: Iterable[Any], apply: Callable[[Candidate | TabulatedEdge, Any], Any]) -> Any:
        """The node from the inputs of the head, numbers or symbols; edges by `apply`."""
        values = list(inputs)
        for number, layer in enumerate(self.layers):
            sums = [self.constants.get((number, j), 0.0) for j in range(len(layer.subnode_scale))]
            for (of, i, j), function in self.edges.items():
                if of == number:
                    sums[j] = sums[j] + apply(function, values[i])
            scales, biases = layer.subnode_scale.tolist(), layer.subnode_bias.tolist()
            factors: dict[int, list[Any]] = defaultdict(list)
            for j, node in enumerate(layer.config.node_of_subnode):
                factors[node].append(scales[j] * sums[j] + biases[j])
            nodes = zip(layer.node_scale.tolist(), factors.values(), layer.node_bias.tolist(), strict=True)
            values = [scale * prod(rest, start=first) + bias for scale, (first, *rest), bias in nodes]
        return values[self.node]


def find_used(layers: Sequence[KANLayer], node: int, edges: Iterable[Edge]) -> tuple[list[Edge], int]:
    """The edges by which a node of the last layer depends on the inputs, in order, and their number in a formula.

    Other edges of the head are zero. A formula has some repeatedly, as a node is written out wherever it is read.
    """
    enters = [layer.config.node_of_subnode for layer in layers]
    reached, reaching = {(0, i) for i in range(layers[0].config.n_in)}, []  # nodes that depend on an input
    for layer, i, j in sorted(edges):
        if (layer, i) in reached:
            reached.add((layer + 1, enters[layer][j]))
            reaching.append((layer, i, j))
    used, times = [], Counter({(len(layers), node): 1})
    for layer, i, j in reversed(reaching):  # from the last layer to the first
        if times[layer + 1, enters[layer][j]]:
            times[layer, i] += times[layer + 1, enters[layer][j]]
            used.append((layer, i, j))
    return used[::-1], times.total() - 1
