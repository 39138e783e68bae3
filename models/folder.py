"""Models on disk: a diffusers pipeline folder, safetensors only.

    model_index.json
    unet/config.json, unet/diffusion_pytorch_model.safetensors
    scheduler/scheduler_config.json
    diffusion.json          what diffusers cannot express, and where the model comes from

diffusers' DDPMPipeline runs an exported unconditional epsilon, x0 or v model as it is. Folders made
by diffusers load here where their UNet2DModel is built of the supported blocks. A pickle is never
opened.
"""

import hashlib
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.model import DiffusionModel, ModelConfig
from models.schedule import NoiseSchedule, ScheduleConfig
from models.unet import UNet, UNetConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"
OURS = "diffusion.json"

_PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
_MAX_FILES = 64
_SUFFIXES = {".json", ".safetensors", ".md", ".txt"}

# What a UNet2DModel may say and this one takes for granted.
_FIXED = {
    "act_fn": ("silu", "swish"),
    "attn_norm_num_groups": (None,),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "downsample_type": ("conv",),
    "mid_block_scale_factor": (1, 1.0),
    "mid_block_type": ("UNetMidBlock2D",),
    "num_train_timesteps": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "upsample_type": ("conv",),
}
_LEGACY_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def save_model(model: DiffusionModel, folder: Path, metadata: Mapping[str, object]) -> None:
    """Write the folder, which must not exist yet; it appears whole or not at all."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "unet").mkdir(parents=True)
    (part / "scheduler").mkdir()
    try:
        config = model.config
        index = {
            "_class_name": "DDPMPipeline",
            "scheduler": ["diffusers", _scheduler_config(config)["_class_name"]],
            "unet": ["diffusers", "UNet2DModel"],
        }
        _write_json(part / "model_index.json", index)
        _write_json(part / "unet" / "config.json", _unet_config(config))
        _write_json(part / "scheduler" / "scheduler_config.json", _scheduler_config(config))
        ours = {
            "image_size": config.image_size,
            "class_names": config.class_names,
            "schedule": asdict(config.schedule),
            "prediction_type": config.prediction_type,
            "sigma_data": config.sigma_data,
            "metadata": dict(metadata),
        }
        _write_json(part / OURS, ours)
        weights = {k: v.detach().cpu().contiguous() for k, v in model.net.state_dict().items()}
        save_file(weights, part / "unet" / WEIGHTS, metadata={"format": "pt"})
        for path in [*part.rglob("*"), part]:
            _fsync(path)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def load_model(folder: Path, device: str = "cpu") -> DiffusionModel:
    """Our folder, a diffusers pipeline folder or a bare UNet2DModel folder, ready to denoise.

    Raises ValueError naming what is missing or not supported.
    """
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    peer = _read_json(unet / "config.json")
    net_config = _net_config(peer)
    config = _model_config(folder, net_config, peer)
    net = UNet(config.net)
    _load_weights(net, unet)
    net = net.to(device)
    return DiffusionModel(config, net.eval().requires_grad_(False))


def read_metadata(folder: Path) -> dict[str, Any]:
    """What the saver noted; empty for a folder that is not ours."""
    if not (folder / OURS).exists():
        return {}
    metadata = _read_json(folder / OURS).get("metadata", {})
    return metadata if isinstance(metadata, dict) else {}


def weights_digest(folder: Path) -> str:
    """sha256 of the weights' file."""
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    with (unet / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Archives -----------------------------------------------------------------------------------------


def write_model_archive(folder: Path, archive: Path) -> None:
    """A zip of the folder, not compressed: weights do not shrink."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder).as_posix())


def extract_model_archive(archive: Path, folder: Path, *, max_bytes: int = 8 * 2**30) -> None:
    """Unpack an uploaded model; one folder around everything is dropped. Raises ValueError for
    anything but plain files of the kinds that a model is made of, inside the archive's own tree."""
    try:
        with zipfile.ZipFile(archive) as file:
            infos = [info for info in file.infolist() if not info.is_dir()]
            names = _checked_names(infos, max_bytes)
            left = max_bytes
            for info, name in zip(infos, names, strict=True):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as source, target.open("xb") as sink:
                    while chunk := source.read(1 << 20):
                        left -= len(chunk)
                        if left < 0:
                            raise ValueError(f"the archive unpacks to more than {max_bytes} bytes")
                        sink.write(chunk)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, FileExistsError):
        raise ValueError("the file is not a zip archive, or it is damaged") from None


