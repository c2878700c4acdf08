import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import model_configs

from kanmodel.errors import ConfigError, DataError
from kanmodel.network.bases import BSpline, Chebyshev, Gaussian
from kanmodel.network.config import (
    LayerConfig,
    ModelConfig,
    RecurrentConfig,
    SymbolicEdge,
    Transform,
    config_from_dict,
    config_to_dict,
    plain_layers,
    resolve_groups,
    width_of,
)
from kanmodel.tables.columns import Feature, Target

FEATURES = (Feature("a"), Feature("b"))
TARGETS = (Target("y"),)
HEAD = plain_layers([3, 1])
LSTM = RecurrentConfig("lstm", 3)


def make_config(**changes):
    plain = {"features": FEATURES, "targets": TARGETS, "lookback": 4, "horizon": 1, "head": HEAD, "recurrent": LSTM}
    return ModelConfig(**plain | changes)


def make_document():
    transforms = Transform("leaky_relu"), Transform("layer_norm")
    front = LayerConfig(2, 1, Gaussian(4, 0.5), "gelu", transforms, 1, (2,), (SymbolicEdge(0, 1, "sin"),))
    features = (Feature("a", "K", 1.0, 2.0, 0.0, 3.0), Feature("b"))
    return config_to_dict(make_config(front=(front,), features=features, output_function="sigmoid"))


def places(document, path=()):
    """Every leaf of a JSON document, as a path of keys."""
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in pairs:
        if isinstance(value, (dict, list, tuple)):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


@given(model_configs(symbolic=True))
def test_round_trip_through_json(config):
    """A config written as JSON and read again is equal."""
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


@given(model_configs())
def test_outputs_name_every_target_at_every_step(config):
    """Outputs are named target+step, ordered by step and then target, and know their target."""
    names = [f"{target.name}+{step + 1}" for step in range(config.horizon) for target in config.targets]
    assert list(config.outputs) == names
    for output, name in enumerate(names):
        assert name.rpartition("+")[0] == config.target_of(output).name


def test_product_nodes():
    """Factors of products are sub-nodes after those of the sum nodes; a width implies two factors each."""
    layer = LayerConfig(3, 2, mult_arity=(2, 3))
    assert (layer.n_out, layer.n_subnodes) == (4, 7)
    assert layer.node_of_subnode == (0, 1, 2, 2, 3, 3, 3)
    layers = plain_layers([3, (2, 2), 1])
    assert [layer.mult_arity for layer in layers] == [(2, 2), ()]
    assert [layer.n_in for layer in layers] == [3, 4]
    assert width_of(layers) == [3, [2, 2], 1]


def test_parameters_of_transforms_by_default():
    """The default parameter of a transform is torch's."""
    defaults = {"leaky_relu": 0.01, "elu": 1.0, "softplus": 1.0, "layer_norm": 1e-5, "relu": None, "affine": None}
    assert {kind: Transform(kind).parameter for kind in defaults} == defaults


