"""Pickled whole modules: the tree that is read, compared with the live module."""

from functools import partial

import pytest
import torch
from factories import saved
from goldens import FOLDER
from torch import nn

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.archives import read_archive
from kanmodel.importers.files.exported import open_file
from kanmodel.importers.files.pickles import GlobalName, Placeholder
from kanmodel.importers.files.source import MAX_DEPTH, is_module, read_module

GLUE = FOLDER / "import" / "glue"


class Forecaster(nn.Module):
    """A typical LSTM forecaster with parts that a reader must skip or keep."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True, dropout=0.2)
        self.norm = nn.LayerNorm(8, eps=1e-3)
        self.batch_norm = nn.BatchNorm1d(8)
        self.head = nn.Sequential(nn.Linear(8, 5, bias=False), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(5, 1))
        self.tied = self.head[3]
        self.register_buffer("steps", torch.arange(4))
        self.register_buffer("cache", torch.ones(2), persistent=False)
        self.register_parameter("nothing", None)
        self.skipped = None
        self.activation = torch.nn.functional.silu
        self.base = partial(torch.clamp, min=0)
        self.width = [[3, 0], [4, 1]]
        self.kind = nn.GELU


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_the_tree_is_the_modules_own(container):
    """Paths, classes, tensors and their order equal those of named_modules and state_dict; values are attributes."""
    module = Forecaster()
    found = read_archive(saved(module, _use_new_zipfile_serialization=container == "zip"))
    assert is_module(found)
    tree = read_module(found)
    names = {path: f"{type(live).__module__}.{type(live).__qualname__}" for path, live in module.named_modules()}
    walked = dict(tree.walk())
    assert {path: part.class_name for path, part in walked.items() if path != "tied"} == names
    state = module.state_dict()
    assert list(tree.state_dict()) == list(state)
    assert all(torch.equal(tree.state_dict()[key], tensor) for key, tensor in state.items())
    assert tree.find("head.0") is walked["head.0"] is tree.children["head"].children["0"]
    assert tree.find("head.9") is None
    for path, live in module.named_modules():
        for name in ("hidden_size", "num_layers", "batch_first", "bidirectional", "dropout", "eps", "negative_slope"):
            assert walked[path].values.get(name) == getattr(live, name, None)
    assert walked["head.2"].values == {"training": True, "p": 0.3, "inplace": False}
    assert walked["norm"].values["normalized_shape"] == (8,)
    assert tree.values["activation"] == GlobalName("torch.nn.functional.silu")
    assert tree.values["kind"] == GlobalName("torch.nn.modules.activation.GELU")
    assert tree.values["base"].name == "functools.partial"
    assert tree.values["width"] == ((3, 0), (4, 1))
    assert set(tree.values) == {"training", "activation", "base", "width", "kind", "skipped"}


def test_a_class_of_a_notebook():
    """A class that cloudpickle pickled by value, as in notebooks, has its name in the tree."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    local = type("Local", (nn.Module,), {"__module__": "__main__", "forward": lambda self, x: self.fc(x)})
    module = local()
    module.fc = nn.Linear(2, 1)
    tree = read_module(read_archive(saved(module, pickle_module=cloudpickle)))
    assert (tree.class_name, list(tree.children)) == ("__main__.Local", ["fc"])
    assert torch.equal(tree.state_dict()["fc.weight"], module.fc.weight)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("lstm_relu_kan/whole_module.pt", {"lstm": {"batch_first": True, "hidden_size": 10}, "relu": {},
                                           "fc.0": {"grid_size": 5, "spline_order": 3}, "fc.0.base_activation": {}}),
        ("lstm_mlp/whole_module.pt", {"lstm": {"batch_first": False}, "dropout": {"p": 0.1}}),
        ("gru_kan/whole_module.pt", {"gru": {"mode": "GRU", "bidirectional": False}}),
    ],
)  # fmt: skip
def test_attributes_are_read_from_the_file(path, expected):
    """batch_first, sizes, grids and activation modules are read from files whose classes are not importable."""
    tree = open_file(GLUE / path).module
    for place, values in expected.items():
        found = tree.find(place).values
        assert {name: found[name] for name in values} == values


