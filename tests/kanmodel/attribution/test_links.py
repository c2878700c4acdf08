"""What the units of a recurrent chain get from each feature, and where a window is on the curves of edges."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import PROVENANCE, make_chain, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples
from wired import read

from kanmodel.attribution.baseline import Baseline
from kanmodel.attribution.ledger import LedgerOptions, explain_windows
from kanmodel.forecaster import Forecaster, Reference
from kanmodel.network.bases import Line
from kanmodel.network.config import LayerConfig, ModelConfig, RecurrentConfig, Transform
from kanmodel.network.network import Network
from kanmodel.structure.curves import sample_edges
from kanmodel.structure.edges import network_edges
from kanmodel.tables.columns import Feature, Target

SHAPES = st.fixed_dictionaries(
    {
        "shape": st.sampled_from(["lstm", "front"]),
        "cell": st.sampled_from(["lstm", "gru"]),
        "readout": st.sampled_from(["last", "mean", "flatten"]),
        "bidirectional": st.booleans(),
        "num_layers": st.integers(1, 2),
        "n_features": st.integers(1, 4),
        "hidden_size": st.integers(1, 4),
        "lookback": st.integers(1, 4),
        "product": st.booleans(),
        "seed": st.integers(0, 1000),
    }
)


def linked(ledger):
    """The layer with links, and the units that it leads to."""
    at = next(number for number, layer in enumerate(ledger.layers) if layer.stage in ("lstm", "gru", "cell"))
    return ledger.layers[at - 1], ledger.layers[at]


@settings(max_examples=examples(20))
@given(SHAPES)
def test_links_sum_to_what_they_leave_and_enter(options):
    model = make_model(options.pop("shape"), n_reference=8, **options)
    ledger = explain_windows(model, model.reference.scaled[:3], 0, detail="links")
    source, units = linked(ledger)
    assert source.edges.shape == (3, units.nodes.shape[1], source.nodes.shape[1])
    accepted = np.maximum(ledger.residual, 1e-9 * np.abs(ledger.predictions))[:, None]
    assert (np.abs(source.edges.sum(axis=1) - source.nodes) <= accepted).all()
    assert (np.abs(source.edges.sum(axis=2) - units.nodes) <= accepted).all()


@pytest.mark.parametrize("shape", ["lstm", "front"])
def test_links_are_those_of_257_nodes(shape):
    """Where a ledger has converged, each link is within two tolerances of what 257 nodes say."""
    model = make_model(shape, seed=4, n_reference=20)
    windows = model.reference.scaled[:12]
    found = explain_windows(model, windows, 0, detail="links")
    exact = explain_windows(model, windows, 0, options=LedgerOptions(path_nodes=257, halvings=0), detail="links")
    off = np.abs(linked(found)[0].edges - linked(exact)[0].edges).max(axis=(1, 2))
    assert found.converged.any()
    assert (off[found.converged] <= 2 * found.tolerance).all()  # an error is an estimate
    assert np.abs(linked(exact)[0].edges).max() > 100 * found.tolerance  # so that the comparison says something


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    st.lists(st.floats(0.1, 1), min_size=6, max_size=6),
    st.booleans(),
)
@settings(max_examples=examples(20))
def test_units_that_read_a_weighted_sum(window, weights, has_front):
    """A unit with open gates that forgets is tanh(tanh(w x)) of the newest step: each feature has a share of w x."""
    line = LayerConfig(3, 3, Line(), "zero")
    config = ModelConfig(
        *(tuple(Feature(f"x{i}") for i in range(3)), (Target("y"),), 2, 1),
        head=(LayerConfig(2, 1, Line(), "zero"),),
        recurrent=RecurrentConfig("lstm", 2),
        front=(line,) if has_front else (),
        dtype="float64",
    )
    network = Network(config)
    of_units = torch.tensor(weights, dtype=torch.float64).view(2, 3)
    with torch.no_grad():
        for weight in network.recurrent.parameters():
            weight.zero_()
        network.recurrent.weight_ih_l0[4:6] = of_units
        network.recurrent.bias_ih_l0[:] = torch.tensor([40.0, 40, -60, -60, 0, 0, 40, 40])  # in, forget, -, out
        for layer in (*network.front, *network.head):
            layer.coef.fill_(1)
            layer.mask.fill_(1)
            if layer.scale_spline is not None:
                layer.scale_spline.fill_(1)
    reference = torch.randn(40, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = Forecaster(network, Reference(reference, config), {}, PROVENANCE)
    x = torch.tensor([[[0.0] * 3, window]], dtype=torch.float64)
    ledger = explain_windows(model, x, 0, Baseline("zero"), detail="links")
    read = np.full(3, sum(window)) if has_front else np.array(window)
    sums = of_units.numpy() * read
    whole = sums.sum(axis=1, keepdims=True)
    shares = np.divide(sums, whole, out=np.zeros_like(sums), where=np.abs(whole) > 1e-9)
    expected = shares * np.tanh(np.tanh(whole))
    np.testing.assert_allclose(linked(ledger)[0].edges[0], expected, atol=2 * ledger.tolerance)


@pytest.mark.parametrize("before", [(), (Transform("layer_norm", 1e-5),), (Transform("tanh"),)])
@pytest.mark.parametrize("base_after", [None, 0])
def test_values_lie_on_the_curves(before, base_after):
    """What a layer states of a window is a point of the curve of each edge, as `sample_edges` draws it."""
    config = make_model("lstm", hidden_size=4).config
    first = replace(config.head[0], before=before, base_after=base_after)
    model = make_chain(replace(config, head=(first, config.head[1])), seed=2)
    ledger = explain_windows(model, model.reference.scaled, 0)
    placed = {(layer.stage, layer.layer): layer for layer in ledger.layers if layer.values is not None}
    assert set(placed) == {("head", 0), ("head", 1)}
    for curve in sample_edges(model, network_edges(model.network), 2001, "reference"):
        layer = placed[curve.edge.stage, curve.edge.layer]
        x, y = layer.values[:, curve.edge.i], layer.y[:, curve.edge.j, curve.edge.i]
        span = max(float(np.ptp(curve.y)), 1e-3)
        np.testing.assert_allclose(np.interp(x, curve.x, curve.y), y, atol=2e-3 * span)


def test_a_graph_has_no_links():
    model = read("RevIN")
    flow, links = (explain_windows(model, model.reference.scaled[:2], 0, detail=detail) for detail in ("flow", "links"))
    assert model.config.graph
    assert [layer[:2] for layer in flow.layers] == [layer[:2] for layer in links.layers]
    assert links.layers[0].edges is None