def _checked_names(infos: list[zipfile.ZipInfo], max_bytes: int) -> list[str]:
    if not infos:
        raise ValueError("the archive is empty")
    if len(infos) > _MAX_FILES:
        raise ValueError(f"the archive has {len(infos)} files; at most {_MAX_FILES} are allowed")
    if sum(info.file_size for info in infos) > max_bytes:
        raise ValueError(f"the archive unpacks to more than {max_bytes} bytes")
    paths = []
    for info in infos:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        shown = info.filename[:200]
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"the path {shown!r} leaves the archive")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ValueError(f"{shown!r} is a symbolic link")
        if path.suffix.lower() not in _SUFFIXES:
            raise ValueError(
                f"{shown!r} is no part of a model; allowed are {', '.join(sorted(_SUFFIXES))} "
                "(weights as safetensors only)"
            )
        paths.append(path)
    while all(len(p.parts) > 1 for p in paths) and len({p.parts[0] for p in paths}) == 1:
        if paths[0].parts[0] == "unet":
            break
        paths = [PurePosixPath(*p.parts[1:]) for p in paths]
    return [str(path) for path in paths]


# To diffusers -------------------------------------------------------------------------------------


def _unet_config(config: ModelConfig) -> dict[str, Any]:
    height, width = config.image_size
    return {
        "_class_name": "UNet2DModel",
        "sample_size": height if height == width else [height, width],
        "act_fn": "silu",
        "time_embedding_type": "positional",
        **asdict(config.net),
    }


def _scheduler_config(config: ModelConfig) -> dict[str, Any]:
    schedule = config.schedule
    steps = {"num_train_timesteps": schedule.num_train_timesteps}
    if schedule.name == "edm":
        return {
            "_class_name": "EDMEulerScheduler",
            **steps,
            "sigma_min": schedule.sigma_min,
            "sigma_max": schedule.sigma_max,
            "sigma_data": config.sigma_data,
            "rho": schedule.rho,
            "prediction_type": "epsilon",
        }
    if schedule.name == "flow":
        return {"_class_name": "FlowMatchEulerDiscreteScheduler", **steps}
    betas: dict[str, Any] = {
        "beta_schedule": schedule.name,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "rescale_betas_zero_snr": schedule.rescale_zero_terminal_snr,
    }
    if schedule.name not in ("linear", "scaled_linear"):  # the numbers leave nothing to a name
        tables = NoiseSchedule.from_config(schedule)
        betas = {"beta_schedule": "linear", "trained_betas": tables.betas.tolist()}
    return {
        "_class_name": "DDPMScheduler",
        **steps,
        **betas,
        "prediction_type": _PREDICTIONS[config.prediction_type],
        "variance_type": "fixed_small",
        "clip_sample": True,
    }


# From diffusers -----------------------------------------------------------------------------------


def _net_config(peer: Mapping[str, Any]) -> UNetConfig:
    for field, allowed in _FIXED.items():
        if field in peer and peer[field] not in allowed:
            raise ValueError(f"unet config: {field} is {peer[field]!r}; supported: {allowed}")
    known = {field.name for field in fields(UNetConfig)}
    # What is not said is diffusers' default, which is not always ours.
    values: dict[str, Any] = {
        "block_out_channels": (224, 448, 672, 896),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3),
        "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"),
        "attention_head_dim": 8,
    }
    values |= {name: value for name, value in peer.items() if name in known}
    return UNetConfig.from_dict(values)


