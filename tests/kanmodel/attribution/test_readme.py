"""The README on explanations: the comparison with Captum runs, and the tests it names exist."""

import re

from readmes import READMES, ROOT

SECTION = READMES[ROOT / "kanmodel/attribution/README.md"].partition("## Check the numbers yourself")[2]


def test_the_comparison_with_captum(monkeypatch):
    """The lines run as written, and the results agree as closely as the README says."""
    monkeypatch.chdir(ROOT)
    *lines, last = re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)[1].splitlines()
    names: dict = {}
    exec("\n".join(lines), names)
    code, _, shown = last.partition("  # ")
    assert repr(eval(code, names)) == shown == "True"


def test_the_tests_that_are_named_exist():
    """Each test file that the README names exists."""
    files = re.findall(r"`([\w/]+\.py)`", SECTION.partition("\n## ")[0])
    assert len(files) > 10
    assert [
        file for file in files if not (ROOT / "tests" / "kanmodel" / file.removeprefix("tests/kanmodel/")).is_file()
    ] == []
