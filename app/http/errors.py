"""The errors that refuse a request.

    RequestError
    ├── InvalidInput      422, with the fields at fault
    ├── NotAcceptable     406
    ├── TooLarge          413
    └── Busy              503, with Retry-After

Any code behind a route may raise them. app.http.handlers turns them into answers, as it does the
errors of `store` and of the framework.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

from pydantic import BaseModel, ValidationError

from app.http import problems
from app.http.problems import FieldError
from models.fields import Invalid
from store.errors import InvalidName, InvalidWebhook

Place = Literal["form", "query", "path", "header", "cookie"]


class RequestError(Exception):
    """A refused request; the message is shown to the caller."""

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
def reported_at(name: str, place: Place | Literal["body"] = "body") -> Iterator[None]:
    """Report a refusal raised inside as that of one parameter, or of a JSON pointer in the body.

    Any other exception passes through: it is not the caller's fault.
    """
    try:
        yield
    except (Invalid, InvalidName, InvalidWebhook) as error:
        if place == "body":
            raise InvalidInput.pointer(name, str(error)) from error
        raise InvalidInput.parameter(name, str(error), place) from error


@contextmanager
def reported_in(body: type[BaseModel]) -> Iterator[None]:
    """Report a refusal raised inside as that of the field of a JSON body which it names.

    A field that the body does not have is reported for the body as a whole.
    """
    try:
        yield
    except Invalid as error:
        path = error.field.split(".")
        pointer = _json_pointer(path) if path[0] in body.model_fields else ""
        raise InvalidInput.pointer(pointer, str(error)) from error


def field_errors(
    errors: Sequence[Mapping[str, Any]], place: Place | Literal["body"] | None = None
) -> list[FieldError]:
    """Convert pydantic's errors, keeping the first at each JSON pointer or parameter.

    `place` is where all of them occurred. Without it, the first item of each location is the
    place, as in FastAPI's errors.
    """
    found: dict[tuple[str | None, ...], FieldError] = {}
    for error in errors:
        field = _field_error(error, place)
        found.setdefault((field.place, field.parameter, field.pointer), field)
    return list(found.values())


def invalid_input(error: ValidationError, place: Place | Literal["body"]) -> InvalidInput:
    return InvalidInput(field_errors(error.errors(), place))


_MESSAGES = {"model_attributes_type": "it must be a JSON object"}  # by pydantic's error type


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
    """Return ' is 0' for the value 0; nothing for a value too long to repeat."""
    value = error.get("input")
    if error["type"] == "missing" or not isinstance(value, str | int | float | bool):
        return ""
    text = repr(value)
    return f" is {text}" if len(text) <= 60 else ""


def _json_pointer(location: Sequence[str | int]) -> str:
    return "".join(f"/{str(item).replace('~', '~0').replace('/', '~1')}" for item in location)
