"""The pages of the site on the library: their examples run, each on its own, and the tests that they name exist."""

import re

import pytest
from pages import run_examples
from readmes import PAGES, READMES, ROOT

PATHS = "explanation/read-a-ledger explanation/trust explanation/skill explanation/intervals explanation/checking"
PATHS += " explanation/beside-other-methods how-to/notebook how-to/train how-to/prune how-to/backtest how-to/what-if"
PATHS += " how-to/pykan reference/tables"


@pytest.mark.thorough("computes the examples of thirteen pages: a minute")
@pytest.mark.parametrize("path", PATHS.split())
@pytest.mark.filterwarnings("ignore")
def test_the_examples_give_the_results_shown(path, tmp_path, monkeypatch):
    """What a comment or the block below shows is what the code returns or prints."""
    for name in ("service", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    run_examples(READMES[PAGES / f"{path}.md"], {})


def test_the_tests_that_are_named_exist():
    """Each test file that the page on checking names exists."""
    section = READMES[PAGES / "explanation" / "checking.md"].partition("## What is tested")[2]
    files = re.findall(r"`([\w/]+\.py)`", section)
    assert len(files) > 10
    assert [file for file in files if not (ROOT / "tests" / "kanmodel" / file).is_file()] == []
