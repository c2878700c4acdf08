from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from thorough import examples

from service.document.__main__ import DOCUMENT

CONFIG = Path(__file__).with_name("schemathesis.toml")
N_EXAMPLES = examples(4)  # requests per operation, besides examples and edge cases


def run_schemathesis(client, folder, *options):
    """Schemathesis's report on a server that conforms to the document."""
    options = [
        f"--url={client.base_url}",
        f"--max-examples={N_EXAMPLES}",
        "--generation-deterministic",
        "--no-color",
        *options,
    ]
    run = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", f"--config-file={CONFIG}", "run", DOCUMENT, *options],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.mark.thorough("sends thousands of requests")
def test_the_service_conforms_to_its_document(serve, tmp_path):
    """Requests that the document allows or forbids, alone or along links, get documented responses."""
    with serve(max_body_bytes=100_000, max_windows=50, max_points=500) as client:
        assert "API Links:" in run_schemathesis(client, tmp_path)


def test_the_repository_api_conforms_to_its_document(serve, tmp_path):
    """This also holds for loading and unloading models."""
    with serve(max_body_bytes=100_000, repository_api=True) as client:
        assert "API Links:" in run_schemathesis(client, tmp_path, "--include-path-regex=^/v2/repository")
