"""Every field of a training's config is declared whole."""

from dataclasses import is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
from annotated_types import Interval

from models.diffusion.schedule import ScheduleConfig
from models.fields import Declared, Label, NotOffered, declared
from models.nets.config import UNetConfig
from models.training.config import CHANGEABLE, TrainConfig

CONFIGS = (TrainConfig, UNetConfig, ScheduleConfig)
FIELDS = [
    pytest.param(field, id=f"{config.__name__}.{field.name}")
    for config in CONFIGS
    for field in declared(config).values()
]


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_has_a_sentence_and_is_offered_under_a_label_or_not_for_a_reason(field):
    assert field.sentence
    assert (field.mark(Label) is None) != (field.mark(NotOffered) is None)
    offered = field.mark(Label)
    assert offered.text if offered else field.mark(NotOffered).reason


@pytest.mark.parametrize("field", FIELDS)
def test_a_number_has_a_bound_and_everything_else_its_options(field: Declared) -> None:
    if field.name != "reasons":
        assert _is_bounded(field.kind, field.marks)


def _is_bounded(kind: Any, marks: tuple[Any, ...] = ()) -> bool:
    if marks == () and hasattr(kind, "__metadata__"):
        kind, marks = kind.__origin__, kind.__metadata__
    if kind in (int, float):
        bounds = [mark for mark in marks if isinstance(mark, Interval)]
        return len(bounds) == 1 and None not in (bounds[0].ge, bounds[0].le)
    if get_origin(kind) is not Literal and get_args(kind):
        parts = [part for part in get_args(kind) if part not in (NoneType, Ellipsis)]
        return all(_is_bounded(part, () if get_origin(kind) is tuple else marks) for part in parts)
    return get_origin(kind) is Literal or kind in (bool, str) or is_dataclass(kind)


def test_labels_are_told_apart() -> None:
    labels = [f.label for config in CONFIGS for f in declared(config).values() if f.label]
    assert len(set(labels)) == len(labels)


def test_a_run_that_goes_on_may_change_its_budget_and_how_it_is_spent() -> None:
    assert {"steps", "minutes", "learning_rate", "checkpoint_every"} == CHANGEABLE
