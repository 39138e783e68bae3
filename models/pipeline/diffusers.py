"""A model's configs to and from those of diffusers: UNet2DModel and its schedulers.

`JsonObject` is the content of one of diffusers' files.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from models.diffusion.config import ModelConfig
from models.diffusion.prediction import PREDICTIONS, PredictionType
from models.diffusion.schedule import SCHEDULES, NoiseSchedule, ScheduleConfig, ScheduleName
from models.fields import Invalid
from models.nets.config import UNetConfig

JsonObject = Mapping[str, Any]

# diffusers' names and ours.
_PREDICTIONS = {kind.diffusers: name for name, kind in PREDICTIONS.items() if kind.diffusers}
_BETA_SCHEDULES: dict[str, ScheduleName] = {
    **{kind.diffusers: name for name, kind in SCHEDULES.items() if kind.diffusers},
    "squaredcos_cap_v2": "cosine",
}

# Fields of a UNet2DModel, with the only values that our net implements.
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


# To diffusers -------------------------------------------------------------------------------------


def unet_config(config: ModelConfig) -> JsonObject:
    """Return the config.json of an equal UNet2DModel."""
    height, width = config.image_size
    return {
        "_class_name": "UNet2DModel",
        "sample_size": height if height == width else [height, width],
        "act_fn": "silu",
        "time_embedding_type": "positional",
        **asdict(config.net),
    }


def scheduler_config(config: ModelConfig) -> JsonObject:
    """Return the scheduler_config.json of the scheduler that samples such a model."""
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
    betas: dict[str, object] = {
        "beta_schedule": schedule.name,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "rescale_betas_zero_snr": schedule.rescale_zero_terminal_snr,
    }
    if SCHEDULES[schedule.name].diffusers is None:  # numbers instead of a name
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


def net_config(peer: JsonObject) -> UNetConfig:
    """Return the net of a UNet2DModel's config.

    Raises Invalid for a value that is not supported.
    """
    for field, allowed in _FIXED.items():
        if field in peer and peer[field] not in allowed:
            raise Invalid.because(f"unet config: {field} is {peer[field]!r}; supported: {allowed}")
    known = {field.name for field in fields(UNetConfig)}
    # A missing field has diffusers' default, which is not always ours.
    values: dict[str, object] = {
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


def model_config(net: UNetConfig, unet: JsonObject, scheduler: JsonObject) -> ModelConfig:
    """Return the config of a model that diffusers saved, from its two config files.

    They do not tell an embedding of no class from those of classes: each is taken for a class.
    """
    size = unet.get("sample_size") or 32
    return ModelConfig(
        net=net,
        schedule=_schedule(scheduler),
        prediction_type=_prediction(scheduler),
        sigma_data=float(scheduler.get("sigma_data", 0.5)),
        image_size=(size, size) if isinstance(size, int) else tuple(size),
        class_names=tuple(str(i) for i in range(net.num_class_embeds or 0)),
    )


def _schedule(peer: JsonObject) -> ScheduleConfig:
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
    values: JsonObject = {ours: peer[theirs] for theirs, ours in renamed.items() if theirs in peer}
    return ScheduleConfig(**{"name": name, **values})


def _prediction(peer: JsonObject) -> PredictionType:
    if _is_edm(peer):
        _check_supported(peer, "prediction_type", ("epsilon",))
        return "edm"
    _check_supported(peer, "prediction_type", tuple(_PREDICTIONS))
    return _PREDICTIONS[peer.get("prediction_type", "epsilon")]


def _is_edm(peer: JsonObject) -> bool:
    return peer.get("_class_name") == "EDMEulerScheduler"


def _check_supported(peer: JsonObject, field: str, supported: tuple[object, ...]) -> None:
    if field in peer and peer[field] not in supported:
        shown = repr(peer[field])[:100]
        raise Invalid.because(f"scheduler config: {field} is {shown}; supported: {supported}")


def modern_name(name: str) -> str:
    """Return the present name of a tensor that an early diffusers saved."""
    parts = name.split(".")
    if len(parts) > 1 and "attentions" in parts and parts[-2] in _LEGACY_ATTENTION:
        parts[-2] = _LEGACY_ATTENTION[parts[-2]]
    return ".".join(parts)
