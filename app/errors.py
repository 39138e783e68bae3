"""From exceptions to problems; the only place that knows HTTP statuses.

    RequestError
    ├── InvalidInput      422, with the fields at fault
    ├── NotAcceptable     406
    ├── TooLarge          413
    └── Busy              503, with Retry-After

`KINDS_OF` is the table for everybody else's exceptions.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import sqlalchemy.exc
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import store.errors
from app import problems
from app.logs import log
from app.problems import (
    FieldError,
    Kind,
    is_out_of_space,
    problem_response,
    unexpected_problem,
)

Place = Literal["form", "query", "path", "header", "cookie"]


class RequestError(Exception):
    """A request that is answered with a problem; the message is written for the caller."""

    kind = problems.MALFORMED
    headers: Mapping[str, str] = {}
    errors: Sequence[FieldError] = ()


class InvalidInput(RequestError):
    kind = problems.INVALID

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(error.detail for error in errors))
        self.errors = errors

    @classmethod
    def parameter(cls, name: str, detail: str, place: Place = "form") -> "InvalidInput":
        return cls([FieldError(parameter=name, place=place, detail=detail)])

    @classmethod
    def pointer(cls, pointer: str, detail: str) -> "InvalidInput":
        return cls([FieldError(pointer=pointer, detail=detail)])


class NotAcceptable(RequestError):
    kind = problems.NOT_ACCEPTABLE


class TooLarge(RequestError):
    kind = problems.TOO_LARGE


class Busy(RequestError):
    kind = problems.UNAVAILABLE

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(max(1, math.ceil(retry_after_seconds)))}


@contextmanager
def blame(name: str, place: Place | Literal["body"] = "body") -> Iterator[None]:
    """A ValueError raised inside is the caller's fault: of the parameter `name`, or of the JSON
    pointer `name` where the place is the body. To be put around calls whose messages are known to
    be written for callers."""
    try:
        yield
    except ValueError as error:
        if place == "body":
            raise InvalidInput.pointer(name, str(error)) from error
        raise InvalidInput.parameter(name, str(error), place) from error


@contextmanager
def blame_field(body: type[BaseModel]) -> Iterator[None]:
    """As `blame`, of the field of a JSON body that the message begins with, as those of models do:
    'disturb.at is 9; it must lie in 0..4'."""
    try:
        yield
    except ValueError as error:
        path = str(error).split(" ", 1)[0].split(".")
        pointer = _json_pointer(path) if path[0] in body.model_fields else ""
        raise InvalidInput.pointer(pointer, str(error)) from error


# Exceptions whose message may be shown. Looked up along the class hierarchy.
KINDS_OF: dict[type[Exception], Kind] = {
    store.errors.InvalidName: problems.INVALID,
    store.errors.NotFound: problems.NOT_FOUND,
    store.errors.Conflict: problems.CONFLICT,
}

# Statuses that the framework itself raises, as HTTPException.
KINDS_OF_STATUS: dict[int, Kind] = {
    kind.status: kind
    for kind in problems.KINDS
    if kind not in (problems.INTERNAL, problems.NO_SPACE)
}


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(sqlalchemy.exc.OperationalError, _database_error)
    for exception in KINDS_OF:
        app.add_exception_handler(exception, _known_error)


def field_errors(
    errors: Sequence[Mapping[str, Any]], place: Place | Literal["body"] | None = None
) -> list[FieldError]:
    """Pydantic's errors, the first at each JSON pointer or parameter. `place` is where all of them
    stand; without it, the first item of each location says so, as FastAPI writes them."""
    found: dict[tuple[str | None, ...], FieldError] = {}
    for error in errors:
        field = _field_error(error, place)
        found.setdefault((field.place, field.parameter, field.pointer), field)
    return list(found.values())


def invalid(error: ValidationError, place: Place | Literal["body"]) -> InvalidInput:
    return InvalidInput(field_errors(error.errors(), place))


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
        kind = problems.NOT_FOUND  # an address that cannot be of anything
    detail = "; ".join(error.detail for error in errors)
    return problem_response(kind, detail, request.scope, errors)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = KINDS_OF_STATUS.get(error.status_code, problems.INTERNAL)
    detail = _DETAILS.get(kind, kind.meaning).format(
        method=request.method, path=request.url.path[:200]
    )
    return problem_response(kind, detail, request.scope, headers=error.headers)


async def _known_error(request: Request, error: Exception) -> Response:
    kind = next(KINDS_OF[cls] for cls in type(error).__mro__ if cls in KINDS_OF)
    errors = []
    if isinstance(error, store.errors.InvalidName):  # bodies are checked before: it is the path's
        errors = [FieldError(parameter=error.field, place="path", detail=str(error))]
    return problem_response(kind, str(error), request.scope, errors)


async def _database_error(request: Request, error: Exception) -> Response:
    log.error("the database failed", exc_info=error)
    if is_out_of_space(error):
        return unexpected_problem(error, request.scope)
    detail = "the database cannot be reached"
    headers = {"Retry-After": "5"}
    return problem_response(problems.UNAVAILABLE, detail, request.scope, headers=headers)


_IS_JSON = re.compile(r"application/(\w[\w.-]*\+)?json\s*(;|$)", re.IGNORECASE)
_MESSAGES = {"model_attributes_type": "it must be a JSON object"}  # by pydantic's type of error
_DETAILS = {
    problems.NOT_FOUND: "nothing is at {path}",
    problems.METHOD_NOT_ALLOWED: "{method} is not a method of {path}",
    problems.MALFORMED: "the body cannot be parsed as what its Content-Type says",
}


def _field_error(error: Mapping[str, Any], place: Place | Literal["body"] | None) -> FieldError:
    location: tuple[str | int, ...] = tuple(error["loc"])
    if place is None:
        place, location = cast(Place, location[0]), location[1:]
    named = location if place == "body" else location[:1]
    name = ".".join(str(item) for item in named)
    message = _MESSAGES.get(error["type"]) or error["msg"][:1].lower() + error["msg"][1:]
    detail = f"{name or 'the body'}{_value(error)}; {message}"
    if place == "body":
        return FieldError(pointer=_json_pointer(location), detail=detail)
    return FieldError(parameter=name, place=place, detail=detail)


def _value(error: Mapping[str, Any]) -> str:
    """' is 0', where the value at fault is short enough to be worth repeating."""
    value = error.get("input")
    if error["type"] == "missing" or not isinstance(value, str | int | float | bool):
        return ""
    text = repr(value)
    return f" is {text}" if len(text) <= 60 else ""


def _json_pointer(location: Sequence[str | int]) -> str:
    return "".join(f"/{str(item).replace('~', '~0').replace('/', '~1')}" for item in location)
