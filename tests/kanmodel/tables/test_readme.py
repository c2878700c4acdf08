"""The README of the room for tables."""

import re
import warnings

import pytest
from readmes import READMES, ROOT


@pytest.mark.thorough("trains a model of twelve shops: 6 s")
def test_the_examples_run(monkeypatch):
    """The story of many series gives the results shown."""
    monkeypatch.chdir(ROOT)
    names: dict = {}
    compared = 0
    for statement in "".join(
        re.findall(r"```python\n(.*?)```", READMES[ROOT / "kanmodel/tables/README.md"], re.DOTALL)
    ).splitlines():
        code, _, shown = statement.partition("  # ")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of windows that are left out
            if shown:
                assert repr(eval(code, names)) == shown, statement
                compared += 1
            else:
                exec(code, names)
    assert compared == 6
