"""Raw request bodies, streamed to a file: memory use does not depend on their size."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.http.errors import RequestError
from app.http.problems import UNSUPPORTED

BODY: dict[str, object] = {  # of a route with such a body, for OpenAPI
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class FormUpload(RequestError):
    kind = UNSUPPORTED


@asynccontextmanager
async def uploaded_file(request: Request, data_dir: Path) -> AsyncIterator[Path]:
    """Write the body to a file in the data folder, which is deleted afterwards.

    Raises FormUpload for a multipart form.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.lower().startswith("multipart/"):
        raise FormUpload(
            f"Content-Type is {content_type[:100]!r}; the body is the archive itself, not a form "
            "(curl -T file, not -F)"
        )
    folder = data_dir / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        async for chunk in request.stream():
            await run_in_threadpool(file.write, chunk)
        await run_in_threadpool(file.flush)
        yield Path(file.name)
