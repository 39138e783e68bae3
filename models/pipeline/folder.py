"""Models on disk: a diffusers pipeline folder, safetensors only.

    model_index.json
    unet/config.json, unet/diffusion_pytorch_model.safetensors; from elsewhere perhaps a variant,
                            as diffusion_pytorch_model.fp16.safetensors, or shards with an index
    scheduler/scheduler_config.json
    diffusion.json          the rest of our config, and where the model comes from

diffusers' DDPMPipeline runs an exported unconditional epsilon, x0 or v model, in a number of steps
up to its num_train_timesteps; models.pipeline.readme has a program for every kind. Folders made by
diffusers load here if their UNet2DModel is built of the supported blocks. A pickle is never opened.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize

from models.arrays import Float32
from models.diffusion.config import ModelConfig, SamplingConfig
from models.diffusion.schedule import ScheduleConfig
from models.fields import Invalid, check_whole
from models.nets.config import UNetConfig
from models.nets.graph import unet_graph
from models.pipeline.diffusers import (
    JsonObject,
    model_config,
    modern_name,
    net_config,
    sampler_fields,
    scheduler_config,
    unet_config,
)

CONVERT = "`python -m models.pipeline.convert`"
WEIGHTS = "diffusion_pytorch_model.safetensors"
OURS = "diffusion.json"
SCHEDULER = "scheduler/scheduler_config.json"
_STEM = "diffusion_pytorch_model"
_SHARD = re.compile(r"-\d+-of-\d+\.")
CLASSES = "class_embedding.weight"
_NUMBERS = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


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


def write_configs(folder: Path, config: ModelConfig, metadata: Mapping[str, object]) -> None:
    """Write all of the folder but its weights."""
    (folder / "unet").mkdir()
    (folder / "scheduler").mkdir()
    scheduler = scheduler_config(config)
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", "UNet2DModel"],
    }
    write_json(folder / "model_index.json", index)
    write_json(folder / "unet" / "config.json", unet_config(config))
    write_json(folder / SCHEDULER, scheduler)
    write_our_config(folder, config, metadata)


def write_our_config(
    folder: Path,
    config: ModelConfig,
    metadata: Mapping[str, object],
    null_class: int | None = None,
) -> None:
    """Write diffusion.json. `null_class` is the embedding of the null class among those of the
    file; None for the last, or for none where the model has none."""
    if null_class is None and config.class_names and config.has_null_class:
        null_class = len(config.class_names)
    ours = {
        "image_size": config.image_size,
        "class_names": config.class_names,
        "null_class": null_class,
        "schedule": asdict(config.schedule),
        "prediction_type": config.prediction_type,
        "sigma_data": config.sigma_data,
        "consistency": config.consistency,
        "sampling": asdict(config.sampling),
        "metadata": dict(metadata),
    }
    write_json(folder / OURS, ours)


def choose_null_class(folder: Path, null_class: int) -> None:
    """Write into a folder that does not say it which of its class embeddings stands for no class.

    Raises Invalid where that is out of bounds, or the folder says another.
    """
    config = read_config(folder)
    count = config.net.num_class_embeds
    if count is None:
        raise Invalid.because(
            "null_class is given, but the model has no classes", field="null_class"
        )
    if count == 1:
        raise Invalid("null_class", null_class, "the model's one embedding is a class")
    if not 0 <= null_class < count:
        raise Invalid("null_class", null_class, f"it must lie in 0..{count - 1}")
    if (folder / OURS).exists():
        if (known := _null_class(folder, config)) != null_class:
            raise Invalid("null_class", null_class, f"{OURS} of the model says {known}")
        return
    names = tuple(name for i, name in enumerate(config.class_names) if i != null_class)
    write_our_config(folder, replace(config, class_names=names), {}, null_class)


def read_metadata(folder: Path) -> JsonObject:
    """Return the saver's metadata; empty for a folder that is not ours."""
    if not (folder / OURS).exists():
        return {}
    metadata = _read_json(folder / OURS).get("metadata", {})
    return metadata if isinstance(metadata, dict) else {}


def read_null_class(folder: Path) -> int | None:
    """Return the embedding of no class in a folder that is ours; None for the last, or none."""
    value = _read_json(folder / OURS).get("null_class")
    return value if isinstance(value, int) else None


def unused_scheduler_fields(folder: Path) -> list[str]:
    """Return what a scheduler's config says of its sampler alone, which a request chooses."""
    if (folder / OURS).exists() or not (folder / SCHEDULER).exists():
        return []
    return sampler_fields(_read_json(folder / SCHEDULER))


def weights_digest(folder: Path) -> str:
    """Return the sha256 of the weights' file; of shards, one after the other."""
    digest = hashlib.sha256()
    for path in _weight_files(folder):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _unet_folder(folder: Path) -> Path:
    return folder / "unet" if (folder / "unet").is_dir() else folder


