"""Models on disk: a diffusers pipeline folder, safetensors only.

    model_index.json
    unet/config.json, unet/diffusion_pytorch_model.safetensors
    scheduler/scheduler_config.json
    diffusion.json          what diffusers cannot express, and where the model comes from

diffusers' DDPMPipeline runs an exported unconditional epsilon, x0 or v model as it is. Folders made
by diffusers load here where their UNet2DModel is built of the supported blocks. A pickle is never
opened.
"""

import errno
import hashlib
import json
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from host.folders import staged_folder
from models.diffusion.model import DiffusionModel, ModelConfig
from models.diffusion.prediction import PREDICTIONS, PredictionType
from models.diffusion.schedule import SCHEDULES, NoiseSchedule, ScheduleConfig, ScheduleName
from models.fields import Invalid
from models.nets.unet import UNet, UNetConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"
OURS = "diffusion.json"

# The names that diffusers has, and ours.
_PREDICTIONS = {kind.diffusers: name for name, kind in PREDICTIONS.items() if kind.diffusers}
_BETA_SCHEDULES: dict[str, ScheduleName] = {
    **{kind.diffusers: name for name, kind in SCHEDULES.items() if kind.diffusers},
    "squaredcos_cap_v2": "cosine",
}
_NO_ZIP = "the file is not a zip archive, or it is damaged"
_MAX_FILES = 64
_MAX_NAME = 200  # characters of a path in an archive
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
    with staged_folder(folder) as part:
        (part / "unet").mkdir()
        (part / "scheduler").mkdir()
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
            "consistency": config.consistency,
            "metadata": dict(metadata),
        }
        _write_json(part / OURS, ours)
        weights = {k: v.detach().cpu().contiguous() for k, v in model.net.state_dict().items()}
        save_file(weights, part / "unet" / WEIGHTS, metadata={"format": "pt"})


def read_config(folder: Path) -> ModelConfig:
    """Of a folder that may lack its weights. Raises Invalid naming what is missing or not
    supported."""
    try:
        peer = _read_json(_unet_folder(folder) / "config.json")
        return _model_config(folder, _net_config(peer), peer)
    except Invalid:
        raise
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise Invalid.because(f"the model's config is malformed: {error}") from None


def load_model(folder: Path, device: str = "cpu") -> DiffusionModel:
    """Our folder, a diffusers pipeline folder or a bare UNet2DModel folder, ready to denoise.

    Raises Invalid naming what is missing or not supported.
    """
    config = read_config(folder)
    try:
        with torch.device("meta"):  # a config may ask for more memory than its weights' file fills
            net = UNet(config.net)
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        raise Invalid.because(f"the model's config is malformed: {error}") from None
    _load_weights(net, _unet_folder(folder))
    return DiffusionModel(config, net.to(device).eval().requires_grad_(False))


def read_metadata(folder: Path) -> dict[str, Any]:
    """What the saver noted; empty for a folder that is not ours."""
    if not (folder / OURS).exists():
        return {}
    metadata = _read_json(folder / OURS).get("metadata", {})
    return metadata if isinstance(metadata, dict) else {}


