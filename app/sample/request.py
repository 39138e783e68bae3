"""What a caller of POST /sample means: every open choice made, pictures decoded and fitted."""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from app.engine.messages import ImageOrder
from app.http.errors import InvalidInput, reported_at, reported_in
from app.sample.schema import SampleBody, SampleUsed
from app.settings import Settings
from models.arrays import UInt8
from models.diffusion.schedule import NoiseSchedule, ScheduleConfig
from models.images.files import decode_image, resize_image, with_channels
from models.nets.precision import Precision
from models.pipeline.card import ModelCard
from models.sampling.plan import (
    DEFAULT_CONSISTENCY_STEPS,
    DEFAULT_STEPS,
    MAX_CONSISTENCY_STEPS,
    Disturbance,
    Plan,
    SampleRequest,
    check_labels,
    make_plan,
)
from models.sampling.samplers import (
    DEFAULT_SAMPLER,
    DISTILLED_SAMPLER,
    INVERTIBLE,
    SAMPLERS,
    SamplerName,
    default_spacing,
)
from store.models import ModelRecord

DEFAULT_STRENGTH = 0.5


@dataclass(frozen=True)
class Sampling:
    """`plan` says which steps there will be."""

    order: ImageOrder
    used: SampleUsed
    plan: Plan
    trajectory: bool


def resolve(
    body: SampleBody, record: ModelRecord, settings: Settings, max_images: int, watched: bool
) -> Sampling:
    """InvalidInput names what does not fit the model or exceeds a bound. `watched`: every step is
    to be seen."""
    _at_most("num_images", body.num_images, max_images)
    card = ModelCard.from_dict(record.details)
    consistency = card.consistency
    sampler = body.sampler or (INVERTIBLE[0] if body.invert and not consistency else None)
    sampler, steps = walk(sampler, body.num_inference_steps, consistency)
    if body.invert and consistency:
        raise InvalidInput.pointer("/invert", "a distilled model cannot be inverted")
    _at_most("num_inference_steps", steps, settings.max_inference_steps)
    height, width = card.image_size
    schedule = _schedule(card.schedule)
    request = replace(
        _request(body, card, settings),
        sampler=sampler,
        num_inference_steps=steps,
    )
    with reported_in(SampleBody):
        check_labels(request, len(card.class_names))
        plan = make_plan(schedule, card.prediction, request)
    order = ImageOrder(
        model=record.name,
        prefix=record.artifact_prefix,
        digest=record.digest,
        request=request,
        deterministic=body.deterministic,
        precision=_precision(body, settings),
        watched=watched or body.trajectory,
        seconds=body.deadline_seconds,
    )
    spacing = request.spacing or default_spacing(sampler, schedule.config.name)
    used = _used(body, order, spacing)
    if body.trajectory:
        pixels = 2 * body.num_images * len(plan) * height * width
        _at_most("num_images", pixels, settings.max_pixels, what="pixels of the trajectory")
    return Sampling(order, used, plan, body.trajectory)


def walk(
    sampler: SamplerName | None, steps: int | None, consistency: bool
) -> tuple[SamplerName, int]:
    """Sampler and steps: those that were asked for, or what suits the model. A distilled one knows
    one sampler, which no other model does."""
    if not consistency:
        if sampler is not None and SAMPLERS[sampler].for_distilled:
            raise InvalidInput.pointer(
                "/sampler", f"sampler {sampler!r} is for distilled models; this one is not"
            )
        return sampler or DEFAULT_SAMPLER, steps or DEFAULT_STEPS
    if sampler not in (None, DISTILLED_SAMPLER):
        raise InvalidInput.pointer(
            "/sampler", f"sampler is {sampler!r}; a distilled model takes {DISTILLED_SAMPLER!r}"
        )
    steps = steps or DEFAULT_CONSISTENCY_STEPS
    _at_most("num_inference_steps", steps, MAX_CONSISTENCY_STEPS)
    return DISTILLED_SAMPLER, steps


def _request(body: SampleBody, card: ModelCard, settings: Settings) -> SampleRequest:
    init_image = mask = None
    size = card.image_size
    if body.init_image is not None:
        init_image = _picture("init_image", body.init_image, size, card.channels, settings)
    if body.mask is not None:
        mask = _picture("mask", body.mask, size, 1, settings)[:, :, 0]
    strength = body.strength
    if strength is None:
        whole = init_image is None or mask is not None or body.invert
        strength = 1.0 if whole else DEFAULT_STRENGTH
    return SampleRequest(
        seed=secrets.randbits(32) if body.seed is None else body.seed,
        num_images=body.num_images,
        spacing=body.spacing,
        eta=body.eta,
        labels=_labels(body, card.class_names),
        guidance_scale=body.guidance_scale,
        guidance_interval=body.guidance_interval,
        strength=strength,
        invert=body.invert,
        seed_to=body.seed_to,
        disturb=Disturbance(**body.disturb.model_dump()) if body.disturb else None,
        init_image=init_image,
        mask=mask,
    )


def _used(body: SampleBody, order: ImageOrder, spacing: str) -> SampleUsed:
    request = order.request
    same = {
        name: getattr(request, name) for name in SampleUsed.model_fields if hasattr(request, name)
    }
    own = {
        "model": order.model,
        "model_digest": order.digest,
        "class_label": request.labels and list(request.labels),
        "spacing": spacing,
        "strength": None if request.init_image is None else request.strength,
        "disturb": body.disturb,
        "deterministic": order.deterministic,
        "precision": order.precision,
    }
    return SampleUsed.model_validate(same | own)


def _precision(body: SampleBody, settings: Settings) -> Precision:
    return body.precision or ("float32" if body.deterministic else settings.engine_precision)


def _picture(
    field: str, text: str, size: tuple[int, int], channels: int, settings: Settings
) -> UInt8:
    """An image file in base64, as large as the model's images: (H, W, channels)."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:  # also of what is no ASCII
        raise InvalidInput.pointer(f"/{field}", f"{field} is not base64") from None
    with reported_at(f"/{field}"):
        image = decode_image(data, max_pixels=settings.max_pixels)
    return resize_image(with_channels(image, channels), size)


def _labels(body: SampleBody, class_names: Sequence[str]) -> tuple[int, ...] | None:
    given = body.class_label
    if given is None:
        return None
    several = given if isinstance(given, list) else [given] * body.num_images
    return tuple(_label(label, class_names) for label in several)


def _label(label: int | str, class_names: Sequence[str]) -> int:
    if isinstance(label, int):
        return label
    if label in class_names:
        return class_names.index(label)
    shown = ", ".join(class_names[:20]) or "none: it has no classes"
    raise InvalidInput.pointer(
        "/class_label", f"class_label is {label[:80]!r}; the model's classes are {shown}"
    )


def _at_most(field: str, value: int, bound: int, what: str = "") -> None:
    if value > bound:
        name = what or field
        raise InvalidInput.pointer(f"/{field}", f"{name} is {value}; it must lie in 1..{bound}")


@lru_cache(maxsize=64)
def _schedule(config: ScheduleConfig) -> NoiseSchedule:
    return NoiseSchedule.from_config(config)
