"""The pages of the site on the library: their examples run, each page by itself."""

import ast
import re
from contextlib import redirect_stdout
from io import StringIO

import pytest
from readmes import READMES, ROOT

PAGES = ROOT / ".ci" / "site" / "pages"
PATHS = "explanation/read-a-ledger explanation/trust explanation/drift explanation/intervals explanation/checking"
PATHS += " explanation/beside-other-methods how-to/notebook how-to/train how-to/prune how-to/backtest how-to/what-if"
PATHS += " how-to/pykan"


@pytest.mark.thorough("computes the examples of twelve pages: a minute")
@pytest.mark.parametrize("path", PATHS.split())
@pytest.mark.filterwarnings("ignore")
def test_the_examples_give_the_results_shown(path, tmp_path, monkeypatch):
    """What a comment or the block below shows is what the code returns or prints."""
    for name in ("service", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```\n(?:```\n(.*?)```\n)?", READMES[PAGES / f"{path}.md"], re.DOTALL)
    assert blocks
    for code, shown in blocks:
        printed, value = StringIO(), None
        for node in ast.parse(code).body:
            statement = ast.get_source_segment(code, node)
            comment = code.splitlines()[node.end_lineno - 1].partition("  # ")[2]
            with redirect_stdout(printed):
                if isinstance(node, ast.Expr):
                    value = eval(statement, names)
                else:
                    exec(statement, names)
            assert not (isinstance(node, ast.Expr) and comment) or repr(value) == comment, statement
        assert not shown or (printed.getvalue() or f"{value!r}\n") == shown
