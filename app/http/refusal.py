"""One readable message in place of pydantic's errors per type of a union."""

from typing import LiteralString

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError


def refused_with(message: LiteralString) -> WrapValidator:
    """Return a validator that replaces all errors of a field by `message`.

    For a union pydantic reports an error per branch, at locations that the body does not have.
    """

    def validate(value: object, parse: ValidatorFunctionWrapHandler) -> object:
        try:
            return parse(value)
        except ValidationError:
            raise PydanticCustomError("unfit", message) from None

    return WrapValidator(validate)
