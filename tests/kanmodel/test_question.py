"""Methods that ask questions have the signature, the documentation and the errors of functions."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from inspect import Parameter, signature

import pytest
import torch
from factories import make_model

from kanmodel import Model
from kanmodel.forecaster import Forecaster
from kanmodel.question import Question, ask
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


def test_questions_compute_on_one_thread():
    """Of torch's, whose number is the caller's again afterwards, also in another thread and after an error."""
    found = []

    @dataclass(frozen=True)
    class Count(Question[int]):
        fails: bool = False

        def answer(self, model: Forecaster) -> int:
            found.append(torch.get_num_threads())
            if self.fails:
                raise ZeroDivisionError
            return torch.get_num_threads()

    model, before = Model.of(make_model("head")), torch.get_num_threads()

    def count_around() -> list[int]:
        torch.set_num_threads(3)
        with pytest.raises(ZeroDivisionError):
            ask(model, Count(fails=True))
        return [ask(model, Count()), torch.get_num_threads()]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(count_around).result() == [1, 3]
    assert found == [1, 1]
    try:
        assert count_around() == [1, 3]
    finally:
        torch.set_num_threads(before)
