"""The program in a download's README, run: diffusers' schedulers make the service's images."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline
from PIL import Image

from models.diffusion.config import ModelConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import normal
from models.diffusion.schedule import ScheduleConfig
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.pipeline.card import ModelCard
from models.pipeline.readme import usage
from models.pipeline.torch_folder import save_model
from models.sampling.generate import sample
from models.sampling.request import SampleRequest, plan_for

SEED, COUNT = 7, 4


def a_model(prediction: Any, schedule: ScheduleConfig, *class_names: str) -> DiffusionModel:
    classes = len(class_names) + 1 if class_names else None
    net = UNetConfig(
        1, 1, (8, 16), norm_num_groups=4, attention_head_dim=8, num_class_embeds=classes
    )
    torch.manual_seed(0)
    model = UNet(net).eval()
    torch.nn.init.normal_(model.conv_out.weight, std=0.05)
    config = ModelConfig(net, schedule, prediction, 0.3, (8, 12), class_names)
    return DiffusionModel(config, model)


@pytest.mark.parametrize("class_names", [(), ("cat", "dog")])
@pytest.mark.parametrize(
    ("prediction", "schedule"),
    [
        ("v", ScheduleConfig("linear", 1000)),
        ("epsilon", ScheduleConfig("cosine", 60)),
        ("x0", ScheduleConfig("sigmoid", 7)),
        ("flow", ScheduleConfig("flow", 1000)),
        ("flow", ScheduleConfig("flow", 60)),
        ("edm", ScheduleConfig("edm", 1000)),
    ],
)
def test_it_makes_the_services_images(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prediction: Any,
    schedule: ScheduleConfig,
    class_names: tuple[str, ...],
) -> None:
    model = a_model(prediction, schedule, *class_names)
    save_model(model, tmp_path / "model", {})
    (program,) = re.findall(r"```python\n(.*?)```", usage(ModelCard.of(model.config)), re.DOTALL)
    noise = normal(torch.full((COUNT,), SEED), torch.arange(COUNT), 0, (1, 8, 12))
    found: dict[str, Any] = {}
    with monkeypatch.context() as patched:
        patched.chdir(tmp_path / "model")
        patched.setattr(torch, "randn", lambda *shape: noise.reshape(shape))
        exec(program, found)
    for i, image in enumerate(found["images"]):
        with Image.open(tmp_path / "model" / f"{i}.png") as picture:
            assert np.array_equal(np.asarray(picture), image[0])
    is_vp = schedule.name not in ("flow", "edm")
    request = SampleRequest(
        SEED,
        COUNT,
        sampler="ddim",
        num_inference_steps=len(found["scheduler"].timesteps),
        labels=(0,) * COUNT if class_names else None,
        clip=is_vp,
    )
    *_, last = sample(model, plan_for(model.config, request), range(COUNT))
    mine = (127.5 * (last.x.clamp(-1, 1) + 1)).round().int()
    assert mine.float().std() > 5
    assert (mine - found["images"].int()).abs().max() <= 1


def test_ddpm_pipeline_takes_up_to_as_many_steps_as_the_model_has_timesteps(tmp_path: Path) -> None:
    save_model(a_model("epsilon", ScheduleConfig("linear", 60)), tmp_path / "model", {})
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(num_inference_steps=60, output_type="np").images
    assert images.shape == (1, 8, 12, 1)
    with pytest.raises(ValueError, match=r"`num_inference_steps`: 1000 cannot be larger than"):
        pipeline()  # diffusers asks for 1000 where nothing is said


@pytest.mark.parametrize("class_names", [(), ("cat", "dog")])
@pytest.mark.parametrize(
    ("prediction", "schedule", "distilled"),
    [
        ("v", ScheduleConfig("flow", 1000), False),
        ("x0", ScheduleConfig("flow", 7), False),
        ("edm", ScheduleConfig("edm", 1000), True),
        ("v", ScheduleConfig("linear", 1000), True),
    ],
)
def test_what_diffusers_cannot_sample_is_sampled_by_the_services_rows(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prediction: Any,
    schedule: ScheduleConfig,
    distilled: bool,
    class_names: tuple[str, ...],
) -> None:
    model = a_model(prediction, schedule, *class_names)
    config = replace(model.config, consistency=distilled)
    model = DiffusionModel(config, model.net)
    save_model(model, tmp_path / "model", {})
    text = usage(ModelCard.of(config))
    assert "No scheduler of diffusers" in text
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    first, *fresh = [
        normal(torch.full((COUNT,), SEED), torch.arange(COUNT), step, (1, 8, 12))
        for step in range(30)
    ]
    found: dict[str, Any] = {}
    with monkeypatch.context() as patched:
        patched.chdir(tmp_path / "model")
        patched.setattr(torch, "randn", lambda *shape: first.reshape(shape))
        patched.setattr(torch, "randn_like", lambda x: fresh.pop(0).reshape(x.shape))
        exec(program, found)
    request = SampleRequest(
        SEED,
        COUNT,
        sampler="consistency" if distilled else "ddim",
        num_inference_steps=len(found["rows"]),
        labels=(0,) * COUNT if class_names else None,
    )
    *_, last = sample(model, plan_for(config, request), range(COUNT))
    mine = (127.5 * (last.x.clamp(-1, 1) + 1)).round().int()
    assert mine.float().std() > 5
    assert (mine - found["images"].int()).abs().max() <= 1


def test_classes_are_named_by_the_numbers_of_their_embeddings() -> None:
    card = ModelCard.of(a_model("v", ScheduleConfig("linear"), "cat", "dog").config)
    assert "(4,), 0)  # a class in 0..1, or 2 for any" in usage(card)
    assert "`class_labels should be provided`" in usage(card)
    elsewhere = replace(card, class_names=("1", "2"))  # models.pipeline.folder.choose_null_class
    assert "(4,), 1)  # a class's number, or 0 for any" in usage(elsewhere, 0)
    without = replace(card, has_null_class=False)
    assert "(4,), 0)  # a class in 0..1\n" in usage(without)
    plain = ModelCard.of(a_model("v", ScheduleConfig("linear")).config)
    assert "class" not in usage(plain)
