"""Error answers: `application/problem+json` (RFC 9457).

    {"type": "/problems/invalid-input", "title": "Invalid input", "status": 422,
     "detail": "t is 1001; it must lie in 0..1000", "request_id": "9f0c...",
     "errors": [{"parameter": "t", "in": "form", "detail": "t is 1001; it must lie in 0..1000"}]}

`type` is stable and can be opened: GET /problems/{kind} explains it.
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import OperationalError
from starlette.responses import Response
from starlette.types import Scope

from app.http.root_path import link
from app.logs import log

MEDIA_TYPE = "application/problem+json"


KINDS: list["Kind"] = []


@dataclass(frozen=True)
class Kind:
    """A kind of problem; `slug` is the last part of its type URI. Declaring one adds it to KINDS,
    and so to the documentation."""

    slug: str
    status: int
    title: str
    meaning: str

    def __post_init__(self) -> None:
        KINDS.append(self)

    @property
    def type(self) -> str:
        return f"/problems/{self.slug}"


MALFORMED = Kind("malformed", 400, "Malformed request", "The request cannot be parsed.")
UNAUTHORIZED = Kind(
    "unauthorized", 401, "Unauthorized", "A key is needed: `Authorization: Bearer KEY`."
)
FORBIDDEN = Kind(
    "forbidden", 403, "Forbidden", "The key does not allow this, or it belongs to somebody else."
)
NOT_FOUND = Kind("not-found", 404, "Not found", "There is nothing of that name.")
METHOD_NOT_ALLOWED = Kind(
    "method-not-allowed", 405, "Method not allowed", "`Allow` lists the methods of this address."
)
NOT_ACCEPTABLE = Kind(
    "not-acceptable", 406, "Not acceptable", "No type in `Accept` can be produced."
)
CONFLICT = Kind("conflict", 409, "Conflict", "The current state does not allow this.")
TOO_LARGE = Kind("too-large", 413, "Content too large", "The body is larger than the limit.")
UNSUPPORTED = Kind(
    "unsupported-media-type", 415, "Unsupported media type", "The body has the wrong media type."
)
RANGE_NOT_SATISFIABLE = Kind(
    "range-not-satisfiable",
    416,
    "Range not satisfiable",
    "`Range` begins after the end; `Content-Range` has the length.",
)
MISDIRECTED = Kind(
    "misdirected", 421, "Misdirected request", "`Host` is not a name of this service."
)
INVALID = Kind(
    "invalid-input", 422, "Invalid input", "`errors` lists each invalid field with its bound."
)
QUOTA_EXCEEDED = Kind(
    "quota-exceeded",
    429,
    "Quota exceeded",
    "The owner of the key has used its share; `Retry-After` says when there is more.",
)
RATE_LIMITED = Kind(
    "rate-limited",
    429,
    "Too many requests",
    "More requests in a minute than the caller may make; `Retry-After` says when there is one "
    "more, and `RateLimit` what is left.",
)
INTERNAL = Kind(
    "internal-error", 500, "Internal error", "The service failed; its log has the request id."
)
DAMAGED = Kind(
    "damaged-artifact",
    500,
    "Damaged artifact",
    "A stored file is not what was written; the request is not at fault. `artifact` names it; the "
    "operator restores it, and `diffusion verify` looks for others.",
)
UNAVAILABLE = Kind(
    "unavailable",
    503,
    "Unavailable",
    "Temporarily not possible; `Retry-After` says when to retry.",
)
NO_SPACE = Kind("no-space", 507, "No space", "The disk or the store is full.")


class FieldError(BaseModel):
    """One invalid input: a place in a JSON body, or a parameter with its name and place."""

    pointer: str | None = Field(default=None, description="JSON Pointer (RFC 6901) into the body")
    parameter: str | None = Field(
        default=None, description="name of a form field, query or path parameter"
    )
    place: Literal["form", "query", "path", "header", "cookie"] | None = Field(
        default=None, serialization_alias="in"
    )
    detail: str = Field(description="the value and the bound that it breaks")


class Problem(BaseModel):
    """Problem details (RFC 9457). Some kinds have additional members."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="the kind of problem; stable", examples=[INVALID.type])
    title: str = Field(examples=[INVALID.title])
    status: int = Field(examples=[INVALID.status])
    detail: str = Field(examples=["t is 1001; it must lie in 0..1000"])
    request_id: str | None = Field(
        default=None, description="also in the X-Request-ID header and the log"
    )
    errors: list[FieldError] | None = None


# For OpenAPI; app.http.openapi adds the schema to the components.
_SCHEMA = {"$ref": "#/components/schemas/Problem"}
ANY_PROBLEM: dict[str, object] = {
    "description": "A problem, as RFC 9457 describes them.",
    "content": {MEDIA_TYPE: {"schema": _SCHEMA}},
}


def problem_response(
    kind: Kind,
    detail: str,
    scope: Scope,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    **extensions: object,
) -> Response:
    problem = Problem(
        type=link(kind.type),
        title=kind.title,
        status=kind.status,
        detail=detail,
        request_id=scope.get("state", {}).get("request_id"),
        errors=list(errors) or None,
        **extensions,
    )
    content = problem.model_dump_json(by_alias=True, exclude_none=True)
    return Response(content, kind.status, headers=headers, media_type=MEDIA_TYPE)


def unexpected_problem(error: Exception, scope: Scope) -> Response:
    """Answer an unexpected exception; the caller learns only whether space ran out, or the database
    is away."""
    if is_out_of_space(error):
        return problem_response(NO_SPACE, "no space is left to store this", scope)
    if isinstance(error, OperationalError):
        headers = {"Retry-After": "5"}
        return problem_response(
            UNAVAILABLE, "the database cannot be reached", scope, headers=headers
        )
    return problem_response(INTERNAL, "the service failed to answer this request", scope)


def log_database_error(error: Exception, scope: Scope) -> None:
    """Log it in a line: while the database is away each request has one, whose trace says nothing
    more and takes longer than the request."""
    log.error(
        "the database failed",
        method=scope["method"],
        path=scope["path"],
        reason=str(getattr(error, "orig", error)),
    )


def stopping_problem(scope: Scope) -> Response:
    headers = {"Retry-After": "5"}
    return problem_response(UNAVAILABLE, "the service is stopping", scope, headers=headers)


def is_out_of_space(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # SQLite and the artifact store report it only in the text of the message.
    return any(words in str(error) for words in ("disk is full", "No space left on device"))


def declare(*kinds: Kind) -> dict[int | str, dict[str, object]]:
    """Return the `responses` of a route that can answer with these kinds, for OpenAPI."""
    return {
        kind.status: {
            "description": f"{kind.title}: {kind.meaning}",
            "content": {MEDIA_TYPE: {"schema": _SCHEMA, "example": _example(kind)}},
        }
        for kind in kinds
    }


def _example(kind: Kind) -> dict[str, object]:
    return {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": "the reason, in one sentence",
        "request_id": "9f0c5b1e7a3d2c48",
    }
