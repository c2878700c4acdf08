import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import model_configs

from kanmodel.config import (
    Feature,
    KANConfig,
    LSTMConfig,
    ModelConfig,
    Target,
    config_from_dict,
    config_to_dict,
)
from kanmodel.errors import ConfigError

FEATURES = (Feature("a"), Feature("b"))
TARGETS = (Target("y"),)
HEAD = KANConfig.uniform([3, 1])
LSTM = LSTMConfig(3)


def make_config(**changes):
    return ModelConfig(
        **{"features": FEATURES, "targets": TARGETS, "lookback": 4, "horizon": 1, "head": HEAD, "lstm": LSTM} | changes
    )


def make_document():
    front = KANConfig(((2, 0), (1, 1)), (4,))
    return config_to_dict(make_config(front=front, features=(Feature("a", "K", 1.0, 2.0, 0.0, 3.0), Feature("b"))))


def places(document, path=()):
    """Every leaf of a JSON document, as the keys that lead to it."""
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in pairs:
        if isinstance(value, (dict, list, tuple)):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


@given(model_configs())
def test_round_trip_through_json(config):
    """A config that is written as JSON and read again is the same config."""
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


@given(model_configs())
def test_outputs_name_every_target_at_every_step(config):
    """Outputs are named target+step, steps outermost, and each knows its target."""
    names = [f"{target.name}+{step + 1}" for step in range(config.horizon) for target in config.targets]
    assert list(config.outputs) == names
    for output, name in enumerate(names):
        assert name.rpartition("+")[0] == config.target_of(output).name


