"""A model of torch to and from its folder (models.pipeline.folder)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from host.folders import staged_folder
from models.diffusion.model import DiffusionModel
from models.nets.unallocated import unallocated
from models.nets.unet import UNet
from models.pipeline.folder import WEIGHTS, read_config, read_weights, write_configs


def save_model(model: DiffusionModel, folder: Path, metadata: Mapping[str, object]) -> None:
    """Write the folder, which must not exist yet; it appears whole or not at all."""
    with staged_folder(folder) as part:
        write_configs(part, model.config, metadata)
        write_weights(part, model.net.state_dict())


def write_weights(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / "unet" / WEIGHTS, metadata={"format": "pt"})


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
