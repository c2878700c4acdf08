"""Methods that ask questions have the signature, the documentation and the errors of functions."""

from __future__ import annotations

import re
from inspect import Parameter, signature

import pytest
from factories import make_model

from kanmodel import Model
from kanmodel.questions import QUESTIONS


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_parameter_is_documented(name):
    """`help` shows a method's name, its parameters with their defaults, and a line for each."""
    method = getattr(Model, name)
    own = signature(method)
    assert method.__qualname__ == f"Model.{name}" and own.return_annotation not in (Parameter.empty, "Any")
    described = set(re.findall(r"^ +\*?(\w+): ", method.__doc__.partition("Args:")[2], re.MULTILINE))
    assert {*own.parameters} - {"self"} <= described


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("counterfactual", {"above": 1}, r"^counterfactual\(\) missing a required argument: 'windows'$"),
        ("importance", {"above": 1}, r"^importance\(\) got an unexpected keyword argument 'above'$"),
    ],
)
def test_an_argument_that_is_none_of_a_method_is_named_with_it(name, arguments, message):
    """As Python does for a function; no call fails in the signature's own words."""
    with pytest.raises(TypeError, match=message):
        getattr(Model.of(make_model("head")), name)(**arguments)
