"""ETag and If-None-Match (RFC 9110, sections 8.8.3 and 13.1.2)."""

import hashlib
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response


def etag_of(content: bytes) -> str:
    return f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def conditional(
    request: Request,
    content: bytes,
    media_type: str,
    headers: Mapping[str, str],
    etag: str | None = None,
) -> Response:
    """Answer with the content, or with 304 if the caller already has it."""
    etag = etag or etag_of(content)
    headers = {**headers, "ETag": etag}
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


def matches(if_none_match: str | None, etag: str) -> bool:
    """Compare weakly: a W/ prefix is ignored."""
    if not if_none_match:
        return False
    given = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in ("*", etag.removeprefix("W/")) for tag in given)
