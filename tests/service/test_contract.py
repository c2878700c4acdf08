from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from thorough import examples

from service.document.openapi import DOCUMENT

CONFIG = Path(__file__).with_name("schemathesis.toml")
N_EXAMPLES = examples(4)  # requests of each operation, beside the examples and the edge cases


def run_schemathesis(client, folder, *options):
    """What it says of a server that has kept to the document."""
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


def test_the_service_keeps_to_its_document(serve, tmp_path):
    """Whatever schemathesis asks, allowed by the document or not, alone or along its links, is answered as it says."""
    with serve(max_body_bytes=100_000, max_windows=50, max_points=500) as client:
        assert "API Links:" in run_schemathesis(client, tmp_path)


def test_the_repository_keeps_to_its_document(serve, tmp_path):
    """So it does where models are loaded and unloaded by command."""
    with serve(max_body_bytes=100_000, repository_api=True) as client:
        assert "API Links:" in run_schemathesis(client, tmp_path, "--include-path-regex=^/v2/repository")
