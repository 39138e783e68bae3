"""/keys: made, listed and revoked by administrators."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import Response

from app.access.guard import Forbidden
from app.http import problems
from app.http.body import JsonBody
from app.http.errors import reported_at
from app.services import ServicesDep
from store.access import keys
from store.access.keys import Scope
from store.names import MAX_OWNER

router = APIRouter(prefix="/keys", tags=["keys"])


def _need_key(services: ServicesDep) -> None:
    """Refuse callers without a key, where none is needed: a first key would shut them out."""
    if services.database.caller is None:
        raise Forbidden("the first key is made on the server: diffusion keys create NAME")


class NewKey(JsonBody):
    owner: Annotated[str, StringConstraints(max_length=MAX_OWNER)] = Field(
        description="whose key it is; what is made with it belongs to them", examples=["alice"]
    )
    scopes: list[Scope] = Field(
        default=["read", "sample"],
        min_length=1,
        max_length=len(keys.SCOPES),
        description="what it is for; `admin` includes all, and sees everybody's work",
    )


class KeyAnswer(BaseModel):
    id: str
    owner: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None = Field(description="to the minute")
    revoked_at: datetime | None


class CreatedKey(KeyAnswer):
    key: str = Field(description="the key itself, only in this answer")


class Keys(BaseModel):
    items: list[KeyAnswer]


@router.post(
    "",
    summary="Make a key",
    status_code=201,
    dependencies=[Depends(_need_key)],
    responses=problems.declare(problems.FORBIDDEN, problems.UNSUPPORTED, problems.INVALID),
)
def create_key(body: NewKey, response: Response, services: ServicesDep) -> CreatedKey:
    """Make a key for an owner; the answer is the only one that has it."""
    with reported_at("/owner"):
        record, text = keys.create_key(services.database, body.owner, body.scopes)
    response.headers["Location"] = f"/keys/{record.id}"
    response.headers["Cache-Control"] = "no-store"
    return CreatedKey(**_answer(record).model_dump(), key=text)


@router.get("", summary="List the keys, newest first")
def list_keys(services: ServicesDep) -> Keys:
    return Keys(items=[_answer(record) for record in keys.list_keys(services.database)])


@router.delete(
    "/{key_id}",
    summary="Revoke a key",
    status_code=204,
    dependencies=[Depends(_need_key)],
    responses=problems.declare(problems.FORBIDDEN, problems.NOT_FOUND),
)
def revoke_key(key_id: str, services: ServicesDep) -> None:
    """Have it refused, within a second. What was made with it stays."""
    keys.revoke_key(services.database, key_id)


def _answer(record: keys.Key) -> KeyAnswer:
    return KeyAnswer.model_validate(record, from_attributes=True)
