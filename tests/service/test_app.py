from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

from kanmodel.errors import CheckpointError
from service.app import create_app
from service.settings import Settings


def test_the_root_leads_to_the_documentation(service):
    """/ redirects to /docs."""
    answer = service.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "docs")


def test_the_documentation_needs_no_other_host(service):
    """/docs and all that it loads come from the app itself."""
    page = service.get("/docs").text
    assert "://" not in page
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert any(asset.endswith(".js") for asset in assets)
    assert any(asset.endswith(".css") for asset in assets)
    for asset in assets:
        assert service.get(asset).status_code == 200


def test_the_description_is_served_and_bears_the_version_of_the_package(service):
    """/openapi.json describes this version."""
    assert service.get("/openapi.json").json()["info"]["version"] == version("kanscope")


@pytest.mark.smoke
def test_every_answer_bears_the_id_of_its_request(service):
    """Each request has an id of its own, and later ones sort behind earlier ones."""
    ids = [service.get("/healthz").headers["x-request-id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert [id_[:10] for id_ in ids] == sorted(id_[:10] for id_ in ids)


def test_nothing_is_where_the_models_should_be(tmp_path):
    """A path that does not exist is refused at once, by name."""
    with pytest.raises(CheckpointError, match=r"there is no file or folder .*/none"):
        create_app(Settings(models=tmp_path / "none"))


def test_the_setting_of_torch_threads_holds(serve_app, folder):
    """The threads that do the work use as many threads for one tensor operation as the settings say."""
    before = torch.get_num_threads()
    app = create_app(Settings(models=folder / "two.safetensors", torch_threads=3))

    def count_threads() -> int:
        return torch.get_num_threads()

    app.add_api_route("/threads", count_threads)
    try:
        with serve_app(app) as client:
            assert client.get("/threads").json() == 3
    finally:
        torch.set_num_threads(before)


def test_the_app_loads_no_library_that_only_some_questions_need():
    """They are imported where they are used; rich is the command line's."""
    code = """
import sys
sys.modules["rich"] = None  # an import of it fails
from service.app import create_app
from service.settings import Settings
create_app(Settings())
unwanted = {"sympy", "polars", "ray", "pandas", "typer", "opentelemetry.sdk"}
assert not unwanted & sys.modules.keys(), unwanted & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_command_line_loads_none_either():
    """`kanscope serve` would keep them for as long as it runs."""
    code = "import sys; import service.cli; assert not {'sympy', 'polars', 'ray', 'fastapi'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
