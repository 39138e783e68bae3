"""A model of torch to and from its folder (models.pipeline.folder)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from host.folders import staged_folder
from models.diffusion.model import DiffusionModel
from models.nets.unallocated import unallocated
from models.nets.unet import UNet
from models.pipeline.diffusers import scheduler_config, unet_config
from models.pipeline.folder import (
    WEIGHTS,
    read_config,
    read_weights,
    write_json,
    write_our_config,
)


def save_model(model: DiffusionModel, folder: Path, metadata: Mapping[str, object]) -> None:
    """Write the folder, which must not exist yet; it appears whole or not at all."""
    with staged_folder(folder) as part:
        (part / "unet").mkdir()
        (part / "scheduler").mkdir()
        config = model.config
        scheduler = scheduler_config(config)
        index = {
            "_class_name": "DDPMPipeline",
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "unet": ["diffusers", "UNet2DModel"],
        }
        write_json(part / "model_index.json", index)
        write_json(part / "unet" / "config.json", unet_config(config))
        write_json(part / "scheduler" / "scheduler_config.json", scheduler)
        write_our_config(part, config, metadata)
        weights = {k: v.detach().cpu().contiguous() for k, v in model.net.state_dict().items()}
        save_file(weights, part / "unet" / WEIGHTS, metadata={"format": "pt"})


def load_model(folder: Path, device: str = "cpu") -> DiffusionModel:
    """Return the model of our folder, a diffusers pipeline folder or a bare UNet2DModel folder,
    ready to denoise.

    Raises Invalid naming the part that is missing or not supported.
    """
    config = read_config(folder)
    weights = {name: torch.from_numpy(a) for name, a in read_weights(folder, config).items()}
    with unallocated():
        net = UNet(config.net)
    net.load_state_dict(weights, assign=True)
    return DiffusionModel(config, net.to(device).eval().requires_grad_(False))
