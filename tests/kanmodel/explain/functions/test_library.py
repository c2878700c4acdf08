import math

import numpy as np
import pytest
import torch

from kanmodel.explain.symbolic import FUNCTIONS, LIBRARY
from kanmodel.network import functions
from kanmodel.network.functions import ACTIVATIONS

ARGUMENTS = np.concatenate([np.linspace(-3, 3, 61), [-200.0, 200.0]])
FROM_NUMPY = vars(np)  # the notation uses numpy's names


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_is_that_of_the_network(name):
    """Values and text, evaluated with numpy's names, equal what the network computes, NaN included."""
    network = functions.FUNCTIONS | {"silu": ACTIVATIONS["silu"].function}
    expected = network[name](torch.from_numpy(ARGUMENTS)).numpy()
    with np.errstate(all="ignore"):
        text = eval(FUNCTIONS[name].pattern.format("u"), FROM_NUMPY | {"u": ARGUMENTS})
        np.testing.assert_allclose(FUNCTIONS[name].values(ARGUMENTS), expected, rtol=1e-12, atol=1e-300)
        np.testing.assert_allclose(text, expected, rtol=1e-12, atol=1e-300)


def test_no_symbolic_function_is_missing():
    """Every function of symbolic edges has its notation."""
    assert set(FUNCTIONS) == {*functions.FUNCTIONS, "silu"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_properties_of_each_function(name):
    """Functions are finite inside their domain, and the flags mirrored and homogeneous are right."""
    function = FUNCTIONS[name]
    low, high = (max(-5.0, function.domain[0]), min(5.0, function.domain[1]))
    u = np.linspace(low, high, 999)[1:-1]
    values = function.values(u)
    assert np.isfinite(values).all()
    assert function.is_defined_between(u[0], u[-1]) and function.is_defined_between(u[-1], u[0])
    if function.mirrored:
        mirrored = function.values(-u)
        assert np.allclose(mirrored, values) or np.allclose(mirrored, -values)
        assert function.is_defined_between(-u[0], -u[-1])
    if function.homogeneous:
        for scale in (0.5, 3.0):
            scaled = function.values(scale * u)
            slope, intercept = np.polyfit(values, scaled, 1)
            np.testing.assert_allclose(scaled, slope * values + intercept, atol=1e-6 * np.abs(scaled).max())


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("1/x", -1, 1),
        ("1/x^2", 1, -1),
        ("1/x^3", 0, 1),
        ("log", 0, 1),
        ("sqrt", -1e-9, 1),
        ("tan", 1, 2),
        ("arcsin", 0, 1.01),
        ("arctanh", 0, 1),
        ("exp", 0, 1000),
        ("sin", 0, math.inf),
    ],
)
def test_beyond_the_domain(name, first, last):
    """Poles, non-finite ends and parts beyond the domain are detected."""
    assert not FUNCTIONS[name].is_defined_between(first, last)


def test_the_library_is_what_a_search_tries():
    """The search contains no function twice under two names."""
    assert len({function.pattern for function in LIBRARY.values()}) == len(LIBRARY)
