"""The config of a layer: its shape, basis, base and symbolic edges, and the steps before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from reprlib import repr
from typing import Any

from kanmodel.errors import ConfigError
from kanmodel.network.activations import ACTIVATIONS
from kanmodel.network.bases import Basis, BSpline
from kanmodel.network.checks import check_choice, check_count, check_items, check_number
from kanmodel.network.functions import FUNCTIONS

MAX_LAYERS = 1 << 8  # of a network, because some computations are quadratic in the number of layers
BASE_FUNCTIONS = ("zero", *ACTIVATIONS)  # "zero": no base function
LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Step:
    """A transformation of a layer's inputs before its edges.

    Attributes:
        kind: an elementwise activation (`activations.ACTIVATIONS`); ``affine``, a scale and a bias for each node, such
            as a BatchNorm in evaluation mode; or ``layer_norm``, which mixes the nodes (Ba et al. 2016, arXiv
            1607.06450), with a scale and a bias for each.
        parameter: the slope below 0 of leaky_relu, alpha of elu, beta of softplus, or eps of layer_norm; torch's by
            default. None for kinds without a parameter.
    """

    kind: str
    parameter: float | None = None

    def __post_init__(self) -> None:
        check_choice(self.kind, "kind", ("affine", "layer_norm", *ACTIVATIONS))
        usual = LAYER_NORM_EPS if self.mixes else None if self.has_tensors else ACTIVATIONS[self.kind].parameter
        if self.parameter is None:
            object.__setattr__(self, "parameter", usual)
        elif usual is None:
            raise ConfigError(f"parameter must be null, as {self.kind} has none, but is {repr(self.parameter)}")
        else:
            check_number(self.parameter, "parameter", positive=self.kind in ("layer_norm", "softplus"))

    @property
    def mixes(self) -> bool:
        """Whether a value depends on all nodes."""
        return self.kind == "layer_norm"

    @property
    def has_tensors(self) -> bool:
        """Whether it has a ``weight`` and a ``bias``, each (n_in,)."""
        return self.kind in ("affine", "layer_norm")


@dataclass(frozen=True)
class SymbolicEdge:
    """An edge with an additional fixed function c f(a x + b) + d, as made by pykan's `fix_symbolic`.

    Attributes:
        i: index of its input.
        j: index of its sub-node.
        function: pykan's name of f.
    """

    i: int
    j: int
    function: str

    def __post_init__(self) -> None:
        check_count(self.i, "i", lowest=0)
        check_count(self.j, "j", lowest=0)
        check_choice(self.function, "function", FUNCTIONS)


@dataclass(frozen=True)
class LayerConfig:
    """A layer of edges with the sum and product nodes they enter (Liu et al. 2024, arXiv 2404.19756, 2408.10205).

    Attributes:
        n_in: number of inputs.
        n_sum: number of sum nodes.
        basis: the basis of the functions on edges.
        base: the activation added to the basis, with a weight for each edge; ``zero`` for none.
        before: transformations of the inputs before the edges, in order. Elementwise steps belong to the edges, whose
            function is x -> f(step(x)); a layer norm mixes the nodes.
        base_after: number of these steps before the base; None for all. 0 if only the basis takes normalised values,
            as in fast-kan.
        mult_arity: number of factors of each product node; product nodes come after the sum nodes.
        symbolic: edges with a fixed function besides the basis, of the same inputs as the base.
    """

    n_in: int
    n_sum: int
    basis: Basis = field(default_factory=BSpline)
    base: str = "silu"
    before: tuple[Step, ...] = ()
    base_after: int | None = None
    mult_arity: tuple[int, ...] = ()
    symbolic: tuple[SymbolicEdge, ...] = ()

    def __post_init__(self) -> None:
        check_count(self.n_in, "n_in")
        check_count(self.n_sum, "n_sum", lowest=0)
        check_items(self.mult_arity, "mult_arity", int)
        for number, arity in enumerate(self.mult_arity):
            check_count(arity, f"mult_arity[{number}]", lowest=2)
        check_count(self.n_subnodes, "the number of sub-nodes")
        if not isinstance(self.basis, Basis):
            raise ConfigError(f"basis must be a basis, but is {repr(self.basis)}")
        check_choice(self.base, "base", BASE_FUNCTIONS)
        check_items(self.before, "before", Step)
        check_count(len(self.before), "the number of steps before a layer", lowest=0, highest=MAX_LAYERS)
        if self.base_after is not None:
            check_count(self.base_after, "base_after", lowest=0, highest=len(self.before))
        check_items(self.symbolic, "symbolic", SymbolicEdge)
        for number, edge in enumerate(self.symbolic):
            if edge.i >= self.n_in or edge.j >= self.n_subnodes:
                raise ConfigError(
                    f"symbolic[{number}] is an edge from {edge.i} to {edge.j}, but there are {self.n_in} inputs and "
                    f"{self.n_subnodes} sub-nodes"
                )

    @property
    def n_out(self) -> int:
        """Number of nodes, sum and product nodes together."""
        return self.n_sum + len(self.mult_arity)

    @property
    def n_subnodes(self) -> int:
        """Number of sub-nodes: one for each sum node, and one for each factor of a product node."""
        return self.n_sum + sum(self.mult_arity)

    @property
    def node_of_subnode(self) -> tuple[int, ...]:
        """The node that each sub-node belongs to."""
        factors = [self.n_sum + m for m, arity in enumerate(self.mult_arity) for _ in range(arity)]
        return (*range(self.n_sum), *factors)

    @property
    def steps_of_base(self) -> int:
        """Number of steps of `before` that are applied before the base."""
        return len(self.before) if self.base_after is None else self.base_after

    @property
    def mixes(self) -> bool:
        """Whether the input of an edge depends on all nodes, because of a layer norm."""
        return any(step.mixes for step in self.before)


Layers = tuple[LayerConfig, ...]


def plain_layers(
    width: Sequence[int | tuple[int, int]], basis: Basis | None = None, **options: Any
) -> tuple[LayerConfig, ...]:
    """Uniform layers from pykan's width: ``plain_layers([12, (5, 2), 1])`` has 5 sum and 2 product nodes.

    Args:
        width: nodes of each layer, or (sum nodes, product nodes of two factors).
        basis: of all layers; B-splines of 5 intervals by default.
        **options: of all layers, see `LayerConfig`.

    Raises:
        ConfigError: such layers cannot exist.
    """
    nodes = [(n, 0) if isinstance(n, int) else n for n in width]
    if len(nodes) < 2:
        raise ConfigError(f"width needs an input and an output layer, but is {list(width)}")
    if nodes[0][1]:
        raise ConfigError(f"width[0] has inputs only, but is {list(nodes[0])}")
    return tuple(
        LayerConfig(sum(before), n_sum, basis or BSpline(), mult_arity=(2,) * n_mult, **options)
        for before, (n_sum, n_mult) in pairwise(nodes)
    )


def width_of(layers: Layers) -> list[int | list[int]]:
    """pykan's width of consecutive layers: ``[12, 5, 1]``, with ``[n_sum, n_mult]`` for a layer with product nodes."""
    nodes: list[int | list[int]] = [layers[0].n_in]
    return nodes + [[layer.n_sum, len(layer.mult_arity)] if layer.mult_arity else layer.n_sum for layer in layers]
