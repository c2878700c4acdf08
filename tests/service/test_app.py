from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from kanmodel.errors import CheckpointError
from service.app import create_app
from service.settings import Settings


def test_the_root_redirects_to_the_documentation(service):
    """/ redirects to /docs."""
    answer = service.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "docs")


def test_the_documentation_needs_no_other_host(service):
    """/docs loads nothing from other hosts."""
    page = service.get("/docs").text
    assert "://" not in page
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert any(asset.endswith(".js") for asset in assets)
    assert any(asset.endswith(".css") for asset in assets)
    for asset in assets:
        assert service.get(asset).status_code == 200


def test_the_document_has_the_version_of_the_package(service):
    """/openapi.json has the version of the package, by Semantic Versioning."""
    assert service.get("/openapi.json").json()["info"]["version"] == version("kanscope").replace(".dev", "-dev")


def test_every_response_has_a_request_id(service):
    """Request ids are unique and sort by time."""
    ids = [service.get("/healthz").headers["x-request-id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert [id_[:10] for id_ in ids] == sorted(id_[:10] for id_ in ids)


def test_a_missing_models_path_is_refused(tmp_path):
    """A missing path to models is an error at startup that names it."""
    with pytest.raises(CheckpointError, match=r"there is no file or folder .*/none"):
        create_app(Settings(models=tmp_path / "none"))


def test_the_app_loads_no_library_that_only_some_questions_need():
    """These libraries are imported where they are used; rich belongs to the command line."""
    code = """
import sys
sys.modules["rich"] = None  # an import of it fails
from service.app import create_app
from service.models.registry import Registry
from service.settings import Settings
create_app(Settings())
Registry(None).load()  # the bundled model, tried by a forecast and an explanation
unwanted = {"sympy", "polars", "ray", "pandas", "typer", "opentelemetry.sdk"}
assert not unwanted & sys.modules.keys(), unwanted & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_the_command_line_does_not_load_them_either():
    """`kanscope serve` would otherwise keep them in memory."""
    code = "import sys; import service.cli; assert not {'sympy', 'polars', 'ray', 'fastapi'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