def _model_config(folder: Path, net: UNetConfig, peer: Mapping[str, Any]) -> ModelConfig:
    if (folder / OURS).exists():
        ours = _read_json(folder / OURS)
        try:
            return ModelConfig(
                net=net,
                schedule=ScheduleConfig(**ours["schedule"]),
                prediction_type=ours["prediction_type"],
                sigma_data=float(ours["sigma_data"]),
                image_size=tuple(ours["image_size"]),
                class_names=tuple(ours["class_names"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{OURS} is incomplete or malformed: {error}") from None
    scheduler = folder / "scheduler" / "scheduler_config.json"
    schedule, prediction = _foreign_schedule(_read_json(scheduler) if scheduler.exists() else {})
    size = peer.get("sample_size") or 32
    classes = (net.num_class_embeds or 1) - 1
    return ModelConfig(
        net=net,
        schedule=schedule,
        prediction_type=prediction,
        sigma_data=0.5,
        image_size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
        class_names=tuple(str(i) for i in range(classes)),
    )


def _foreign_schedule(peer: Mapping[str, Any]) -> tuple[ScheduleConfig, Any]:
    names = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
    given = peer.get("beta_schedule", "linear")
    if given not in names or peer.get("trained_betas") is not None:
        raise ValueError(
            f"scheduler config: beta_schedule is {given!r}"
            f"{' with trained_betas' if peer.get('trained_betas') is not None else ''}; "
            f"supported: {tuple(names)}"
        )
    predictions = {theirs: ours for ours, theirs in _PREDICTIONS.items()}
    prediction = peer.get("prediction_type", "epsilon")
    if prediction not in predictions:
        raise ValueError(
            f"scheduler config: prediction_type is {prediction!r}; supported: {tuple(predictions)}"
        )
    schedule: dict[str, Any] = {
        "name": names[given],
        "num_train_timesteps": peer.get("num_train_timesteps", 1000),
        "rescale_zero_terminal_snr": bool(peer.get("rescale_betas_zero_snr", False)),
    }
    for name in ("beta_start", "beta_end"):
        if name in peer:
            schedule[name] = peer[name]
    return ScheduleConfig(**schedule), predictions[prediction]


def _load_weights(net: UNet, folder: Path) -> None:
    path = folder / WEIGHTS
    if not path.exists():
        raise ValueError(f"{WEIGHTS} is missing; weights are read from safetensors only")
    try:
        found = {_modern_name(name): tensor for name, tensor in load_file(path).items()}
    except SafetensorError:
        raise ValueError(f"{WEIGHTS} is not a safetensors file, or it is damaged") from None
    wanted = net.state_dict()
    for name, tensor in wanted.items():
        if name not in found:
            raise ValueError(f"the weights lack the tensor {name!r}")
        if found[name].shape != tensor.shape:
            if found[name].numel() != tensor.numel():
                raise ValueError(
                    f"the tensor {name!r} has shape {tuple(found[name].shape)}; "
                    f"the net needs {tuple(tensor.shape)}"
                )
            found[name] = found[name].reshape(tensor.shape)  # 1x1 convolutions of old
    if surplus := sorted(set(found) - set(wanted)):
        raise ValueError(f"the weights hold {surplus[0]!r}, which the net does not have")
    _check_finite(found)
    net.load_state_dict(found)


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"the tensor {name!r} holds NaN or infinite values")


def _modern_name(name: str) -> str:
    parts = name.split(".")
    if len(parts) > 1 and "attentions" in parts and parts[-2] in _LEGACY_ATTENTION:
        parts[-2] = _LEGACY_ATTENTION[parts[-2]]
    return ".".join(parts)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f"{path.name} is not valid JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} must hold a JSON object")
    return value


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, default=np.ndarray.tolist) + "\n")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
