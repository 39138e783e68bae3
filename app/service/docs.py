"""GET /docs and /redoc with their files, and GET /problems, which explains each kind of error."""

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.http import problems
from app.http.root_path import link
from app.service.docs_pages import CONTENT_SECURITY_POLICY, redoc_page, swagger_page

router = APIRouter(tags=["service"])

_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "public, max-age=300",
}


class ProblemKind(BaseModel):
    type: str
    title: str
    status: int
    meaning: str


class CachedFiles(StaticFiles):
    """Files that are cached for a day, or without limit if the address names their version."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        versioned = scope["query_string"].startswith(b"v=")
        response.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable" if versioned else "public, max-age=86400"
        )
        return response


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    return HTMLResponse(swagger_page(request.app.title), headers=_HEADERS)


@router.get("/redoc", include_in_schema=False)
async def redoc(request: Request) -> HTMLResponse:
    return HTMLResponse(redoc_page(request.app.title), headers=_HEADERS)


@router.get("/problems", summary="List the kinds of error")
async def list_problems() -> list[ProblemKind]:
    return [_described(kind) for kind in problems.KINDS]


@router.get(
    "/problems/{kind}",
    summary="Explain one kind of error",
    responses=problems.declare(problems.NOT_FOUND, problems.INVALID),
)
async def get_problem(kind: str) -> ProblemKind:
    for known in problems.KINDS:
        if known.slug == kind:
            return _described(known)
    raise HTTPException(404)


def _described(kind: problems.Kind) -> ProblemKind:
    return ProblemKind(
        type=link(kind.type), title=kind.title, status=kind.status, meaning=kind.meaning
    )
