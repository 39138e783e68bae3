"""What POST /sample answers: from images, and what was seen on the way, to a file."""

import base64
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from app.sample.request import Sampling
from app.sample.schema import SampleAnswer, TrajectoryStep
from models.arrays import UInt8
from models.engine.engine import Event, Made, Seen
from models.images.files import encode_animation, encode_image, image_grid
from models.images.formats import BY_MEDIA_TYPE


@dataclass
class Harvest:
    """What the engine told of one order; it begins anew where the engine did."""

    keeps_steps: bool = False
    images: dict[int, UInt8] = field(default_factory=dict)
    seen: dict[tuple[int, int], Seen] = field(default_factory=dict)  # by image and row

    def add(self, event: Event) -> None:
        if isinstance(event, Made):
            self.images[event.image] = event.pixels
        elif isinstance(event, Seen) and self.keeps_steps:
            self.seen[event.image, event.row] = event

    def all_images(self) -> UInt8:
        """(N, H, W, C)."""
        return np.stack([self.images[i] for i in sorted(self.images)])

    def trajectory(self, image: int) -> list[Seen]:
        return [self.seen[key] for key in sorted(self.seen) if key[0] == image]


def represent(harvest: Harvest, sampling: Sampling, media_type: str) -> bytes:
    images = harvest.all_images()
    if media_type == "application/json":
        return answer(harvest, sampling).model_dump_json().encode()
    if media_type == "application/zip":
        return _zip(harvest, images)
    if harvest.seen and media_type == "image/webp":
        return _animation(harvest, images)
    if harvest.seen:
        return encode_image(_strip(harvest, images), BY_MEDIA_TYPE[media_type].name)
    picture = images[0] if len(images) == 1 else image_grid(images)
    return encode_image(picture, BY_MEDIA_TYPE[media_type].name)


def answer(harvest: Harvest, sampling: Sampling) -> SampleAnswer:
    t = sampling.plan.table.t.tolist()
    trajectories = [
        [
            TrajectoryStep(t=t[s.row], x_t=base64_png(s.x_t), x0_hat=base64_png(s.x0_hat))
            for s in seen
        ]
        for seen in map(harvest.trajectory, sorted(harvest.images))
        if seen
    ]
    return SampleAnswer(
        used=sampling.used,
        images=[base64_png(image) for image in harvest.all_images()],
        trajectories=trajectories or None,
    )


def base64_png(image: UInt8) -> str:
    return base64.b64encode(encode_image(image, "png")).decode()


def _zip(harvest: Harvest, images: UInt8) -> bytes:
    files = {f"{i:04}.png": image for i, image in enumerate(images)}
    for (image, row), seen in sorted(harvest.seen.items()):
        files[f"{image:04}/{row:04}-x_t.png"] = seen.x_t
        files[f"{image:04}/{row:04}-x0_hat.png"] = seen.x0_hat
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, pixels in files.items():
            archive.writestr(zipfile.ZipInfo(name), encode_image(pixels, "png"))
    return buffer.getvalue()


def _strip(harvest: Harvest, images: UInt8) -> UInt8:
    """Two lines for each image: x_t above, the clean image predicted from it below; the last column
    is the image that was made."""
    lines: list[UInt8] = []
    for i, image in enumerate(images):
        seen = harvest.trajectory(i)
        lines += [*(s.x_t for s in seen), image, *(s.x0_hat for s in seen), image]
    return image_grid(np.stack(lines), columns=len(lines) // (2 * len(images)), padding=1)


def _animation(harvest: Harvest, images: UInt8) -> bytes:
    """Frame by frame x_t beside the predicted clean image; one line for each image."""
    walks = [harvest.trajectory(i) for i in range(len(images))]
    frames = [_frame([(s.x_t, s.x0_hat) for s in step]) for step in zip(*walks, strict=True)]
    frames.append(_frame([(image, image) for image in images]))
    return encode_animation(frames, "webp")


def _frame(pairs: Sequence[tuple[UInt8, UInt8]]) -> UInt8:
    return image_grid(np.stack([picture for pair in pairs for picture in pair]), 2, padding=1)
