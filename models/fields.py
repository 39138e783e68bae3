"""The core's one refusal, and fields of configs that are declared once.

ValueError
└── Invalid      a value that a caller or a file gave: its field, the value, what it must be

A config is a dataclass. Each field's annotation says all that is known of it:

    batch_size: Annotated[int, Interval(ge=1, le=4096), Doc("of an optimiser step"),
                          Label("Batch size")]

The type and the bound, an interval with both ends or the length of a tuple (annotated_types), are
checked by `check_fields` when the config is made. The API's request
bodies, the console's forms and their help texts are made from `declared`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Interval, Len
from typing_extensions import Doc

Mark = TypeVar("Mark")


class Invalid(ValueError):
    """`{field} is {value}; {rule}`, for the caller to read.

    `field` is dotted where it lies inside another, as "net.dropout"; empty where no single field
    is at fault. `rule` names the bound.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"{field} is {_shown(value)}; {rule}")
        self.field, self.value, self.rule = field, value, rule

    @classmethod
    def because(cls, message: str, *, field: str = "", value: object = None) -> "Invalid":
        """Return a refusal with this message, where "field is value; rule" would not read well."""
        refusal = cls(field, value, message)
        refusal.args = (message,)
        return refusal

    def within(self, part: str) -> "Invalid":
        """Return the same refusal with the field placed inside `part`, as "net.dropout"."""
        field = f"{part}.{self.field}" if self.field else part
        return Invalid.because(f"{part}.{self}", field=field, value=self.value)


def check_whole(field: str, value: object, low: float, high: float) -> None:
    """Raise Invalid unless the value is an int in low..high; True and 2.0 are refused."""
    if type(value) is not int:
        raise Invalid(field, value, "it must be a whole number")
    if not low <= value <= high:
        raise Invalid(field, value, f"it must lie in {low:.8g}..{high:.8g}")


def check_number(field: str, value: object, low: float, high: float) -> None:
    """Raise Invalid unless the value is an int or a float in low..high; NaN is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Invalid(field, value, "it must be a number")
    if not low <= value <= high:  # also refuses NaN
        raise Invalid(field, value, f"it must lie in {low:.8g}..{high:.8g}")


# What an annotation says of a field ---------------------------------------------------------------


@dataclass(frozen=True)
class Label:
    """The name of a field in a form. A field with a label is offered to callers."""

    text: str


@dataclass(frozen=True)
class NotOffered:
    """The reason why callers cannot give a field."""

    reason: str


@dataclass(frozen=True)
class Example:
    """A value to show in the API's documentation."""

    value: Any


@dataclass(frozen=True)
class Declared:
    """One field of a config. `kind` is its type without the marks, as `int | None`."""

    name: str
    kind: Any
    marks: tuple[Any, ...]

    def mark(self, of: type[Mark]) -> Mark | None:
        """Return the mark of this class, or None."""
        return next((mark for mark in self.marks if isinstance(mark, of)), None)

    @property
    def sentence(self) -> str:
        """The description for callers and readers; empty where there is none."""
        doc = self.mark(Doc)
        return doc.documentation if doc else ""

    @property
    def label(self) -> str | None:
        """The name in forms; None where the field is not offered."""
        label = self.mark(Label)
        return label.text if label else None


@cache
def declared(config: type) -> Mapping[str, Declared]:
    """Return the fields of a dataclass by name, in its order."""
    hints = get_type_hints(config, include_extras=True)
    found = {
        field.name: Declared(field.name, *_parts(hints[field.name])) for field in fields(config)
    }
    return MappingProxyType(found)


# Checks -------------------------------------------------------------------------------------------


def check_fields(config: object) -> None:
    """Raise Invalid for the first field that has another type than declared, or breaks its bound.

    Checked are int, float, bool, str, Literal, tuples of these, and each of them with None. Other
    types are taken as they are: a nested config has checked itself.
    """
    config_class: type = type(config)
    for field in declared(config_class).values():
        _check(field.name, getattr(config, field.name), field.kind, field.marks)


def check_field(config: type, name: str, value: object) -> None:
    """Raise Invalid as `check_fields` does, for one value before the config is made."""
    field = declared(config)[name]
    _check(name, value, field.kind, field.marks)


def _check(name: str, value: object, kind: Any, marks: tuple[Any, ...]) -> None:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        if value is not None:
            (kind,) = (option for option in get_args(kind) if option is not NoneType)
            _check(name, value, kind, marks)
    elif origin is Literal:
        _check_option(name, value, get_args(kind))
    elif origin is tuple:
        _check_tuple(name, value, get_args(kind), marks)
    elif kind is int:
        check_whole(name, value, *_bounds(marks))
    elif kind is float:
        check_number(name, value, *_bounds(marks))
    elif kind is bool and not isinstance(value, bool):
        raise Invalid(name, value, "it must be true or false")
    elif kind is str and not isinstance(value, str):
        raise Invalid(name, value, "it must be text")


def _check_option(name: str, value: object, options: tuple[Any, ...]) -> None:
    if not any(type(value) is type(option) and value == option for option in options):
        rule = " or ".join(map(repr, options)) if len(options) == 2 else f"one of {options}"
        raise Invalid(name, value, f"it must be {rule}")


def _check_tuple(name: str, value: object, kinds: tuple[Any, ...], marks: tuple[Any, ...]) -> None:
    if not isinstance(value, tuple):
        raise Invalid(name, value, "it must be a list")
    if kinds[-1] is Ellipsis:
        _check_length(name, len(value), marks)
        for item in value:
            _check_item(name, item, kinds[0])
        return
    if len(value) != len(kinds):
        raise Invalid.because(
            f"{name} has {len(value)} entries; it must have {len(kinds)}", field=name, value=value
        )
    for item, kind in zip(value, kinds, strict=True):
        _check(name, item, *_parts(kind))


def _check_length(name: str, length: int, marks: tuple[Any, ...]) -> None:
    for mark in marks:
        if isinstance(mark, Len) and not mark.min_length <= length <= (mark.max_length or length):
            raise Invalid.because(
                f"{name} has {length} entries; it must have {mark.min_length}..{mark.max_length}",
                field=name,
            )


def _check_item(name: str, item: object, kind: Any) -> None:
    try:
        _check(name, item, *_parts(kind))
    except Invalid as error:
        rule = error.rule.replace("it must", "each must")
        if get_origin(kind) is Literal:
            rule = f"supported are {get_args(kind)}"
        raise Invalid.because(
            f"{name} holds {_shown(item)}; {rule}", field=name, value=item
        ) from None


def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the type and the marks of an annotation."""
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        return kind, tuple(marks)
    return hint, ()


def _bounds(marks: tuple[Any, ...]) -> tuple[Any, Any]:
    """Return both ends of the interval, which belong to it."""
    for mark in marks:
        if isinstance(mark, Interval):
            return mark.ge, mark.le
    return float("-inf"), float("inf")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
