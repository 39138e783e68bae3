"""The names of datasets and models in the bodies of requests."""

from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from store.names import MAX_FULL_NAME, NAME_PATTERN, NAME_RULE, is_name


def _checked_name(name: str) -> str:
    if not is_name(name):
        raise PydanticCustomError("name", NAME_RULE)
    return name


Name = Annotated[
    str,
    AfterValidator(_checked_name),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": NAME_PATTERN,
            "maxLength": MAX_FULL_NAME,
            "examples": ["digits"],
        }
    ),
]
