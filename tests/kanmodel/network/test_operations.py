"""The nodes of a graph: shapes by arithmetic, cuts, and what a damaged document may not be."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import PROVENANCE

from kanmodel.checkpoint import load_checkpoint, save_checkpoint
from kanmodel.errors import CheckpointError, ConfigError
from kanmodel.forecaster import Forecaster, Reference
from kanmodel.network import network as networks
from kanmodel.network import operations
from kanmodel.network.config import ModelConfig, RecurrentConfig, config_from_dict, config_to_dict, plain_layers
from kanmodel.network.network import Network, tensor_shapes
from kanmodel.network.operations import Node, runs_of
from kanmodel.tables.columns import Feature, Target

CONFIG = ModelConfig(  # a skip of the last step around an LSTM and a head
    features=(Feature("a"), Feature("b")),
    targets=(Target("y"),),
    lookback=4,
    horizon=2,
    head=plain_layers([3, 2]),
    recurrents=(RecurrentConfig("lstm", 3),),
    graph=(
        Node("window"),
        Node("recurrent", (0,)),
        Node("arrange", (1,), shape=(3,), runs=((9, 1, 3),)),
        Node("layer", (2,)),
        Node("arrange", (0,), shape=(2,), runs=((6, 1, 2),)),
        Node("constant", shape=(2,)),
        Node("mul", (4, 5)),
        Node("add", (3, 6)),
    ),
)
CHAIN = replace(CONFIG, graph=(), recurrents=(), head=plain_layers([2, 2]))


def make(config=CONFIG):
    network = Network(config, torch.Generator().manual_seed(0))
    network.constants.get_buffer("5").copy_(torch.tensor([2.0, -1.0]))
    return network.requires_grad_(False).eval()


def changed(number, **fields):
    """The document with one node changed."""
    document = json.loads(json.dumps(config_to_dict(CONFIG)))
    document["graph"][number] |= fields
    return document


def test_the_document_holds_the_graph():
    """It is read as it was written; that of a chain has no graph."""
    assert config_from_dict(json.loads(json.dumps(config_to_dict(CONFIG)))) == CONFIG
    assert not {"graph", "recurrents"} & set(config_to_dict(CHAIN))


def test_shapes_are_those_of_the_values():
    """What arithmetic says of every node is what a pass computes, and the tensors are those of the network."""
    network, shapes = make(), []
    record = type("Record", (), {"watch": lambda *_: None, "watched": {"head": []}, "before": []})()
    record.cut = lambda number, leaf, values: shapes.append([tuple(value.shape[1:]) for value in values]) or leaf
    network.run(
        torch.zeros(5, 4, 2), [layer.forward for layer in network.head], [lambda x: network.recurrents[0](x)[0]], record
    )
    assert shapes[-1] == list(CONFIG.graph_shapes[:3])
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == tensor_shapes(CONFIG)


def test_a_cut_holds_the_derivatives_of_what_comes_after_it():
    """A value that is read before and after a cut has there the derivative of what reads it after it alone.

    What nothing reads between two cuts, such as the window between those of the LSTM and the layer, is there once.
    """
    assert CONFIG.cut_values == ((1, 0, 2), {1: (0,), 3: ()}, ((0, 1), (2, 1)))
    frozen, windows = make().freeze(), torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    trace = frozen.trace(windows)
    _, around, leaf = trace.values  # at the layer: its inputs, and the window
    by_leaf, by_window = torch.autograd.grad(trace.outputs[:, 0].sum(), [leaf, around])
    expected = torch.zeros(5, 4, 2)
    expected[:, 3, 0] = 2.0  # the constant of the skip
    assert torch.equal(by_window, expected)
    slopes = frozen._functions["head", 0].parts(leaf.detach(), leaf.detach())[1]
    expected = (slopes.base + slopes.basis)[:, 0]
    torch.testing.assert_close(by_leaf, expected, atol=1e-5, rtol=1e-4)


def test_an_arrangement_of_a_lattice_is_a_view():
    """Slices and transposes copy nothing; other indices, and several inputs, do."""
    values = torch.arange(24.0).reshape(2, 3, 4)
    for taken in (np.arange(12).reshape(3, 4).T, np.arange(12).reshape(3, 4)[1:, ::2], np.arange(12)[5:6]):
        node = Node("arrange", (0,), shape=taken.shape, runs=runs_of(taken.ravel()))
        found = operations.Arrangement(node)(values)
        assert found.untyped_storage().data_ptr() == values.untyped_storage().data_ptr()
        torch.testing.assert_close(found, values.flatten(1)[:, torch.from_numpy(taken.copy())])
    node = Node("arrange", (0, 1), shape=(2, 4), runs=runs_of([0, 12, 1, 13, 5, 4, 3, 20]))
    both = torch.cat([values.flatten(1), values.flatten(1)], dim=1)
    torch.testing.assert_close(
        operations.Arrangement(node)(values, values).flatten(1), both[:, [0, 12, 1, 13, 5, 4, 3, 20]]
    )


MANY_EDGES = {
    "head": json.loads(json.dumps(config_to_dict(replace(CHAIN, head=plain_layers([2, 300, 100, 2])))))["head"][1:2],
    "graph": [
        {"op": "window"},
        {"op": "arrange", "inputs": [0], "shape": [2000, 300], "runs": [[0, 0, 600_000]]},
        {"op": "layer", "inputs": [1]},
        {"op": "mean", "inputs": [2]},
        {"op": "arrange", "inputs": [3], "shape": [2], "runs": [[0, 1, 2]]},
    ],
}
DAMAGE = {
    "a cycle": (changed(2, inputs=[3]), r"graph\[2\].inputs must be nodes before it"),
    "an unknown operation": (changed(6, op="eval"), "op must be one of window, constant"),
    "a wrong shape": (changed(5, shape=[3]), r"graph\[6\]: mul does not fit inputs of shape \[\[2\], \[3\]\]"),
    "a layer of other inputs": (changed(2, shape=[4], runs=[[8, 1, 4]]), r"graph\[3\]: layer does not fit"),
    "indices beyond the values": (changed(4, runs=[[7, 1, 2]]), r"graph\[4\]: arrange does not fit"),
    "negative indices": (changed(4, runs=[[0, -1, 2]]), r"graph\[4\]: arrange does not fit"),
    "too few indices": (changed(4, runs=[[0, 1, 1]]), r"graph\[4\]: arrange does not fit"),
    "runs that are none": (changed(4, runs=[[0, 1]]), "first, stride and count"),
    "too many values": (changed(5, shape=[65536, 65536]), "a graph at most"),
    "too many edges": (
        {**config_to_dict(CONFIG), "recurrents": [], **MANY_EDGES},
        "graph has .* values with its edges",
    ),
    "an empty shape": (changed(5, shape=[0]), "does not fit|has shape"),
    "a parameter of none": (changed(6, parameter=1.0), "mul has no parameter"),
    "a node that is not read": (changed(7, inputs=[3, 3]), r"graph\[6\] is read by no node"),
    "another number of inputs": (changed(7, inputs=[3]), "add has 1 inputs"),
    "no second window": (changed(5, op="window", shape=None), "does not fit|one node"),
    "outputs of another number": (changed(7, op="sum", inputs=[6]), "read by no node|must end in"),
    "a front": ({**config_to_dict(CONFIG), "readout": "mean"}, "no front, recurrent part and readout"),
    "more layers than nodes": (
        {**config_to_dict(CONFIG), "head": config_to_dict(CONFIG)["head"] * 2},
        "fewer nodes of the operation layer",
    ),
    "a million nodes": (
        {**config_to_dict(CONFIG), "graph": [{"op": "window"}] + [{"op": "exp", "inputs": [0]}] * 1_000_000},
        "config.graph must have at most 4096 objects, but has 1000001",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_graph_that_cannot_be_is_refused(damage, monkeypatch):
    """The document is refused by arithmetic: no network is made, and the first node that is wrong is named."""
    document, message = DAMAGE[damage]
    monkeypatch.setattr(networks, "KANLayer", None)
    monkeypatch.setattr(operations, "Arrangement", None)
    with pytest.raises(ConfigError, match=message):
        config_from_dict(document)


def test_a_file_whose_graph_is_damaged_is_refused(tmp_path):
    """The checkpoint is refused with the reason, and a tensor that the graph does not have too."""
    windows = torch.randn(20, 4, 2, generator=torch.Generator().manual_seed(0))
    model = Forecaster(make(), Reference(windows, CONFIG), {}, PROVENANCE)
    save_checkpoint(model, tmp_path / "m.safetensors")
    torch.testing.assert_close(
        load_checkpoint(tmp_path / "m.safetensors").frozen.forward(windows), model.frozen.forward(windows)
    )
    data = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "cycle.safetensors").write_bytes(data.replace(b'\\"inputs\\": [3, 6]', b'\\"inputs\\": [7, 6]'))
    with pytest.raises(CheckpointError, match=r"graph\[7\].inputs must be nodes before it"):
        load_checkpoint(tmp_path / "cycle.safetensors")
    (tmp_path / "shape.safetensors").write_bytes(data.replace(b'"constants.5"', b'"constants.6"'))
    with pytest.raises(CheckpointError, match=r"lacks tensor constants\.5"):
        load_checkpoint(tmp_path / "shape.safetensors")
