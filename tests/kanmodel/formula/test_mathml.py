"""Formulas as MathML: well-formed, and of the numbers and the names that the text has."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import sympy
from factories import make_model

from kanmodel.formula.formula import Formulas
from kanmodel.formula.mathml import write_mathml

# Those of MathML Core that a formula needs; a page takes no others.
ELEMENTS = {"math", "mrow", "mi", "mn", "mo", "msub", "msup", "mfrac", "msqrt", "mroot"}
NUMBER = re.compile(r"(?<![\w.])\d+\.?\d*")


def parse(mathml):
    return ElementTree.fromstring(f"<math>{mathml}</math>")


def text_of(expression):
    read = sympy.sympify(expression, locals={"maximum": sympy.Function("maximum")})
    return "".join(parse(write_mathml(read)).itertext()).replace("\N{INVISIBLE TIMES}", "")


@pytest.mark.parametrize("names", [("temp_c", "u"), ("<b>", "a&b"), ("lambda", "温度"), ("a__b_", "alpha_1_2")])
def test_each_formula_is_well_formed(names):
    """For any names of features it is XML of few elements without attributes, with the numbers of the text."""
    model = make_model("head", n_features=2, n_hidden=1)
    features = tuple(replace(one, name=name) for one, name in zip(model.config.features, names, strict=True))
    model.network.config = replace(model.config, features=features)
    for formula in Formulas.of(model, 0):
        tree = parse(formula.mathml)
        assert {one.tag for one in tree.iter()} <= ELEMENTS and not any(one.attrib for one in tree.iter())
        if "phi" in formula.expression or "e-" in formula.expression:
            continue
        told = sorted(float(one) for one in NUMBER.findall(formula.expression) if float(one) not in (1, 2))
        assert set(told) <= {float(one.text) for one in tree.iter("mn") if "," not in str(one.text)}


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("-1.5*u3 + 2*u5/(u7 + 1) - 0.3", "-1.5u3+2u5u7+1-0.3"),
        ("2.5e-7*x_", "2.5·10\N{MINUS SIGN}7·x_"),
        ("Abs(hour_sin)", "|hour_sin|"),
        ("exp(-x**2)", "e-x2"),
        ("exp(-(1.1*tan(x + 1) + 2*tan(y) + 3)**2)", "exp(-(2tan(y)+1.1tan(x+1)+3)2)"),
        ("phi_0_3_7(2*x)", "φ0,3,7(2x)"),
        ("1.5*2**x", "1.5·2x"),
        ("maximum(x, 0)", "max(x,0)"),
        ("1.5*temp_c*x", "1.5·temp_cx"),
    ],
)
def test_what_is_written(expression, text):
    """Products, powers, indices and numbers are read as the text is."""
    assert text_of(expression) == text
