"""An output with formulas as edges: its values, its constants as parameters to fit, its sympy expression.

How it is computed is its `Composition`. An edge is c f(a x + b), and what is constant in it, such as the mean of an
edge that is left out, is part of its sub-node's constant. In the last formula an edge is a table of its own function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from math import prod
from typing import Any

import numpy as np
import torch

from kanmodel.arrays import Array
from kanmodel.errors import needs_package
from kanmodel.formula.composition import Composition, Edge, Subnode, notation_of
from kanmodel.formula.symbolic import FUNCTIONS, Candidate
from kanmodel.network.layer import KANLayer, LayerTrace

N_POINTS = 257  # of a table
BEYOND = 1.0  # the inputs on either side, as a share of their range, that a table goes
DIGITS = 5  # of its values
MAX_FITTED = 40  # numbers of a formula that are fitted together
N_STEPS = 15  # of a fit
STEP = float(np.sqrt(np.finfo(float).eps))  # of the differences in place of derivatives, relative
PENALTY = 1e6  # a residual where a formula has no value


@dataclass(frozen=True)
class TabulatedEdge:
    """An edge by its values at even positions: linear between two of them, constant beyond the first and the last."""

    name: str  # of the function in a formula, after a prefix
    low: float  # the first position
    high: float  # the last one
    points: tuple[float, ...]  # the values
    complexity: int  # the number of coefficients that the edge has in the network

    def values(self, x: Array) -> Array:
        """The function at positions, (n,)."""
        return np.interp(x, np.linspace(self.low, self.high, len(self.points)), self.points)

    def write(self, prefix: str) -> str:
        """Its definition in Python with numpy."""
        positions = f"numpy.linspace({self.low!r}, {self.high!r}, {len(self.points)})"
        points = ", ".join(map(repr, self.points))
        return f"def {prefix}{self.name}(x):\n    return numpy.interp(x, {positions}, [{points}])\n"


def tabulate_edges(
    layers: Sequence[KANLayer], traces: Mapping[int, LayerTrace], chosen: Sequence[Edge]
) -> dict[Edge, TabulatedEdge]:
    """Some edges of a head's layers, over the range of the inputs that reach each layer, and beyond."""
    tables = {}
    for number, trace in traces.items():
        layer, inputs = layers[number], trace.inputs.double().numpy()
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
    """The formula of one output before the output function, of the inputs of its composition, in model units."""

    composition: Composition  # how the output is computed
    # c f(a x + b) of each edge that the output depends on, without d, or its table
    edges: Mapping[Edge, Candidate | TabulatedEdge]
    constants: Mapping[Subnode, float]  # of each sub-node, by (layer, sub-node); 0 where there is none

    @property
    def complexity(self) -> int:
        """pykan's prices of the functions, or the coefficients of tables, added up, and one for the constant."""
        return 1 + sum(function.complexity for function in self.edges.values())

    @property
    def tables(self) -> list[TabulatedEdge]:
        """The edges that are tables."""
        return [function for function in self.edges.values() if isinstance(function, TabulatedEdge)]

    def values(self, inputs: Array) -> Array:
        """The output for inputs (n, n_inputs), (n,); not finite beyond a function's domain."""
        with np.errstate(all="ignore"):
            found = self._evaluate(inputs.T, lambda edge, x: edge.values(x), lambda op: notation_of(op).of_numbers)
            values: Array = np.zeros(len(inputs)) + found
        return values

    def express(self, symbols: Sequence[Any], prefix: str) -> Any:
        """The output as an expression of sympy's symbols of the inputs; names of tables begin with the prefix."""
        import sympy  # here, since it is slow to import

        parse = cache(lambda name: sympy.sympify(FUNCTIONS[name].pattern.format("u")))

        def express(edge: Candidate | TabulatedEdge, x: Any) -> Any:
            if isinstance(edge, TabulatedEdge):
                return sympy.Function(prefix + edge.name)(x)
            return edge.c * parse(edge.function).subs(sympy.Symbol("u"), edge.a * x + edge.b)

        return sympy.sympify(self._evaluate(symbols, express, lambda op: notation_of(op).of_symbols))

    def fit(self, inputs: Array, values: Array) -> HeadFormula:
        """The same functions with the numbers that come nearest to values (n,), by least squares; itself if none do.

        A trust-region Gauss-Newton method (Branch, Coleman and Li 1999), from the present numbers; tables have none.
        """
        with needs_package("the search for a formula", "kanscope[formulas]"):
            from scipy.optimize import least_squares  # here, since it is slow to import

        subnodes = sorted({(edge[0], edge[2]) for edge in self.edges} or self.composition.outermost)
        fitted = {edge: function for edge, function in self.edges.items() if isinstance(function, Candidate)}
        start = np.array(
            [number for function in fitted.values() for number in (function.a, function.b, function.c)]
            + [self.constants.get(subnode, 0.0) for subnode in subnodes]
        )
        if not start.size or len(fitted) < len(self.edges) or len(start) > min(MAX_FITTED, len(values)):
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

    def _evaluate(
        self,
        inputs: Iterable[Any],
        apply: Callable[[Candidate | TabulatedEdge, Any], Any],
        operation: Callable[[str], Callable[[Any, Any, float], Any]],
    ) -> Any:
        """The output from the inputs, numbers or symbols; edges by `apply`, an operation of x, y and p by its name."""
        composition, given, into = self.composition, list(inputs), dict[Subnode, list[tuple[int, Any]]]()
        for (layer, i, j), function in self.edges.items():
            into.setdefault((layer, j), []).append((i, function))
        values: dict[int, Any] = {}
        for at in composition.find_needed(self.edges):
            step = composition.steps[at]
            if step.op == "input":
                values[at] = given[step.node]
            elif step.op == "number":
                values[at] = step.parameter
            elif step.op == "layer":
                scales, biases, node_scales, node_biases = composition.affine[step.layer]
                factors = []
                for j in composition.members[step.layer, step.node]:
                    total = self.constants.get((step.layer, j), 0.0)
                    for i, function in into.get((step.layer, j), ()):
                        total = total + apply(function, values[step.reads[i]])
                    factors.append(scales[j] * total + biases[j])
                first, *rest = factors
                values[at] = node_scales[step.node] * prod(rest, start=first) + node_biases[step.node]
            elif len(step.reads) == 1:
                values[at] = operation(step.op)(values[step.reads[0]], 0.0, step.parameter)
            else:
                fold, read = operation(step.op), (values[source] for source in step.reads)
                values[at] = reduce(lambda x, y, fold=fold: fold(x, y, 0.0), read)  # type: ignore[misc]
        return values[len(composition.steps) - 1]
