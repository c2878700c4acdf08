"""GET /explorer: a page that shows the models; its files stand in `service/explorer` and ask nothing but the API."""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from kanmodel.drawing.style import STYLE

FOLDER = Path(__file__).parents[1] / "explorer"
# What Observable Plot writes into each of its charts; "plot" is the class that the explorer's charts have.
PLOT_STYLE = """:where(.plot) {
  --plot-background: white;
  display: block;
  height: auto;
  height: intrinsic;
  max-width: 100%;
}
:where(.plot text),
:where(.plot tspan) {
  white-space: pre;
}"""


def _hash_source(style: str) -> str:
    """A style element as a Content-Security-Policy names it (CSP 3, section 2.3.1)."""
    return f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'"


# Its own files and the API, and of inline styles those of the drawings and the charts alone.
POLICY = "; ".join(
    [
        "default-src 'self'",
        f"style-src 'self' {_hash_source(STYLE)} {_hash_source(PLOT_STYLE)}",
        "img-src 'self' blob:",  # a picture of the page on its way to a PNG; no script runs in an image
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # each file is kept by its ETag, so that a new release is seen at once
}


class ExplorerFiles(StaticFiles):
    """The files of the explorer with the headers that keep foreign code out."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER, html=True)

    def file_response(self, full_path: str | os.PathLike[str], *arguments: Any, **options: Any) -> Response:
        """A file, or 304 where the client has it."""
        response = super().file_response(full_path, *arguments, **options)
        response.headers.update(HEADERS)
        return response


async def redirect_to_explorer(_: Request) -> RedirectResponse:
    """Leads to the folder, against which the page's relative addresses stand."""
    return RedirectResponse("explorer/")
