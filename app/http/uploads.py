"""Raw request bodies, streamed to a file: memory use does not depend on their size."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from app.http.errors import RequestError
from app.http.file_answers import BINARY
from app.http.problems import UNSUPPORTED
from app.services import Services
from store.access.quotas import check_space, space_left

BODY: dict[str, object] = {  # of a route with such a body, for OpenAPI
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": BINARY},
    }
}


class FormUpload(RequestError):
    kind = UNSUPPORTED


@asynccontextmanager
async def uploaded_file(
    request: Request, services: Services, known_bytes: int = 0
) -> AsyncIterator[Path]:
    """Write the body to a file in the data folder, which is deleted afterwards.

    Raises FormUpload for a multipart form, and QuotaExceeded where the caller may not store so
    much: before the body is read if its length is announced, else as soon as so much has come.
    What has the name already may be sent again; it has `known_bytes`.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.lower().startswith("multipart/"):
        raise FormUpload(
            f"Content-Type is {content_type[:100]!r}; the body is the archive itself, not a form "
            "(curl -T file, not -F)"
        )
    left = await run_in_threadpool(space_left, services.database)

    async def check(num_bytes: int) -> None:
        if left is not None and num_bytes > max(left, known_bytes):
            await run_in_threadpool(check_space, services.database, num_bytes)

    await check(int(request.headers.get("content-length", 0)))
    folder = services.settings.locations.data_dir / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        received = 0
        async for chunk in request.stream():
            received += len(chunk)
            await check(received)
            await run_in_threadpool(file.write, chunk)
        await run_in_threadpool(file.flush)
        yield Path(file.name)
