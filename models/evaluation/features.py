"""Feature nets: they turn an image into numbers that images are compared by. None is downloaded.

    pixels              the pixels themselves, in [-1, 1]
    classifier          the last layer but one of a small net that learned the data's own classes
    random              a convolutional net with fixed random weights, for data without classes
    vision_transformer  DINOv2 from a local folder (models.nets.vision_transformer)

Distances between features mean nothing across two nets, or two datasets: a classifier knows only
the differences between its classes, and random weights see textures and brightness rather than
objects. They are read beside the distance between two sets of real images.

The scale of `pixels` is that of the nets' own images. In it two random halves of the digits
(scikit-learn's, 8 x 8) have a Frechet distance of 0.26 to 0.32, and a digit's nearest other one
is 2.1 away (the median).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad

from models.arrays import Float64, Int64, UInt8, to_float
from models.diffusion.noise import Stream, bits, normal, uniform
from models.fields import Invalid
from models.images.dataset import Dataset
from models.images.gathered import Images
from models.nets.vision_transformer import load_vision_transformer, normalised
from models.sampling.generate import Stopped
from models.training.adam import Adam

FeatureName = Literal["auto", "pixels", "classifier", "random"]
FEATURE_NAMES: tuple[FeatureName, ...] = get_args(FeatureName)

MAX_SIDE = 32  # pixels; larger images are scaled down for all but the vision transformer
BATCH_SIZE = 256
MAX_HELD_OUT = 2000  # default size of the classifier's test split
# A key that differs from every caller's seed: training and sampling never see the same bits.
_KEY = 0x5EED_FEA7


class FeatureNet(ABC):
    """A function of uint8 images (N, H, W, C) to their float64 features (N, D)."""

    name: str
    device: torch.device = torch.device("cpu")

    def __call__(
        self,
        images: Images,
        positions: Int64 | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Float64:
        """Return the features of all images, or of those at `positions`, which are read as they are
        needed.

        Raises Stopped between batches once `stopped` returns True.
        """
        if positions is None:
            positions = np.arange(len(images))
        batches = []
        for start in range(0, len(positions), BATCH_SIZE):
            if stopped():
                raise Stopped
            batches.append(self._features(images[positions[start : start + BATCH_SIZE]]))
        return np.concatenate(batches)

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Return the features (B, D) of x (B, C, H, W) in [-1, 1]."""

    @torch.inference_mode()
    def _features(self, images: UInt8) -> Float64:
        return self.embed(to_float(torch.from_numpy(images)).to(self.device)).double().cpu().numpy()


def choose_features(
    dataset: Dataset,
    features: str = "auto",
    held_out: Int64 | None = None,
    device: str = "cpu",
    stopped: Callable[[], bool] = lambda: False,
) -> FeatureNet:
    """Return the net of that name, or the vision transformer in the folder of that path.

    `auto` is a classifier if the data has at least two classes, else `random`. A classifier does
    not learn from the images at `held_out`.

    Raises Invalid if a classifier is asked for and the data has no classes, or if the folder holds
    no model.
    """
    if features == "auto":
        features = "classifier" if len(dataset.class_names) > 1 else "random"
    match features:
        case "pixels":
            return Pixels()
        case "classifier":
            return train_classifier(dataset, held_out, device=device, stopped=stopped)
        case "random":
            return RandomNet(dataset.images.shape[3], device)
        case _:
            return VisionTransformerFeatures(Path(features), device)


def shrunk(x: Tensor) -> Tensor:
    """Scale (B, C, H, W) down to a longer side of at most MAX_SIDE."""
    scale = MAX_SIDE / max(x.shape[2:])
    if scale >= 1.0:
        return x
    size = [max(1, round(side * scale)) for side in x.shape[2:]]
    return interpolate(x, size, mode="bilinear", antialias=True)


# Without training ---------------------------------------------------------------------------------


class Pixels(FeatureNet):
    """The pixels themselves, of images scaled down to MAX_SIDE."""

    name = "pixels"

    def embed(self, x: Tensor) -> Tensor:
        return shrunk(x).flatten(1)


class RandomNet(FeatureNet):
    """Three scales of filters with random weights; the features are each channel's mean and
    maximum."""

    name = "random"
    WIDTHS = (32, 64, 64)

    def __init__(self, channels: int, device: str = "cpu") -> None:
        self.device = torch.device(device)
        widths = (channels, *self.WIDTHS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, padding_mode="replicate")
            for before, after in pairwise(widths)
        )
        _fill(self.convolutions)
        self.convolutions.to(self.device).requires_grad_(False)

    def embed(self, x: Tensor) -> Tensor:
        x, pooled = shrunk(x), []
        for convolution in self.convolutions:
            x = torch.relu(convolution(x))
            pooled += [x.mean(dim=(2, 3)), x.amax(dim=(2, 3))]
            if min(x.shape[2:]) > 1:
                x = nn.functional.avg_pool2d(x, 2)
        return torch.cat(pooled, dim=1)


class VisionTransformerFeatures(FeatureNet):
    """The class tokens of DINOv2."""

    name = "vision_transformer"

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.net = load_vision_transformer(folder, device)

    def embed(self, x: Tensor) -> Tensor:
        # In parts: at 224 pixels a side, activations of a whole batch take much memory.
        parts = (x[i : i + 16] for i in range(0, len(x), 16))
        return torch.cat([self.net(normalised(part)) for part in parts])


