"""POST /noise: the forward process on the caller's image."""

import base64
import io
import secrets
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app import problems
from app.errors import InvalidInput, blame, invalid
from app.multipart import parse_form
from app.noising import NoisedPicture, noise_picture, noise_schedule
from app.representation import choose
from app.schemas.noise import NoiseAnswer, NoisedImage, NoiseForm
from app.services import services_of
from app.settings import Settings
from models.images import ImageFormat, decode_image, encode_image, image_grid, resize_image
from models.schedule import NoiseSchedule, ScheduleConfig

router = APIRouter(tags=["noise"])

FORMATS: dict[str, ImageFormat] = {"image/png": "png", "image/webp": "webp", "image/jpeg": "jpeg"}
OFFERED = (*FORMATS, "application/zip", "application/json")
MAX_SIDE = {"image/png": 2**31 - 1, "image/webp": 16_383, "image/jpeg": 65_500}

_BINARY = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
_HEADERS = {
    "Diffusion-Seed": "the seed used",
    "Diffusion-Schedule": "the schedule used",
    "Diffusion-Num-Train-Timesteps": "its number of steps",
    "Diffusion-Method": "closed_form or step_by_step",
    "Diffusion-T": "t of each image, left to right",
    "Diffusion-Alpha": "alpha of each: x_t = alpha x_0 + sigma noise",
    "Diffusion-Sigma": "sigma of each",
    "Diffusion-Display-Scale": "what x_t of each was divided by before it was clipped",
}
_OPENAPI: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": NoiseForm.model_json_schema()}},
    }
}


@router.post(
    "/noise",
    summary="Add noise to an image",
    response_class=Response,
    responses={
        200: {
            "description": "The noised image; with several t a strip of them, left to right. As "
            "zip one PNG for each, as JSON base64 with the coefficients used.",
            "model": NoiseAnswer,
            "content": dict.fromkeys((*FORMATS, "application/zip"), _BINARY),
            "headers": {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in _HEADERS.items()
            },
        },
        **problems.declare(
            problems.MALFORMED,
            problems.NOT_ACCEPTABLE,
            problems.TOO_LARGE,
            problems.UNSUPPORTED,
            problems.INVALID,
            problems.UNAVAILABLE,
        ),
    },
    openapi_extra=_OPENAPI,
)
async def add_noise(request: Request) -> Response:
    """The forward diffusion process x_t = alpha_t x_0 + sigma_t noise, on an image of yours.

    `curl -F image=@cat.png -F t=0 -F t=250 -F t=500 .../noise -o ladder.png`

    Every answer says which seed was used: the same seed gives the same bytes again.
    """
    media_type = choose(request.headers.get("accept"), OFFERED)
    form = _read_form(request.headers.get("content-type", ""), await request.body())
    services = services_of(request)
    lane = services.walks if form.method == "step_by_step" else services.quick
    return await lane.run(lambda: _answer(form, media_type, services.settings))


def _read_form(content_type: str, body: bytes) -> NoiseForm:
    fields: dict[str, Any] = {}
    for name, values in parse_form(content_type, body).items():
        if name == "t":
            fields[name] = [value.decode("utf-8", "replace") for value in values]
        elif len(values) > 1:
            raise InvalidInput.parameter(name, f"{name} is given {len(values)} times; once is all")
        else:
            fields[name] = values[0] if name == "image" else values[0].decode("utf-8", "replace")
    try:
        return NoiseForm.model_validate(fields)
    except ValidationError as error:
        raise invalid(error, "form") from None


def _answer(form: NoiseForm, media_type: str, settings: Settings) -> Response:
    schedule = _schedule(form)
    _check_timesteps(form, settings)
    with blame("image", "form"):
        image = decode_image(form.image, max_pixels=settings.max_pixels)
    height, width = form.image_size or image.shape[:2]
    _check_work(form, height, width, media_type, settings)
    if form.image_size:
        image = resize_image(image, form.image_size)
    seed = secrets.randbits(32) if form.seed is None else form.seed
    pictures = noise_picture(image, schedule, form.t, form.method, seed)
    headers = _headers(form, seed, pictures)
    if media_type == "application/json":
        return Response(_json(form, seed, pictures), headers=headers, media_type=media_type)
    if media_type == "application/zip":
        return Response(_zip(pictures), headers=headers, media_type=media_type)
    strip = pictures[0].image
    if len(pictures) > 1:
        strip = image_grid(np.stack([picture.image for picture in pictures]), len(pictures))
    return Response(
        encode_image(strip, FORMATS[media_type]), headers=headers, media_type=media_type
    )


def _schedule(form: NoiseForm) -> NoiseSchedule:
    with blame("rescale_zero_terminal_snr", "form"):
        return noise_schedule(
            ScheduleConfig(
                name=form.schedule,
                num_train_timesteps=form.num_train_timesteps,
                rescale_zero_terminal_snr=form.rescale_zero_terminal_snr,
            )
        )


def _check_timesteps(form: NoiseForm, settings: Settings) -> None:
    if len(form.t) > settings.max_images_per_request:
        raise InvalidInput.parameter(
            "t", f"t is given {len(form.t)} times; at most {settings.max_images_per_request}"
        )
    for t in form.t:
        if not 0 <= t <= form.num_train_timesteps:
            raise InvalidInput.parameter(
                "t", f"t is {t}; it must lie in 0..{form.num_train_timesteps}"
            )


def _check_work(
    form: NoiseForm, height: int, width: int, media_type: str, settings: Settings
) -> None:
    size = f"{height} x {width}"
    if len(form.t) * height * width > settings.max_pixels:
        raise InvalidInput.parameter(
            "image_size" if form.image_size else "t",
            f"{len(form.t)} images of {size} pixels; an answer has at most {settings.max_pixels}",
        )
    if len(form.t) * width > MAX_SIDE.get(media_type, width * len(form.t)):
        raise InvalidInput.parameter(
            "t",
            f"a strip of {len(form.t)} images is {len(form.t) * width} pixels wide; "
            f"{media_type} holds at most {MAX_SIDE[media_type]}",
        )
    steps = max(form.t)
    if form.method == "step_by_step" and steps * height * width > settings.max_step_pixels:
        raise InvalidInput.parameter(
            "t",
            f"{steps} steps over {size} pixels are {steps * height * width} in all; step_by_step "
            f"walks at most {settings.max_step_pixels}: lower t or image_size, or use closed_form",
        )


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
            archive.writestr(zipfile.ZipInfo(name), encode_image(picture.image, "png"))
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
                data=base64.b64encode(encode_image(picture.image, "png")).decode("ascii"),
            )
            for picture in pictures
        ],
    ).model_dump_json()
