"""A model's folder, loaded for the engine."""

import logging
from pathlib import Path
from typing import get_args

from host.devices import NO_TORCH, has_torch
from models.arrays import library
from models.fields import Invalid
from models.nets.precision import FloatChoice, Precision, PrecisionChoice
from models.pipeline.folder import read_config, read_weights
from models.runtime.net import EngineModel

log = logging.getLogger(__name__)


def load_engine_model(folder: Path, device: str = "cpu", cache: Path | None = None) -> EngineModel:
    """Return the model of a folder, computed by OpenVINO on a CPU and by torch elsewhere, or where
    OpenVINO cannot. Each is loaded only where it is needed. `cache` is a folder for what is
    measured once on a machine.

    Raises Invalid as models.pipeline.folder does, and where torch would be needed and is missing.
    """
    why = f"on {device} torch runs networks"
    if device == "cpu":
        config = read_config(folder)
        weights = read_weights(folder, config)
        try:
            from models.runtime.openvino import openvino_engine_model

            return openvino_engine_model(config, weights, cache)
        except (ImportError, RuntimeError) as error:
            why = f"OpenVINO cannot run this network: {str(error)[:200]}"
            if has_torch():
                log.warning("torch does, slower: %s", why)
    _require_torch(why)
    from models.pipeline.torch_folder import load_model
    from models.runtime.torch_net import torch_engine_model

    return torch_engine_model(load_model(folder, device))


def runtime_name(device: str = "cpu") -> str:
    """Load the library that computes networks on this device, and return its name and version.

    Raises Invalid where there is none.
    """
    why = f"on {device} torch runs networks"
    if device == "cpu":
        try:
            from models.runtime.openvino import NAME

            return NAME
        except ImportError as error:
            why = f"OpenVINO cannot be loaded: {error}"
            if has_torch():
                log.warning("torch computes networks, slower: %s", why)
    _require_torch(why)
    import torch

    return f"torch {torch.__version__}"


def precisions(device: str = "cpu", cache: Path | None = None) -> dict[PrecisionChoice, Precision]:
    """Return what each choice of precision comes to on this device, int8 only where models can be
    computed in it; `cache` as above."""
    if device == "cpu":
        try:
            from models.runtime.openvino import resolve_precision

            choices: tuple[PrecisionChoice, ...] = get_args(PrecisionChoice)
            return {choice: resolve_precision(choice, cache) for choice in choices}
        except ImportError:
            pass  # runtime_name says so
    _require_torch(f"on {device} torch runs networks")
    from models.runtime.torch_net import precision_in_torch

    floats: tuple[FloatChoice, ...] = get_args(FloatChoice)
    return {choice: precision_in_torch(choice, device != "cpu") for choice in floats}


def _require_torch(why: str) -> None:
    """Raise Invalid, with the reason why torch is needed, where it is not installed."""
    if not has_torch():
        raise Invalid.because(f"{why}; {NO_TORCH}")


def load_checked(folder: Path, device: str = "cpu", cache: Path | None = None) -> EngineModel:
    """Load the model of a folder and call its network once.

    Raises Invalid where that fails, or gives no finite numbers.
    """
    try:
        model = load_engine_model(folder, device, cache)
        is_finite = _is_finite(model)
    except Invalid:
        raise
    except (RuntimeError, ArithmeticError, TypeError, ValueError, MemoryError) as error:
        raise Invalid.because(f"the network cannot be run: {str(error)[:200]}") from error
    if not is_finite:
        raise Invalid.because("the network's output is not finite")
    return model


def _is_finite(model: EngineModel) -> bool:
    config, net = model.config, model.net("float32")
    xp, device = library(net.like), net.like.device
    x = xp.zeros((1, config.channels, *config.image_size), dtype=xp.float32, device=device)
    label = xp.zeros(1, dtype=xp.int64, device=device) if config.class_names else None
    y = net(x, xp.ones(1, dtype=xp.float32, device=device), label)
    return bool(xp.isfinite(y).all())