def test_a_lightning_checkpoint():
    """Hyperparameters are returned with the weights, whose keys lose the prefix of the trained module."""
    source = open_file(GLUE / "lstm_kan_linear" / "last.ckpt")
    assert dict(source.hyper_parameters) == {"n_features": 7, "hidden": 10, "kan_hidden": 6, "lr": 0.01}
    assert (source.container, source.prefix, source.module) == ("state_dict", "model.", None)
    assert "kan.spline_weight" in source.tensors


class AttributeDict(dict):
    """A dictionary subclass, as in Lightning and omegaconf, that a reader need not import."""


def test_hyperparameters_of_any_class(tmp_path):
    """A dictionary of another class with modules and classes as values is read; objects are placeholders."""
    parameters = AttributeDict(h=12, loss=nn.L1Loss(), activation=nn.ReLU, freq="h", sizes=[1, 2], nested={"a": (1,)})
    state = nn.Linear(2, 1).state_dict()
    torch.save({"state_dict": state, "hyper_parameters": parameters}, tmp_path / "last.ckpt")
    found = open_file(tmp_path / "last.ckpt").hyper_parameters
    assert found["loss"].name == "torch.nn.modules.loss.L1Loss"
    assert found["activation"] == GlobalName("torch.nn.modules.activation.ReLU")
    rest = {name: found[name] for name in ("h", "freq", "sizes", "nested")}
    assert rest == {"h": 12, "freq": "h", "sizes": (1, 2), "nested": {"a": (1,)}}


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: nn.ModuleDict({"module": net})])
@pytest.mark.parametrize("container", [None, "model"])
def test_a_wrapped_model(tmp_path, wrap, container):
    """A model in DataParallel and in a training dictionary has the tree and the keys of the model."""
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    found = wrap(net)
    torch.save({container: found, "epoch": 3} if container else found, tmp_path / "model.pt")
    source = open_file(tmp_path / "model.pt")
    assert (source.container, source.prefix) == (container, "module.")
    assert list(source.tensors) == list(net.state_dict()) == list(source.module.state_dict())
    assert source.module.class_name == "torch.nn.modules.container.Sequential"


def test_integers_come_after_the_weights():
    """num_batches_tracked and other integers come after the weights."""
    *weights, last = open_file(GLUE / "lstm_batchnorm_kan" / "state_dict.pt").tensors.items()
    assert last[0] == "bn.num_batches_tracked" and all(tensor.is_floating_point() for _, tensor in weights)


def deep(levels):
    module = nn.Module()
    for _ in range(levels):
        outer = nn.Module()
        outer.x = module
        module = outer
    return module


def laughing(levels):
    module = nn.Linear(1, 1)
    for _ in range(levels):
        module = nn.ModuleList([module] * 4)
    return module


def recursive():
    module = nn.Module()
    module.__dict__["_modules"]["x"] = module
    return module


def with_attribute(value):
    module = nn.Linear(1, 1)
    module.note = value
    return module


def nested_list(levels, width):
    value = []
    for _ in range(levels):
        value = [value] * width
    return value


def holding(name, value):
    module = nn.Linear(1, 1)
    module.__dict__[name]["x"] = value
    return module


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (deep(MAX_DEPTH + 1), "modules nested deeper than"),
        (laughing(12), "has more than 16384 modules"),
        (recursive(), "modules nested deeper than"),
        (with_attribute(nested_list(40, 3)), "has attributes of more than"),
        (with_attribute(nested_list(100, 1)), "nested deeper than"),
        (holding("_modules", 5), "has an int at 'x', where its model has a module"),
        (holding("_parameters", nn.GELU), "has a torch.nn.modules.activation.GELU at 'x', where"),
        (holding("_buffers", [1]), "has a list at 'x', where its model has a tensor"),
    ],
)  # fmt: skip
def test_invalid_trees_are_refused(module, reason):
    """A cyclic tree, or one with other things than modules and tensors, is refused with its path."""
    found = read_archive(saved(module))
    with pytest.raises(CheckpointError, match=reason):
        read_module(found)


def test_other_objects_are_no_modules():
    """An object without a module's three dictionaries is not a module."""
    assert not is_module(Placeholder("x.Y", state={"_parameters": {}, "_buffers": {}}))
    assert not is_module({"_parameters": {}, "_buffers": {}, "_modules": {}})
