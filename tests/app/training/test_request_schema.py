"""The request for a training has the hyperparameters of its config."""

import pytest
from pydantic import BaseModel, ValidationError

from app.http.derived import LABEL
from app.training.request_schema import (
    Hyperparameters,
    NetOptions,
    ScheduleOptions,
    TrainRequest,
)
from models.diffusion.schedule import ScheduleConfig
from models.fields import declared
from models.nets.config import UNetConfig
from models.training.config import MAX_SEED, TrainConfig

BODIES = [(TrainRequest, TrainConfig), (NetOptions, UNetConfig), (ScheduleOptions, ScheduleConfig)]
HAND_WRITTEN = {"class_conditional"}  # which the config holds as the names of the classes


@pytest.mark.parametrize(("body", "config"), BODIES)
def test_what_a_config_offers_is_what_the_request_takes(body: type[BaseModel], config: type):
    offered = [field for field in declared(config).values() if field.label]
    asked = Hyperparameters if body is TrainRequest else body
    assert [name for name in asked.model_fields if name not in HAND_WRITTEN] == [
        field.name for field in offered
    ]
    properties = body.model_json_schema()["properties"]
    for field in offered:
        assert properties[field.name]["description"] == field.sentence
        assert properties[field.name][LABEL] == field.label
        assert body.model_fields[field.name].default is None


@pytest.mark.parametrize(
    "given",
    [
        {"batch_size": 0},
        {"batch_size": 4097},
        {"seed": MAX_SEED + 1},
        {"warmup_steps": 0},
        {"max_grad_norm": 0},
        {"ema_warmup": 2},
        {"minutes": 0},
        {"net": {"dropout": 0.91}},
        {"net": {"block_out_channels": [0]}},
        {"net": {"block_out_channels": []}},
        {"net": {"down_block_types": ["UpBlock2D"]}},
        {"schedule": {"rho": 0}},
        {"objective": "consistency"},
        {"sigma_data": 0.5},
        {"net": {"in_channels": 3}},
    ],
    ids=str,
)
def test_a_request_is_held_to_the_bounds_of_the_config(given):
    with pytest.raises(ValidationError):
        TrainRequest.model_validate(given)


def test_tuples_of_the_config_are_lists_in_json_and_tuples_again_when_read():
    body = TrainRequest.model_validate({"net": {"block_out_channels": [8, 8]}, "image_size": 8})
    given = body.model_dump(exclude_none=True, include={"net", "image_size"})
    assert given == {"net": {"block_out_channels": (8, 8)}, "image_size": (8, 8)}


def test_each_field_is_shown_with_its_own_name_in_forms():
    schema = TrainRequest.model_json_schema()
    labels = [
        field[LABEL]
        for properties in (schema, *schema["$defs"].values())
        for field in properties["properties"].values()
        if LABEL in field
    ]
    assert len(set(labels)) == len(labels)
