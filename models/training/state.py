"""The state of a training: the weights, their average, the optimiser, and how far it is."""

import copy
import time
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from models.arrays import to_float
from models.diffusion.model import DiffusionModel
from models.images.dataset import Dataset
from models.nets.unet import UNet
from models.training.adam import Adam
from models.training.augment import NUM_LABELS
from models.training.config import TrainConfig
from models.training.muon import Muon
from models.training.objective import LearnedWeighting

ADAM_BETAS = (0.9, 0.99)


@dataclass
class TrainState:
    """Everything that training changes.

    `auxiliary` holds modules that are learned beside the model and do not become part of it.
    `seconds` is the time spent in earlier runs. `trained` lists the parameters of net and
    auxiliary, `averages` those of ema: collecting them from the modules would take a twentieth of
    a small step.
    """

    config: TrainConfig
    model: DiffusionModel
    ema: UNet
    auxiliary: nn.ModuleDict
    optimizer: Adam
    step: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    trained: list[nn.Parameter] = field(init=False, repr=False)
    averages: list[Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.trained = [*self.model.net.parameters(), *self.auxiliary.parameters()]
        self.averages = list(self.ema.parameters())

    @classmethod
    def create(cls, config: TrainConfig, dataset: Dataset, device: str = "cpu") -> "TrainState":
        """Return a state with fresh weights, a function of the seed."""
        sigma_data = config.sigma_data or measure_sigma_data(dataset)
        torch.manual_seed(config.seed)
        return cls.assemble(config, sigma_data, UNet(config.net), device)

    @classmethod
    def assemble(
        cls, config: TrainConfig, sigma_data: float, net: UNet, device: str
    ) -> "TrainState":
        """Return a state around a net that has its weights already.

        The optimiser and the auxiliary modules are new.
        """
        net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        ema = copy.deepcopy(net).requires_grad_(False).eval()
        auxiliary = _auxiliary(config).to(device)
        parameters = chain(net.parameters(), auxiliary.parameters())
        if config.optimizer == "muon":
            optimizer: Adam = Muon(parameters, _inner(net), ADAM_BETAS, fused=True)
        else:
            optimizer = Adam(parameters, ADAM_BETAS, fused=True)
        model = DiffusionModel(config.model_config(sigma_data), net)
        return cls(config, model, ema, auxiliary, optimizer)

    @property
    def images_seen(self) -> int:
        return self.step * self.config.batch_size

    def elapsed(self) -> float:
        """Return the seconds of training, over all runs."""
        return self.seconds + time.monotonic() - self.started

    def progress(self) -> float:
        """Return the share of the budget that is used, in 0..1."""
        used = [0.0]
        if self.config.steps is not None:
            used.append(self.step / self.config.steps)
        if self.config.minutes is not None:
            used.append(self.elapsed() / (60.0 * self.config.minutes))
        return min(1.0, max(used))

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that the optimiser changes, by the names that checkpoints store."""
        beside = {f"extras.{name}": p for name, p in self.auxiliary.named_parameters()}
        return {**dict(self.model.net.named_parameters()), **beside}

    def ema_model(self) -> DiffusionModel:
        """Return the model with the averaged weights, as a view, not a copy. It is the one that is
        evaluated, sampled and kept."""
        return DiffusionModel(self.model.config, self.ema)


def _inner(net: UNet) -> list[nn.Parameter]:
    """Return the matrices between the first and the last convolution, without the embeddings of
    classes."""
    outer = ("conv_in.", "conv_out.", "class_embedding.")
    return [p for name, p in net.named_parameters() if p.ndim >= 2 and not name.startswith(outer)]


def measure_sigma_data(dataset: Dataset) -> float:
    """Return the pixels' standard deviation in [-1, 1], at least 0.05, from up to 4,096 images."""
    stride = max(1, len(dataset.images) // 4096)
    return max(0.05, float(to_float(torch.from_numpy(np.array(dataset.images[::stride]))).std()))


def _auxiliary(config: TrainConfig) -> nn.ModuleDict:
    auxiliary = nn.ModuleDict()
    if config.loss_weighting == "learned":
        auxiliary["weighting"] = LearnedWeighting()
    if config.augmentation:
        embedding = nn.Linear(NUM_LABELS, 4 * config.net.block_out_channels[0], bias=False)
        nn.init.zeros_(embedding.weight)
        auxiliary["augmentation"] = embedding
    return auxiliary