def _fill(net: nn.Module) -> None:
    """Set weights that keep the size of activations (He et al. 2015), the same on every machine,
    and biases of 0."""
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for i, layer in enumerate(layers):
        weights = normal(_KEY, torch.tensor([i]), 0, layer.weight.shape, Stream.IMAGE)[0]
        layer.weight.data = weights * math.sqrt(2.0 / weights[0].numel())
        if layer.bias is not None:
            layer.bias.data.zero_()


# Classifier ---------------------------------------------------------------------------------------


class Classifier(FeatureNet):
    """A classifier of the data's classes; its features are the last layer but one. `accuracy` is
    that on images that it did not learn from, None without any."""

    name = "classifier"

    def __init__(self, net: "ClassifierNet", device: str, accuracy: float | None = None) -> None:
        self.net, self.device, self.accuracy = net, torch.device(device), accuracy

    def embed(self, x: Tensor) -> Tensor:
        return self.net.features(shrunk(x))

    @torch.inference_mode()
    def classify(self, features: Float64) -> Int64:
        """Return the likeliest class of each image, (N,), by its features."""
        logits = self.net.head(torch.from_numpy(features).float().to(self.device))
        return np.asarray(logits.argmax(dim=1).cpu().numpy())


class ClassifierNet(nn.Module):
    """Three convolutions, each at half the resolution while it is above 4, and two layers."""

    WIDTHS = (32, 64, 128)
    FEATURES = 64

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        widths = (channels, *self.WIDTHS)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))
            for before, after in pairwise(widths)
        )
        self.squeeze = nn.Linear(4 * self.WIDTHS[-1], self.FEATURES)
        self.head = nn.Linear(self.FEATURES, num_classes)

    def features(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.relu(block(x))
            if min(x.shape[2:]) > 4:
                x = nn.functional.max_pool2d(x, 2)
        x = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)  # where in the image still counts
        return torch.relu(self.squeeze(x))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def train_classifier(
    dataset: Dataset,
    held_out: Int64 | None = None,
    *,
    images_seen: int | None = None,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    device: str = "cpu",
    stopped: Callable[[], bool] = lambda: False,
) -> Classifier:
    """Train a classifier on the data; on a CPU it is a function of the data.

    `held_out` are positions that it is tested on and does not learn from; None takes a tenth.
    `images_seen` of None is some seconds of training for small images on two cores, a minute for
    those of MAX_SIDE.

    Raises Invalid if there are fewer than two classes, and Stopped once `stopped` returns True.
    """
    if len(dataset.class_names) < 2:
        raise Invalid.because(
            f"features is 'classifier', but the data has {len(dataset.class_names)} classes; "
            "it needs at least 2",
            field="features",
        )
    if held_out is None:
        held_out = _a_tenth(len(dataset.images))
    learned = np.setdiff1d(np.arange(len(dataset.images)), held_out)
    net = ClassifierNet(dataset.images.shape[3], len(dataset.class_names))
    _fill(net)
    net.to(device).train()
    images = _shrunk_images(dataset.images, learned)
    labels = torch.from_numpy(dataset.labels[learned])
    optimizer = Adam(net.parameters(), weight_decay=0.01)
    steps = math.ceil((images_seen or _enough_images(len(images))) / batch_size)
    for step in range(steps):
        if stopped():
            raise Stopped
        x, label = _batch(images, labels, step, batch_size)
        optimizer.zero_grad()
        loss = cross_entropy(net(x.to(device)), label.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(learning_rate * min(1.0, (step + 1) / 20) * (1.0 - step / steps))
    classifier = Classifier(net.eval().requires_grad_(False), device)
    if len(held_out):
        found = classifier.classify(classifier(dataset.images, held_out, stopped))
        classifier.accuracy = float((found == dataset.labels[held_out]).mean())
    return classifier


def _enough_images(count: int) -> int:
    """Return 15 times the number of images, within the bounds of a minute."""
    return min(60_000, max(20_000, 15 * count))


def _a_tenth(count: int) -> Int64:
    words = bits(_KEY, torch.zeros(1, dtype=torch.int64), 0, count, Stream.HELD_OUT)[0]
    order = np.argsort(words.numpy(), kind="stable")
    return np.sort(order[: min(MAX_HELD_OUT, count // 10)])


def _shrunk_images(images: Images, positions: Int64) -> Tensor:
    """Return the images at `positions` as the net sees them, (N, C, h, w) float32."""
    parts = [
        shrunk(to_float(torch.from_numpy(images[positions[start : start + BATCH_SIZE]])))
        for start in range(0, len(positions), BATCH_SIZE)
    ]
    return torch.cat(parts)


def _batch(images: Tensor, labels: Tensor, step: int, size: int) -> tuple[Tensor, Tensor]:
    """Draw images with replacement, and shift them by up to an eighth of a side."""
    slot = torch.arange(size)
    position = (uniform(_KEY, slot, step, Stream.ORDER)[:, 0] * len(images)).long()
    u = uniform(_KEY, slot, step, Stream.FLIP, 2)
    height, width = images.shape[2:]
    reach = (max(1, height // 8), max(1, width // 8))
    padded = pad(images[position], (reach[1], reach[1], reach[0], reach[0]), mode="replicate")
    top, left = ((u[:, i] * (2 * reach[i] + 1)).long() for i in range(2))
    rows = (top[:, None] + torch.arange(height))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width))[:, None, None, :]
    channel = torch.arange(images.shape[1])[None, :, None, None]
    return padded[slot[:, None, None, None], channel, rows, columns], labels[position]
