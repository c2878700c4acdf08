"""The committed OpenAPI document: ``python -m service.document`` writes it, with ``--check`` compares it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from service.app import create_app
from service.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "openapi" / "openapi.json"
_NUMBERS = re.compile(
    r"\[\s+-?\d[^\s,\"]*(?:,\s+-?\d[^\s,\"]*)*\s+\]"
)  # a list that json.dumps wrote over several lines


def format_document() -> str:
    """The document of this version as it is committed: an entry a line, but a list of numbers on one."""
    text = json.dumps(create_app(Settings(models=None)).openapi(), indent=2, ensure_ascii=False) + "\n"
    return _NUMBERS.sub(lambda match: " ".join(match[0].split()).replace("[ ", "[").replace(" ]", "]"), text)


def main() -> int:
    """Writes the document, or says that the committed one differs."""
    parser = argparse.ArgumentParser(prog="python -m service.document", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed document instead")
    text = format_document()
    if not parser.parse_args().check:
        DOCUMENT.write_text(text, encoding="utf-8")
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_text(encoding="utf-8") == text:
        return 0
    print(f"{DOCUMENT.name} differs from the app: run python -m service.document", file=sys.stderr)
    return 1
