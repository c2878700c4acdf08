"""Columns and their scaling."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_model
from hypothesis import given
from hypothesis import strategies as st

from kanmodel.errors import ConfigError
from kanmodel.tables.columns import Feature, Target

moderate = st.floats(-1e3, 1e3)
spreads = st.floats(1e-2, 1e3)


def scaling_of(features, targets, dtype="float64", horizon=1):
    config = make_model("head", n_features=len(features), targets=("y0", "y1"), horizon=horizon).config
    return replace(config, features=features, targets=targets, dtype=dtype).scaling


def columns(mean, std):
    features = (Feature("a", mean=mean, std=std), Feature("b", mean=-mean, std=2 * std))
    return features, (Target("y0", mean=mean, std=std), Target("y1", mean=0.0, std=1.0))


@given(moderate, spreads, st.lists(st.tuples(moderate, moderate), min_size=1, max_size=5))
def test_scaling_and_back_is_identity(mean, std, rows):
    """Scaling to model units and back returns the original features and outputs."""
    scaling = scaling_of(*columns(mean, std))
    values = np.array(rows)
    np.testing.assert_allclose(scaling.features_to_original(scaling.features_to_model(values)), values, atol=1e-8)
    outputs = torch.from_numpy((values - scaling.output_mean) / scaling.output_scale)
    np.testing.assert_allclose(scaling.outputs_to_original(outputs), values, atol=1e-8)


def test_read_only_windows_are_scaled_without_a_warning():
    """Arrays of buffers and of data frames are often read-only; they are not changed."""
    scaling, windows = scaling_of(*columns(1.0, 2.0)), np.array([[1.0, 2.0]])
    windows.flags.writeable = False
    torch.set_warn_always(True)  # or torch warns only once per process
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert scaling.features_to_model(windows).tolist() == [[0.0, 0.75]]
    finally:
        torch.set_warn_always(False)
    assert windows.tolist() == [[1.0, 2.0]]


@given(moderate, spreads)
def test_the_mean_becomes_zero_and_one_deviation_one(mean, std):
    """Model units are standard deviations from the mean."""
    scaling = scaling_of(*columns(mean, std))
    scaled = scaling.features_to_model(np.array([[mean, -mean], [mean + std, -mean + 2 * std]]))
    np.testing.assert_allclose(scaled, [[0, 0], [1, 1]], atol=1e-6)


def test_a_constant_column_is_not_divided_by_zero():
    """A column of standard deviation 0 is only shifted, and restored exactly."""
    features = (Feature("a", mean=7.0, std=0.0), Feature("b"))
    scaling = scaling_of(features, (Target("y0", mean=3.0, std=0.0), Target("y1")))
    scaled = scaling.features_to_model(np.array([[7.0, 1.0], [9.0, 1.0]]))
    assert scaled.tolist() == [[0.0, 1.0], [2.0, 1.0]]
    assert scaling.features_to_original(scaled)[1, 0] == 9.0
    assert scaling.outputs_to_original(torch.zeros(1, 2, dtype=torch.float64)).tolist() == [[3.0, 0.0]]


def test_outputs_are_scaled_by_their_target_at_every_step():
    """With two targets and two steps, outputs run y0+1, y1+1, y0+2, y1+2."""
    scaling = scaling_of(*columns(10.0, 4.0), horizon=2)
    assert scaling.output_mean.tolist() == [10.0, 0.0, 10.0, 0.0]
    assert scaling.output_scale.tolist() == [4.0, 1.0, 4.0, 1.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_model_units_have_the_type_of_the_network(dtype):
    """Scaled values are handed over in the network's own type."""
    scaling = scaling_of(*columns(0.0, 1.0), dtype=dtype)
    assert scaling.features_to_model(np.zeros((1, 2))).dtype == getattr(torch, dtype)


def test_a_value_beyond_float32_becomes_infinite_without_a_warning(recwarn):
    """A finite value that the network's type cannot hold is left to be refused by name."""
    scaled = scaling_of(*columns(0.0, 1.0), dtype="float32").features_to_model(np.array([[1e39, 0.0]]))
    assert torch.isinf(scaled[0, 0])
    assert not recwarn.list


@pytest.mark.parametrize("title", ["", " ", "<b>load</b>", "`load`", "load_mw", "*load*", "[a](b)", "a\nb", 3])
def test_a_title_is_words_without_markup(title):
    """It stands in prose, in Markdown and HTML alike; letters of any alphabet, digits and punctuation are words."""
    assert Target("y", title="Newark's load, Δ 6 h (°C/h): 50 % & more!").title
    with pytest.raises(ConfigError, match=r"^title must be"):
        Target("y", title=title)
