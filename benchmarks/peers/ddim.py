"""The pipeline of all peers, loaded and called as in diffusers' documentation.

With `trailing` and `use_clipped_model_output` its images are those of this service's `ddim`. Its
network is compiled if the variable COMPILED is set.
"""

import io
import os
from collections.abc import Sequence

import cpu_torchvision  # noqa: F401  lets diffusers import torchvision with torch for a CPU
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from PIL.Image import Image


def load(device: str) -> DDIMPipeline:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    folder = os.environ["MODEL_FOLDER"]
    unet = UNet2DModel.from_pretrained(
        folder, subfolder="unet", use_safetensors=True, low_cpu_mem_usage=False
    )
    scheduler = DDIMScheduler.from_pretrained(
        folder, subfolder="scheduler", timestep_spacing="trailing"
    )
    pipeline = DDIMPipeline(unet, scheduler).to(device)
    if os.environ.get("COMPILED"):
        pipeline.unet = compiled(pipeline.unet)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def compiled(unet: UNet2DModel) -> UNet2DModel:
    """Compile a network as diffusers' documentation advises; on a GPU with CUDA graphs."""
    torch._dynamo.config.recompile_limit = 64  # each batch size is compiled separately
    mode = "reduce-overhead" if unet.device.type == "cuda" else "default"
    return torch.compile(unet.to(memory_format=torch.channels_last), mode=mode, dynamic=False)


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def generate(pipeline: DDIMPipeline, seeds: Sequence[int], num_inference_steps: int) -> list[Image]:
    """Make one image for each seed, in one batch."""
    return pipeline(
        batch_size=len(seeds),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=num_inference_steps,
        use_clipped_model_output=True,
    ).images


def png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
