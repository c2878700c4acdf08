import ast
import builtins
import keyword

import pytest
import sympy
from hypothesis import example, given
from hypothesis import strategies as st

from kanmodel.explain.written import make_identifiers


@given(st.lists(st.text(min_size=1, max_size=5) | st.sampled_from(["a-b", "a_b", "a b", "E", "sin", "x"]), unique=True))
@example([*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *sympy.__all__])
@example(
    ["a-b", "a_b", "a b", "a_b_", "a_b_2", "lambda", "lambda_", "ﬁ", "fi", "K", "\u212a"]
)  # a ligature, and the Kelvin sign
def test_each_name_has_an_identifier_of_its_own(names):
    """For any feature names, identifiers differ, parse, and are not reserved in Python or sympy."""
    identifiers = make_identifiers(names)
    assert len(set(identifiers)) == len(identifiers) == len(names)
    for name, identifier in zip(names, identifiers, strict=True):
        assert ast.parse(identifier, mode="eval").body.id == identifier
        assert not keyword.iskeyword(identifier) and not keyword.issoftkeyword(identifier)
        assert not hasattr(builtins, identifier) and identifier not in sympy.__all__
        assert sympy.sympify(identifier) == sympy.Symbol(identifier)
        if name == identifier:
            assert name.isascii()


@pytest.mark.parametrize(
    ("names", "identifiers"),
    [
        (["temp", "x0"], ["temp", "x0"]),
        (
            ["wind-speed", "lambda", "température", "2m temp", "温度"],
            ["wind_speed", "lambda_", "temperature", "x2m_temp", "x"],
        ),
        (["a-b", "a b", "a_b"], ["a_b_2", "a_b_3", "a_b"]),
        (["E", "I", "S", "sin", "abs", "match"], ["E_", "I_", "S_", "sin_", "abs_", "match_"]),
    ],
)
def test_identifiers_are_near_their_names(names, identifiers):
    """A name that is a valid identifier stays, in any position; others keep as much as possible."""
    assert make_identifiers(names) == identifiers
