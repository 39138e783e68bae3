"""Models that people know, with random weights: our pixels against those of diffusers' pipelines,
from the same noise.

The configs are those of the published models; in the tests the nets are an eighth as wide and the
images small, so that they run in a moment. `python` with the path of this file prints the table of
docs/elsewhere.md: nets as wide and images as large as published.
"""

import argparse
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
)

from models.diffusion.model import DiffusionModel
from models.diffusion.noise import normal
from models.pipeline.torch_folder import load_model
from models.sampling.generate import sample
from models.sampling.request import SampleRequest, plan_for

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

OF_2020 = {  # those of Ho et al., converted
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
SIX = {
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
}
NETS: dict[str, dict[str, Any]] = {
    "ddpm-cifar10-32": {
        **OF_2020,
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "ddpm-celebahq-256": {**OF_2020, **SIX, "sample_size": 256},
    "ddpm-ema-church-256": {**OF_2020, **SIX, "sample_size": 256},
    "butterflies-128": {**SIX, "sample_size": 128},
    "ADM-like, 64": {
        "sample_size": 64,
        "block_out_channels": (192, 384, 576, 768),
        "layers_per_block": 3,
        "down_block_types": ("ResnetDownsampleBlock2D", *["AttnDownBlock2D"] * 3),
        "up_block_types": (*["AttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "attention_head_dim": 64,
        "attn_norm_num_groups": 32,
        "resnet_time_scale_shift": "scale_shift",
    },
}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "ddpm-cifar10-32": {"variance_type": "fixed_large"},
    "ddpm-celebahq-256": {"variance_type": "fixed_small"},
    "ddpm-ema-church-256": {"variance_type": "fixed_large"},
    "butterflies-128": {},
    "ADM-like, 64": {"beta_schedule": "squaredcos_cap_v2", "variance_type": "fixed_small_log"},
}
SAMPLERS = ("ddpm", "ddim", "ddim, eta 1", "euler", "dpmpp_2m", "dpmpp_3m", "unipc")
SEED = 7
IMAGES = 1 if __name__ == "__main__" else 2  # the table's nets are large


def save(folder: Path, name: str, narrow: bool = True, **scheduler: Any) -> DDPMPipeline:
    """Save the pipeline as diffusers does; return it. `narrow` makes it small for a test."""
    net = {"layers_per_block": 2, "norm_num_groups": 32, **NETS[name]}
    if narrow:
        net["block_out_channels"] = tuple(width // 8 for width in net["block_out_channels"])
        for field in ("norm_num_groups", "attn_norm_num_groups", "attention_head_dim"):
            net |= {field: net[field] // 8} if net.get(field) else {}
        net["sample_size"] = 32
    torch.manual_seed(0)
    unet = UNet2DModel(**net)
    pipeline = DDPMPipeline(unet.eval(), DDPMScheduler(**{**SCHEDULERS[name], **scheduler}))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


def noise_of(model: DiffusionModel, step: int) -> torch.Tensor:
    """The noise that the service draws."""
    config = model.config
    shape = (config.channels, *config.image_size)
    seeds = torch.full((IMAGES,), SEED)
    return normal(seeds, torch.arange(IMAGES), step, shape)


@contextmanager
def our_noise(model: DiffusionModel) -> Iterator[None]:
    """Let pipelines of diffusers draw it, from the first to the last."""
    steps = itertools.count()

    def draw(*args: Any, **kwargs: Any) -> torch.Tensor:
        return noise_of(model, next(steps))

    places = (
        "pipelines.ddpm.pipeline_ddpm",
        "pipelines.ddim.pipeline_ddim",
        "schedulers.scheduling_ddpm",
        "schedulers.scheduling_ddim",
    )
    patches = [patch(f"diffusers.{place}.randn_tensor", draw) for place in places]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def ours(model: DiffusionModel, sampler: str, steps: int, **request: Any) -> torch.Tensor:
    plan = plan_for(
        model.config,
        SampleRequest(SEED, IMAGES, sampler=sampler, num_inference_steps=steps, **request),
    )
    *_, last = sample(model, plan, range(IMAGES))
    return last.x


def grey_levels(images: torch.Tensor) -> np.ndarray:
    """(B, H, W, C), 0..255, not rounded."""
    return (255.0 * (images / 2 + 0.5).clamp(0, 1)).permute(0, 2, 3, 1).numpy()


def by_pipeline(pipeline: DDPMPipeline, sampler: str, steps: int, model: DiffusionModel) -> Any:
    """Images of DDPMPipeline or DDIMPipeline in grey levels."""
    arguments: dict[str, Any] = {}
    if sampler != "ddpm":
        # Without this it goes on from an estimate that is not clipped.
        arguments = {"eta": float(sampler.endswith("1")), "use_clipped_model_output": True}
        pipeline = DDIMPipeline(pipeline.unet, pipeline.scheduler)
        pipeline.set_progress_bar_config(disable=True)
    with our_noise(model):
        images = pipeline(IMAGES, num_inference_steps=steps, output_type="np", **arguments).images
    return 255.0 * images


@torch.no_grad()
def by_loop(
    pipeline: DDPMPipeline, sampler: str, steps: int, model: DiffusionModel
) -> torch.Tensor:
    """Images of diffusers' other samplers, which do not clip."""
    config = {"timestep_spacing": "trailing", "final_sigmas_type": "zero"}
    if sampler == "euler":
        scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config, **config)
    elif sampler == "unipc":
        scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, **config)
    else:
        config |= {"solver_order": int(sampler[6]), "lower_order_final": False}
        scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, **config)
    scheduler.set_timesteps(steps)
    x = noise_of(model, 0)
    if sampler == "euler":  # its x is ours over alpha
        x = x / model.schedule.alpha[-1]
    for t in scheduler.timesteps:
        y = pipeline.unet(scheduler.scale_model_input(x, t), t).sample
        x = scheduler.step(y, t, x).prev_sample
    return x


def difference(
    pipeline: DDPMPipeline, model: DiffusionModel, sampler: str, steps: int
) -> tuple[float, float]:
    """The largest difference in grey levels, and the share of values that are not black or white.

    Images of samplers that do not clip are scaled first to the range of the largest value: with
    random weights they leave [-1, 1] by far.
    """
    if sampler.startswith("dd"):
        eta = {"eta": 1.0} if sampler.endswith("1") else {}
        mine = grey_levels(ours(model, sampler.split(",")[0], steps, **eta))
        theirs = by_pipeline(pipeline, sampler, steps, model)
    else:
        x = ours(model, sampler, steps, clip=False, spacing="trailing")
        scale = x.abs().max()
        mine = grey_levels(x / scale)
        theirs = grey_levels(by_loop(pipeline, sampler, steps, model) / scale)
    between = float(np.mean((mine > 1) & (mine < 254)))
    return float(np.abs(mine - theirs).max()), between


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", NETS)
def test_the_pixels_are_those_of_diffusers(tmp_path: Path, name: str, sampler: str) -> None:
    pipeline = save(tmp_path / "pipeline", name)
    model = load_model(tmp_path / "pipeline")
    largest, between = difference(pipeline, model, sampler, steps=5)
    assert between > 0.05  # else nothing is compared
    assert largest < 0.1


@pytest.mark.parametrize(
    ("said", "steps"),
    [
        ({"clip_sample": False}, 3),
        ({"clip_sample_range": 2.0}, 5),
        ({"clip_sample_range": 0.5}, 5),
        ({"timestep_spacing": "leading", "steps_offset": 1}, 5),
        ({"timestep_spacing": "leading", "steps_offset": 50}, 4),
        ({"timestep_spacing": "linspace"}, 5),
        ({"timestep_spacing": "trailing"}, 7),
        ({"variance_type": "fixed_large"}, 5),
        ({"variance_type": "fixed_small_log"}, 5),
        ({"trained_betas": np.linspace(2e-4, 0.03, 200).tolist(), "num_train_timesteps": 200}, 5),
    ],
    ids=str,
)
def test_what_a_scheduler_says_is_done(tmp_path: Path, said: dict[str, Any], steps: int) -> None:
    usual = save(tmp_path / "usual", "butterflies-128")
    pipeline = save(tmp_path / "said", "butterflies-128", **said)
    model = load_model(tmp_path / "said")
    theirs = by_pipeline(pipeline, "ddpm", steps, model)
    assert np.abs(grey_levels(ours(model, "ddpm", steps)) - theirs).max() < 0.1
    if said != {"variance_type": "fixed_small_log"}:  # another name for the usual one
        assert np.abs(by_pipeline(usual, "ddpm", steps, model) - theirs).max() > 5


def table() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(NETS))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS))
    arguments = parser.parse_args()
    print("| | " + " | ".join(f"`{sampler}`" for sampler in arguments.samplers) + " |")
    print("|---|" + "---|" * len(arguments.samplers))
    for name in arguments.names:
        print(f"| {name} |", end="", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            pipeline = save(Path(scratch) / "pipeline", name, narrow=False)
            model = load_model(Path(scratch) / "pipeline")
            for sampler in arguments.samplers:
                largest, _ = difference(pipeline, model, sampler, arguments.steps)
                print(f" {largest:.1g} |", end="", flush=True)
        print()


if __name__ == "__main__":
    table()
