"""A refusal carries what is at fault as data, and a config is checked by its own annotations."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Interval, Len
from typing_extensions import Doc

from models.fields import (
    Invalid,
    Label,
    NotOffered,
    check_field,
    check_fields,
    check_whole,
    declared,
)


@dataclass(frozen=True)
class Oven:
    degrees: Annotated[int, Interval(ge=50, le=250), Doc("Celsius"), Label("Heat")] = 180
    hours: Annotated[float | None, Interval(ge=0.1, le=12.0)] = None
    fan: Annotated[bool, NotOffered("it has none")] = False
    size: tuple[Annotated[int, Interval(ge=1, le=9)], int] = (3, 4)
    shelves: Annotated[tuple[Literal["low", "middle", "high"], ...], Len(1, 3)] = ("low",)
    widths: tuple[Annotated[int, Interval(ge=1, le=9)], ...] = ()
    door: Literal["left", "right"] = "left"
    name: str = ""

    def __post_init__(self) -> None:
        check_fields(self)


def test_a_refusal_carries_field_value_and_rule() -> None:
    with pytest.raises(Invalid) as refusal:
        check_whole("steps", 0, 1, 10)
    error = refusal.value
    assert (error.field, error.value, error.rule) == ("steps", 0, "it must lie in 1..10")
    assert str(error) == "steps is 0; it must lie in 1..10"


def test_a_refusal_of_a_part_names_the_part() -> None:
    inner = Invalid("dropout", 2, "it must lie in 0..1").within("net")
    assert inner.field == "net.dropout"
    assert str(inner) == "net.dropout is 2; it must lie in 0..1"


def test_a_refusal_may_say_it_in_its_own_words() -> None:
    error = Invalid.because("mask does not go with invert", field="mask")
    assert (str(error), error.field) == ("mask does not go with invert", "mask")


def test_a_long_value_is_cut_short() -> None:
    assert len(str(Invalid("name", "x" * 1000, "it must be shorter"))) < 120


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"degrees": 300}, "degrees is 300; it must lie in 50..250"),
        ({"degrees": True}, "degrees is True; it must be a whole number"),
        ({"degrees": None}, "degrees is None; it must be a whole number"),
        ({"hours": float("nan")}, "hours is nan; it must lie in 0.1..12"),
        ({"hours": "1"}, "hours is '1'; it must be a number"),
        ({"fan": 1}, "fan is 1; it must be true or false"),
        ({"size": (0, 4)}, "size is 0; it must lie in 1..9"),
        ({"size": (1, 2, 3)}, "size has 3 entries; it must have 2"),
        ({"size": [1, 2]}, "size is [1, 2]; it must be a list"),
        ({"shelves": ()}, "shelves has 0 entries; it must have 1..3"),
        ({"shelves": ("top",)}, "shelves holds 'top'; supported are ('low', 'middle', 'high')"),
        ({"widths": (4, 10)}, "widths holds 10; each must lie in 1..9"),
        ({"door": "top"}, "door is 'top'; it must be 'left' or 'right'"),
        ({"name": 3}, "name is 3; it must be text"),
    ],
)
def test_a_config_is_checked_by_its_annotations(change: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid) as refusal:
        replace(Oven(), **change)
    assert (str(refusal.value), refusal.value.field) == (message, next(iter(change)))


def test_a_field_is_checked_before_its_config_is_made() -> None:
    check_field(Oven, "hours", None)
    with pytest.raises(Invalid, match=r"degrees is 0; it must lie in 50\.\.250"):
        check_field(Oven, "degrees", 0)


def test_a_declared_field_says_what_its_annotation_says() -> None:
    fields = declared(Oven)
    assert list(fields)[:3] == ["degrees", "hours", "fan"]
    heat = fields["degrees"]
    assert (heat.kind, heat.sentence, heat.label) == (int, "Celsius", "Heat")
    assert (fields["hours"].kind, fields["hours"].sentence) == (float | None, "")
    assert fields["fan"].label is None
    assert fields["fan"].mark(NotOffered) == NotOffered("it has none")
