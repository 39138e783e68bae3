"""The update of sampling: a batch of images, each one row of its plan further.

    x_t     <-  x + perturbation noise
    y        =  net(c_in x_t, c_noise, label), for guided rows also without the class
    x0_hat   =  p_x x_t + p_F y, guided: uncond + g (cond - uncond) (Ho & Salimans 2021)
    x0_hat  <-  clipped; where a part of an image is kept, that part
    x       <-  k_x x_t + k_0 x0_hat + k_1 x0_prev + k_2 x0_prev2 + k_s noise

The numbers stand in the rows (models.sampling.plan.K), so the images of a batch may belong to
different requests and stand at different rows. models.sampling.generate updates the images of one
request in lockstep, models.engine.state those of all requests under way. Knows no sampler. The
arrays are those of numpy or torch, as the network's are.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from models.arrays import AnyArray, Float32, library, to_float
from models.diffusion.noise import Stream, normal
from models.diffusion.prediction import read_off
from models.sampling.plan import K, Plan

Network = Callable[
    [AnyArray, AnyArray, AnyArray | None], AnyArray
]  # x, c_noise, labels or None; returns y


@dataclass(frozen=True)
class Pictures:
    """The pictures of a plan: `image` (C, H, W) in [-1, 1], from which sampling starts, and `kept`,
    bool (1, H, W), the part of it that stays. None where the plan has none."""

    image: AnyArray | None
    kept: AnyArray | None

    @classmethod
    def of(cls, plan: Plan, like: AnyArray) -> "Pictures":
        """Return them in the library and on the device of `like`."""
        image = kept = None
        if plan.init_image is not None:
            image = _like(like, to_float(plan.init_image[None])[0])
        if plan.mask is not None:
            kept = _like(like, (plan.mask < 128)[None])
        return cls(image, kept)


@dataclass(frozen=True)
class Rows:
    """The rows that B images take next: of each image its plan, with the pictures, its index and
    the index of the row. All of length B."""

    plans: Sequence[Plan]
    pictures: Sequence[Pictures]
    images: Sequence[int]
    at: Sequence[int]

    def __len__(self) -> int:
        return len(self.plans)

    @cached_property
    def numbers(self) -> Float32:
        """(B, len(K))."""
        return np.stack([plan.rows[at] for plan, at in zip(self.plans, self.at, strict=True)])

    @cached_property
    def guided(self) -> list[int]:
        """Positions of the rows that take two evaluations."""
        return np.flatnonzero(self.numbers[:, K.GUIDANCE] != 1.0).tolist()

    def columns(self, like: AnyArray) -> AnyArray:
        """Return the numbers as (len(K), B, 1, 1, 1)."""
        return _like(like, self.numbers).T[:, :, None, None, None]

    def select(self, where: Sequence[int]) -> "Rows":
        """Return the rows at these positions."""
        return Rows(
            [self.plans[b] for b in where],
            [self.pictures[b] for b in where],
            [self.images[b] for b in where],
            [self.at[b] for b in where],
        )

    def labels(self, null: int, like: AnyArray) -> AnyArray:
        """Return a class per evaluation, int64: of all rows, and the null class of the guided ones.
        The null class also stands for an open class and in unconditional rows."""
        open_ = self.numbers[:, K.UNCONDITIONAL] != 0.0
        found = [
            null if plan.labels is None or open_[b] else plan.labels[image]
            for b, (plan, image) in enumerate(zip(self.plans, self.images, strict=True))
        ]
        return _like(like, found + [null] * len(self.guided))

    def noise(self, stream: Stream, later: int, like: AnyArray) -> AnyArray:
        """Return noise (B, C, H, W) of the step `later` rows further."""
        pairs = zip(self.plans, self.images, strict=True)
        index = _like(like, [plan.noise_index(image) for plan, image in pairs])
        seed = _like(like, [plan.seed for plan in self.plans])
        step = _like(like, [at + later for at in self.at])
        return normal(seed, index, step, like.shape[1:], stream)


@dataclass(frozen=True)
class Updated:
    """The input of the network, its estimate of the clean image, and x after the row: (B, C, H, W).
    x_t is divided by `display_scale` (B, 1, 1, 1) to be shown."""

    x_t: AnyArray
    x0_hat: AnyArray
    x: AnyArray
    display_scale: AnyArray


def update(
    rows: Rows, x: AnyArray, prev: AnyArray, prev2: AnyArray, net: Network, null_label: int | None
) -> Updated:
    """Take each image one row further. `prev` and `prev2` are the estimates of the clean image one
    and two rows earlier; `null_label` is None for a model without classes. Changes no argument."""
    xp, k = library(x), rows.columns(x)
    x_t = _with_noise(rows, x, k, K.PERTURBATION, Stream.DISTURBANCE, later=0)
    x0_hat = _denoised(rows, x_t, k, net, null_label)
    x0_hat = xp.minimum(xp.maximum(x0_hat, -k[K.CLIP]), k[K.CLIP])
    for b, pictures in enumerate(rows.pictures):
        if pictures.image is not None and pictures.kept is not None:
            x0_hat[b] = xp.where(pictures.kept, pictures.image, x0_hat[b])
    x = k[K.K_X] * x_t + k[K.K_0] * x0_hat + k[K.K_1] * prev + k[K.K_2] * prev2
    x = _with_noise(rows, x, k, K.K_S, Stream.IMAGE, later=1)
    return Updated(x_t, x0_hat, x, k[K.DISPLAY_SCALE])


def starting_x(rows: Rows, shape: Sequence[int], like: AnyArray) -> AnyArray:
    """Return x (B, *shape) before the first row of each plan."""

    def noise_of(seeds: Sequence[int]) -> AnyArray:
        pairs = zip(rows.plans, rows.images, strict=True)
        index = _like(like, [plan.noise_index(image) for plan, image in pairs])
        return normal(_like(like, seeds), index, 0, shape)

    def column(values: Sequence[float]) -> AnyArray:
        return _like(like, np.array(values, np.float32))[:, None, None, None]

    noise = noise_of([plan.seed for plan in rows.plans])
    angles = [plan.angle(image) for plan, image in zip(rows.plans, rows.images, strict=True)]
    if any(angles):
        other = noise_of([plan.seed_to or 0 for plan in rows.plans])
        noise = column([math.cos(a) for a in angles]) * noise
        noise += column([math.sin(a) for a in angles]) * other
    x = column([plan.from_noise for plan in rows.plans]) * noise
    for b, (plan, pictures) in enumerate(zip(rows.plans, rows.pictures, strict=True)):
        if pictures.image is not None:
            x[b] += plan.from_image * pictures.image
    return x


def _denoised(
    rows: Rows, x_t: AnyArray, k: AnyArray, net: Network, null_label: int | None
) -> AnyArray:
    """Return x0_hat of every row from one network call: all rows with their classes, then the
    guided ones without."""
    guided, count = rows.guided, len(rows)
    xp, x, c_noise = library(x_t), k[K.C_IN] * x_t, k[K.C_NOISE].flatten()
    if guided:
        x, c_noise = xp.concat([x, x[guided]]), xp.concat([c_noise, c_noise[guided]])
    labels = None if null_label is None else rows.labels(null_label, x_t)
    y = net(x, c_noise, labels)
    x0_hat = read_off(y[:count], x_t, k[K.P_X], k[K.P_F])
    if guided:
        uncond = read_off(y[count:], x_t[guided], k[K.P_X][guided], k[K.P_F][guided])
        x0_hat[guided] = uncond + k[K.GUIDANCE][guided] * (x0_hat[guided] - uncond)
    return x0_hat


def _with_noise(
    rows: Rows, x: AnyArray, k: AnyArray, column: K, stream: Stream, later: int
) -> AnyArray:
    """Add the noise of a column. Noise is drawn only for rows that have some: to add 0 x noise
    would cost time and turn -0.0 into 0.0."""
    where = np.flatnonzero(rows.numbers[:, column]).tolist()
    if not where:
        return x
    noise = rows.select(where).noise(stream, later, x)
    x = library(x).asarray(x, copy=True)
    x[where] += k[column][where] * noise
    return x


def _like(like: AnyArray, values: object) -> AnyArray:
    """Return the values as an array in the library and on the device of `like`."""
    return library(like).asarray(values, device=like.device)
