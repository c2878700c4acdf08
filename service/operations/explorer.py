"""GET /explorer: a page that shows the models; its files in `service/explorer` use the public API alone."""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from kanmodel.show.style import STYLE

FOLDER = Path(__file__).parents[1] / "explorer"
# The inline style that Observable Plot adds to each chart; "plot" is the class of the explorer's charts.
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
    """The hash source of a style element in a Content-Security-Policy (CSP 3, section 2.3.1)."""
    return f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'"


# Only its own files and the API; of inline styles only those of the drawings and the charts.
POLICY = "; ".join(
    [
        "default-src 'self'",
        f"style-src 'self' {_hash_source(STYLE)} {_hash_source(PLOT_STYLE)}",
        "img-src 'self' blob:",  # a picture that is being converted to PNG; no script runs in an image
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # files are revalidated by ETag, so that a new release is seen at once
}


class ExplorerFiles(StaticFiles):
    """The files of the explorer, with security headers."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER, html=True)

    def file_response(self, full_path: str | os.PathLike[str], *arguments: Any, **options: Any) -> Response:
        """A file, or 304 if the client has it."""
        response = super().file_response(full_path, *arguments, **options)
        response.headers.update(HEADERS)
        return response


async def redirect_to_explorer(_: Request) -> RedirectResponse:
    """Redirects to the folder, which the page's relative addresses need."""
    return RedirectResponse("explorer/")
