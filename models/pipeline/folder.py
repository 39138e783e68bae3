"""Models on disk: a diffusers pipeline folder, safetensors only.

    model_index.json
    unet/config.json, unet/diffusion_pytorch_model.safetensors
    scheduler/scheduler_config.json
    diffusion.json          the rest of our config, and where the model comes from

diffusers' DDPMPipeline runs an exported unconditional epsilon, x0 or v model as it is. Folders made
by diffusers load here if their UNet2DModel is built of the supported blocks. A pickle is never
opened.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from host.folders import staged_folder
from models.diffusion.model import DiffusionModel, ModelConfig
from models.diffusion.schedule import ScheduleConfig
from models.fields import Invalid
from models.nets.unallocated import unallocated
from models.nets.unet import UNet, UNetConfig
from models.pipeline.diffusers import (
    JsonObject,
    model_config,
    modern_name,
    net_config,
    scheduler_config,
    unet_config,
)

WEIGHTS = "diffusion_pytorch_model.safetensors"
OURS = "diffusion.json"


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
        _write_json(part / "model_index.json", index)
        _write_json(part / "unet" / "config.json", unet_config(config))
        _write_json(part / "scheduler" / "scheduler_config.json", scheduler)
        ours = {
            "image_size": config.image_size,
            "class_names": config.class_names,
            "schedule": asdict(config.schedule),
            "prediction_type": config.prediction_type,
            "sigma_data": config.sigma_data,
            "consistency": config.consistency,
            "metadata": dict(metadata),
        }
        _write_json(part / OURS, ours)
        weights = {k: v.detach().cpu().contiguous() for k, v in model.net.state_dict().items()}
        save_file(weights, part / "unet" / WEIGHTS, metadata={"format": "pt"})


def read_config(folder: Path) -> ModelConfig:
    """Return the config of a folder that may lack its weights.

    Raises Invalid naming the part that is missing or not supported.
    """
    try:
        unet = _read_json(_unet_folder(folder) / "config.json")
        return _model_config(folder, net_config(unet), unet)
    except Invalid:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise Invalid.because(f"the model's config is malformed: {error}") from None


def load_model(folder: Path, device: str = "cpu") -> DiffusionModel:
    """Return the model of our folder, a diffusers pipeline folder or a bare UNet2DModel folder,
    ready to denoise.

    Raises Invalid naming the part that is missing or not supported.
    """
    config = read_config(folder)
    try:
        with unallocated():  # a config may ask for more memory than its weights' file fills
            net = UNet(config.net)
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise Invalid.because(f"the model's config is malformed: {error}") from None
    _load_weights(net, _unet_folder(folder))
    return DiffusionModel(config, net.to(device).eval().requires_grad_(False))


def read_metadata(folder: Path) -> JsonObject:
    """Return the saver's metadata; empty for a folder that is not ours."""
    if not (folder / OURS).exists():
        return {}
    metadata = _read_json(folder / OURS).get("metadata", {})
    return metadata if isinstance(metadata, dict) else {}


def weights_digest(folder: Path) -> str:
    """Return the sha256 of the weights' file."""
    with (_unet_folder(folder) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unet_folder(folder: Path) -> Path:
    return folder / "unet" if (folder / "unet").is_dir() else folder


# Config -------------------------------------------------------------------------------------------


def _model_config(folder: Path, net: UNetConfig, unet: JsonObject) -> ModelConfig:
    if (folder / OURS).exists():
        return _our_config(_read_json(folder / OURS), net)
    path = folder / "scheduler" / "scheduler_config.json"
    scheduler = _read_json(path) if path.exists() else {"beta_schedule": "linear"}
    return model_config(net, unet, scheduler)


def _our_config(ours: JsonObject, net: UNetConfig) -> ModelConfig:
    try:
        return ModelConfig(
            net=net,
            schedule=ScheduleConfig(**ours["schedule"]),
            prediction_type=ours["prediction_type"],
            sigma_data=float(ours["sigma_data"]),
            image_size=tuple(ours["image_size"]),
            class_names=tuple(ours["class_names"]),
            consistency=ours.get("consistency") is True,
        )
    except (KeyError, TypeError) as error:
        raise Invalid.because(f"{OURS} is incomplete or malformed: {error}") from None


# Weights ------------------------------------------------------------------------------------------


def _load_weights(net: UNet, folder: Path) -> None:
    path = folder / WEIGHTS
    if not path.exists():
        others = sorted(p.name for p in folder.glob("diffusion_pytorch_model*"))
        instead = f" (there is {others[0]})" if others else ""
        raise Invalid.because(
            f"{WEIGHTS} is missing{instead}; weights are read from safetensors only"
        )
    try:
        found = {modern_name(name): tensor for name, tensor in load_file(path).items()}
    except SafetensorError:
        raise Invalid.because(f"{WEIGHTS} is not a safetensors file, or it is damaged") from None
    wanted = net.state_dict()
    for name, tensor in wanted.items():
        if name not in found:
            raise Invalid.because(f"the weights lack the tensor {name!r}")
        if found[name].shape == (*tensor.shape, 1, 1):  # attention was 1x1 convolutions once
            found[name] = found[name].flatten(1)
        if found[name].shape != tensor.shape:
            raise Invalid.because(
                f"the tensor {name!r} has shape {tuple(found[name].shape)}; "
                f"the net needs {tuple(tensor.shape)}"
            )
    if surplus := sorted(set(found) - set(wanted)):
        raise Invalid.because(f"the weights hold {surplus[0]!r}, which the net does not have")
    _check_finite(found)
    net.load_state_dict({k: v.to(torch.float32, copy=True) for k, v in found.items()}, assign=True)


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise Invalid.because(f"the tensor {name!r} holds NaN or infinite values")


# JSON ---------------------------------------------------------------------------------------------


def _read_json(path: Path) -> JsonObject:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise Invalid.because(f"{path.name} is missing") from None
    except (ValueError, RecursionError):  # not JSON, not UTF-8, a number too long, nested too deep
        raise Invalid.because(f"{path.name} is not valid JSON") from None
    if not isinstance(value, dict):
        raise Invalid.because(f"{path.name} must hold a JSON object")
    return value


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
