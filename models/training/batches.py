"""The images that a training step sees: a function of (seed, step), so that a run can go on exactly
where it stopped, and several processes can share a batch without communicating.

No worker process loads the data: the images are uint8 and stay on the network's device, or in their
memory map.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.arrays import to_float
from models.diffusion.noise import Stream, permutation
from models.images.dataset import Dataset
from models.training.config import TrainConfig

DEVICE_SHARE = 0.25  # of a GPU's free memory that images may take


@dataclass(frozen=True)
class Split:
    """Positions in a dataset: int64, disjoint. `held_out` is never trained on."""

    training: Tensor
    held_out: Tensor

    @classmethod
    def of(cls, dataset: Dataset, config: TrainConfig) -> "Split":
        return cls.of_seed(dataset, config.seed, config.held_out)

    @classmethod
    def of_seed(cls, dataset: Dataset, seed: int, most: int) -> "Split":
        """Hold out the images that the archive sets apart; if there are none, `most` of all, and at
        most a tenth."""
        count = len(dataset.images)
        shuffled = torch.from_numpy(permutation(seed, count, Stream.HELD_OUT))
        if len(dataset.set_apart):
            is_apart = torch.zeros(count, dtype=torch.bool)
            is_apart[torch.from_numpy(dataset.set_apart)] = True
            return cls((~is_apart).nonzero()[:, 0], shuffled[is_apart[shuffled]])
        held_out = min(most, count // 10)
        return cls(shuffled[held_out:].sort().values, shuffled[:held_out].sort().values)


class BatchOrder:
    """The order of the images: batch n is positions n B .. (n + 1) B of an endless row of
    permutations, one for each epoch."""

    def __init__(self, seed: int, positions: Tensor, batch_size: int) -> None:
        self._seed, self._positions, self._batch_size = seed, positions, batch_size
        self._epochs: dict[int, Tensor] = {}

    def batch(self, step: int) -> Tensor:
        size = len(self._positions)
        first, last = step * self._batch_size, (step + 1) * self._batch_size  # exclusive
        epochs = range(first // size, (last - 1) // size + 1)
        self._epochs = {e: self._epoch(e) for e in epochs}
        return torch.cat(
            [self._epochs[e][max(0, first - e * size) : last - e * size] for e in epochs]
        )

    def _epoch(self, epoch: int) -> Tensor:
        if epoch in self._epochs:
            return self._epochs[epoch]
        shuffled = permutation(self._seed, len(self._positions), Stream.ORDER, step=epoch)
        return self._positions[torch.from_numpy(shuffled)]


class Images:
    """A dataset as a device reads it: on a GPU that has room for it, else from where it is."""

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        self._device = device
        self._images: Tensor | None = None
        self._stored = dataset.images
        self._labels = torch.from_numpy(dataset.labels).to(device)
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if dataset.images.nbytes < DEVICE_SHARE * free:
                self._images = torch.from_numpy(np.array(dataset.images)).to(device)

    def take(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return images float32 (B, C, H, W) in [-1, 1] and labels int64 (B,) on the device."""
        if self._images is not None:
            positions = positions.to(self._device)
            return to_float(self._images[positions]), self._labels[positions]
        images = torch.from_numpy(self._stored[positions.numpy()])
        return to_float(images.to(self._device)), self._labels[positions.to(self._device)]
