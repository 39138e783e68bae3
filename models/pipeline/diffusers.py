"""A model's configs to and from those of diffusers: UNet2DModel and its schedulers.

`JsonObject` is the content of one of diffusers' files.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from itertools import product
from typing import Any

import numpy as np

from models.diffusion.config import ModelConfig, SamplingConfig, Variance
from models.diffusion.prediction import PREDICTIONS, PredictionType
from models.diffusion.schedule import (
    SCHEDULES,
    NoiseSchedule,
    ScheduleConfig,
    ScheduleName,
)
from models.fields import Invalid
from models.nets.config import UNetConfig

JsonObject = Mapping[str, Any]

# diffusers' names and ours.
_PREDICTIONS = {kind.diffusers: name for name, kind in PREDICTIONS.items() if kind.diffusers}
_BETA_SCHEDULES: dict[str, ScheduleName] = {
    **{kind.diffusers: name for name, kind in SCHEDULES.items() if kind.diffusers},
    "squaredcos_cap_v2": "cosine",
}

_OF_BETAS = tuple(name for name, kind in SCHEDULES.items() if kind.family.is_variance_preserving)

# Fields of a UNet2DModel, with the only values that our net implements.
_FIXED = {
    "act_fn": ("silu", "swish"),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "mid_block_scale_factor": (1, 1.0),
    "mid_block_type": ("UNetMidBlock2D",),
    "num_train_timesteps": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
}
# What a scheduler with a beta_schedule says, beside its schedule, of how a model is sampled.
_SPACINGS = ("leading", "trailing", "linspace")
# Their spacings are ours; what others call `leading` and `linspace` are other levels.
_OF_OUR_SPACINGS = {"DDIMScheduler", "DDPMScheduler"}
_VARIANCES: dict[str, Variance] = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",  # the same, computed by way of its logarithm
    "fixed_large": "fixed_large",
}
_READ = {
    *("num_train_timesteps", "prediction_type", "beta_schedule", "beta_start", "beta_end"),
    *("trained_betas", "rescale_betas_zero_snr", "clip_sample", "clip_sample_range"),
    *("thresholding", "dynamic_thresholding_ratio", "sample_max_value", "set_alpha_to_one"),
    *("timestep_spacing", "steps_offset", "variance_type"),
}
_READ_OF_EDM = {
    *("num_train_timesteps", "prediction_type", "sigma_schedule", "final_sigmas_type"),
    *("sigma_min", "sigma_max", "sigma_data", "rho"),
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
    schedule, sampling = config.schedule, config.sampling
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
        "variance_type": sampling.variance,
        "clip_sample": sampling.clip is not None,
        "clip_sample_range": sampling.clip or 1.0,
        "timestep_spacing": sampling.spacing or "trailing",
        "steps_offset": sampling.steps_offset,
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
        sampling=_sampling(scheduler),
    )


def sampler_fields(scheduler: JsonObject) -> list[str]:
    """Return the fields that the config does not take, as `solver_order`: they say how the
    scheduler samples, and here each request chooses its sampler."""
    read = _READ_OF_EDM if _is_edm(scheduler) else _READ
    if not _is_edm(scheduler) and not _says_our_spacing(scheduler):
        read = read - {"timestep_spacing", "steps_offset"}
    return [name for name in scheduler if name not in read and not name.startswith("_")]


def _says_our_spacing(scheduler: JsonObject) -> bool:
    is_trailing = scheduler.get("timestep_spacing") == "trailing"
    return is_trailing or scheduler.get("_class_name") in _OF_OUR_SPACINGS


def _schedule(peer: JsonObject) -> ScheduleConfig:
    renamed = {
        "num_train_timesteps": "num_train_timesteps",
        "beta_start": "beta_start",
        "beta_end": "beta_end",
        "rescale_betas_zero_snr": "rescale_zero_terminal_snr",
    }
    if _is_edm(peer):
        _check_supported(peer, "sigma_schedule", ("karras",))
        _check_supported(peer, "final_sigmas_type", ("zero",))
        name = "edm"
        renamed = {n: n for n in ("num_train_timesteps", "sigma_min", "sigma_max", "rho")}
    elif peer.get("trained_betas") is not None:
        return _schedule_of_betas(peer)
    elif "beta_schedule" in peer:
        _check_supported(peer, "beta_schedule", tuple(_BETA_SCHEDULES))
        name = _BETA_SCHEDULES[peer["beta_schedule"]]
    else:
        raise Invalid.because(
            f"scheduler config: _class_name is {peer.get('_class_name')!r}; supported are "
            "EDMEulerScheduler and the schedulers with a beta_schedule"
        )
    values: JsonObject = {ours: peer[theirs] for theirs, ours in renamed.items() if theirs in peer}
    return ScheduleConfig(**{"name": name, **values})


def _schedule_of_betas(peer: JsonObject) -> ScheduleConfig:
    """Return the schedule that has these betas; `cosine` and `sigmoid` are exported so."""
    betas = np.asarray(peer["trained_betas"], np.float64)
    steps, rescale = peer.get("num_train_timesteps", 1000), peer.get("rescale_betas_zero_snr")
    rescaled = (True,) if rescale else (False, True)
    if betas.shape == (steps,) and steps > 1 and np.isfinite(betas).all():
        said = float(peer.get("beta_start", 1e-4)), float(peer.get("beta_end", 0.02))
        low, high = np.clip([betas.min(), betas.max()], 1e-8, 0.9999).tolist()  # BETA
        for name, ends, is_rescaled in product(_OF_BETAS, {said, (low, high)}, rescaled):
            config = ScheduleConfig(
                name,
                steps,
                beta_start=ends[0],
                beta_end=ends[1],
                rescale_zero_terminal_snr=is_rescaled,
            )
            plain = replace(config, rescale_zero_terminal_snr=is_rescaled and not rescale)
            if np.allclose(NoiseSchedule.from_config(plain).betas, betas, rtol=1e-4, atol=1e-9):
                return config
    shown = repr(peer["trained_betas"])[:100]
    raise Invalid.because(
        f"scheduler config: trained_betas is {shown}; supported are the betas of one of "
        f"{_OF_BETAS}, one for each of num_train_timesteps"
    )


def _sampling(peer: JsonObject) -> SamplingConfig:
    if _is_edm(peer):
        return SamplingConfig()
    _check_supported(peer, "thresholding", (False, None))
    _check_supported(peer, "set_alpha_to_one", (True,))
    _check_supported(peer, "variance_type", (*_VARIANCES, None))
    _check_supported(peer, "timestep_spacing", _SPACINGS)
    is_ours = _says_our_spacing(peer)
    clip = peer.get("clip_sample_range") or 1.0
    return SamplingConfig(
        clip=float(clip) if peer.get("clip_sample", True) else None,
        spacing=peer.get("timestep_spacing", "leading") if is_ours else None,
        steps_offset=peer.get("steps_offset", 0) if is_ours else 0,
        variance=_VARIANCES[peer.get("variance_type") or "fixed_small"],
    )


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
