"""The program in a download's README, run: diffusers' schedulers make the service's images."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline

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


def test_what_diffusers_cannot_sample_is_said() -> None:
    card = ModelCard.of(a_model("v", ScheduleConfig("flow")).config)
    distilled = replace(
        ModelCard.of(a_model("edm", ScheduleConfig("edm")).config), consistency=True
    )
    for one in (card, distilled):
        assert "No scheduler of diffusers" in usage(one)
