"""The pages and their policies: the explorer, whose files use the public API alone, and /docs."""

import asyncio
import os
import posixpath
import re
from base64 import b64encode
from hashlib import sha256
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from kanmodel.show.style import STYLE
from service.work.cache import Answer

DOCS, ASSETS = "/docs", "/docs/assets"
# Of Swagger UI: its own files, the script that starts it, and the icons of its style sheet.
_DOCS_POLICY = (
    "default-src 'self'; script-src 'self' {start}; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def get_docs(request: Request) -> Response:
    """The operations in Swagger UI, from this service alone; its address below a proxy's prefix is in the script."""
    root, app = request.scope.get("root_path", ""), request.app
    files = {"js": "swagger-ui-bundle.js", "css": "swagger-ui.css", "favicon": "favicon.png"}
    urls: dict[str, Any] = {f"swagger_{kind}_url": f"{root}{ASSETS}/{name}" for kind, name in files.items()}
    page = get_swagger_ui_html(openapi_url=f"{root}{app.openapi_url}", title=f"{app.title} - Swagger UI", **urls)
    (start,) = re.findall(rb"<script>(.*?)</script>", page.body, re.DOTALL)
    page.headers["Content-Security-Policy"] = _DOCS_POLICY.format(start=_hash(start))
    page.headers["Referrer-Policy"] = "no-referrer"
    return page


FOLDER = Path(__file__).parent / "explorer"
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


def _hash(content: bytes) -> str:
    """The hash source of an element in a Content-Security-Policy (CSP 3, section 2.3.1)."""
    return f"'sha256-{b64encode(sha256(content).digest()).decode()}'"


_STYLES = [_hash(style.encode()) for style in (STYLE, PLOT_STYLE)]
# Only its own files, the import map in its page and the API; of inline styles those of the drawings and the charts.
POLICY = (
    "default-src 'self'; script-src 'self' {imports}; "
    f"style-src 'self' {' '.join(_STYLES)}; "
    "img-src 'self' blob:; "  # a picture that is being converted to PNG; no script runs in an image
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE, SCRIPT = "index.html", "app.js"
SHEETS = ("base", "flow", "forecast", "model", "history")  # in their order
_IMPORT_MAP = re.compile(rb'<script type="importmap">(.*?)</script>', re.DOTALL)
_IMPORTED = re.compile(rb'^(?:import|export)(?: [\w{}*,\s]+ from)? "(\.[^"]+)";', re.MULTILINE)
_TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
}  # which slim systems do not know, or know by an older name
_BELOW = re.compile(r"(?:([0-9a-f]{16})/)?(.*)", re.DOTALL)  # a hash of all files, and a file
KEPT = "public, max-age=31536000, immutable"  # of a file whose address changes with it


def _imported(files: dict[str, bytes]) -> set[str]:
    """The modules that the page's script imports before it runs, directly or through others, and the libraries."""
    found = {name for name in files if name.endswith(".mjs")}
    pending = [SCRIPT]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            paths = map(bytes.decode, _IMPORTED.findall(files[name]))
            pending += [posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) for path in paths]
    return found


class ExplorerFiles(StaticFiles):
    """The files of the explorer, from memory and compressed, with security headers.

    The page is revalidated by its ETag, so that a new release is seen at once; it finds all others below a hash of
    them, where browsers need not ask for them again, and names all modules so that they are fetched at once: first
    those that its script imports before anything is shown. Its style sheets are one there, `all.css`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder)
        self._folder = folder
        self._release = ""
        self._headers: dict[str, str] = {}
        self._seen: dict[str, int] = {}  # when each file was changed
        self._files: dict[str, bytes] = {}
        self._answers: dict[str, Answer] = {}

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, or 304 if the client has it."""
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        release, name = _BELOW.fullmatch(path).groups()  # type: ignore[union-attr]
        name = PAGE if path == "." else name.replace(os.sep, "/")
        if name == PAGE or not self._seen:
            await asyncio.to_thread(self._read)
        if name not in self._files:
            raise HTTPException(404)
        if name not in self._answers:
            kind = _TYPES.get(Path(name).suffix) or guess_type(name)[0]
            file = Response(self._files[name], media_type=kind)
            self._answers[name] = await asyncio.to_thread(Answer.of, file)
        status, headers, body = self._answers[name].choose(dict(scope["headers"]))
        response = Response(body, status)
        response.raw_headers = headers
        response.headers.update(self._headers | {"Cache-Control": KEPT if release == self._release else "no-cache"})
        return response

    def _read(self) -> None:
        """Reads the files where one was changed."""
        found = {path.relative_to(self._folder).as_posix(): path for path in self._folder.rglob("*") if path.is_file()}
        seen = {name: path.stat().st_mtime_ns for name, path in found.items()}
        if seen == self._seen:
            return
        files = {name: path.read_bytes() for name, path in sorted(found.items())}
        files["all.css"] = b"".join(files[f"{name}.css"] for name in SHEETS)
        self._release = sha256(b"".join(files.values())).hexdigest()[:16]
        first = _imported(files)
        links = [
            f'<link rel="modulepreload" fetchpriority="{"high" if name in first else "low"}" href="release/{name}" />'
            for name in sorted(files, key=lambda name: name not in first)
            if name.endswith((".js", ".mjs"))
        ]
        page = files[PAGE].replace(b"</head>", f"{''.join(links)}</head>".encode())
        files[PAGE] = page.replace(b"release/", f"{self._release}/".encode())
        policy = POLICY.format(imports=" ".join(map(_hash, _IMPORT_MAP.findall(files[PAGE]))))
        self._headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Vary": "Accept-Encoding"}
        self._seen, self._files, self._answers = seen, files, {}
