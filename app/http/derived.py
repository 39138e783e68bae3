"""Request bodies derived from the configs of the core, whose fields are declared once."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from annotated_types import Interval, Len
from pydantic import BaseModel, Field, create_model

from models.fields import Declared, Example, declared

LABEL = "x-label"  # the keyword of the JSON schema under which forms find a field's name
Body = TypeVar("Body", bound=BaseModel)


def with_fields_of(config: type, **shapes: Any) -> Callable[[type[Body]], type[Body]]:
    """Return a class decorator that adds the fields of a config to a request body.

    Every field with a label is added, after the body's own fields. It is optional and has the
    config's type, bound, sentence and label. `shapes` overrides the type of fields by name: callers
    write these in another form than the config.
    """

    def add_fields(body: type[Body]) -> type[Body]:
        fields: dict[str, Any] = {
            field.name: (shapes.get(field.name, _type(field)) | None, _field(field))
            for field in declared(config).values()
            if field.label
        }
        module, doc = body.__module__, body.__doc__
        return create_model(body.__name__, __base__=body, __module__=module, __doc__=doc, **fields)

    return add_fields


def _type(field: Declared) -> Any:
    bounds = [mark for mark in field.marks if isinstance(mark, Interval | Len)]
    return Annotated[(field.kind, *bounds)] if bounds else field.kind


def _field(field: Declared) -> Any:
    example = field.mark(Example)
    return Field(
        default=None,
        description=field.sentence,
        examples=[example.value] if example else None,
        json_schema_extra={LABEL: field.label or ""},
    )
