"""A formula over HTTP."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np


def test_a_formula_in_three_forms(service):
    """JSON, Python and LaTeX describe the same formula, and the Python runs on its own."""
    url = "/v1/models/head/formula"
    everything = service.get(url).json()["formulas"]
    chosen = everything[len(everything) // 2]
    query = {"complexity": chosen["complexity"]}
    assert service.get(url, params=query).json()["formulas"] == [chosen]
    python = service.get(url, params={**query, "format": "python"})
    assert python.headers["content-type"].startswith("text/plain") and python.text == chosen["python"]
    latex = service.get(url, params={**query, "format": "latex"})
    assert latex.text == chosen["latex"]
    named = {mi.text for mi in ElementTree.fromstring(f"<math>{everything[1]['mathml']}</math>").iter("mi")}
    assert {re.sub(r"\d+$", "", name) for name in everything[1]["variables"]} <= named
    scope: dict[str, object] = {}
    exec(python.text, scope)
    (function,) = (value for value in scope.values() if callable(value) and hasattr(value, "__code__"))
    assert np.isfinite(function(*[0.5] * len(chosen["variables"])))
