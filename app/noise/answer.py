"""The answer of POST /noise: turns a parsed form into an image, an animation, a zip or JSON."""

import base64
import io
import secrets
import zipfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from app.http.errors import InvalidInput, reported_at
from app.noise.picture import NoisedPicture, noise_picture, noise_schedule
from app.noise.png import encode_noisy_png
from app.noise.schema import NoiseAnswer, NoisedImage, NoiseForm
from app.settings import Settings
from models.diffusion.schedule import NoiseSchedule, ScheduleConfig
from models.images.files import encode_animation, encode_image, image_grid, resize_image
from models.images.formats import BY_MEDIA_TYPE, FormatName, Reading
from models.images.reading import read_pictures, warning_of

ANIMATION = "image/apng"
OFFERED = (*BY_MEDIA_TYPE, ANIMATION, "application/zip", "application/json")


def answer(form: NoiseForm, media_type: str, settings: Settings) -> Response:
    """Return the answer in `media_type`, one of OFFERED.

    Raises InvalidInput, which names the field and its bound.
    """
    schedule = _schedule(form)
    with reported_at("image", "form"):
        picture = next(read_pictures(form.image, settings.max_pixels, form.frames))
    image = picture.to_uint8(Reading(range=form.range))
    height, width = form.image_size or image.shape[:2]
    _check_work(form, height, width, media_type, settings)
    if form.image_size:
        image = resize_image(image, form.image_size, form.fit)
    seed = secrets.randbits(32) if form.seed is None else form.seed
    pictures = noise_picture(image, schedule, form.t, form.method, seed)
    headers = _headers(form, seed, pictures)
    if warning := warning_of(picture, form.range):
        headers["Diffusion-Warning"] = f"image: {warning}"
    if media_type == "application/json":
        return Response(_json(form, seed, pictures), headers=headers, media_type=media_type)
    if media_type == "application/zip":
        return Response(_zip(pictures), headers=headers, media_type=media_type)
    if media_type == ANIMATION:
        content = encode_animation([picture.image for picture in pictures], "png")
        return Response(content, headers=headers, media_type=media_type)
    strip = pictures[0].image
    if len(pictures) > 1:
        strip = image_grid(np.stack([picture.image for picture in pictures]), len(pictures))
    content = _encode(strip, max(form.t), BY_MEDIA_TYPE[media_type].name)
    return Response(content, headers=headers, media_type=media_type)


def _schedule(form: NoiseForm) -> NoiseSchedule:
    with reported_at("rescale_zero_terminal_snr", "form"):
        return noise_schedule(
            ScheduleConfig(
                name=form.schedule,
                num_train_timesteps=form.num_train_timesteps,
                rescale_zero_terminal_snr=form.rescale_zero_terminal_snr,
            )
        )


def _check_work(
    form: NoiseForm, height: int, width: int, media_type: str, settings: Settings
) -> None:
    size = f"{width} x {height}"
    if len(form.t) * height * width > settings.max_pixels:
        raise InvalidInput.parameter(
            "image_size" if form.image_size else "t",
            f"{len(form.t)} images of {size} pixels; an answer has at most {settings.max_pixels}",
        )
    strip_width = len(form.t) * width
    strip_format = BY_MEDIA_TYPE.get(media_type)  # the other types do not join the images
    if strip_format and strip_width > strip_format.max_side:
        raise InvalidInput.parameter(
            "t",
            f"a strip of {len(form.t)} images is {strip_width} pixels wide; "
            f"{media_type} holds at most {strip_format.max_side}",
        )
    steps = max(form.t)
    if form.method == "step_by_step" and steps * height * width > settings.max_step_pixels:
        raise InvalidInput.parameter(
            "t",
            f"{steps} steps over {size} pixels are {steps * height * width} in all; step_by_step "
            f"takes at most {settings.max_step_pixels}: lower t or image_size, or use closed_form",
        )


def _encode(image: NDArray[np.uint8], t: int, file_format: FormatName) -> bytes:
    if file_format == "png" and t > 0:
        return encode_noisy_png(image)
    return encode_image(image, file_format)


def _headers(form: NoiseForm, seed: int, pictures: Sequence[NoisedPicture]) -> dict[str, str]:
    return {
        "Diffusion-Seed": str(seed),
        "Diffusion-Schedule": form.schedule,
        "Diffusion-Num-Train-Timesteps": str(form.num_train_timesteps),
        "Diffusion-Method": form.method,
        "Diffusion-T": ", ".join(str(picture.t) for picture in pictures),
        "Diffusion-Alpha": ", ".join(repr(picture.alpha) for picture in pictures),
        "Diffusion-Sigma": ", ".join(repr(picture.sigma) for picture in pictures),
        "Diffusion-Display-Scale": ", ".join(repr(picture.display_scale) for picture in pictures),
        "Vary": "Accept",
    }


def _zip(pictures: Sequence[NoisedPicture]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for index, picture in enumerate(pictures):
            name = f"{index:03d}-t{picture.t:05d}.png"
            archive.writestr(zipfile.ZipInfo(name), _encode(picture.image, picture.t, "png"))
    return buffer.getvalue()


def _json(form: NoiseForm, seed: int, pictures: Sequence[NoisedPicture]) -> str:
    height, width = pictures[0].image.shape[:2]
    return NoiseAnswer(
        seed=seed,
        schedule=form.schedule,
        num_train_timesteps=form.num_train_timesteps,
        rescale_zero_terminal_snr=form.rescale_zero_terminal_snr,
        method=form.method,
        image_size=(height, width),
        images=[
            NoisedImage(
                t=picture.t,
                alpha=picture.alpha,
                sigma=picture.sigma,
                snr=picture.snr,
                display_scale=picture.display_scale,
                data=base64.b64encode(_encode(picture.image, picture.t, "png")).decode("ascii"),
            )
            for picture in pictures
        ],
    ).model_dump_json()
