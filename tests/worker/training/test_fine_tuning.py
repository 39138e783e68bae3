"""What a fine-tuned model begins with."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.diffusion.config import ModelConfig
from models.diffusion.denoiser import NoiseLevels, denoise
from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import ScheduleConfig
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.training.config import TrainConfig, resolve_config
from models.training.defaults import DatasetFacts
from worker.training.fine_tuning import begin_with

NET = {"block_out_channels": (8, 8), "norm_num_groups": 4, "attention_head_dim": 4}


def a_model(*class_names: str, null_class: bool = True) -> DiffusionModel:
    classes = len(class_names) + null_class if class_names else None
    net = UNetConfig(1, 1, num_class_embeds=classes, **NET)
    config = ModelConfig(net, ScheduleConfig("linear"), "epsilon", 0.5, (8, 8), class_names)
    torch.manual_seed(0)
    model = DiffusionModel(config, UNet(net).eval())
    torch.nn.init.normal_(model.net.conv_out.weight, std=0.1)  # else it says 0 to all
    return model


def a_config(*class_names: str) -> TrainConfig:
    facts = DatasetFacts(40, 1, (8, 8), class_names)
    return resolve_config(facts, preset="ddpm", steps=10, net=NET, sigma_data=0.5)


def says(model: DiffusionModel, label: int | None) -> torch.Tensor:
    """Of one picture, at one noise level."""
    levels = NoiseLevels.at(model, np.array([500]))
    labels = None if label is None else torch.tensor([label])
    with torch.inference_mode():
        return denoise(model, torch.linspace(-1, 1, 64).view(1, 1, 8, 8), levels, labels)


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=1e-4)  # layouts in memory differ


def test_with_the_same_classes_it_is_the_same_model():
    model = a_model("cat", "dog")
    state = begin_with(model, a_config("cat", "dog"), "cpu")
    for label in range(3):
        assert alike(says(state.ema_model(), label), says(model, label))
    assert (state.step, any(moment.any() for moment in state.optimizer.means)) == (0, False)


def test_a_class_keeps_by_its_name_what_was_learned_of_it_and_a_new_one_begins_as_any():
    model = a_model("cat", "dog")
    state = begin_with(model, a_config("dog", "emu"), "cpu")
    tuned = state.ema_model()
    assert tuned.config.class_names == ("dog", "emu")
    assert alike(says(tuned, 0), says(model, 1))
    assert alike(says(tuned, 1), says(model, 2))
    assert alike(says(tuned, 2), says(model, 2))
    assert not alike(says(tuned, 0), says(tuned, 1))


def test_a_model_without_a_null_class_gets_the_mean_of_its_classes_for_any():
    model = a_model("cat", "dog", null_class=False)
    state = begin_with(model, a_config("dog", "emu"), "cpu")
    table = model.net.class_embedding.weight
    expected = torch.stack([table[1], table.mean(dim=0), table.mean(dim=0)])
    assert torch.equal(state.model.net.class_embedding.weight, expected)


def test_a_model_without_classes_is_the_same_for_each_that_is_new():
    model = a_model()
    tuned = begin_with(model, a_config("cat", "dog"), "cpu").ema_model()
    for label in range(3):
        assert alike(says(tuned, label), says(model, None))


def test_classes_can_be_left_behind():
    state = begin_with(a_model("cat", "dog"), a_config(), "cpu")
    assert state.model.net.config.num_class_embeds is None


def test_another_net_is_refused():
    config = a_config()
    other = replace(config, net=replace(config.net, layers_per_block=2))
    with pytest.raises(ValueError, match="net differs"):
        begin_with(a_model(), other, "cpu")
