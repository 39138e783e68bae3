"""Answers that are files, as the OpenAPI document describes them.

Generated clients know a file by its schema, a string of the format `binary`, and take the first
media type of an answer that they know: JSON, wherever it is among them.
"""

from app.http import problems

JSON = "application/json"
BINARY: dict[str, object] = {"schema": {"type": "string", "format": "binary"}}
TEXT: dict[str, object] = {"schema": {"type": "string"}}
_OTHER_TEXTS = ("application/x-ndjson", "image/svg+xml")


def content_of(*media_types: str) -> dict[str, dict[str, object]]:
    """Return the `content` of an answer in one of these media types; FastAPI adds JSON's schema."""
    ordered = sorted(media_types, key=lambda name: name != JSON)
    return {name: {} if name == JSON else _schema(name) for name in ordered}


def file_answer(media_type: str, description: str) -> dict[int | str, dict[str, object]]:
    """Return the `responses` of a route that answers with a file."""
    return {200: {"content": content_of(media_type), "description": description}}


def resumable_answer(media_type: str, description: str) -> dict[int | str, dict[str, object]]:
    """Return the same of a download that a client can resume (app.http.resumable)."""
    return {
        **file_answer(media_type, description),
        206: {
            "content": content_of(media_type),
            "description": "The bytes that `Range` names, if `If-Range` names this version.",
        },
        304: {"description": "The caller's copy, named in If-None-Match, is current."},
        **problems.declare(problems.RANGE_NOT_SATISFIABLE),
    }


def _schema(media_type: str) -> dict[str, object]:
    return TEXT if media_type.startswith("text/") or media_type in _OTHER_TEXTS else BINARY