# Config -------------------------------------------------------------------------------------------


def _model_config(folder: Path, net: UNetConfig, unet: JsonObject) -> ModelConfig:
    if (folder / OURS).exists():
        return _our_config(_read_json(folder / OURS), net)
    path = folder / SCHEDULER
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
            sampling=SamplingConfig(**ours.get("sampling", {})),
        )
    except (KeyError, TypeError) as error:
        raise Invalid.because(f"{OURS} is incomplete or malformed: {error}") from None


def _null_class(folder: Path, config: ModelConfig) -> int | None:
    """Return the embedding of the null class; the last in folders of earlier versions."""
    if not config.class_names or not config.has_null_class:
        return None
    last = len(config.class_names)
    null_class = _read_json(folder / OURS).get("null_class", last)
    check_whole("null_class", null_class, 0, last)
    assert isinstance(null_class, int)
    return null_class


# Weights ------------------------------------------------------------------------------------------


def read_weights(folder: Path, config: ModelConfig) -> dict[str, Float32]:
    """Return the parameters of the net by their names; the null class has the last embedding.

    Raises Invalid naming what is missing, or does not fit the config.
    """
    files = _weight_files(folder)
    wanted = unet_graph(config.net, config.image_size).parameters
    found = {name: array for path in files for name, array in _tensors(path)}
    for name, shape in wanted.items():
        if name not in found:
            raise Invalid.because(f"the weights lack the tensor {name!r}")
        if found[name].shape == (*shape, 1, 1):  # attention was 1x1 convolutions once
            found[name] = found[name].reshape(shape)
        if found[name].shape != shape:
            raise Invalid.because(
                f"the tensor {name!r} has shape {found[name].shape}; the net needs {shape}"
            )
    if surplus := sorted(set(found) - set(wanted)):
        raise Invalid.because(f"the weights hold {surplus[0]!r}, which the net does not have")
    for name, array in found.items():
        if not np.isfinite(array).all():
            raise Invalid.because(f"the tensor {name!r} holds NaN or infinite values")
    if (null_class := _null_class(folder, config)) is not None:
        rows = found[CLASSES]
        found[CLASSES] = np.concatenate([np.delete(rows, null_class, 0), rows[null_class, None]])
    return found


def _weight_files(folder: Path) -> list[Path]:
    """Return the one file of the weights, or the shards that an index lists; those of a variant
    where there are no others."""
    unet = _unet_folder(folder)
    whole, index = unet / WEIGHTS, unet / f"{WEIGHTS}.index.json"
    if whole.exists():
        return [whole]
    if index.exists():
        return _shards(index)
    variants = [*unet.glob(f"{_STEM}.*.safetensors"), *unet.glob(f"{_STEM}*.index*.json")]
    variants = sorted(path for path in variants if not _SHARD.search(path.name))
    if len(variants) > 1:
        names = ", ".join(path.name for path in variants)
        raise Invalid.because(f"the weights are there in several variants: {names}; keep one")
    if not variants:
        others = sorted(p.name for p in unet.glob(f"{_STEM}*"))
        instead = f" (there is {others[0]})" if others else ""
        raise Invalid.because(
            f"{WEIGHTS} is missing{instead}; weights are read from safetensors only, which "
            f"{CONVERT} makes of pickles"
        )
    (variant,) = variants
    return _shards(variant) if variant.suffix == ".json" else [variant]


def _shards(index: Path) -> list[Path]:
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(n, str) for n in places.values()):
        raise Invalid.because(f"{index.name} has no weight_map of tensors to files")
    for name in sorted(set(places.values())):
        if Path(name).name != name or not (index.parent / name).is_file():
            raise Invalid.because(f"{index.name} lists {name[:200]!r}, which is missing")
    return [index.parent / name for name in sorted(set(places.values()))]


def _tensors(path: Path) -> Iterator[tuple[str, Float32]]:
    """Yield the tensors of a file, in float32, under the names that they have today."""
    try:
        tensors = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except SafetensorError:
        raise Invalid.because(f"{path.name} is not a safetensors file, or it is damaged") from None
    for name, tensor in tensors:
        kind, data = tensor["dtype"], tensor["data"]
        if kind == "BF16":  # the upper half of a float32
            array = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif kind in _NUMBERS:
            array = np.frombuffer(data, _NUMBERS[kind]).astype(np.float32)
        else:
            raise Invalid.because(
                f"the tensor {name!r} has the type {kind}; supported are BF16, "
                f"{', '.join(_NUMBERS)}"
            )
        yield modern_name(name), array.reshape(tensor["shape"])


# JSON ---------------------------------------------------------------------------------------------


def write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


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
