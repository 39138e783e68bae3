"""How good a model is: its images beside real ones, and the bits that it needs for unseen ones.

The images are those that the engine serves, in the precision asked for.

The real images are split in two: a reference, and images set apart from it. Every distance from
the model's images to the reference stands beside that from as many of the images set apart, and
that from as many images of noise. At a ratio of 1 to the former the model is as close as the data
is to itself; near the latter it makes noise, whose precision alone can look good.

Memorisation is measured by the distance to the nearest training image, in `pixels`
(models.evaluation.features): from the model's images, and from real images that it has not seen.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np

from models.arrays import Float64, Int64, UInt8, to_uint8
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import Stream, normal, permutation
from models.engine.alone import engine_steps
from models.engine.orders import Made
from models.evaluation.calibration import measured_ranges
from models.evaluation.config import MIN_IMAGES, EvaluationConfig
from models.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    nearest_of_blocks,
    precision_recall,
)
from models.evaluation.features import Classifier, FeatureNet, Pixels, choose_features
from models.evaluation.likelihood import bits_per_dimension
from models.fields import Invalid
from models.images.dataset import Dataset
from models.images.files import image_grid
from models.runtime.net import EngineModel
from models.sampling.generate import Stopped
from models.sampling.request import SampleRequest, plan_for

NEIGHBOURS = 3
MAX_PICTURED = 16
BLOCK = 2048  # training images whose pixels are in memory at once
CLOSE_PERCENTILE = 1.0  # of the unseen: nearer than this to a training image is suspect
# A key that differs from every caller's seed: training and sampling never see the same bits.
_KEY = 0x5EED_E7A1


# Yields the images of a request, each once and with its index, in any order. Raises Stopped.
MakeImages = Callable[[SampleRequest, EvaluationConfig], Iterator[tuple[int, UInt8]]]


@dataclass(frozen=True)
class Distances:
    """Distances of `num_images` images to `num_reference` real ones. `frechet`, `kernel`,
    `precision` and `recall` are in the feature net's space, `pixel_frechet` is in that of the
    pixels. `kernel` is below 0 for two parts of one set, which are more alike than two draws."""

    frechet: float
    kernel: float
    precision: float
    recall: float
    pixel_frechet: float
    num_images: int
    num_reference: int


@dataclass(frozen=True)
class Memorisation:
    """Medians of the distance to the nearest training image. `share_close` is the share of made
    images that are nearer than 99% of the unseen real ones. `unseen` and `share_close` are None if
    no images are known to be unseen."""

    made: float
    unseen: float | None
    share_close: float | None


@dataclass(frozen=True)
class Likelihood:
    """The mean over held-out images, with its standard error."""

    bits_per_dimension: float
    standard_error: float
    num_images: int


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation. `real` and `noise` are the standards of comparison for `made`.

    `feature_accuracy` is the classifier's on the real images set apart, from which it did not
    learn; `class_agreement` is the share of made images in which it sees the class that the model
    was asked for. They are None without a classifier, or without classes. The `precision` of
    `config` is the one that the images were made in.
    """

    features: str
    feature_accuracy: float | None
    made: Distances
    real: Distances
    noise: Distances
    memorisation: Memorisation
    class_agreement: float | None
    likelihood: Likelihood | None
    seconds: float
    config: EvaluationConfig

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class EvaluationStep:
    """A step of an evaluation. `progress`, in 0..1, is that of the stage alone. `result` and
    `neighbours_picture` are None before the last step. The picture (H, W, C) has in each row two of
    the made images that are nearest to a training image, each followed by its three nearest."""

    stage: str
    progress: float
    result: Evaluation | None = None
    neighbours_picture: UInt8 | None = None


