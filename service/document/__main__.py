"""The committed OpenAPI documents, and the site's table of routes, which is made of them.

``python -m service.document`` writes them, with ``--check`` compares them.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.app import create_app
from service.document.older import downgrade
from service.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "openapi" / "openapi.json"
WIDTH = 120  # columns
# Of the committed documents, which are of no one service; clients are told where theirs is.
SERVERS = [{"url": "http://127.0.0.1:8000", "description": "Where `kanscope serve` listens by default."}]
OLDER = DOCUMENT.with_name("openapi-3.0.json")
ROUTES = DOCUMENT.parents[1] / ".ci" / "site" / "pages" / "reference" / "http.md"
_TABLE = re.compile(r"^\| Route \| Answer \|\n(?:\|.*\n)+", re.MULTILINE)


def format_documents() -> dict[Path, str]:
    """The documents of this version as they are committed, by their files."""
    document = {**create_app(Settings(models=None)).openapi(), "servers": SERVERS}
    before, after = re.split(_TABLE, ROUTES.read_text(encoding="utf-8"), maxsplit=1)
    page = before + _format_routes(document) + after
    return {DOCUMENT: _format(document) + "\n", OLDER: _format(downgrade(document)) + "\n", ROUTES: page}


def _format_routes(document: Mapping[str, Any]) -> str:
    """A table of the operations, each with the first sentence of its description."""
    rows = list[str]()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            first, _, _ = " ".join(operation["description"].split()).partition(". ")
            rows.append(f"| `{method.upper()} {path}` | {first.rstrip('.')} |")
    return "\n".join(["| Route | Answer |", "|---|---|", *rows]) + "\n"


def _format(value: Any, indent: int = 0) -> str:
    """JSON with an entry a line, but on one what fits there, or holds no other object or list."""
    if not isinstance(value, dict | list) or not value:
        return json.dumps(value, ensure_ascii=False)
    items = list(value.values()) if isinstance(value, dict) else value
    line = json.dumps(value, ensure_ascii=False)
    if indent + len(line) < WIDTH or not any(isinstance(item, dict | list) for item in items):
        return line
    names = [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(items)
    space = " " * (indent + 2)
    entries = [space + name + _format(item, indent + 2) for name, item in zip(names, items, strict=True)]
    start, end = ("{", "}") if isinstance(value, dict) else ("[", "]")
    return "\n".join([start, ",\n".join(entries), " " * indent + end])


def main() -> int:
    """Writes the documents, or says which committed one differs."""
    parser = argparse.ArgumentParser(prog="python -m service.document", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed documents instead")
    is_check, differing = parser.parse_args().check, list[str]()
    for path, text in format_documents().items():
        if not is_check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            differing.append(path.name)
    for name in differing:
        print(f"{name} differs from the app: run python -m service.document", file=sys.stderr)
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
