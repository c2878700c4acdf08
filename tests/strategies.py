"""Hypothesis strategies of the model core."""

from __future__ import annotations

from hypothesis import strategies as st

from kanmodel.config import Feature, KANConfig, LSTMConfig, ModelConfig, Target

finite = st.floats(-1e6, 1e6)


@st.composite
def kan_configs(draw: st.DrawFn, n_in: int, n_out: int, min_order: int = 0) -> KANConfig:
    """KANs of one to three layers, with product nodes."""
    hidden = draw(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), max_size=2))
    width = ((n_in, 0), *hidden, (n_out, 0))
    return KANConfig(
        width=width,
        grid_size=tuple(draw(st.lists(st.integers(1, 6), min_size=len(width) - 1, max_size=len(width) - 1))),
        spline_order=draw(st.integers(min_order, 4)),
        base_activation=draw(st.sampled_from(["silu", "identity", "zero"])),
        mult_arity=tuple(tuple(draw(st.lists(st.integers(2, 4), min_size=m, max_size=m))) for _, m in width),
    )


@st.composite
def model_configs(draw: st.DrawFn) -> ModelConfig:
    """Forecasters of all three shapes."""
    shape = draw(st.sampled_from(["lstm", "head", "front"]))
    names = draw(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=4, unique=True))
    features = tuple(
        Feature(
            name, draw(st.none() | st.text(max_size=3)), draw(finite), draw(st.floats(0, 1e6)), draw(st.none() | finite)
        )
        for name in names
    )
    targets = tuple(
        Target(f"y{t}", None, draw(finite), draw(st.floats(0, 1e6))) for t in range(draw(st.integers(1, 2)))
    )
    horizon = draw(st.integers(1, 2))
    lstm = LSTMConfig(
        draw(st.integers(1, 3)),
        draw(st.integers(1, 2)),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from(["last", "mean"])),
    )
    n_outputs = len(targets) * horizon
    return ModelConfig(
        features=features,
        targets=targets,
        lookback=1 if shape == "head" else draw(st.integers(1, 4)),
        horizon=horizon,
        head=draw(kan_configs(len(names) if shape == "head" else lstm.n_units, n_outputs)),
        lstm=None if shape == "head" else lstm,
        front=draw(kan_configs(len(names), draw(st.integers(1, 3)))) if shape == "front" else None,
        dtype=draw(st.sampled_from(["float32", "float64"])),
    )
