"""Downloads that a client can resume: ETag, Range and If-Range (RFC 9110, sections 13.1.5 and 14).

The framework's FileResponse reads files only, and answers a range that it cannot read in plain
text.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.http import problems
from app.http.conditional import matches
from app.http.errors import RequestError
from app.http.head import is_head

_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE)


class RangeNotSatisfiable(RequestError):
    kind = problems.RANGE_NOT_SATISFIABLE

    def __init__(self, size: int) -> None:
        super().__init__(f"the range has no bytes of the file, which has {size}")
        self.headers = {"Content-Range": f"bytes */{size}"}


@dataclass(frozen=True)
class Resumable:
    """A file to download; the same `etag` means the same bytes."""

    name: str
    etag: str
    media_type: str

    def without_content(self, request: Request) -> Response | None:
        """Answer a request for which the content need not be made: 304 if the caller has it, or
        HEAD, then without its length. Return None for any other request."""
        if matches(request.headers.get("if-none-match"), self.etag):
            return Response(status_code=304, headers=self._headers)
        if is_head(request):
            return StreamingResponse((), 200, self._headers, self.media_type)
        return None

    def answer(
        self,
        request: Request,
        size: int,
        stream: Callable[[int, int], Iterator[bytes]],
        cleanup: BackgroundTask | None = None,
    ) -> Response:
        """Answer with the file, which has `size` bytes, or with the range asked for; `stream`
        yields the bytes from a start to an end. Raises RangeNotSatisfiable.

        The answer is the whole file if `If-Range` names another version, for several ranges at
        once, and for units other than bytes.
        """
        if matches(request.headers.get("if-none-match"), self.etag):
            return Response(status_code=304, headers=self._headers, background=cleanup)
        asked = self._asked_range(request, size)
        start, end = asked or (0, size)
        headers = {**self._headers, "Content-Length": str(end - start)}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        status = 206 if asked else 200
        return StreamingResponse(stream(start, end), status, headers, self.media_type, cleanup)

    @property
    def _headers(self) -> dict[str, str]:
        return {
            "ETag": self.etag,
            "Accept-Ranges": "bytes",
            "Content-Disposition": f'attachment; filename="{self.name}"',
        }

    def _asked_range(self, request: Request, size: int) -> tuple[int, int] | None:
        found = _RANGE.fullmatch(request.headers.get("range", ""))
        if found is None or request.headers.get("if-range", self.etag) != self.etag:
            return None
        first, last = found.groups()
        if not (first or last) or (first and last and int(last) < int(first)):
            return None
        if first:
            start, end = int(first), int(last) + 1 if last else size
        else:
            start, end = max(size - int(last), 0), size  # the last bytes, as many as `last`
        if start >= size:
            raise RangeNotSatisfiable(size)
        return start, min(end, size)
