from functools import cache
from types import MappingProxyType

import pytest
import torch
from goldens import FOLDER, load_arrays

from kanmodel.errors import CheckpointError
from kanmodel.importers.files.manifest import ModelSpec
from kanmodel.importers.files.source import Source
from kanmodel.importers.search.assembly import make_layer
from kanmodel.importers.search.structure import find_structure
from kanmodel.network.bases import Gaussian
from kanmodel.network.config import ModelConfig, RecurrentConfig, Transform, width_of
from kanmodel.network.layer import layer_shapes, pass_layers
from kanmodel.network.network import Network
from kanmodel.tables.columns import Feature, Target

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


FILES = {  # the file of fast-kan or FasterKAN, the library, and the denominator that it needs
    "main": ("state_dict.pt", "fast_kan", None),
    "no_base": ("state_dict_no_base.pt", "fast_kan", None),
    "bare": ("bare_fastkanlayer_state_dict.pt", "fast_kan", None),
    "fasterkan": ("fasterkan_state_dict.pt", "faster_kan", None),
    "early_fasterkan": ("early_fasterkan_state_dict.pt", "faster_kan", 0.33),
}
CASES = pytest.mark.parametrize("case", FILES)
TRACED = pytest.mark.parametrize("case", ["main", "no_base", "bare", "fasterkan"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@cache
def read_golden(name):
    return MappingProxyType(load_arrays(f"import/fast_head/{name}"))


def load_tensors(case):
    return torch.load(FOLDER / "import" / "fast_head" / FILES[case][0], weights_only=True)


def expected(case, dtype, name):
    return torch.from_numpy(read_golden("expected")[f"{case}/{dtype}/{name}"])


def windows(name, dtype):
    return torch.from_numpy(read_golden("windows")[name]).to(getattr(torch, dtype))


def read_kan(tensors, library="fast_kan", denominator=None, base_activation="silu"):
    """The configs of the layers and their tensors, by number and name."""
    stated = ModelSpec(library=library, denominator=denominator, base_activation=base_activation)
    parts = [part for part in find_structure(Source("m", tensors), stated).parts if part.library != "LayerNorm"]
    layers = [item for part in parts for item in part.items({})]
    modules = [make_layer(layer, torch.float64).state_dict() for layer in layers]
    return tuple(layer.config for layer in layers), {
        f"{number}.{name}": t for number, module in enumerate(modules) for name, t in module.items()
    }


def build(case, **changed):
    """The whole network of a file, with its head under ``fc_kan``."""
    tensors, (_, library, denominator) = load_tensors(case) | changed, FILES[case]
    config, head = read_kan(tensors, library, denominator)
    network = Network(
        ModelConfig(
            features=tuple(Feature(f"f{i}") for i in range(20)),
            targets=tuple(Target(f"y{j}") for j in range(config[-1].n_out)),
            lookback=24,
            horizon=1,
            head=config,
            recurrent=RecurrentConfig("lstm", config[0].n_in),
            dtype="float64",
        )
    )
    lstm = {key.replace("lstm.", "recurrent."): t for key, t in tensors.items() if key.startswith("lstm.")}
    network.load_state_dict(lstm | {f"head.{key}": tensor for key, tensor in head.items()})
    return network.requires_grad_(False)


@CASES
@DTYPES
def test_predictions(case, dtype):
    """Hidden values and predictions of each file equal those of its library."""
    network, evaluated = build(case).to(getattr(torch, dtype)), windows("eval", dtype)
    for name, found in (("hidden", network.encode(evaluated)), ("predictions", network(evaluated))):
        torch.testing.assert_close(found, expected(case, dtype, name), rtol=0, atol=TOLERANCE[dtype])


@TRACED
def test_parts_of_the_edges(case):
    """Normalised inputs, spline part and base part of each edge equal the library's; the bias is no part of an edge."""
    network = build(case)
    trace = network.trace(windows("eval", "float64")[:16])
    for number, (layer, passed) in enumerate(zip(network.head, trace.head, strict=True)):
        place = f"layers/{number}"
        found = {"normalised_eval": layer.read(passed.inputs)[1]}
        parts, _ = layer.functions().parts(*layer.read(passed.inputs[:4]))
        found |= {"base_eval": parts.base, "spline_eval": parts.basis}
        for name, values in found.items():
            torch.testing.assert_close(values, expected(case, "float64", f"{place}/{name}"), rtol=0, atol=1e-12)
        bias = passed.nodes - passed.edges.sum(dim=2)
        biased = f"{case}/float64/{place}/base_bias" in read_golden("expected")
        want = expected(case, "float64", f"{place}/base_bias") if biased else torch.zeros_like(bias[0])
        torch.testing.assert_close(bias, want.expand_as(bias), rtol=0, atol=1e-12)


@TRACED
def test_gradients_are_the_true_ones(case):
    """Gradients equal finite differences, even where FasterKAN's own backward pass gives a quarter of them."""
    network = build(case)
    hidden = expected(case, "float64", "hidden")[:8].requires_grad_()
    (gradient,) = torch.autograd.grad(pass_layers(network.head, hidden)[:, 0].sum(), hidden)
    torch.testing.assert_close(gradient, expected(case, "float64", "gradient"), rtol=0, atol=1e-9)
    of_the_library = expected(case, "float64", "gradient_of_the_library")
    factor = 0.25 if case == "fasterkan" else 1.0
    torch.testing.assert_close(factor * gradient, of_the_library, rtol=0, atol=1e-12)


@CASES
def test_config_and_tensors_agree(case):
    """Tensors have the shapes of the config, are contiguous, and share no memory with the file."""
    tensors = load_tensors(case)
    config, converted = read_kan(tensors, *FILES[case][1:])
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == {
        f"{number}.{name}": shape for number, layer in enumerate(config) for name, shape in layer_shapes(layer).items()
    }
    memory = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    for tensor in converted.values():
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.itemsize
        assert tensor.untyped_storage().data_ptr() not in memory


def test_options_are_read_from_the_file():
    """Layers keep their own grid, norm and denominator; a file without base has none, whatever the option."""
    config, tensors = read_kan(load_tensors("bare"))
    assert width_of(config) == [7, 4, 2]
    assert [layer.basis for layer in config] == [Gaussian(6, 4 / 5), Gaussian(10, 4 / 9)]
    assert [layer.before for layer in config] == [(Transform("layer_norm"),), ()]
    assert [layer.n_before_base for layer in config] == [0, 0]
    assert {layer.base for layer in config} == {"silu"}
    torch.testing.assert_close(tensors["1.grid"].float(), torch.linspace(-1, 3, 10).expand(4, -1))
    config, _ = read_kan(load_tensors("no_base"), base_activation="identity")
    assert {layer.base for layer in config} == {"zero"}


@pytest.mark.parametrize("value", [0.5, 7.0])
def test_inv_denominator_is_ignored(value):
    """FasterKAN's forward ignores inv_denominator, so its value does not matter."""
    changed = {"fc_kan.layers.0.rbf.inv_denominator": torch.tensor(value)}
    found = build("fasterkan", **changed)(windows("eval", "float64"))
    torch.testing.assert_close(found, expected("fasterkan", "float64", "predictions"), rtol=0, atol=1e-12)


def test_trained_centres():
    """Trained centres are used as they are, and the first and last determine the denominator."""
    tensors = load_tensors("main")
    tensors["fc_kan.layers.0.rbf.grid"] = torch.tensor([2.0, -0.3, 0.0, 0.1, 0.7, 0.8, 1.0, -1.5])
    config, converted = read_kan(tensors)
    assert [layer.basis.denominator for layer in config] == [0.5, 4 / 7]
    assert torch.equal(converted["0.grid"][3], tensors["fc_kan.layers.0.rbf.grid"])


@pytest.mark.parametrize("prefix", ["", "fc_kan"])
def test_one_layer_alone(prefix):
    """A single layer is a KAN without hidden layers."""
    start = f"{prefix}." if prefix else ""
    layer = {
        start + key.removeprefix("fc_kan.layers.0."): tensor
        for key, tensor in load_tensors("main").items()
        if key.startswith("fc_kan.layers.0.")
    }
    config, tensors = read_kan(layer)
    whole = read_kan(load_tensors("main"))[1]
    assert width_of(config) == [12, 5]
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors.items())


def drop(name):
    return lambda tensors: tensors.pop(f"fc_kan.{name}")


def put(name, *shape):
    return lambda tensors: tensors.update({f"fc_kan.{name}": torch.zeros(shape)})


REFUSALS = [
    ("main", drop("layers.0.spline_linear.weight"), "lacks fc_kan.layers.0.spline_linear.weight"),
    ("main", drop("layers.0.layernorm.bias"), "fc_kan.layers.0.layernorm.weight, but of layernorm only that"),
    ("main", drop("layers.1.base_linear.weight"), "fc_kan.layers.1.base_linear.bias, but of base_linear only that"),
    ("main", put("layers.0.spline_weight", 5, 12, 8), "has fc_kan.layers.0.spline_weight without a grid"),
    (
        "main",
        put("layers.0.rbf.inv_denominator"),
        "has a base and an inv_denominator at 'fc_kan.layers.0', which neither",
    ),
    (
        "fasterkan",
        put("layers.0.base_linear.weight", 5, 12),
        "has fc_kan.layers.0.base_linear.weight, but of base_linear only that",
    ),
    ("main", put("layers.01.rbf.grid", 8), "lacks fc_kan.layers.01.spline_linear.weight"),
    ("main", put(f"layers.{'9' * 5000}.rbf.grid", 8), "lacks fc_kan.layers.9999"),
    ("main", put("layers.0.rbf.grid", 7), "has 96 columns in fc_kan.layers.0.spline_linear.weight, which 7 centres"),
    ("main", put("layers.0.rbf.grid", 8, 1), r"fc_kan.layers.0.rbf.grid of shape \[8, 1\], which should have 1 axes"),
    ("main", put("layers.0.rbf.grid", 0), r"fc_kan.layers.0.rbf.grid of shape \[0\]"),
    ("main", put("layers.0.spline_linear.weight", 0, 96), r"fc_kan.layers.0.spline_linear.weight of shape \[0, 96\]"),
    ("main", put("layers.0.spline_linear.weight", 5, 4), "has 4 columns .* 8 centres of .* do not divide"),
    ("main", put("layers.0.layernorm.weight", 5), r"shape \[5\], but the other tensors imply \[12\]"),
    ("main", put("layers.0.base_linear.weight", 12, 5), r"base_linear.weight of shape \[12, 5\], but .* \[5, 12\]"),
    ("main", put("layers.0.rbf.grid", 8), "has no distance between the centres of fc_kan.layers.0.rbf.grid"),
    ("fasterkan", put("layers.0.rbf.inv_denominator", 2), r"rbf.inv_denominator of shape \[2\]"),
]


@pytest.mark.parametrize(("case", "change", "message"), REFUSALS, ids=range(len(REFUSALS)))
def test_invalid_files_are_refused(case, change, message):
    """The error has the key that does not fit."""
    tensors = load_tensors(case)
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        read_kan(tensors, FILES[case][1])


def test_one_centre_has_no_distance():
    """A grid with a single centre needs a denominator."""
    layer = {"rbf.grid": torch.zeros(1), "spline_linear.weight": torch.zeros(2, 3)}
    with pytest.raises(CheckpointError, match=r"has no distance between the centres of rbf.grid"):
        read_kan(layer)
    assert width_of(read_kan(layer, denominator=0.5)[0]) == [3, 2]


def test_a_denominator_that_is_refused():
    """A given denominator contradicts FasterKAN's inv_denominator."""
    with pytest.raises(CheckpointError, match=r"inv_denominator, .* ignores it and divides by 1, but .* as 0\.33"):
        read_kan(load_tensors("fasterkan"), "faster_kan", 0.33)
