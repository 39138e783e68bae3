"""A body of POST /sample resolved: every open choice made, pictures decoded and fitted, and the
plan computed."""

import secrets
from dataclasses import asdict, dataclass

from app.http.errors import InvalidInput, reported_at, reported_in
from app.sample.recipe import make_recipe, picture_bytes
from app.sample.schema import PictureField, SampleBody, SampleUsed
from app.settings import Settings
from models.arrays import UInt8
from models.engine.orders import Order
from models.evaluation.int8 import MAX_RATIO, int8_ranges, int8_refusal
from models.images.files import resize_image, with_channels
from models.images.formats import Fit, Reading
from models.images.reading import read_pictures, warning_of
from models.images.recipe import Recipe
from models.nets.precision import PrecisionChoice, Ranges
from models.pipeline.card import ModelCard
from models.sampling.request import (
    DEFAULT_CONSISTENCY_STEPS,
    DEFAULT_STEPS,
    MAX_CONSISTENCY_STEPS,
    Disturbance,
    SampleRequest,
    plan_for,
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

# The pictures of requests that share them, by field, size, channels and fit, with warnings.
Pictures = dict[tuple[PictureField, tuple[int, int], int, Fit], tuple[UInt8, str]]


@dataclass(frozen=True)
class Resolved:
    """A request with every choice made, the order that carries it out, what is said of both,
    sentences on what looks odd in its pictures, and the recipe, where images carry one."""

    request: SampleRequest
    order: Order
    used: SampleUsed
    warnings: list[str]
    recipe: Recipe | None


def resolve(
    body: SampleBody,
    record: ModelRecord,
    card: ModelCard,
    settings: Settings,
    max_images: int,
    watched: bool,
    pictures: Pictures | None = None,
) -> Resolved:
    """Make every choice of a request. `watched` asks for every step; `pictures` are kept for other
    requests with the same ones. Raises InvalidInput naming the field that does not fit the model or
    exceeds a bound."""
    _at_most("num_images", body.num_images, max_images)
    pictures = {} if pictures is None else pictures
    request = _request(body, card, settings, pictures)
    warnings = [warning for _, warning in pictures.values() if warning]
    with reported_in(SampleBody):
        plan = plan_for(card, request)
    if body.trajectory:
        height, width = card.image_size
        pixels = 2 * body.num_images * len(plan) * height * width
        _at_most("num_images", pixels, settings.max_pixels, what="pixels of the trajectory")
    precision = _precision(body, settings)
    order = Order(
        model=record.name,
        prefix=record.artifact_prefix,
        digest=record.digest,
        plan=plan,
        files=record.files,
        deterministic=body.deterministic,
        precision=precision,
        ranges=_ranges(record) if precision == "int8" else (),
        watched=watched or body.trajectory,
        seconds=body.deadline_seconds,
    )
    used = _used(request, order)
    recipe = make_recipe(body, used, record) if settings.recipe else None
    return Resolved(request, order, used, warnings, recipe)


def _used(request: SampleRequest, order: Order) -> SampleUsed:
    same = {
        name: getattr(request, name) for name in SampleUsed.model_fields if hasattr(request, name)
    }
    own = {
        "model": order.model,
        "model_digest": order.digest,
        "class_label": request.labels and list(request.labels),
        "strength": None if request.init_image is None else request.strength,
        "disturb": request.disturb and asdict(request.disturb),
        "deterministic": order.deterministic,
        "precision": order.precision,
    }
    return SampleUsed.model_validate(same | own)


def sampler_and_steps(
    sampler: SamplerName | None, steps: int | None, consistency: bool
) -> tuple[SamplerName, int]:
    """Return the sampler and steps asked for, or those that suit the model. A distilled one
    (`consistency`) takes one sampler, which no other model takes."""
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


def _request(
    body: SampleBody, card: ModelCard, settings: Settings, pictures: Pictures
) -> SampleRequest:
    sampler = body.sampler
    if body.invert and not card.consistency:
        sampler = sampler or INVERTIBLE[0]
    sampler, steps = sampler_and_steps(sampler, body.num_inference_steps, card.consistency)
    if body.invert and card.consistency:
        raise InvalidInput.pointer("/invert", "a distilled model cannot be inverted")
    _at_most("num_inference_steps", steps, settings.max_inference_steps)
    init_image = mask = None
    if body.init_image is not None:
        init_image = _kept("init_image", body, card, card.channels, settings, pictures)
    if body.mask is not None:
        mask = _kept("mask", body, card, 1, settings, pictures)[:, :, 0]
    strength = body.strength
    if strength is None:
        whole = init_image is None or mask is not None or body.invert
        strength = 1.0 if whole else DEFAULT_STRENGTH
    return SampleRequest(
        seed=secrets.randbits(32) if body.seed is None else body.seed,
        num_images=body.num_images,
        sampler=sampler,
        num_inference_steps=steps,
        spacing=body.spacing or default_spacing(sampler, card.schedule.name, card.sampling.spacing),
        eta=body.eta,
        labels=_labels(body, card.class_names),
        guidance_scale=(
            model_guidance(body, card) if body.guidance_scale is None else body.guidance_scale
        ),
        guidance_interval=body.guidance_interval,
        strength=strength,
        invert=body.invert,
        seed_to=body.seed_to,
        disturb=Disturbance(**body.disturb.model_dump()) if body.disturb else None,
        init_image=init_image,
        mask=mask,
    )


def model_guidance(body: SampleBody, card: ModelCard) -> float:
    """Return the guidance of a request that does not say it: the model's own for a class, but 1 for
    a variation of a picture, which is to stay near it."""
    is_guided = body.class_label is not None and card.has_null_class and not body.invert
    return card.sampling.guidance_scale if is_guided else 1.0


def _precision(body: SampleBody, settings: Settings) -> PrecisionChoice:
    return body.precision or ("float32" if body.deterministic else settings.engine_precision)


def _ranges(record: ModelRecord) -> Ranges:
    """Return what int8 needs, where the model's scores allow it."""
    scores = record.details.get("scores", {})
    if (why := int8_refusal(scores)) is not None:
        raise InvalidInput.pointer(
            "/precision",
            f"precision is 'int8', but {why}; by POST /evaluations in both precisions its Frechet "
            f"distance in int8 must be at most {MAX_RATIO} times that in float32",
        )
    return int8_ranges(scores)


def _kept(
    field: PictureField,
    body: SampleBody,
    card: ModelCard,
    channels: int,
    settings: Settings,
    pictures: Pictures,
) -> UInt8:
    """Return a picture of a request, decoded once for all that keep it in `pictures`."""
    fit = body.fit or card.fit or "crop"
    key = (field, card.image_size, channels, fit)
    if key not in pictures:
        pictures[key] = _picture(field, body, card, channels, settings, fit)
    return pictures[key][0]


def _picture(
    field: PictureField,
    body: SampleBody,
    card: ModelCard,
    channels: int,
    settings: Settings,
    fit: Fit,
) -> tuple[UInt8, str]:
    """Decode an image file in base64 and fit it to the model's images: (H, W, channels); return it
    with a sentence on what looks odd."""
    data = picture_bytes(field, getattr(body, field))
    with reported_at(f"/{field}"):
        picture = next(read_pictures(data, settings.max_pixels, body.frames))
    warning = warning_of(picture, body.range)
    image = picture.to_uint8(Reading(range=body.range))
    fill = 255 if field == "init_image" else 0  # what pad adds is kept
    resized = resize_image(with_channels(image, channels), card.image_size, fit, fill)
    return resized, f"{field}: {warning}" if warning else ""


def _labels(body: SampleBody, class_names: tuple[str, ...]) -> tuple[int, ...] | None:
    given = body.class_label
    if given is None:
        return None
    several = given if isinstance(given, list) else [given] * body.num_images
    return tuple(_label(label, class_names) for label in several)


def _label(label: int | str, class_names: tuple[str, ...]) -> int:
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
