"""The README on explanations: its comparison with Captum runs, and the tests that it names exist."""

import re

from readmes import READMES, ROOT

SECTION = READMES[ROOT / "kanmodel/explain/README.md"].partition("## Check the numbers yourself")[2]


def test_the_comparison_with_captum(monkeypatch):
    """The lines that compare one window with Captum run as they are written, and agree as the README says."""
    monkeypatch.chdir(ROOT)
    *lines, last = re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)[1].splitlines()
    names: dict = {}
    exec("\n".join(lines), names)
    code, _, shown = last.partition("  # ")
    assert repr(eval(code, names)) == shown == "True"


def test_the_tests_that_are_named_exist():
    """Every file of tests that is named for a claim is there."""
    files = re.findall(r"`([\w/]+\.py)`", SECTION.partition("\n## ")[0])
    assert len(files) > 10
    assert [
        file for file in files if not (ROOT / "tests" / "kanmodel" / file.removeprefix("tests/kanmodel/")).is_file()
    ] == []
