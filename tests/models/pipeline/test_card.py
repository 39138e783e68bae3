"""The card of a model: JSON and back, also of records that earlier versions wrote."""

import json
from dataclasses import replace

import pytest

from models.diffusion.config import ModelConfig
from models.diffusion.prediction import Prediction
from models.diffusion.schedule import ScheduleConfig
from models.nets.config import UNetConfig
from models.nets.graph import unet_graph
from models.pipeline.card import ModelCard

NET = UNetConfig(
    1, 1, block_out_channels=(8, 8), norm_num_groups=4, attention_head_dim=4, num_class_embeds=3
)
CONFIG = ModelConfig(NET, ScheduleConfig("edm"), "edm", 0.3, (8, 12), ("cat", "dog"))
# The details of an uploaded model, as version 0.1.0 wrote them.
OLD = {
    "image_size": [8, 12],
    "channels": 1,
    "class_names": ["cat", "dog"],
    "schedule": {
        "name": "edm",
        "num_train_timesteps": 1000,
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "rescale_zero_terminal_snr": False,
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "rho": 7.0,
    },
    "prediction_type": "edm",
    "consistency": False,
    "num_parameters": 1234,
}


@pytest.fixture
def card():
    return ModelCard.of(CONFIG)


def test_a_card_survives_json(card):
    trained = replace(card, preset="edm", steps=10, images_seen=80, seconds=1.5)
    for one in (card, trained):
        assert ModelCard.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_unknown_facts_are_left_out(card):
    assert not {"preset", "steps", "images_seen", "seconds"} & set(card.to_dict())
    assert card.to_dict()["sigma_data"] == 0.3
    assert card.to_dict()["consistency"] is False


def test_an_old_record_is_read(card):
    old = ModelCard.from_dict(OLD)
    assert old.sigma_data is None
    assert old == replace(card, sigma_data=None, num_parameters=1234, flops=None)
    assert old.prediction == Prediction("edm")
    assert card.prediction == Prediction("edm", 0.3)
    assert ModelCard.from_dict({k: v for k, v in OLD.items() if k != "consistency"}) == old


def test_it_has_the_size_of_the_network(card):
    assert card.num_parameters == unet_graph(NET, (8, 12)).num_parameters
    assert card.flops == unet_graph(NET, (8, 12)).flops > 0


def test_keys_of_other_writers_are_ignored(card):
    assert ModelCard.from_dict({**card.to_dict(), "scores": {"real": {}}}) == card


def test_cards_differ_in_a_field_that_both_know(card):
    assert card.first_difference(card) is None
    assert card.first_difference(replace(card, sigma_data=None, steps=10)) is None
    assert card.first_difference(replace(card, class_names=("dog", "cat"))) == "class_names"
