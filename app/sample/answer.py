"""The answers of POST /sample: from images, and previews of their steps, to a file."""

import base64
import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from app.http.errors import InvalidInput
from app.sample.schema import SampleAnswer, SampleUsed, TrajectoryStep
from models.arrays import UInt8
from models.engine.orders import Event, Made, Preview, Started
from models.images.files import encode_animation, encode_image, image_grid
from models.images.formats import BY_MEDIA_TYPE


@dataclass
class Collected:
    """The images of one order and, where `keeps_previews`, the previews of its steps. `t` has the
    time of each row. Where the engine starts the order anew, later events replace earlier ones."""

    used: SampleUsed
    t: tuple[float, ...]
    keeps_previews: bool
    warnings: list[str] = field(default_factory=list)
    images: dict[int, UInt8] = field(default_factory=dict)
    previews: dict[tuple[int, int], Preview] = field(default_factory=dict)  # by image and row

    def add(self, event: Event) -> None:
        if isinstance(event, Started):
            self.used = self.used.model_copy(update={"precision": event.precision})
        elif isinstance(event, Made):
            self.images[event.image] = event.pixels
        elif isinstance(event, Preview) and self.keeps_previews:
            self.previews[event.image, event.row] = event

    def all_images(self) -> UInt8:
        """Return them in order: (N, H, W, C)."""
        return np.stack([self.images[i] for i in sorted(self.images)])

    def trajectory(self, image: int) -> list[Preview]:
        return [self.previews[key] for key in sorted(self.previews) if key[0] == image]


def represent(collected: Collected, media_type: str) -> bytes:
    images = collected.all_images()
    if media_type == "application/json":
        return answer(collected).model_dump_json().encode()
    if media_type == "application/zip":
        return _zip(collected, images)
    if collected.previews and media_type == "image/webp":
        return _animation(collected, images)
    if collected.previews:
        return encode_image(_strip(collected, images), BY_MEDIA_TYPE[media_type].name)
    picture = images[0] if len(images) == 1 else image_grid(images)
    return encode_image(picture, BY_MEDIA_TYPE[media_type].name)


def check_size(
    media_type: str, image_size: tuple[int, int], num_images: int, num_rows: int, trajectory: bool
) -> None:
    """Raise InvalidInput where the picture of an answer is larger than its format holds."""
    kind = BY_MEDIA_TYPE.get(media_type)  # the other types do not join the images
    if kind is None:
        return
    columns, padding = math.ceil(math.sqrt(num_images)), 0
    lines = math.ceil(num_images / columns)
    if trajectory:
        is_animated = media_type == "image/webp"
        columns, lines = (2, num_images) if is_animated else (num_rows + 1, 2 * num_images)
        padding = 1
    height, width = image_size
    sides = lines * (height + padding) - padding, columns * (width + padding) - padding
    if max(sides) > kind.max_side:
        raise InvalidInput.pointer(
            "/trajectory" if trajectory else "/num_images",
            f"the answer is a picture of {sides[0]} x {sides[1]} pixels; "
            f"{media_type} holds at most {kind.max_side} a side",
        )


def answer(collected: Collected) -> SampleAnswer:
    t = collected.t
    trajectories = [
        [
            TrajectoryStep(t=t[p.row], x_t=base64_png(p.x_t), x0_hat=base64_png(p.x0_hat))
            for p in previews
        ]
        for previews in map(collected.trajectory, sorted(collected.images))
        if previews
    ]
    return SampleAnswer(
        used=collected.used,
        warnings=collected.warnings,
        images=[base64_png(image) for image in collected.all_images()],
        trajectories=trajectories or None,
    )


def base64_png(image: UInt8) -> str:
    return base64.b64encode(encode_image(image, "png")).decode()


def _zip(collected: Collected, images: UInt8) -> bytes:
    files = {f"{i:04}.png": image for i, image in enumerate(images)}
    for (image, row), preview in sorted(collected.previews.items()):
        files[f"{image:04}/{row:04}-x_t.png"] = preview.x_t
        files[f"{image:04}/{row:04}-x0_hat.png"] = preview.x0_hat
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, pixels in files.items():
            archive.writestr(zipfile.ZipInfo(name), encode_image(pixels, "png"))
    return buffer.getvalue()


def _strip(collected: Collected, images: UInt8) -> UInt8:
    """Draw two lines for each image: x_t above, the clean image predicted from it below; the last
    column is the image that was made."""
    lines: list[UInt8] = []
    for i, image in enumerate(images):
        previews = collected.trajectory(i)
        lines += [*(p.x_t for p in previews), image, *(p.x0_hat for p in previews), image]
    return image_grid(np.stack(lines), columns=len(lines) // (2 * len(images)), padding=1)


def _animation(collected: Collected, images: UInt8) -> bytes:
    """Show x_t beside the predicted clean image frame by frame; one line for each image."""
    trajectories = [collected.trajectory(i) for i in range(len(images))]
    frames = [_frame([(p.x_t, p.x0_hat) for p in step]) for step in zip(*trajectories, strict=True)]
    frames.append(_frame([(image, image) for image in images]))
    return encode_animation(frames, "webp")


def _frame(pairs: Sequence[tuple[UInt8, UInt8]]) -> UInt8:
    return image_grid(np.stack([picture for pair in pairs for picture in pair]), 2, padding=1)
