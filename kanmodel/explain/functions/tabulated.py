"""Edges as tables: the network's own function on an edge, for the formula that leaves none out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kanmodel.network.layer import KANLayer
from kanmodel.scaling import Array

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
