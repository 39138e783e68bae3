"""POST /sample: new images from a model."""

import base64
import io
import secrets
import zipfile
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app import problems
from app.engine_wire import SampleRequest
from app.errors import InvalidInput, blame
from app.representation import choose
from app.schemas.records import SampleAnswer, SampleBody, SampleUsed
from app.services import ServicesDep
from app.settings import Settings
from models.images import ImageFormat, encode_image, image_grid
from models.sampler import sampler_table, timestep_grid
from models.schedule import NoiseSchedule, ScheduleConfig
from store.models import ModelRecord, get_model

router = APIRouter(tags=["sample"])

FORMATS: dict[str, ImageFormat] = {
    "image/png": "png",
    "image/webp": "webp",
    "image/jpeg": "jpeg",
}
OFFERED = (*FORMATS, "application/zip", "application/json")


@router.post(
    "/sample",
    summary="New images from a model",
    response_class=Response,
    responses={
        200: {
            "description": "One image, a grid of several, a zip of files, or JSON with base64.",
            "model": SampleAnswer,
            "content": {media_type: {} for media_type in OFFERED[:-1]},
        },
        **problems.declare(
            problems.NOT_FOUND, problems.NOT_ACCEPTABLE, problems.INVALID, problems.UNAVAILABLE
        ),
    },
)
async def sample(body: SampleBody, request: Request, services: ServicesDep) -> Response:
    """`curl --json '{"model": "digits-1"}' -H Accept:image/png .../sample -o new.png`

    The seed, the sampler and the model's digest are in the answer: the same again gives the same
    images.
    """
    media_type = choose(request.headers.get("accept"), OFFERED)
    record = await run_in_threadpool(get_model, services.database, body.model)
    used = _resolve(body, record, services.settings)
    images = await services.engine.sample(
        SampleRequest(
            prefix=record.artifact_prefix,
            digest=record.digest,
            num_images=body.num_images,
            seed=used.seed,
            sampler=used.sampler,
            num_inference_steps=used.num_inference_steps,
            labels=used.class_label,
            guidance_scale=used.guidance_scale,
            eta=used.eta,
        )
    )
    content = await services.quick.run(partial(_represent, images, used, media_type))
    return Response(content, media_type=media_type, headers=_headers(used))


def _resolve(body: SampleBody, record: ModelRecord, settings: Settings) -> SampleUsed:
    """All that was left open is chosen; InvalidInput names what does not fit the model."""
    _at_most("num_images", body.num_images, settings.max_images_per_request)
    _at_most("num_inference_steps", body.num_inference_steps, settings.max_inference_steps)
    sampler = body.sampler or "dpmpp_2m"
    schedule = NoiseSchedule.from_config(ScheduleConfig(**record.details["schedule"]))
    with blame("/num_inference_steps"):
        grid = timestep_grid(schedule, body.num_inference_steps)
    with blame("/eta" if body.eta else "/sampler"):
        sampler_table(sampler, grid, eta=body.eta)
    labels = _labels(body, record.details["class_names"])
    if body.guidance_scale != 1.0 and labels is None:
        raise InvalidInput.pointer(
            "/guidance_scale",
            f"guidance_scale is {body.guidance_scale:g}; without a class_label it must be 1",
        )
    return SampleUsed(
        model=record.name,
        model_digest=record.digest,
        seed=secrets.randbits(32) if body.seed is None else body.seed,
        sampler=sampler,
        num_inference_steps=body.num_inference_steps,
        class_label=labels,
        guidance_scale=body.guidance_scale,
        eta=body.eta,
    )


def _labels(body: SampleBody, class_names: list[str]) -> list[int] | None:
    given = body.class_label
    if given is None:
        return None
    if not class_names:
        raise InvalidInput.pointer(
            "/class_label", "class_label is given, but the model has no classes"
        )
    several = given if isinstance(given, list) else [given] * body.num_images
    if len(several) != body.num_images:
        raise InvalidInput.pointer(
            "/class_label",
            f"class_label has {len(several)} entries; num_images is {body.num_images}",
        )
    return [_label(label, class_names) for label in several]


def _label(label: int | str, class_names: list[str]) -> int:
    if isinstance(label, str):
        if label in class_names:
            return class_names.index(label)
        shown = ", ".join(class_names[:20])
        raise InvalidInput.pointer(
            "/class_label", f"class_label is {label[:80]!r}; the model's classes are {shown}"
        )
    if not 0 <= label < len(class_names):
        raise InvalidInput.pointer(
            "/class_label", f"class_label is {label}; it must lie in 0..{len(class_names) - 1}"
        )
    return label


def _at_most(field: str, value: int, bound: int) -> None:
    if value > bound:
        raise InvalidInput.pointer(f"/{field}", f"{field} is {value}; it must lie in 1..{bound}")


def _represent(images: NDArray[np.uint8], used: SampleUsed, media_type: str) -> bytes:
    if media_type == "application/json":
        files = [base64.b64encode(encode_image(image, "png")).decode() for image in images]
        return SampleAnswer(used=used, images=files).model_dump_json().encode()
    if media_type == "application/zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for number, image in enumerate(images):
                archive.writestr(zipfile.ZipInfo(f"{number:04}.png"), encode_image(image, "png"))
        return buffer.getvalue()
    picture = images[0] if len(images) == 1 else image_grid(images)
    return encode_image(picture, FORMATS[media_type])


def _headers(used: SampleUsed) -> dict[str, str]:
    headers: dict[str, Any] = {
        "Diffusion-Seed": used.seed,
        "Diffusion-Sampler": used.sampler,
        "Diffusion-Num-Inference-Steps": used.num_inference_steps,
        "Diffusion-Guidance-Scale": used.guidance_scale,
        "Diffusion-Model-Digest": used.model_digest,
        "Vary": "Accept",
    }
    return {name: str(value) for name, value in headers.items()}
