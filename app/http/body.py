"""The base of JSON bodies."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class JsonBody(BaseModel):
    """A JSON body, or an object inside one: fields that it lacks are refused, and so are booleans
    for numbers, which pydantic by itself takes for 0 and 1."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans(cls, value: object, info: ValidationInfo) -> object:
        assert info.field_name is not None
        annotation = cls.model_fields[info.field_name].annotation
        if _has_boolean(value) and not _takes_booleans(annotation):
            raise PydanticCustomError("boolean", "it must not be true or false")
        return value


def _has_boolean(value: object) -> bool:
    """Look in lists, too; an object inside a body checks its own fields."""
    return isinstance(value, bool) or (isinstance(value, list) and any(map(_has_boolean, value)))


def _takes_booleans(annotation: Any) -> bool:
    return annotation is bool or any(map(_takes_booleans, get_args(annotation)))
