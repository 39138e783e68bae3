"""One message of our own where pydantic would tell of its types."""

from typing import LiteralString

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError


def refused_with(message: LiteralString) -> WrapValidator:
    """Of a union pydantic reports each branch, at a place that is none of the body's."""

    def validate(value: object, parse: ValidatorFunctionWrapHandler) -> object:
        try:
            return parse(value)
        except ValidationError:
            raise PydanticCustomError("unfit", message) from None

    return WrapValidator(validate)
