"""The answers of POST /sample: from images, and previews of their steps, to a file."""

import base64
import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from app.http.errors import InvalidInput
from app.sample.recipe import differences
from app.sample.schema import Recipe, SampleAnswer, SampleUsed, TrajectoryStep
from models.arrays import UInt8
from models.engine.orders import Event, Made, Preview, Started
from models.images.files import encode_animation, encode_image, image_grid
from models.images.formats import BY_MEDIA_TYPE
from models.images.recipe import Recipe as JsonRecipe
from models.images.recipe import as_made, of_image


@dataclass
class Collected:
    """The images of one order and, where `keeps_previews`, the previews of its steps. `t` has the
    time of each row. Where the engine starts the order anew, later events replace earlier ones.
    `recipe` is that of all images, None where they carry none; `again` is the one that they follow
    where they are made again, and then `warnings` say what is different."""

    used: SampleUsed
    t: tuple[float, ...]
    keeps_previews: bool
    warnings: list[str] = field(default_factory=list)
    recipe: JsonRecipe | None = None
    again: Recipe | None = None
    images: dict[int, UInt8] = field(default_factory=dict)
    previews: dict[tuple[int, int], Preview] = field(default_factory=dict)  # by image and row
    differences: list[str] = field(default_factory=list)  # from `again`

    def add(self, event: Event) -> None:
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Made):
            self.images[event.image] = event.pixels
        elif isinstance(event, Preview) and self.keeps_previews:
            self.previews[event.image, event.row] = event

    def _start(self, event: Started) -> None:
        self.used = self.used.model_copy(update={"precision": event.precision})
        computed = (event.precision, event.computed_by, event.exact)
        if self.recipe is not None:
            self.recipe = as_made(self.recipe, *computed)
        if self.again is not None:
            self.differences = differences(self.again, *computed)

    def recipe_of(
        self, image: int, preview: Preview | None = None, view: str = ""
    ) -> JsonRecipe | None:
        """Return the recipe of one image, or of a preview of it."""
        if self.recipe is None:
            return None
        recipe = of_image(self.recipe, image)
        return recipe if preview is None else {**recipe, "step": preview.row, "view": view}

    def recipe_of_all(self, media_type: str) -> JsonRecipe | None:
        """Return the recipe of the answer as a whole."""
        if self.recipe is None:
            return None
        if self.again is not None and self.again.image is not None:  # one of several
            return {**of_image(self.recipe, self.again.image), "media_type": media_type}
        return {**self.recipe, "media_type": media_type}

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
        return _zip(collected)
    recipe, name = collected.recipe_of_all(media_type), BY_MEDIA_TYPE[media_type].name
    if collected.previews and name == "webp":
        return encode_animation(_frames(collected, images), name, recipe)
    if collected.previews:
        picture = _strip(collected, images)
    else:
        picture = images[0] if len(images) == 1 else image_grid(images)
    return encode_image(picture, name, recipe)


def represent_step(collected: Collected, again: Recipe) -> bytes:
    """Return the PNG of the picture on the way that a recipe is of."""
    assert again.image is not None
    assert again.step is not None
    preview = collected.previews[again.image, again.step]
    pixels = preview.x_t if again.view == "x_t" else preview.x0_hat
    return encode_image(pixels, "png", collected.recipe_of(again.image, preview, again.view or ""))


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
            TrajectoryStep(
                t=t[p.row],
                x_t=base64_png(p.x_t, collected.recipe_of(p.image, p, "x_t")),
                x0_hat=base64_png(p.x0_hat, collected.recipe_of(p.image, p, "x0_hat")),
            )
            for p in previews
        ]
        for previews in map(collected.trajectory, sorted(collected.images))
        if previews
    ]
    recipe = collected.recipe_of_all("application/json")
    return SampleAnswer(
        used=collected.used,
        warnings=collected.warnings + collected.differences,
        images=[
            base64_png(image, collected.recipe_of(i))
            for i, image in sorted(collected.images.items())
        ],
        trajectories=trajectories or None,
        recipe=None if recipe is None else Recipe.model_validate(recipe),
    )


def base64_png(image: UInt8, recipe: JsonRecipe | None = None) -> str:
    return base64.b64encode(encode_image(image, "png", recipe)).decode()


def _zip(collected: Collected) -> bytes:
    files = {
        f"{i:04}.png": (image, collected.recipe_of(i))
        for i, image in sorted(collected.images.items())
    }
    for (i, row), step in sorted(collected.previews.items()):
        for view in ("x_t", "x0_hat"):
            recipe = collected.recipe_of(i, step, view)
            files[f"{i:04}/{row:04}-{view}.png"] = getattr(step, view), recipe
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, (pixels, recipe) in files.items():
            archive.writestr(zipfile.ZipInfo(name), encode_image(pixels, "png", recipe))
    return buffer.getvalue()


def _strip(collected: Collected, images: UInt8) -> UInt8:
    """Draw two lines for each image: x_t above, the clean image predicted from it below; the last
    column is the image that was made."""
    lines: list[UInt8] = []
    for i, image in zip(sorted(collected.images), images, strict=True):
        previews = collected.trajectory(i)
        lines += [*(p.x_t for p in previews), image, *(p.x0_hat for p in previews), image]
    return image_grid(np.stack(lines), columns=len(lines) // (2 * len(images)), padding=1)


def _frames(collected: Collected, images: UInt8) -> list[UInt8]:
    """Show x_t beside the predicted clean image frame by frame; one line for each image."""
    trajectories = [collected.trajectory(i) for i in sorted(collected.images)]
    frames = [_frame([(p.x_t, p.x0_hat) for p in step]) for step in zip(*trajectories, strict=True)]
    frames.append(_frame([(image, image) for image in images]))
    return frames


def _frame(pairs: Sequence[tuple[UInt8, UInt8]]) -> UInt8:
    return image_grid(np.stack([picture for pair in pairs for picture in pair]), 2, padding=1)
