"""A model's folder, loaded for the engine."""

import logging
from pathlib import Path

from models.arrays import library
from models.fields import Invalid
from models.pipeline.folder import read_config, read_weights
from models.runtime.net import EngineModel

log = logging.getLogger(__name__)


def load_engine_model(folder: Path, device: str = "cpu", cache: Path | None = None) -> EngineModel:
    """Return the model of a folder, computed by OpenVINO on a CPU and by torch elsewhere, or where
    OpenVINO cannot. Each is loaded only where it is needed. `cache` is a folder for what is
    measured once on a machine.

    Raises Invalid as models.pipeline.folder does.
    """
    if device == "cpu":
        config = read_config(folder)
        weights = read_weights(folder, config)
        try:
            from models.runtime.openvino import openvino_engine_model

            return openvino_engine_model(config, weights, cache)
        except (ImportError, RuntimeError) as error:
            log.warning("OpenVINO cannot run this network; torch does, slower: %s", error)
    from models.pipeline.torch_folder import load_model
    from models.runtime.torch_net import torch_engine_model

    return torch_engine_model(load_model(folder, device))


def runtime_name(device: str = "cpu") -> str:
    """Load the library that computes networks on this device, and return its name and version."""
    if device == "cpu":
        try:
            from models.runtime.openvino import NAME

            return NAME
        except ImportError as error:
            log.warning("OpenVINO cannot be loaded; torch computes networks, slower: %s", error)
    import torch

    return f"torch {torch.__version__}"


def error_in(folder: Path, device: str = "cpu") -> str | None:
    """Load the model of a folder and call its network once; return what is wrong with it."""
    try:
        model = load_engine_model(folder, device)
        config, net = model.config, model.net("float32")
        xp, like = library(net.like), net.like
        label = None
        if config.class_names:
            label = xp.zeros(1, dtype=xp.int64, device=like.device)
        shape = (1, config.net.in_channels, *config.image_size)
        x = xp.zeros(shape, dtype=xp.float32, device=like.device)
        y = net(x, xp.ones(1, dtype=xp.float32, device=like.device), label)
        is_finite = bool(xp.isfinite(y).all())
    except Invalid as error:
        return str(error)
    except (RuntimeError, ArithmeticError, TypeError, ValueError, MemoryError) as error:
        return f"the network cannot be run: {str(error)[:200]}"
    return None if is_finite else "the network's output is not finite"
