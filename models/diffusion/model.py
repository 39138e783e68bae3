"""A diffusion model that describes itself: its config and its network."""

from dataclasses import dataclass
from functools import cached_property

import torch

from models.diffusion.config import ModelConfig
from models.diffusion.prediction import Prediction
from models.diffusion.schedule import NoiseSchedule
from models.nets.unet import UNet


@dataclass(frozen=True)
class DiffusionModel:
    """A network with its config, ready to denoise."""

    config: ModelConfig
    net: UNet

    @cached_property
    def schedule(self) -> NoiseSchedule:
        return NoiseSchedule.from_config(self.config.schedule)

    @cached_property
    def prediction(self) -> Prediction:
        return self.config.prediction

    @property
    def null_label(self) -> int:
        """The class index that stands for "any", in a model that has_null_class."""
        return len(self.config.class_names)

    @property
    def device(self) -> torch.device:
        return self.net.conv_in.weight.device
