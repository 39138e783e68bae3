"""Exception handlers: each exception becomes a problem (app.http.problems).

The errors of app.http.errors carry their kind of problem; `KINDS_OF` has the kinds of the others.
"""

import re

import sqlalchemy.exc
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

import store.errors
from app.http import problems
from app.http.errors import RequestError, field_errors
from app.http.problems import (
    FieldError,
    Kind,
    log_database_error,
    problem_response,
    unexpected_problem,
)
from app.logs import log
from store.database import Database
from store.integrity import mark_damage

# Exceptions whose message may be shown to callers; looked up along the class hierarchy.
KINDS_OF: dict[type[Exception], Kind] = {
    store.errors.InvalidName: problems.INVALID,
    store.errors.NotYours: problems.FORBIDDEN,
    store.errors.QuotaExceeded: problems.QUOTA_EXCEEDED,
    store.errors.NotFound: problems.NOT_FOUND,
    store.errors.Conflict: problems.CONFLICT,
}

# Statuses that the framework itself raises as HTTPException.
KINDS_OF_STATUS: dict[int, Kind] = {
    kind.status: kind
    for kind in problems.KINDS
    if kind not in (problems.INTERNAL, problems.DAMAGED, problems.NO_SPACE)
}


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(sqlalchemy.exc.OperationalError, _database_error)
    app.add_exception_handler(store.errors.ArtifactDamaged, _damage)
    for exception in KINDS_OF:
        app.add_exception_handler(exception, _known_error)


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return problem_response(error.kind, str(error), request.scope, error.errors, error.headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if any(item["type"] == "json_invalid" for item in error.errors()):
        detail = "the body is not valid JSON"
        return problem_response(problems.MALFORMED, detail, request.scope)
    if any(item["type"] == "model_attributes_type" for item in error.errors()):
        content_type = request.headers.get("content-type", "")
        if not _IS_JSON.match(content_type):
            detail = f"Content-Type is {content_type[:100]!r}; it must be application/json"
            return problem_response(problems.UNSUPPORTED, detail, request.scope)
    errors = field_errors(error.errors())
    kind = problems.INVALID
    if all(error.place == "path" for error in errors):
        kind = problems.NOT_FOUND  # no resource can have such an address
    detail = "; ".join(error.detail for error in errors)
    return problem_response(kind, detail, request.scope, errors)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = KINDS_OF_STATUS.get(error.status_code, problems.INTERNAL)
    detail = _DETAILS.get(kind, kind.meaning).format(
        method=request.method, path=request.url.path[:200]
    )
    headers = error.headers
    if kind is problems.METHOD_NOT_ALLOWED and (methods := _methods_at(request)):
        headers = {"Allow": ", ".join(sorted(methods))}  # the framework names those of one route
    return problem_response(kind, detail, request.scope, headers=headers)


def _methods_at(request: Request) -> set[str]:
    """Return the methods of all routes at the address, HEAD with GET (app.http.head)."""
    found = {
        method
        for route in iter_route_contexts(request.app.routes)
        if route.methods and route.path_regex.match(request.scope["path"])
        for method in route.methods
    }
    return found | {"HEAD"} if "GET" in found else found


async def _known_error(request: Request, error: Exception) -> Response:
    kind = next(KINDS_OF[cls] for cls in type(error).__mro__ if cls in KINDS_OF)
    errors = []
    # The names in a body are checked earlier, so this one comes from the path.
    if isinstance(error, store.errors.InvalidName):
        errors = [FieldError(parameter=error.field, place="path", detail=str(error))]
    headers = {}
    if isinstance(error, store.errors.QuotaExceeded) and error.wait is not None:
        headers = {"Retry-After": str(max(1, round(error.wait)))}
    return problem_response(kind, str(error), request.scope, errors, headers)


async def _damage(request: Request, error: Exception) -> Response:
    assert isinstance(error, store.errors.ArtifactDamaged)
    database = request.app.state.services.database
    return await run_in_threadpool(damage_problem, database, error, request.scope)


def damage_problem(
    database: Database, error: store.errors.ArtifactDamaged, scope: Scope
) -> Response:
    """Answer that an artifact is damaged, and mark that in its record."""
    log.error("an artifact is damaged", artifact=error.key, why=error.why)
    mark_damage(database, error)
    return problem_response(problems.DAMAGED, str(error), scope, artifact=error.key)


async def _database_error(request: Request, error: Exception) -> Response:
    log_database_error(error, request.scope)
    return unexpected_problem(error, request.scope)


_IS_JSON = re.compile(r"application/(\w[\w.-]*\+)?json\s*(;|$)", re.IGNORECASE)
_DETAILS = {
    problems.NOT_FOUND: "there is nothing at {path}",
    problems.METHOD_NOT_ALLOWED: "{path} does not support {method}",
    problems.MALFORMED: "the body cannot be parsed as the type that Content-Type names",
}