def evaluate(
    model: DiffusionModel,
    served: EngineModel,
    dataset: Dataset,
    held_out: Int64 | None,
    config: EvaluationConfig,
    stopped: Callable[[], bool] = lambda: False,
    make: MakeImages | None = None,
) -> Iterator[EvaluationStep]:
    """Yield the steps of the stages `calibrating` (of int8, where its ranges are not known),
    `features`, `sampling`, `comparing`, `neighbours`, `likelihood` and `done`; the last has the
    result.

    `served` is the same model as the engine runs it, which makes the images; `make` may have them
    made elsewhere, too. `model` computes the likelihood, and its device the features. `held_out`
    are positions that the model was not trained on, or None if they are unknown.

    Raises Invalid if the data does not fit the model, and Stopped once `stopped` returns True.
    """
    started = time.monotonic()
    config = replace(config, precision=served.precision(config.precision))
    labels = _model_labels(model, dataset)
    unseen = np.zeros(0, np.int64) if held_out is None else np.asarray(held_out, np.int64)
    split = RealSplit.of(dataset.labels, unseen, config)

    if config.precision == "int8" and not config.ranges:
        yield EvaluationStep("calibrating", 0.0)
        config = replace(config, ranges=measured_ranges(model, stopped))
    yield EvaluationStep("features", 0.0)
    # The classifier must not learn from the images set apart: it has not seen the made ones either.
    net = choose_features(dataset, config.features, split.apart, str(model.device), stopped)
    asked = None if labels is None else _asked_labels(labels, config)
    yield EvaluationStep("sampling", 0.0)
    made = np.zeros((config.num_images, *dataset.images.shape[1:]), np.uint8)
    making = (make or _by_the_engine(served, stopped))(_request(asked, config), config)
    for count, (image, pixels) in enumerate(making, 1):
        made[image] = pixels
        yield EvaluationStep("sampling", count / config.num_images)

    yield EvaluationStep("comparing", 0.0)
    real = RealFeatures.of(net, dataset, split, stopped)
    made_features = net(made, None, stopped)
    made_distances = real.distances(made_features[: split.count], Pixels()(made[: split.count]))
    yield EvaluationStep("comparing", 0.5)
    real_distances = real.distances(real.apart, real.apart_pixels)
    noise = _noise(split.count, dataset.images.shape[1:])
    noise_distances = real.distances(net(noise, None, stopped), Pixels()(noise))

    yield EvaluationStep("neighbours", 0.0)
    training = np.setdiff1d(np.arange(len(dataset.images)), unseen)
    memorisation, picture = _memorisation(dataset, training, unseen, made, stopped)

    likelihood = None
    if len(unseen) and config.likelihood_images:
        yield EvaluationStep("likelihood", 0.0)
        likelihood = _likelihood(model, dataset, labels, unseen, config, stopped)
    result = Evaluation(
        features=net.name,
        feature_accuracy=net.accuracy if isinstance(net, Classifier) else None,
        made=made_distances,
        real=real_distances,
        noise=noise_distances,
        memorisation=memorisation,
        class_agreement=_agreement(net, made_features, asked, model, dataset),
        likelihood=likelihood,
        seconds=time.monotonic() - started,
        config=config,
    )
    yield EvaluationStep("done", 1.0, result, picture)


