"""The plan of a request for images: rows of numbers that say everything about how they are made.

models.sampling.request compiles a request to a plan, once; from there on (models.sampling.update,
models.engine) nothing knows of samplers, schedules, strengths or intervals. A plan is plain data
and crosses from the API to the engine's process.

Knows nothing of networks or torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from models.arrays import Float32, UInt8
from models.fields import Invalid


class K(IntEnum):
    """The columns of a row, for its network call and its update (models.sampling.update)."""

    C_IN = 0
    C_NOISE = 1
    P_X = 2
    P_F = 3
    K_X = 4
    K_0 = 5
    K_1 = 6
    K_2 = 7
    K_S = 8
    GUIDANCE = 9  # its scale; 1: the network is called once
    UNCONDITIONAL = 10  # 1: the network is called without the class
    CLIP = 11  # x0_hat is kept within [-CLIP, CLIP]
    PERTURBATION = 12  # standard deviation of the noise added to x_t before the network call
    DISPLAY_SCALE = 13  # x_t is divided by it to be shown


@dataclass(frozen=True, eq=False)
class Plan:
    """Image i is a function of the plan, the model and i.

    `rows`, float32 (R, len(K)), has a row for each network evaluation of an image in order, and `t`
    the time in the schedule at which each calls the network, for display. x starts as from_image
    x0 + from_noise noise. `labels` is a class index per image, or None to leave the class open.
    `seed_to` turns image i's first noise from that of `seed` to that of `seed_to`, from the first
    image to the last, on the circle between them. `init_image` (H, W, C) is x0 above; with a `mask`
    (H, W), 255 where the image is to be made anew, its other part stays. `num_inference_steps` is
    what was asked for, for statistics.
    """

    rows: Float32
    t: tuple[float, ...]
    from_image: float
    from_noise: float
    seed: int
    num_images: int
    num_inference_steps: int
    labels: tuple[int, ...] | None = None
    seed_to: int | None = None
    init_image: UInt8 | None = None
    mask: UInt8 | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def evaluations(self) -> tuple[int, ...]:
        """How many evaluations of the network each row takes: 2 where it is guided."""
        return tuple(2 if guided else 1 for guided in self._guided.tolist())

    @property
    def _guided(self) -> "np.typing.NDArray[np.bool_]":
        return np.asarray(self.rows[:, K.GUIDANCE] != 1.0)

    @property
    def _needs_null_class(self) -> bool:
        without_class = self.rows[:, K.UNCONDITIONAL] != 0.0
        return self.labels is None or bool((without_class | self._guided).any())

    def angle(self, image: int) -> float:
        """Return how far image i's first noise is turned towards that of `seed_to`, 0..pi/2."""
        if self.seed_to is None or self.num_images == 1:
            return 0.0
        return 0.5 * math.pi * image / (self.num_images - 1)

    def noise_index(self, image: int) -> int:
        """Return the index of image i's noise. Images between two seeds share one, so that they
        differ in nothing but the angle."""
        return image if self.seed_to is None else 0

    def check_fits(
        self,
        image_size: tuple[int, int],
        channels: int,
        num_classes: int,
        has_null_class: bool = True,
    ) -> None:
        """Raise Invalid where pictures or classes are not those of such a model."""
        if self.init_image is not None:
            _check_shape("init_image", self.init_image, (*image_size, channels))
        if self.mask is not None:
            _check_shape("mask", self.mask, image_size)
        for label in self.labels or ():
            if not 0 <= label < num_classes:
                raise Invalid("class_label", label, f"it must lie in 0..{num_classes - 1}")
        if not has_null_class and self._needs_null_class:
            raise Invalid.because(
                "the model has no null class, which this plan needs", field="class_label"
            )

    def to_dict(self) -> dict[str, object]:
        """Return it for MessagePack: arrays as their shape and bytes."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in _ARRAYS:
            array = values[name]
            values[name] = None if array is None else {"shape": array.shape, "data": bytes(array)}
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Plan":
        known = dict(values)
        for name, dtype in _ARRAYS.items():
            if (packed := known[name]) is not None:
                known[name] = np.frombuffer(packed["data"], dtype).reshape(packed["shape"])
        known["t"] = tuple(known["t"])
        known["labels"] = None if known["labels"] is None else tuple(known["labels"])
        return cls(**known)


_ARRAYS = {"rows": np.float32, "init_image": np.uint8, "mask": np.uint8}


def _check_shape(field: str, picture: UInt8, expected: tuple[int, ...]) -> None:
    if picture.shape != expected:
        raise Invalid.because(
            f"{field} has the shape {picture.shape}; this model needs {expected}", field=field
        )