@pytest.mark.parametrize(
    ("changes", "readout_stage", "n_readout"),
    [
        ({}, "lstm", 3),
        ({"recurrent": RecurrentConfig("gru", 2, bidirectional=True), "head": plain_layers([4, 1])}, "gru", 4),
        ({"readout": "flatten", "head": plain_layers([12, 1])}, "cell", 12),
        ({"recurrent": None, "readout": "flatten", "head": plain_layers([8, 1])}, "cell", 8),
        ({"recurrent": None, "readout": "mean", "head": plain_layers([2, 1])}, None, 2),
        ({"recurrent": None, "head": plain_layers([2, 1])}, None, 2),
        ({"recurrent": None, "front": plain_layers([2, 5]), "head": plain_layers([5, 1])}, None, 5),
    ],
)
def test_what_the_head_reads(changes, readout_stage, n_readout):
    """The head reads units, cells, or nodes of earlier layers; every combination whose shapes fit is valid."""
    config = make_config(**changes)
    assert (config.readout_stage, config.n_readout) == (readout_stage, n_readout)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: plain_layers([3]), "width needs an input and an output layer, but is [3]"),
        (lambda: plain_layers([(3, 1), 1]), "width[0] has inputs only, but is [3, 1]"),
        (lambda: LayerConfig(0, 1), "n_in must be a whole number from 1 to 65536, but is 0"),
        (lambda: LayerConfig(3, 0), "the number of sub-nodes must be a whole number from 1 to 65536, but is 0"),
        (lambda: LayerConfig(3, -1), "n_sum must be a whole number from 0 to 65536, but is -1"),
        (lambda: LayerConfig(3, 1, mult_arity=(1,)), "mult_arity[0] must be a whole number from 2 to 65536, but is 1"),
        (lambda: LayerConfig(3, 1, "bspline"), "basis must be a Basis, but is 'bspline'"),
        (lambda: LayerConfig(3, 1, base_after=1), "base_after must be a whole number from 0 to 0, but is 1"),
        (
            lambda: LayerConfig(3, 1, symbolic=(SymbolicEdge(3, 0, "sin"),)),
            "symbolic[0] is an edge from 3 to 0, but there are 3 inputs and 1 sub-nodes",
        ),
        (
            lambda: LayerConfig(3, 1, symbolic=(SymbolicEdge(0, 1, "sin"),)),
            "symbolic[0] is an edge from 0 to 1, but there are 3 inputs and 1 sub-nodes",
        ),
        (lambda: SymbolicEdge(-1, 0, "sin"), "i must be a whole number from 0 to 65536, but is -1"),
        (lambda: Transform("relu", 0.1), "parameter must be null, as relu has none, but is 0.1"),
        (lambda: Transform("affine", 0.1), "parameter must be null, as affine has none, but is 0.1"),
        (lambda: Transform("layer_norm", 0.0), "parameter must be a positive number, but is 0.0"),
        (lambda: Transform("elu", float("inf")), "parameter must be a finite number, but is inf"),
        (lambda: RecurrentConfig("rnn", 2), "cell must be one of lstm, gru, but is 'rnn'"),
        (lambda: RecurrentConfig("gru", 0), "hidden_size must be a whole number from 1 to 65536, but is 0"),
        (lambda: RecurrentConfig("lstm", 2, 0), "num_layers must be a whole number from 1 to 65536, but is 0"),
        (lambda: make_config(readout="first"), "readout must be one of last, mean, flatten, but is 'first'"),
        (lambda: make_config(features=()), "features must be at least one, of unique names, but none given"),
        (
            lambda: make_config(features=(Feature("a"), Feature("a"))),
            "features must be at least one, of unique names, but ['a'] given",
        ),
        (lambda: make_config(targets=()), "targets must be at least one, of unique names, but none given"),
        (lambda: make_config(lookback=0), "lookback must be a whole number from 1 to 65536, but is 0"),
        (lambda: make_config(horizon=0), "horizon must be a whole number from 1 to 65536, but is 0"),
        (lambda: make_config(dtype="float16"), "dtype must be one of float32, float64, but is 'float16'"),
        (lambda: make_config(front=plain_layers([3, 2])), "front[0].n_in must be 2, which reach it, but is 3"),
        (
            lambda: make_config(head=(*plain_layers([3, 2]), *plain_layers([3, 1]))),
            "head[1].n_in must be 2, which reach it, but is 3",
        ),
        (
            lambda: make_config(recurrent=RecurrentConfig("lstm", 4)),
            "head[0].n_in must be 4, which reach it, but is 3",
        ),
        (
            lambda: make_config(recurrent=RecurrentConfig("lstm", 3, bidirectional=True)),
            "head[0].n_in must be 6, which reach it, but is 3",
        ),
        (lambda: make_config(readout="flatten"), "head[0].n_in must be 12, which reach it, but is 3"),
        (lambda: make_config(horizon=2), "head must end in 2 nodes, horizon x targets, but ends in 1"),
        (lambda: make_config(head=()), "head must end in 1 nodes, horizon x targets, but ends in no layer"),
        (
            lambda: make_config(front=plain_layers([2] * 257), recurrent=LSTM),
            "the number of layers must be a whole number from 0 to 256, but is 257",
        ),
    ],
)
def test_refusals(make, sentence):
    """An invalid architecture is refused with one sentence that gives the reason."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: LayerConfig(3, 1, base="sine"), "base must be one of zero, identity, relu"),
        (lambda: Transform("dropout"), "kind must be one of affine, layer_norm, identity, relu"),
        (lambda: SymbolicEdge(0, 0, "cosh"), "function must be one of 0, x, x\\^2"),
        (lambda: make_config(output_function="argmax"), "output_function must be one of softmax, identity, relu"),
    ],
)
def test_unknown_functions(make, place):
    """An unknown function is refused, and the error lists the existing ones."""
    with pytest.raises(ConfigError, match=place):
        make()


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("head", 0),
        ("head", 0, "basis"),
        ("front", 0, "before", 0),
        ("front", 0, "symbolic", 0),
        ("recurrent",),
        ("features", 0),
    ],
)
def test_an_unknown_key_is_refused(path):
    """An unknown key is named with its path."""
    document = make_document()
    place = document
    for key in path:
        place = place[key]
    place["colour"] = "blue"
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    with pytest.raises(ConfigError) as caught:
        config_from_dict(document)
    assert f"config{where} has the unknown key 'colour'" in str(caught.value)


@given(st.data())
def test_a_missing_key_is_refused(data):
    """Each key without a default is required."""
    document = make_document()
    owner, key = data.draw(
        st.sampled_from(
            [
                *((document, key) for key in ("features", "targets", "lookback", "horizon", "head")),
                *((document["head"][0], key) for key in ("n_in", "n_sum")),
                (document["head"][0]["basis"], "kind"),
                *((document["front"][0]["basis"], key) for key in ("centres", "denominator")),
                (document["front"][0]["before"][0], "kind"),
                *((document["recurrent"], key) for key in ("cell", "hidden_size")),
                (document["features"][0], "name"),
            ]
        )
    )
    del owner[key]
    with pytest.raises(ConfigError):
        config_from_dict(document)


NULLABLE = ("unit", "min", "max", "parameter", "base_after", "output_function")


@given(st.data())
def test_a_value_of_another_kind_is_refused(data):
    """A value of another type, or a number that is not finite, is refused."""
    document = json.loads(json.dumps(make_document()))
    path = data.draw(st.sampled_from(list(places(document))))
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    old = owner[path[-1]]
    others = [[], {}, [1], {"a": 1}]
    others += [] if isinstance(old, str) or path[-1] == "unit" else ["x", ""]
    others += [] if isinstance(old, bool) else [True]
    others += [1.5] if isinstance(old, (bool, int, str)) and path[-1] != "unit" else []
    others += [float("nan"), float("inf")] if not isinstance(old, str) else []
    others += [] if path[-1] in NULLABLE else [None]
    owner[path[-1]] = data.draw(st.sampled_from(others))
    with pytest.raises(ConfigError):
        config_from_dict(document)


@pytest.mark.parametrize("document", [None, [], "text", 3, {"head": None}, {"features": 3}, {"features": [None]}])
def test_other_documents_are_refused(document):
    """Any other JSON document is refused like an invalid config."""
    with pytest.raises(ConfigError):
        config_from_dict(copy.deepcopy(document))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("lookback",), 10**9),
        (("horizon",), 10**12),
        (("recurrent", "hidden_size"), 10**9),
        (("recurrent", "num_layers"), 10**9),
        (("head", 0, "n_in"), 10**12),
        (("head", 0, "basis", "grid_size"), 10**12),
        (("head", 0, "basis", "order"), 10**9),
        (("front", 0, "mult_arity", 0), 10**9),
        (("front", 0, "basis", "centres"), 10**9),
        (("front", 0, "before"), [{"kind": "relu"}] * 10**5),
    ],
)
def test_absurd_sizes_are_refused(path, value):
    """A document with billions of anything is refused before allocation."""
    document = json.loads(json.dumps(make_document()))
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    with pytest.raises(ConfigError):
        config_from_dict(document)


def test_a_basis_has_a_document_of_its_own():
    """The document of a basis has its kind and its own options only."""
    document = config_to_dict(make_config(head=(LayerConfig(3, 2, Chebyshev(4)), LayerConfig(2, 1, BSpline(3, 2)))))
    assert [layer["basis"] for layer in document["head"]] == [
        {"kind": "chebyshev", "degree": 4},
        {"kind": "bspline", "grid_size": 3, "order": 2},
    ]


UNPRINTABLE = ["n" * 201, "half \ud800 a pair", "two\nlines", "\x1b[31mred", "nul\0", "\u202edesrever", "\ufffe"]


@pytest.mark.parametrize("text", UNPRINTABLE)
def test_a_name_that_cannot_be_shown_is_refused(text):
    """Names and units are printable text of at most 200 characters, and the error is short and printable itself."""
    makers = [Feature, Target, lambda text: Feature("a", text), lambda text: make_config(groups={text: ["a"]})]
    for make in makers:
        with pytest.raises(ConfigError, match="must be printable text of at most 200 characters, but is") as refused:
            make(text)
        assert str(refused.value).isprintable() and len(str(refused.value)) < 220
    with pytest.raises(DataError, match=r"^groups cannot be used: the name of a group must be printable text") as given:
        resolve_groups({text: ["a"]}, ["a"])
    assert str(given.value).isprintable()


@pytest.mark.parametrize(
    "text", ["n" * 200, "wind [m/s]", "W\u00a0m⁻²", "температура 温度", "👩\u200d🔬", "<b>", "می\u200cخواهم"]
)
def test_any_other_name_is_accepted(text):
    """Markup, other scripts and joined emoji are names."""
    assert make_config(features=(Feature(text, text), Feature("b")), groups={f"g{text[1:]}": ["b"]})
