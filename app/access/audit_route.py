"""/audit: the audit log, for administrators, and who made an image."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.http import problems
from app.http.accept import choose
from app.http.errors import InvalidInput
from app.http.file_answers import JSON, content_of
from app.http.paging import Limit, Page
from app.sample.recipe import CONTENT, read_recipe
from app.services import ServicesDep
from client.answers import AuditAnswer
from store.access.audit import AuditEntry, all_entries, list_entries
from store.database import Database
from store.names import MAX_OWNER

LINES = "application/x-ndjson"

router = APIRouter(prefix="/audit", tags=["keys"])


@router.get(
    "",
    summary="Who made, changed, deleted or downloaded what",
    response_model=Page[AuditAnswer],
    responses={
        200: {"content": content_of(JSON, LINES)},
        **problems.declare(problems.NOT_ACCEPTABLE, problems.INVALID),
    },
)
def get_audit(
    request: Request,
    services: ServicesDep,
    limit: Limit = 20,
    after: Annotated[
        int | None,
        Query(ge=1, le=2**31 - 1, description="number of the last item of the previous page"),
    ] = None,
    owner: Annotated[
        str | None, Query(max_length=MAX_OWNER, description="only what was done with their keys")
    ] = None,
) -> Response:
    """List entries, newest first; with `Accept: application/x-ndjson` stream all of them, the
    oldest first, a JSON object in each line."""
    headers = {"Vary": "Accept", "Cache-Control": "no-store"}
    if choose(request.headers.get("accept"), (JSON, LINES)) == LINES:
        lines = _lines(services.database, owner)
        return StreamingResponse(lines, media_type=LINES, headers=headers)
    found, has_more = list_entries(services.database, limit=limit, before=after, owner=owner)
    page = Page[AuditAnswer](items=[_answer(entry) for entry in found], has_more=has_more)
    return Response(page.model_dump_json(), headers=headers, media_type=JSON)


@router.post(
    "/search",
    summary="Who made an image",
    responses=problems.declare(problems.MALFORMED, problems.INVALID),
    openapi_extra={"requestBody": {"required": True, "content": CONTENT}},
)
async def search_audit(request: Request, services: ServicesDep) -> Page[AuditAnswer]:
    """`curl --data-binary @new.png .../audit/search`

    The file is an image (PNG, WebP, JPEG), the JSON of an answer, or its `recipe`. List who has
    ordered images with this recipe, newest first, 100 at most: more than one where it was made
    again. What was ordered without a key is not noted.
    """
    body = await request.body()
    recipe = await services.threads.run(partial(read_recipe, body))
    if recipe.request_digest is None:
        raise InvalidInput.pointer(
            "/request_digest", "request_digest is missing; the audit log of that time has none"
        )
    found, has_more = await run_in_threadpool(
        list_entries, services.database, limit=100, request_digest=recipe.request_digest
    )
    return Page(items=[_answer(entry) for entry in found], has_more=has_more)


def _lines(database: Database, owner: str | None) -> Iterator[bytes]:
    for entry in all_entries(database, owner):
        yield _answer(entry).model_dump_json().encode() + b"\n"


def _answer(entry: AuditEntry) -> AuditAnswer:
    return AuditAnswer.model_validate(entry, from_attributes=True)
