"""Hypothesis strategies for the model core."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from kanmodel.network.bases import Basis, BSpline, Chebyshev, Fourier, Gaussian, Line, MexicanHat, Sech2
from kanmodel.network.config import (
    BASE_FUNCTIONS,
    LayerConfig,
    Layers,
    ModelConfig,
    RecurrentConfig,
    SymbolicEdge,
    Transform,
)
from kanmodel.network.functions import ACTIVATIONS
from kanmodel.network.network import Network
from kanmodel.tables.columns import Feature, Target
from kanmodel.text import UNPRINTABLE

finite = st.floats(-1e6, 1e6)
PRINTABLE = st.text(st.characters().filter(lambda char: not UNPRINTABLE.match(char)), max_size=6)
SMOOTH = ("elu", "gelu", "gelu_tanh", "silu", "mish", "tanh", "sigmoid", "softplus", "identity")
SAFE_FUNCTIONS = ("x", "x^2", "sin", "tanh", "exp", "gaussian", "abs")  # defined for every input

bases = st.one_of(
    st.builds(BSpline, st.integers(1, 6), st.integers(1, 4)),
    st.builds(Gaussian, st.integers(1, 5), st.floats(0.3, 2)),
    st.builds(Sech2, st.integers(1, 5), st.floats(0.3, 2)),
    st.builds(Chebyshev, st.integers(0, 5)),
    st.builds(Fourier, st.integers(1, 4)),
    st.just(MexicanHat()),
    st.just(Line()),
)


@st.composite
def steps(draw: st.DrawFn, activations: tuple[str, ...] = tuple(ACTIVATIONS), mixes: bool = True) -> Transform:
    """Steps that may precede a layer."""
    kind = draw(st.sampled_from([*activations, "affine", *(["layer_norm"] if mixes else [])]))
    return Transform(kind, draw(st.floats(0.01, 2)) if kind in ("leaky_relu", "elu", "softplus") else None)


@st.composite
def layer_configs(
    draw: st.DrawFn,
    n_in: int,
    n_sum: int | None = None,
    smooth: bool = False,
    basis: st.SearchStrategy[Basis] = bases,
    symbolic: bool = False,
    mixes: bool = True,
) -> LayerConfig:
    """Layers of every basis and of all preceding steps, with product nodes unless `n_sum` is given."""
    activations = SMOOTH if smooth else tuple(ACTIVATIONS)
    before = tuple(draw(st.lists(steps(activations, mixes), max_size=2)))
    n_nodes = draw(st.integers(1, 3)) if n_sum is None else n_sum
    arity = tuple(draw(st.lists(st.integers(2, 3), max_size=2))) if n_sum is None else ()
    base = draw(st.sampled_from(["zero", *SMOOTH] if smooth else BASE_FUNCTIONS))
    base_after = draw(st.none() | st.integers(0, len(before)))
    layer = LayerConfig(n_in, n_nodes, draw(basis), base, before, base_after, arity)
    if not symbolic:
        return layer
    places = st.tuples(st.integers(0, n_in - 1), st.integers(0, layer.n_subnodes - 1))
    edges = draw(st.dictionaries(places, st.sampled_from(SAFE_FUNCTIONS), max_size=3))
    fixed = tuple(SymbolicEdge(i, j, function) for (i, j), function in edges.items())
    return LayerConfig(n_in, n_nodes, layer.basis, base, before, base_after, arity, fixed)


@st.composite
def layers_of(draw: st.DrawFn, n_in: int, n_out: int | None, **options: object) -> Layers:
    """One to three layers in a row, the last with `n_out` sum nodes."""
    found: list[LayerConfig] = []
    for _ in range(draw(st.integers(0, 2))):
        found.append(draw(layer_configs(n_in, **options)))  # type: ignore[arg-type]
        n_in = found[-1].n_out
    found.append(draw(layer_configs(n_in, draw(st.integers(1, 3)) if n_out is None else n_out, **options)))  # type: ignore[arg-type]
    return tuple(found)


@st.composite
def model_configs(draw: st.DrawFn, dtype: str | None = None, **options: object) -> ModelConfig:
    """Chains of every kind: any front, cell, readout, head and output function."""
    names = draw(st.lists(PRINTABLE.filter(len), min_size=1, max_size=4, unique=True))
    features = tuple(
        Feature(
            name,
            draw(st.none() | PRINTABLE),
            draw(finite),
            draw(st.floats(0, 1e6)),
            draw(st.none() | finite),
            title=draw(st.none() | st.just("Air, of the hall")),
        )
        for name in names
    )
    targets = tuple(
        Target(f"y{t}", None, draw(finite), draw(st.floats(0, 1e6))) for t in range(draw(st.integers(1, 2)))
    )
    lookback, horizon = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    front = draw(st.just(()) | layers_of(len(names), None, **options))
    cells = st.builds(
        RecurrentConfig,
        st.sampled_from(["lstm", "gru"]),
        st.integers(1, 3),
        st.integers(1, 2),
        st.booleans(),
        st.booleans(),
    )
    recurrent = draw(st.none() | cells)
    readout = draw(st.sampled_from(["last", "mean", "flatten"]))
    n_steps = recurrent.n_units if recurrent else front[-1].n_out if front else len(names)
    return ModelConfig(
        features=features,
        targets=targets,
        lookback=lookback,
        horizon=horizon,
        head=draw(layers_of(n_steps * (lookback if readout == "flatten" else 1), len(targets) * horizon, **options)),
        recurrent=recurrent,
        front=front,
        readout=readout,
        output_function=draw(st.sampled_from([None, None, "softmax", "sigmoid", "tanh"])),
        dtype=draw(st.sampled_from(["float32", "float64"])) if dtype is None else dtype,  # type: ignore[arg-type]
    )


@st.composite
def networks(draw: st.DrawFn, dtype: str = "float64") -> Network:
    """Networks with dead edges and nodes, adaptive grids, scales of any sign including zero, and fixed functions."""
    network = Network(draw(model_configs(dtype, symbolic=True)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    with torch.no_grad():
        for name, values in network.state_dict().items():
            if "grid" not in name and not name.endswith(".scale"):
                noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
                sparse = torch.rand(values.shape, generator=generator) < 0.4
                values.copy_(torch.where(sparse, 0, 1) if "mask" in name else torch.where(sparse, 0, 0.5 * noise))
        if draw(st.booleans()):
            for layers in network.stages.values():
                for layer in layers:
                    layer.update_grid(torch.randn(40, layer.config.n_in, generator=generator, dtype=values.dtype))
    return network.eval().requires_grad_(False)