# Which images -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RealSplit:
    """Disjoint positions of real images: `apart`, as many as are made, or half of all if those are
    fewer, and the `reference` that both are compared with."""

    apart: Int64
    reference: Int64

    @property
    def count(self) -> int:
        return len(self.apart)

    @classmethod
    def of(cls, labels: Int64, unseen: Int64, config: EvaluationConfig) -> "RealSplit":
        """Set the unseen images apart first. Each class has its share on both sides, as among the
        labels that the model is asked for."""
        count = len(labels)
        if count < MIN_IMAGES:
            raise Invalid.because(f"the data has {count} images; at least {MIN_IMAGES} are needed")
        size, shuffled = min(config.num_images, count // 2), _shuffled(count)

        def others(taken: Int64) -> Int64:
            return _by_class(shuffled[~np.isin(shuffled, taken)], labels)

        apart = _spread(_by_class(unseen, labels), size)
        apart = np.concatenate([apart, _spread(others(apart), size - len(apart))])
        return cls(np.sort(apart), np.sort(_spread(others(apart), config.num_reference)))


def _by_class(positions: Int64, labels: Int64) -> Int64:
    return positions[np.argsort(labels[positions], kind="stable")]


def _shuffled(count: int) -> Int64:
    return permutation(_KEY, count, Stream.ORDER)


def _spread(positions: Int64, most: int) -> Int64:
    """Return at most so many positions, evenly over all."""
    if len(positions) <= most:
        return positions
    return positions[np.arange(most) * len(positions) // most]


def _noise(count: int, shape: tuple[int, ...]) -> UInt8:
    """Return images (count, H, W, C) of standard normal noise, which sampling begins with."""
    height, width, channels = shape
    images = np.zeros((count, *shape), np.uint8)
    for start in range(0, count, BLOCK):
        index = np.arange(start, min(count, start + BLOCK))
        images[index] = to_uint8(normal(_KEY, index, 0, (channels, height, width)))
    return images


def _model_labels(model: DiffusionModel, dataset: Dataset) -> Int64 | None:
    """Return each image's class by the model's index; None for a model without classes."""
    size, channels = model.config.image_size, model.config.net.out_channels
    if dataset.images.shape[1:] != (*size, channels):
        raise Invalid.because(
            f"the images have the shape {dataset.images.shape[1:]}; "
            f"the model's have {(*size, channels)}"
        )
    names = model.config.class_names
    if not names:
        return None
    if unknown := [name for name in dataset.class_names if name not in names]:
        raise Invalid.because(
            f"the data has the class {unknown[0]!r}, which the model does not know"
        )
    if not dataset.class_names:
        raise Invalid.because("the data has no classes, but the model makes images by class")
    return np.array([names.index(name) for name in dataset.class_names])[dataset.labels]


def _asked_labels(labels: Int64, config: EvaluationConfig) -> Int64:
    """Return labels for the made images, each as often as in the data, shuffled."""
    places = (np.arange(config.num_images) * 2 + 1) * len(labels) // (2 * config.num_images)
    return np.sort(labels)[places][_shuffled(config.num_images)]


def _request(asked: Int64 | None, config: EvaluationConfig) -> SampleRequest:
    return SampleRequest(
        seed=config.seed,
        num_images=config.num_images,
        sampler=config.sampler,
        num_inference_steps=config.num_inference_steps,
        labels=None if asked is None else tuple(asked.tolist()),
        guidance_scale=config.guidance_scale,
    )


def _by_the_engine(served: EngineModel, stopped: Callable[[], bool]) -> MakeImages:
    def make(request: SampleRequest, config: EvaluationConfig) -> Iterator[tuple[int, UInt8]]:
        plan = plan_for(served.config, request)
        steps = engine_steps(served, plan, precision=config.precision, ranges=config.ranges)
        for events in steps:
            if stopped():
                raise Stopped
            yield from ((event.image, event.pixels) for event in events if isinstance(event, Made))

    return make


# Comparisons --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RealFeatures:
    """Features of the reference and of the real images set apart from it, (N, D), in the feature
    net's space and in that of the pixels."""

    apart: Float64
    reference: Float64
    reference_pixels: Float64
    apart_pixels: Float64

    @classmethod
    def of(
        cls, net: FeatureNet, dataset: Dataset, split: RealSplit, stopped: Callable[[], bool]
    ) -> "RealFeatures":
        images = dataset.images
        return cls(
            net(images, split.apart, stopped),
            net(images, split.reference, stopped),
            Pixels()(images, split.reference, stopped),
            Pixels()(images, split.apart, stopped),
        )

    def distances(self, features: Float64, pixels: Float64) -> Distances:
        # Precision and recall are comparable only between equal numbers of images.
        equal = np.arange(len(self.reference))
        precision, recall = precision_recall(
            self.reference[_spread(equal, len(features))], features
        )
        return Distances(
            frechet=frechet_distance(self.reference, features),
            kernel=kernel_distance(self.reference, features),
            precision=precision,
            recall=recall,
            pixel_frechet=frechet_distance(self.reference_pixels, pixels),
            num_images=len(features),
            num_reference=len(self.reference),
        )


def _memorisation(
    dataset: Dataset,
    training: Int64,
    unseen: Int64,
    made: UInt8,
    stopped: Callable[[], bool],
) -> tuple[Memorisation, UInt8]:
    """Return the numbers, and the picture of the nearest neighbours."""
    pixels = Pixels()
    queries = [pixels(made, None, stopped)]
    if len(unseen):
        queries.append(pixels(dataset.images, unseen, stopped))
    blocks = (
        pixels(dataset.images, training[start : start + BLOCK], stopped)
        for start in range(0, len(training), BLOCK)
    )
    index, distance = nearest_of_blocks(blocks, np.concatenate(queries), NEIGHBOURS)
    of_made, of_unseen = distance[: len(made), 0], distance[len(made) :, 0]
    median, share = None, None
    if len(unseen):
        median = float(np.median(of_unseen))
        share = float((of_made < np.percentile(of_unseen, CLOSE_PERCENTILE)).mean())
    numbers = Memorisation(float(np.median(of_made)), median, share)
    shown = np.argsort(of_made, kind="stable")[:MAX_PICTURED]
    return numbers, _picture(made[shown], dataset.images[training[index[shown]]])


def _picture(made: UInt8, neighbours: UInt8) -> UInt8:
    """Arrange made (N, H, W, C) and neighbours (N, 3, H, W, C), two of each in a row. Small images
    are enlarged."""
    rows = np.concatenate([made[:, None], neighbours], axis=1)  # (N, 4, H, W, C)
    times = max(1, 48 // max(made.shape[1:3]))
    rows = rows.repeat(times, axis=2).repeat(times, axis=3)
    strips = np.stack([image_grid(row, len(row), padding=2) for row in rows])
    return image_grid(strips, 2, padding=8)


def _likelihood(
    model: DiffusionModel,
    dataset: Dataset,
    labels: Int64 | None,
    unseen: Int64,
    config: EvaluationConfig,
    stopped: Callable[[], bool],
) -> Likelihood:
    positions = _spread(unseen, config.likelihood_images)
    found = bits_per_dimension(
        model,
        dataset.images[positions],
        None if labels is None else labels[positions],
        config.seed,
        config.likelihood_steps,
        config.likelihood_probes,
        stopped,
    )
    spread = float(found.std(ddof=1)) if len(found) > 1 else 0.0
    return Likelihood(float(found.mean()), spread / math.sqrt(len(found)), len(found))


def _agreement(
    net: FeatureNet,
    features: Float64,
    asked: Int64 | None,
    model: DiffusionModel,
    dataset: Dataset,
) -> float | None:
    if asked is None or not isinstance(net, Classifier):
        return None
    names = [dataset.class_names[i] for i in net.classify(features)]
    return float(np.mean([model.config.class_names.index(n) for n in names] == asked))
