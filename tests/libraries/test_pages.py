"""The pages of the site on bringing a library's model: their examples fit one, read it and explain it."""

import pytest
from pages import run_examples
from readmes import PAGES, READMES


@pytest.mark.parametrize("name", ["darts", "neuralforecast", "other-libraries", "pytorch-forecasting"])
@pytest.mark.filterwarnings("ignore")
def test_the_examples_give_the_results_shown(name, tmp_path, monkeypatch):
    """Such as an explained forecast that equals the library's."""
    monkeypatch.chdir(tmp_path)
    run_examples(READMES[PAGES / "how-to" / f"{name}.md"], {})
