import copy

import numpy as np
import pytest
import torch
from factories import make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from thorough import examples

from kanmodel.explain.structure.compaction import compact_network
from kanmodel.explain.structure.connectivity import n_nodes as count_nodes


def drop_nodes(network, dropped):
    """A copy without edges into or out of the dropped nodes, (stage, layer, node), and the remaining nodes by layer."""
    masked = copy.deepcopy(network)
    nodes = {
        (stage, layer): torch.ones(n_nodes, dtype=torch.bool)
        for stage, layers in masked.config.stages.items()
        for layer, n_nodes in enumerate(count_nodes(layers))
    }
    for stage, layer, node in dropped:
        nodes[stage, layer][node] = False
        kan = masked.stages[stage]
        subnodes = [j for j, member in enumerate(kan[layer - 1].config.node_of_subnode) if member == node]
        kan[layer - 1].mask[subnodes] = 0
        kan[layer].mask[:, node] = 0
    return masked, nodes


def hidden_nodes(network):
    return [
        (stage, layer, node)
        for stage, layers in network.config.stages.items()
        for layer in range(1, len(layers))
        for node in range(layers[layer].n_in)
    ]


@settings(max_examples=examples(40))
@given(
    st.sampled_from(["lstm", "head", "front"]),
    st.integers(0, 500),
    st.sampled_from(["float32", "float64"]),
    st.data(),
)
def test_dropping_idle_nodes_changes_nothing(shape, seed, dtype, data):
    """Without idle sum and product nodes the layers are smaller and the outputs the same for any windows."""
    model = make_model(shape, seed, product=True, targets=("a", "b"), bidirectional=True, n_reference=4, dtype=dtype)
    hidden = hidden_nodes(model.network)
    dropped = data.draw(st.sets(st.sampled_from(hidden), max_size=len(hidden)))
    masked, nodes = drop_nodes(model.network, dropped)
    compact = compact_network(masked, nodes)
    for stage, layers in masked.config.stages.items():
        for layer in range(1, len(layers)):
            gone = sum(place[:2] == (stage, layer) for place in dropped)
            assert compact.config.stages[stage][layer].n_in == max(1, layers[layer].n_in - gone)
        assert compact.config.stages[stage][0].n_in == layers[0].n_in
        assert compact.config.stages[stage][-1].n_out == layers[-1].n_out
    window_shape = (3, model.config.lookback, len(model.config.features))
    windows = data.draw(hnp.arrays(np.float64, window_shape, elements=st.floats(-4, 4)))
    windows = torch.from_numpy(windows).to(getattr(torch, dtype))
    expected = masked(windows)
    torch.testing.assert_close(compact(windows), expected, rtol=1e-6 if dtype == "float64" else 1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("dropped", "width", "arity"), [([3], (3, 1), (3,)), ([0, 4], (2, 1), (2,)), ([3, 4], (3, 0), ())]
)
def test_products_keep_their_factors(dropped, width, arity):
    """Of a product of 2 and one of 3 factors, each that remains keeps its number of factors."""
    network = make_model("head", product=True, n_reference=4).network
    masked, nodes = drop_nodes(network, [("head", 1, node) for node in dropped])
    head = compact_network(masked, nodes).config.head
    assert (head[0].n_sum, len(arity)) == width and head[0].mult_arity == arity


def test_the_network_it_is_made_from_stays():
    """Compacting returns a new network with its own weights, without gradients."""
    network = make_model("head", n_reference=4).network
    masked, nodes = drop_nodes(network, [("head", 1, 0)])
    before = {name: tensor.clone() for name, tensor in masked.state_dict().items()}
    compact = compact_network(masked, nodes)
    with torch.no_grad():
        compact.head[0].coef.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in masked.state_dict().items())
    assert not any(weight.requires_grad for weight in compact.parameters())
