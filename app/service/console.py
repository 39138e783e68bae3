"""GET / and /console: the console, a page of plain ES modules that uses the public API.

The page names its files below a version, a digest of all of them: what a browser has of a version
it never asks for again, and modules of two versions never mix. The page also says which modules
each of the console's pages imports, so that they are loaded at once, and not one after another as
each is found to be imported.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from mimetypes import guess_type
from pathlib import Path
from posixpath import dirname, join, normpath

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app.http.conditional import conditional

FOLDER = Path(__file__).parents[1] / "console"
FIRST, PAGES = "main.js", "pages/"

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_FOREVER = "public, max-age=31536000, immutable"
_VERSION = re.compile(r"[0-9a-f]{16}")
_HEAD = re.compile(r"(?:\s|//[^\n]*\n|import [^;]*;)*")  # of a module: its imports come first
_IMPORTED = re.compile(r'from "(\.[^"]+)"')

router = APIRouter()


class Console:
    """The page, its version and the contents of its files, read anew where one was changed."""

    def __init__(self) -> None:
        self._changes: dict[Path, int] = {}
        self.contents: dict[str, bytes] = {}
        self.packed: dict[str, bytes] = {}  # by gzip
        self.version = self.html = ""
        self.refresh()

    def refresh(self) -> None:
        paths = sorted(path for path in FOLDER.rglob("*") if path.is_file())
        changes = {path: path.stat().st_mtime_ns for path in paths}
        if changes == self._changes:
            return
        contents = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in paths}
        self.version = _digest(contents)
        self.html = _page(contents, self.version)
        self.packed = {name: gzip.compress(each, mtime=0) for name, each in contents.items()}
        self.contents, self._changes = contents, changes


@router.get("/", include_in_schema=False)
def console() -> HTMLResponse:
    CONSOLE.refresh()
    return HTMLResponse(CONSOLE.html, headers=_HEADERS)


@router.get("/console/{path:path}", include_in_schema=False)
async def console_file(path: str, request: Request) -> Response:
    """Return a file. Below the version of now it stays in the browser's cache; elsewhere the
    browser asks whether it has changed, as while another version is being rolled out."""
    first, _, rest = path.partition("/")
    name = rest if _VERSION.fullmatch(first) else path
    is_packed = "gzip" in request.headers.get("accept-encoding", "")
    content = (CONSOLE.packed if is_packed else CONSOLE.contents).get(name)
    if content is None:
        raise HTTPException(404)
    headers = {
        "Cache-Control": _FOREVER if first == CONSOLE.version else "no-cache",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if is_packed:
        headers["Content-Encoding"] = "gzip"
    media_type = guess_type(path)[0] or "application/octet-stream"
    return conditional(request, content, media_type, headers)


def imported(contents: Mapping[str, bytes], module: str) -> list[str]:
    """Return the modules that one imports, directly or not, by their paths."""
    found: dict[str, None] = {}
    waiting = [module]
    while waiting:
        here = waiting.pop()
        head = _HEAD.match(contents[here].decode())
        for name in _IMPORTED.findall(head[0] if head else ""):
            path = normpath(join(dirname(here), name))
            if path not in found:
                found[path] = None
                waiting.append(path)
    return list(found)


def _page(contents: Mapping[str, bytes], version: str) -> str:
    """Return the HTML, with the modules of main.js to load, and those of each page to know."""
    always = imported(contents, FIRST)
    of_page = {
        name.removeprefix(PAGES): [
            name,
            *[module for module in imported(contents, name) if module not in always],
        ]
        for name in contents
        if name.startswith(PAGES) and "/" not in name.removeprefix(PAGES)
    }
    lines = [
        *[f'<link rel="modulepreload" href="console/{module}" />' for module in always],
        f'<script type="application/json" id="modules">{json.dumps(of_page)}</script>',
    ]
    head = "".join(f"    {line}\n" for line in lines)
    html = contents["index.html"].decode().replace("  </head>", head + "  </head>")
    return html.replace('"console/', f'"console/{version}/')


def _digest(contents: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


CONSOLE = Console()
