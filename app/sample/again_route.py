"""POST /sample/again: images made once more, from a file that carries how they were made."""

import base64
import hashlib
from dataclasses import replace
from functools import partial

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.http import problems
from app.http.accept import choose
from app.http.errors import InvalidInput
from app.http.file_answers import BINARY, content_of
from app.http.multipart import parse_form
from app.http.streams import EVENT_STREAM
from app.registry.card import model_card
from app.sample.answer import Collected, check_size, represent, represent_step
from app.sample.recipe import CONTENT, check_model, read_recipe
from app.sample.request import Resolved, resolve
from app.sample.route import OFFERED, note_request, respond
from app.sample.schema import PICTURES, PictureField, Recipe, SampleAnswer, SampleBody
from app.services import Services, ServicesDep
from models.pipeline.card import ModelCard
from store.models import ModelRecord, get_model

router = APIRouter(tags=["sample"])

FILE = "image"  # the field of a form that has the file
_OPENAPI: dict[str, object] = {
    "requestBody": {
        "required": True,
        "content": {
            **CONTENT,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": dict.fromkeys((FILE, *PICTURES), BINARY["schema"]),
                    "required": [FILE],
                }
            },
        },
    }
}


@router.post(
    "/sample/again",
    summary="The same images once more, from a file that POST /sample made",
    response_class=Response,
    responses={
        200: {
            "description": "As the file was, or as `Accept` prefers. `Diffusion-Exact: 1` where "
            "the pixels are the same to the bit; else 0, and `Diffusion-Warning` says why.",
            "model": SampleAnswer,
            "content": content_of(*OFFERED),
        },
        **problems.declare(
            problems.MALFORMED,
            problems.NOT_FOUND,
            problems.NOT_ACCEPTABLE,
            problems.CONFLICT,
            problems.UNSUPPORTED,
            problems.INVALID,
            problems.DAMAGED,
            problems.UNAVAILABLE,
        ),
    },
    openapi_extra=_OPENAPI,
)
async def sample_again(request: Request, services: ServicesDep) -> Response:
    """`curl --data-binary @new.png .../sample/again -o again.png`, or `-F image=@new.png`

    The file is an image (PNG, WebP, JPEG), the JSON of an answer, or its `recipe`. 404 where the
    model is gone, 409 where another has its name. Where the images began with an init_image, a form
    has that file, and the mask, too.
    """
    files = _files(request.headers.get("content-type", ""), await request.body())
    recipe = await services.threads.run(partial(read_recipe, files[FILE]))
    offered = (recipe.media_type, *(name for name in OFFERED if name != recipe.media_type))
    if recipe.view is not None:
        offered = ("image/png",)
    media_type = choose(request.headers.get("accept"), offered)
    record = await run_in_threadpool(get_model, services.database, recipe.request.model)
    check_model(recipe, record)
    card = await run_in_threadpool(model_card, services.artifacts, record)
    body = _body(recipe, files)
    resolved = await services.threads.run(
        partial(_resolve, recipe, body, record, card, services, media_type == EVENT_STREAM)
    )
    note_request(request, resolved)
    order, used = resolved.order, resolved.used
    count = body.num_images
    if recipe.image is not None:
        order, count = replace(order, first_image=recipe.image, count=1), 1
        labels = used.class_label and used.class_label[recipe.image :][:1]
        used = used.model_copy(update={"class_label": labels})
    if recipe.view is None:
        check_size(media_type, card.image_size, count, len(order.plan), body.trajectory)
    elif recipe.step is not None and recipe.step >= len(order.plan):
        steps = len(order.plan)
        raise InvalidInput.pointer("/step", f"step is {recipe.step}; it must lie in 0..{steps - 1}")
    collected = Collected(
        used, order.plan.t, body.trajectory, resolved.warnings, resolved.recipe, recipe
    )
    picture = represent if recipe.view is None else partial(_step, recipe)
    return await respond(request, services, order, collected, media_type, picture)


def _files(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the files of a request by their fields. Raises InvalidInput and what parse_form
    raises."""
    if not content_type.lower().startswith("multipart/"):
        return {FILE: body}
    form = parse_form(content_type, body)
    for name, values in form.items():
        if name not in (FILE, *PICTURES):
            raise InvalidInput.parameter(name[:100], f"there is no field {name[:100]!r}")
        if len(values) > 1:
            raise InvalidInput.parameter(name, f"{name} is given {len(values)} times")
    if FILE not in form:
        raise InvalidInput.parameter(FILE, f"{FILE} is missing; it is the file to make again")
    return {name: values[0] for name, values in form.items()}


def _body(recipe: Recipe, files: dict[str, bytes]) -> SampleBody:
    """Return the request of a recipe, with its pictures. Raises InvalidInput."""
    for name in PICTURES:
        if name in files and name not in recipe.pictures:
            raise InvalidInput.parameter(name, f"{name} is given, but the recipe has none")
    changes: dict[str, object] = {
        name: _picture(name, sha256, files) for name, sha256 in recipe.pictures.items()
    }
    if recipe.view is not None:
        changes["trajectory"] = True
    return recipe.request.model_copy(update=changes)


def _picture(name: PictureField, sha256: str, files: dict[str, bytes]) -> str:
    if name not in files:
        raise InvalidInput.parameter(
            name,
            f"{name} is missing: the images were made with a file of the sha256 {sha256}, which a "
            f"recipe does not hold; a form has it beside `{FILE}`",
        )
    if (found := hashlib.sha256(files[name]).hexdigest()) != sha256:
        raise InvalidInput.parameter(
            name, f"{name} is another file: its sha256 is {found}, and was {sha256}"
        )
    return base64.b64encode(files[name]).decode()


def _resolve(
    recipe: Recipe,
    body: SampleBody,
    record: ModelRecord,
    card: ModelCard,
    services: Services,
    watched: bool,
) -> Resolved:
    """Resolve the request of a recipe; errors are at its place in that."""
    settings = services.settings
    whole = recipe.image is None
    bound = settings.max_images_per_request if whole else settings.max_images_per_job
    try:
        resolved = resolve(body, record, card, settings, bound, watched)
    except InvalidInput as error:
        places = [
            each.model_copy(update={"pointer": f"/request{each.pointer or ''}"})
            for each in error.errors
        ]
        raise InvalidInput(places) from None
    if resolved.recipe is None:
        return resolved
    # One image of several has a request of its own, and still the digest of theirs.
    digest = {"request_digest": recipe.request_digest} if recipe.request_digest else {}
    rest = {name: value for name, value in resolved.recipe.items() if name != "request_digest"}
    return replace(resolved, recipe={**rest, **digest})


def _step(recipe: Recipe, collected: Collected, media_type: str) -> bytes:
    return represent_step(collected, recipe)
