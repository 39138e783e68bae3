"""/session: whose key a request carries, and how the console signs in with one."""

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.access.guard import COOKIE, Unauthorized, caller_with, key_in
from app.http import problems
from app.http.body import JsonBody
from app.http.root_path import link
from app.services import services_of
from store.access.keys import Key, any_key, find_key
from store.access.quotas import usage_of

router = APIRouter(prefix="/session", tags=["keys"])

SECONDS = 30 * 86_400  # that a browser keeps the cookie


class SignIn(JsonBody):
    key: str = Field(max_length=200)


class Used(BaseModel):
    used: float
    quota: int = Field(description="0 if there is none")


class SessionAnswer(BaseModel):
    key_needed: bool
    owner: str | None = Field(description="of the key that the request carries; null without one")
    scopes: list[str]
    usage: dict[str, Used] = Field(
        description="what the owner has used: `bytes` stored, `jobs` that are not done, and "
        "`train_minutes` and `images` of the last 24 hours"
    )


@router.get("", summary="Whose key does this request carry, and is one needed?")
async def get_session(request: Request) -> SessionAnswer:
    text = key_in(request.headers)
    database = services_of(request).database
    key = await run_in_threadpool(find_key, database, text) if text else None
    return await _answer(request, key)


@router.post(
    "",
    summary="Sign a browser in",
    responses=problems.declare(problems.UNAUTHORIZED, problems.UNSUPPORTED, problems.INVALID),
)
async def sign_in(body: SignIn, request: Request, response: Response) -> SessionAnswer:
    """Answer with a cookie that holds the key, and that scripts and other sites cannot use."""
    key = await run_in_threadpool(find_key, services_of(request).database, body.key)
    if key is None:
        raise Unauthorized("the key is not known, or it was revoked")
    response.set_cookie(
        COOKIE,
        body.key,
        max_age=SECONDS,
        path=link("/"),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return await _answer(request, key)


@router.delete("", summary="Sign a browser out", status_code=204)
async def sign_out(request: Request, response: Response) -> None:
    response.delete_cookie(COOKIE, path=link("/"), httponly=True, samesite="strict")


async def _answer(request: Request, key: Key | None) -> SessionAnswer:
    services = services_of(request)
    needed = not services.settings.open and await run_in_threadpool(any_key, services.database)
    caller = caller_with(key, services.settings) if key else None
    usage = await run_in_threadpool(usage_of, services.database.for_caller(caller))
    return SessionAnswer(
        key_needed=needed,
        owner=key.owner if key else None,
        scopes=key.scopes if key else [],
        usage={name: Used.model_validate(amounts) for name, amounts in usage.items()},
    )