def test_product_nodes_have_two_factors_unless_stated():
    """Without an arity a product node has two factors; its factors are sub-nodes after those of the sum nodes."""
    config = KANConfig(((3, 0), (2, 2), (1, 0)), (5, 5), mult_arity=((), (2, 3), ()))
    assert KANConfig(((3, 0), (2, 2), (1, 0)), (5, 5)).mult_arity == ((), (2, 2), ())
    assert (config.depth, config.n_nodes, config.n_subnodes) == (2, (3, 4, 1), (3, 7, 1))
    assert config.node_of_subnode(1) == (0, 1, 2, 2, 3, 3, 3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: KANConfig(((3, 0),), ()), "a KAN needs an input and an output layer, but width is [(3, 0)]"),
        (
            lambda: KANConfig(((3, 1), (1, 0)), (5,)),
            "the first layer of a KAN has inputs only, but width[0] is [3, 1]",
        ),
        (lambda: KANConfig(((3, 0), (0, 0)), (5,)), "width[1] must hold at least one node, but is [0, 0]"),
        (lambda: KANConfig(((3, 0), (-1, 2)), (5,)), "width[1] must hold at least one node, but is [-1, 2]"),
        (
            lambda: KANConfig(((3, 0), (1, 0)), (5, 5)),
            "grid_size must be one positive number for each of 1 layers, but is [5, 5]",
        ),
        (
            lambda: KANConfig(((3, 0), (1, 0)), (0,)),
            "grid_size must be one positive number for each of 1 layers, but is [0]",
        ),
        (lambda: KANConfig.uniform([3, 1], spline_order=-1), "spline_order must not be negative, but is -1"),
        (
            lambda: KANConfig.uniform([3, 1], base_activation="relu"),
            "base_activation must be silu, identity or zero, but is 'relu'",
        ),
        (
            lambda: KANConfig(((3, 0), (1, 1)), (5,), mult_arity=((), (1,))),
            "mult_arity must give at least two factors for each product node of width [(3, 0), (1, 1)], "
            "but is [[], [1]]",
        ),
        (
            lambda: KANConfig(((3, 0), (1, 1)), (5,), mult_arity=((), (2, 2))),
            "mult_arity must give at least two factors for each product node of width [(3, 0), (1, 1)], "
            "but is [[], [2, 2]]",
        ),
        (lambda: LSTMConfig(0), "an LSTM needs hidden_size and num_layers of at least 1, but has 0 and 1"),
        (lambda: LSTMConfig(2, 0), "an LSTM needs hidden_size and num_layers of at least 1, but has 2 and 0"),
        (lambda: LSTMConfig(2, readout="first"), "readout must be last or mean, but is 'first'"),
        (lambda: make_config(features=()), "feature names must be at least one and unique, but none given"),
        (
            lambda: make_config(features=(Feature("a"), Feature("a"))),
            "feature names must be at least one and unique, but ['a'] given",
        ),
        (lambda: make_config(targets=()), "target names must be at least one and unique, but none given"),
        (lambda: make_config(lookback=0), "lookback and horizon must be at least 1, but are 0 and 1"),
        (lambda: make_config(horizon=0), "lookback and horizon must be at least 1, but are 4 and 0"),
        (lambda: make_config(dtype="float16"), "dtype must be float32 or float64, but is 'float16'"),
        (
            lambda: make_config(lstm=None, front=KANConfig.uniform([2, 3])),
            "a front KAN needs an LSTM behind it; without one, make the head deeper",
        ),
        (
            lambda: make_config(lstm=None, head=KANConfig.uniform([2, 1])),
            "a KAN without LSTM reads one step, but lookback is 4",
        ),
        (lambda: make_config(front=KANConfig.uniform([3, 2])), "the front KAN has 3 inputs for 2 features"),
        (lambda: make_config(lstm=LSTMConfig(4)), "the head KAN has 3 inputs, but 4 values reach it"),
        (
            lambda: make_config(lstm=LSTMConfig(3, bidirectional=True)),
            "the head KAN has 3 inputs, but 6 values reach it",
        ),
        (lambda: make_config(horizon=2), "the head KAN has 1 outputs, but horizon x targets is 2"),
    ],
)
def test_refusals(make, sentence):
    """An architecture that cannot exist is refused with one sentence that says what is wrong with what."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == sentence


def test_an_unknown_key_is_refused():
    """A key that this version does not know is named."""
    for path in ((), ("head",), ("lstm",), ("features", 0)):
        document = make_document()
        place = document
        for key in path:
            place = place[key]
        place["colour"] = "blue"
        with pytest.raises(ConfigError, match="unknown key 'colour'"):
            config_from_dict(document)


@given(st.data())
def test_a_missing_key_is_refused(data):
    """A document without one of the keys that have no default is refused."""
    document = make_document()
    owner, key = data.draw(
        st.sampled_from(
            [
                *((document, key) for key in ("features", "targets", "lookback", "horizon", "head")),
                *((document["head"], key) for key in ("width", "grid_size", "mult_arity")),
                (document["lstm"], "hidden_size"),
                (document["features"][0], "name"),
            ]
        )
    )
    del owner[key]
    with pytest.raises(ConfigError):
        config_from_dict(document)


@given(st.data())
def test_a_value_of_another_kind_is_refused(data):
    """A leaf that holds a value of another kind, or no finite number, is refused."""
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
    owner[path[-1]] = data.draw(st.sampled_from(others))
    with pytest.raises(ConfigError):
        config_from_dict(document)


@pytest.mark.parametrize("document", [None, [], "text", 3, {"head": None}, {"features": 3}])
def test_what_is_no_config_is_refused(document):
    """A document that is no description of a model at all is refused like any other."""
    with pytest.raises(ConfigError):
        config_from_dict(copy.deepcopy(document))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("lookback",), 10**9),
        (("horizon",), 10**12),
        (("lstm", "hidden_size"), 10**9),
        (("lstm", "num_layers"), 10**9),
        (("head", "width", 0, 0), 10**12),
        (("head", "grid_size", 0), 10**12),
        (("head", "spline_order"), 10**9),
        (("front", "mult_arity", 1, 0), 10**9),
    ],
)
def test_absurd_sizes_are_refused(path, value):
    """A document that asks for billions of anything is refused before anything of that size is made."""
    document = json.loads(json.dumps(make_document()))
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    with pytest.raises(ConfigError):
        config_from_dict(document)
