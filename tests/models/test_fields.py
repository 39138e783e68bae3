"""A refusal carries what is at fault as data."""

import pytest

from models.fields import Invalid, check_whole


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