def weights_digest(folder: Path) -> str:
    """sha256 of the weights' file."""
    with (_unet_folder(folder) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unet_folder(folder: Path) -> Path:
    return folder / "unet" if (folder / "unet").is_dir() else folder


# Archives -----------------------------------------------------------------------------------------


def write_model_archive(folder: Path, archive: Path) -> None:
    """A zip of the folder, not compressed: weights do not shrink."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(folder).as_posix())


def extract_model_archive(archive: Path, folder: Path, *, max_bytes: int = 8 * 2**30) -> None:
    """Unpack an uploaded model; one folder around everything is dropped. Raises Invalid for
    anything but plain files of the kinds that a model is made of, inside the archive's own tree;
    what was unpacked until then stays for the caller to remove."""
    try:
        with zipfile.ZipFile(archive) as file:
            infos = [info for info in file.infolist() if not info.filename.endswith("/")]
            names = _checked_names(infos, max_bytes)
            left = max_bytes
            for info, name in zip(infos, names, strict=True):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as source, target.open("xb") as sink:
                    while chunk := source.read(1 << 20):
                        left -= len(chunk)
                        if left < 0:
                            raise Invalid.because(
                                f"the archive unpacks to more than {max_bytes} bytes"
                            )
                        sink.write(chunk)
    except Invalid:
        raise
    except (
        ValueError,  # numbers and names in headers that are none
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # a compression that zipfile lacks
        RuntimeError,  # encrypted
        FileExistsError,  # a name twice, or once as a file and once as a folder
        NotADirectoryError,
    ):
        raise Invalid.because(_NO_ZIP) from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Invalid.because(_NO_ZIP) from None  # an offset before the file's beginning


def _checked_names(infos: list[zipfile.ZipInfo], max_bytes: int) -> list[str]:
    if not infos:
        raise Invalid.because("the archive is empty")
    if len(infos) > _MAX_FILES:
        raise Invalid.because(
            f"the archive has {len(infos)} files; at most {_MAX_FILES} are allowed"
        )
    if sum(info.file_size for info in infos) > max_bytes:
        raise Invalid.because(f"the archive unpacks to more than {max_bytes} bytes")
    paths = []
    for info in infos:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        shown = info.filename[:_MAX_NAME]
        if len(info.filename) > _MAX_NAME:
            raise Invalid.because(f"the path {shown!r}... is longer than {_MAX_NAME} characters")
        if path.is_absolute() or ".." in path.parts:
            raise Invalid.because(f"the path {shown!r} leaves the archive")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise Invalid.because(f"{shown!r} is a symbolic link")
        if path.suffix.lower() not in _SUFFIXES:
            raise Invalid.because(
                f"{shown!r} is no part of a model; allowed are {', '.join(sorted(_SUFFIXES))} "
                "(weights as safetensors only)"
            )
        paths.append(path)
    tops = {path.parts[0] for path in paths}
    if len(tops) == 1 and tops != {"unet"} and all(len(path.parts) > 1 for path in paths):
        paths = [path.relative_to(path.parts[0]) for path in paths]
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
    if SCHEDULES[schedule.name].diffusers is None:  # the numbers leave nothing to a name
        tables = NoiseSchedule.from_config(schedule)
        betas = {"beta_schedule": "linear", "trained_betas": tables.betas.tolist()}
    return {
        "_class_name": "DDPMScheduler",
        **steps,
        **betas,
        # diffusers refuses a name that it does not know; it would misread a substitute.
        "prediction_type": PREDICTIONS[config.prediction_type].diffusers or config.prediction_type,
        "variance_type": "fixed_small",
        "clip_sample": True,
    }


# From diffusers -----------------------------------------------------------------------------------


def _net_config(peer: Mapping[str, Any]) -> UNetConfig:
    for field, allowed in _FIXED.items():
        if field in peer and peer[field] not in allowed:
            raise Invalid.because(f"unet config: {field} is {peer[field]!r}; supported: {allowed}")
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
    config = UNetConfig.from_dict(values)
    if config.out_channels != config.in_channels:
        raise Invalid.because(
            f"unet config: out_channels is {config.out_channels}; it must equal in_channels, "
            f"{config.in_channels} (a learned variance is not supported)"
        )
    return config


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
                consistency=ours.get("consistency") is True,
            )
        except (KeyError, TypeError) as error:
            raise Invalid.because(f"{OURS} is incomplete or malformed: {error}") from None
    path = folder / "scheduler" / "scheduler_config.json"
    scheduler = _read_json(path) if path.exists() else {"beta_schedule": "linear"}
    size = peer.get("sample_size") or 32
    classes = (net.num_class_embeds or 1) - 1
    return ModelConfig(
        net=net,
        schedule=_foreign_schedule(scheduler),
        prediction_type=_foreign_prediction(scheduler),
        sigma_data=float(scheduler.get("sigma_data", 0.5)),
        image_size=(size, size) if isinstance(size, int) else tuple(size),
        class_names=tuple(str(i) for i in range(classes)),
    )


def _foreign_schedule(peer: Mapping[str, Any]) -> ScheduleConfig:
    renamed = {
        "num_train_timesteps": "num_train_timesteps",
        "beta_start": "beta_start",
        "beta_end": "beta_end",
        "rescale_betas_zero_snr": "rescale_zero_terminal_snr",
    }
    if _is_edm(peer):
        _check_supported(peer, "sigma_schedule", ("karras",))
        name = "edm"
        renamed = {n: n for n in ("num_train_timesteps", "sigma_min", "sigma_max", "rho")}
    elif "beta_schedule" in peer:
        _check_supported(peer, "beta_schedule", tuple(_BETA_SCHEDULES))
        _check_supported(peer, "trained_betas", (None,))
        name = _BETA_SCHEDULES[peer["beta_schedule"]]
    else:
        raise Invalid.because(
            f"scheduler config: _class_name is {peer.get('_class_name')!r}; supported are "
            "EDMEulerScheduler and the schedulers with a beta_schedule"
        )
    values: dict[str, Any] = {
        ours: peer[theirs] for theirs, ours in renamed.items() if theirs in peer
    }
    return ScheduleConfig(**{"name": name, **values})


def _foreign_prediction(peer: Mapping[str, Any]) -> PredictionType:
    if _is_edm(peer):
        _check_supported(peer, "prediction_type", ("epsilon",))
        return "edm"
    _check_supported(peer, "prediction_type", tuple(_PREDICTIONS))
    return _PREDICTIONS[peer.get("prediction_type", "epsilon")]


def _is_edm(peer: Mapping[str, Any]) -> bool:
    return peer.get("_class_name") == "EDMEulerScheduler"


def _check_supported(peer: Mapping[str, Any], field: str, supported: tuple[object, ...]) -> None:
    if field in peer and peer[field] not in supported:
        shown = repr(peer[field])[:100]
        raise Invalid.because(f"scheduler config: {field} is {shown}; supported: {supported}")


def _load_weights(net: UNet, folder: Path) -> None:
    path = folder / WEIGHTS
    if not path.exists():
        others = sorted(p.name for p in folder.glob("diffusion_pytorch_model*"))
        instead = f" (there is {others[0]})" if others else ""
        raise Invalid.because(
            f"{WEIGHTS} is missing{instead}; weights are read from safetensors only"
        )
    try:
        found = {_modern_name(name): tensor for name, tensor in load_file(path).items()}
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


def _modern_name(name: str) -> str:
    parts = name.split(".")
    if len(parts) > 1 and "attentions" in parts and parts[-2] in _LEGACY_ATTENTION:
        parts[-2] = _LEGACY_ATTENTION[parts[-2]]
    return ".".join(parts)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise Invalid.because(f"{path.name} is missing") from None
    except (ValueError, RecursionError):  # no JSON, no UTF-8, a number too long, nested too deep
        raise Invalid.because(f"{path.name} is not valid JSON") from None
    if not isinstance(value, dict):
        raise Invalid.because(f"{path.name} must hold a JSON object")
    return value


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
