"""/audit: the audit log, for administrators."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.http import problems
from app.http.accept import choose
from app.http.paging import Limit, Page
from app.services import ServicesDep
from store.access.audit import AuditEntry, all_entries, list_entries
from store.database import Database
from store.names import MAX_OWNER

JSON, LINES = "application/json", "application/x-ndjson"

router = APIRouter(prefix="/audit", tags=["keys"])


class AuditAnswer(BaseModel):
    """Somebody made, changed, deleted or downloaded something."""

    number: int
    at: datetime
    owner: str | None = Field(description="of the key; null without one")
    key_id: str | None
    action: str = Field(examples=["DELETE /models/{name}"])
    path: str
    made: str | None = Field(description="the address of what was made")
    status: int
    address: str | None = Field(description="from which the request came")
    request_id: str = Field(description="also in the service's own log")


@router.get(
    "",
    summary="Who made, changed, deleted or downloaded what",
    response_model=Page[AuditAnswer],
    responses={
        200: {"content": {LINES: {}}},
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


def _lines(database: Database, owner: str | None) -> Iterator[bytes]:
    for entry in all_entries(database, owner):
        yield _answer(entry).model_dump_json().encode() + b"\n"


def _answer(entry: AuditEntry) -> AuditAnswer:
    return AuditAnswer.model_validate(entry, from_attributes=True)
