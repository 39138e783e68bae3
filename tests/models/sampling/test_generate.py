"""Sampling: guidance on Gaussians (oracle 6), and an image that does not depend on its crowd."""

import numpy as np
import pytest
import torch
from torch import nn

from models.arrays import to_float, to_uint8
from models.diffusion.config import ModelConfig
from models.diffusion.denoiser import NoiseLevels, denoise
from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import ScheduleConfig
from models.fields import Invalid
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.sampling.generate import Stopped, sample, sample_images
from models.sampling.request import SampleRequest, plan_for

MEANS = (-0.4, 0.5, 0.1)  # of class 0, class 1 and any
STD = 0.3


class GaussianNet(nn.Module):
    """The exact epsilon for pixels N(mean of the class, STD^2), in place of a network."""

    def __init__(self, model_config: ModelConfig) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(1, 1, 1)  # says which device it is on
        self.table = DiffusionModel(model_config, self).schedule

    def forward(self, x, c_noise, label):
        t = c_noise.round().long().numpy() + 1
        alpha, sigma = (
            torch.from_numpy(v[t]).float()[:, None, None, None]
            for v in (self.table.alpha, self.table.sigma)
        )
        mean = torch.tensor(MEANS)[label][:, None, None, None]
        variance = alpha**2 * STD**2 + sigma**2
        return sigma * (x - alpha * mean) / variance


def gaussian_model():
    net = UNetConfig(1, 1, (32,), 1, ("AttnDownBlock2D",), ("AttnUpBlock2D",), num_class_embeds=3)
    config = ModelConfig(net, ScheduleConfig(), "epsilon", 0.5, (8, 8), ("low", "high"))
    return DiffusionModel(config, GaussianNet(config))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.5, 3.0])
def test_guidance_moves_the_mean_and_keeps_the_spread(scale):
    model = gaussian_model()
    request = SampleRequest(
        seed=0,
        num_images=64,
        sampler="ddim",
        num_inference_steps=1000,
        labels=(1,) * 64,
        guidance_scale=scale,
        clip=False,
    )
    *_, last = sample(model, plan_for(model.config, request), range(64))
    expected = MEANS[2] + scale * (MEANS[1] - MEANS[2])
    n = last.x.numel()
    assert abs(float(last.x.mean()) - expected) < 5 * STD / n**0.5 + 2e-3
    assert abs(float(last.x.std()) - STD) < 5 * STD / (2 * n) ** 0.5 + 2e-3


def test_guidance_asks_with_the_class_and_without():
    model = gaussian_model()
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    levels = NoiseLevels.at(model, np.array([1, 10, 500, 1000]))
    high, anything = torch.full((4,), 1), torch.full((4,), 2)
    conditional = denoise(model, x, levels, high)
    unconditional = denoise(model, x, levels, anything)
    guided = denoise(model, x, levels, high, 2.5)
    expected = unconditional + 2.5 * (conditional - unconditional)
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def model():
    config = UNetConfig(1, 1, (8, 8), norm_num_groups=4, attention_head_dim=4, num_class_embeds=3)
    torch.manual_seed(0)
    net = UNet(config).eval()
    nn.init.normal_(net.conv_out.weight, std=0.1)  # a fresh one says 0 to everything
    return DiffusionModel(
        ModelConfig(config, ScheduleConfig(), "v", 0.5, (8, 8), ("low", "high")), net
    )


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "heun", "dpmpp_2m", "unipc"])
def test_an_image_does_not_depend_on_its_crowd(model, sampler):
    settings = {"seed": 3, "sampler": sampler, "num_inference_steps": 6}
    crowd = sample_images(model, num_images=9, **settings).astype(int)
    alone = sample_images(model, num_images=1, **settings).astype(int)
    assert np.abs(crowd[0] - alone[0]).max() <= 1  # batches differ in the last bits of a float
    again = sample_images(model, num_images=9, **settings).astype(int)
    assert np.array_equal(crowd, again)


def test_whoever_leaves_stops_the_walk(model):
    asked = []

    def stopped():
        asked.append(True)
        return len(asked) == 3

    with pytest.raises(Stopped):
        sample_images(model, num_images=1, seed=0, num_inference_steps=10, stopped=stopped)
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": [2, 0]}, r"class_label is 2; it must lie in 0\.\.1"),
        ({"labels": [0]}, "1 entries; num_images is 2"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(model, settings, message):
    with pytest.raises(Invalid, match=message):
        sample_images(model, num_images=2, seed=0, **settings)


def test_uint8_and_float_are_inverse():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(to_uint8(to_float(images)), images)
