"""The committed OpenAPI document: ``python -m service.document`` writes it, with ``--check`` compares it."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from service.app import create_app
from service.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "openapi" / "openapi.json"
WIDTH = 120  # columns


def format_document() -> str:
    """The document of this version as it is committed."""
    return _format(create_app(Settings(models=None)).openapi()) + "\n"


def _format(value: Any, indent: int = 0) -> str:
    """JSON with an entry a line, but what holds no other object or list on one, where that fits or is numbers."""
    if not isinstance(value, dict | list) or not value:
        return json.dumps(value, ensure_ascii=False)
    items = list(value.values()) if isinstance(value, dict) else value
    line = json.dumps(value, ensure_ascii=False)
    is_flat = not any(isinstance(item, dict | list) for item in items)
    if is_flat and (indent + len(line) < WIDTH or not any(isinstance(item, str) for item in items)):
        return line
    names = [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(items)
    space = " " * (indent + 2)
    entries = [space + name + _format(item, indent + 2) for name, item in zip(names, items, strict=True)]
    start, end = ("{", "}") if isinstance(value, dict) else ("[", "]")
    return "\n".join([start, ",\n".join(entries), " " * indent + end])


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


if __name__ == "__main__":
    sys.exit(main())
